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

FORMAT = "unifeat-codes/1"
_DTYPES: dict[str, np.dtype[Any]] = {"I32": np.dtype("<i4"), "I64": np.dtype("<i8"), "F32": np.dtype("<f4")}
_ARRAYS = ("indptr", "feature", "value", "document", "char_end", "order", "token")
# A single entry: safetensors writes several in no fixed order, and equal shards must be equal files.
_METADATA = "unifeat"


@dataclass(frozen=True)
class Shard:
    """Sparse codes of a stretch of text; memory-mapped when read from disk.

    Attributes:
        indptr: (rows + 1,) int64 row pointers.
        feature: (nnz,) int32 feature ids, ascending within a row.
        value: (nnz,) float32 activations, never zero.
        places: (rows,) where each row comes from.
        stats: counts and sums of this shard (tokens read, masked, squared error …), JSON data.
    """

    indptr: NDArray[np.int64]
    feature: NDArray[np.int32]
    value: NDArray[np.float32]
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
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']!r}, expected {FORMAT}")
        digest, stats = metadata["sha256"], metadata["stats"]
        if verify and (text != _metadata_text(digest, stats) or digest != _digest(arrays, stats)):
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


def _metadata_text(digest: str, stats: dict[str, Any]) -> str:
    return json.dumps({"format": FORMAT, "sha256": digest, "stats": stats}, sort_keys=True, separators=(",", ":"))


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
