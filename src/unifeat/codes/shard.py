"""One shard of codes: a safetensors file that contains its own checksum. Specified in docs/code-store.md."""

from __future__ import annotations

import hashlib
import json
import mmap
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.store import machine_error, written_aside
from unifeat.store.keys import DamagedError
from unifeat.vocabulary.places import Places

FORMAT = "unifeat-codes/2"
READABLE = ("unifeat-codes/1", FORMAT)  # the first had only 32-bit feature ids and values
_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(kind)
    for name, kind in {"I32": "<i4", "I64": "<i8", "U16": "<u2", "F32": "<f4", "F16": "<f2"}.items()
}
_ARRAYS = ("indptr", "feature", "value", "document", "char_end", "order", "token")
# A single entry: safetensors writes several in no fixed order, and equal shards must be equal files.
_METADATA = "unifeat"


@dataclass(frozen=True)
class Shard:
    """Sparse codes of a stretch of text; memory-mapped when read from disk.

    Attributes:
        indptr: (rows + 1,) int64 row pointers.
        feature: (nnz,) uint16 or int32 feature ids, ascending within a row.
        value: (nnz,) float32 or float16 activations, never zero.
        places: (rows,) where each row comes from.
        stats: counts and sums of this shard (tokens read, masked, squared error …), JSON data.
    """

    indptr: NDArray[np.int64]
    feature: NDArray[np.uint16] | NDArray[np.int32]
    value: NDArray[np.float32] | NDArray[np.float16]
    places: Places
    stats: dict[str, Any]

    @property
    def rows(self) -> int:
        """Number of tokens in the shard."""
        return len(self.indptr) - 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The shard's arrays, by their names in the file."""
        places = {field.name: getattr(self.places, field.name) for field in fields(self.places)}
        return {"indptr": self.indptr, "feature": self.feature, "value": self.value, **places}


def narrow_ids(features: int) -> Any:
    """The dtype of feature ids: two bytes each where they fit, since ids are half of a shard."""
    return np.uint16 if features <= 1 << 16 else np.int32


def narrow_values(value: NDArray[np.float32]) -> NDArray[np.float16]:
    """Values as float16. One that would become zero stays the smallest number there is, so that it still fires.

    Raises:
        ValueError: a value beyond float16's range, ±65,504.
    """
    with np.errstate(over="ignore"):
        narrow = value.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise ValueError(f"{np.abs(value).max():,.0f} is beyond the range of float16, ±65,504")
    lost = narrow == 0
    narrow[lost] = np.copysign(np.float16(6e-8), value[lost])
    return narrow


def write_shard(path: Path, shard: Shard) -> str:
    """Write a shard whole or not at all; returns the SHA-256 of its content, which is also in the file."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(array) for name, array in shard.arrays().items()}
    digest = _digest(arrays, shard.stats)
    with written_aside(path, replace=False) as aside:
        save_file(arrays, aside, metadata={_METADATA: _metadata_text(digest, shard.stats)})
    return digest


def read_shard(path: Path, *, verify: bool) -> tuple[Shard, str]:
    """Map a shard into memory.

    Args:
        path: a file written by `write_shard`.
        verify: read every byte and compare checksums; otherwise only the header and the size are checked.

    Returns:
        The shard and the SHA-256 stored in it.

    Raises:
        DamagedError: a truncated or corrupt file; the message says how.
        FileNotFoundError: no such file.
        UserError: the machine cannot read it: too many open files, no permission …
    """
    try:
        arrays, text = _map(path)
        metadata = json.loads(text)
        if metadata["format"] not in READABLE:
            raise ValueError(f"format {metadata['format']!r}, expected {FORMAT}")
        digest, stats = metadata["sha256"], metadata["stats"]
        if verify and (text != _metadata_text(digest, stats, metadata["format"]) or digest != _digest(arrays, stats)):
            raise ValueError("its checksum does not match its content")
        places = Places(*(arrays[field.name] for field in fields(Places)))
        return Shard(arrays["indptr"], arrays["feature"], arrays["value"], places, stats), digest
    except FileNotFoundError:
        raise
    except OSError as error:
        user_error = machine_error(error, f"reading {path}")
        raise user_error or DamagedError(str(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DamagedError(str(error)) from error


def _metadata_text(digest: str, stats: dict[str, Any], format: str = FORMAT) -> str:
    return json.dumps({"format": format, "sha256": digest, "stats": stats}, sort_keys=True, separators=(",", ":"))


def _digest(arrays: dict[str, NDArray[Any]], stats: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in _ARRAYS:
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape[0]};".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(json.dumps(stats, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


def _map(path: Path) -> tuple[dict[str, NDArray[Any]], str]:
    """The arrays of a safetensors file as views of one memory map, and its metadata.

    (The safetensors library would copy them, and a `numpy.memmap` each would resolve the path each time.)
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError("truncated header")
        header = json.loads(file.read(length))
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    metadata = header.pop("__metadata__", {}).get(_METADATA)
    if not isinstance(metadata, str):
        raise ValueError(f"not codes in the format {FORMAT}")
    start = 8 + length
    arrays = {}
    end = 0
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        end = max(end, stop)
        if start + stop > size:
            raise ValueError(f"truncated: {size} bytes, {start + stop} expected")
        (count,) = entry["shape"]
        dtype = _DTYPES[entry["dtype"]]
        if stop - begin != count * dtype.itemsize:
            raise ValueError(f"{name} does not fit its place")
        arrays[name] = np.frombuffer(mapped, dtype, count, start + begin)
    if start + end != size:
        raise ValueError(f"{size} bytes, {start + end} expected")
    return arrays, metadata
