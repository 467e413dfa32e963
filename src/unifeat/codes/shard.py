"""One shard of codes: a safetensors file that says of itself whether it is whole. Specified in docs/code-store.md."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.models.activations import Places
from unifeat.storage import written_aside

FORMAT = "unifeat-codes/1"
_DTYPES = {"I32": np.dtype("<i4"), "I64": np.dtype("<i8"), "F32": np.dtype("<f4")}
_ARRAYS = ("indptr", "feature", "value", "document", "char_end", "order", "token")


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
        """Tokens in the shard."""
        return len(self.indptr) - 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The shard's arrays by their names in the file."""
        places = {field.name: getattr(self.places, field.name) for field in fields(self.places)}
        return {"indptr": self.indptr, "feature": self.feature, "value": self.value, **places}


def write_shard(path: Path, shard: Shard) -> str:
    """Write a shard whole or not at all; returns the SHA-256 of its arrays, which the file also carries."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(array) for name, array in shard.arrays().items()}
    digest = _digest(arrays)
    metadata = {"format": FORMAT, "sha256": digest, "stats": json.dumps(shard.stats, sort_keys=True)}
    with written_aside(path) as aside:
        save_file(arrays, aside, metadata=metadata)
    return digest


def read_shard(path: Path, *, verify: bool) -> tuple[Shard, str]:
    """Map a shard into memory.

    Args:
        path: a file written by `write_shard`.
        verify: read every byte and compare checksums; otherwise only the header and the size are checked.

    Returns:
        The shard and the SHA-256 it carries.

    Raises:
        UserError: a truncated or corrupt file, named, with the way to mend it.
    """
    try:
        arrays, metadata = _map(path)
        if metadata.get("format") != FORMAT:
            raise ValueError(f"format {metadata.get('format')!r}, expected {FORMAT}")
        if verify and _digest(arrays) != metadata["sha256"]:
            raise ValueError("its checksum does not match its content")
        stats = json.loads(metadata["stats"])
        places = Places(*(arrays[field.name] for field in fields(Places)))
        return Shard(arrays["indptr"], arrays["feature"], arrays["value"], places, stats), metadata["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"shard {path} is damaged ({error}): run the same command with --repair, which encodes it anew"
        ) from error


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in _ARRAYS:
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape[0]};".encode())
        digest.update(memoryview(np.ascontiguousarray(array)).cast("B") if array.size else b"")
    return digest.hexdigest()


def _map(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays of a safetensors file as memory maps. The library itself would copy them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError("truncated header")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    start = 8 + length
    arrays = {}
    end = 0
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        end = max(end, stop)
        if start + stop > size:
            raise ValueError(f"truncated: {size} bytes, {start + stop} expected")
        shape = tuple(entry["shape"])
        if stop == begin:
            arrays[name] = np.zeros(shape, _DTYPES[entry["dtype"]])
        else:
            arrays[name] = np.memmap(path, _DTYPES[entry["dtype"]], "r", start + begin, shape)
    if start + end != size:
        raise ValueError(f"{size} bytes, {start + end} expected")
    return arrays, metadata
