"""Checking the header of a GGUF file before it is used.

Other readers trust the header: a truncated or random one makes them raise arbitrary errors, and one that claims 10¹²
tensors makes them allocate for hours. Here every length is compared with the size of the file.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

# Bytes of a metadata value, by the number of its type.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_INTEGERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 8  # ggml has at most 4
_FEWEST_BITS = 1  # bits per weight; formats in use have 1.5 or more
_SMALLEST_ENTRY = 13  # bytes of the smallest possible entry for metadata or a tensor


class BrokenHeaderError(Exception):
    """An invalid header; the message says what is wrong."""


def check_header(path: Path) -> None:
    """Check a file's header.

    Raises:
        BrokenHeaderError: not a GGUF file, a damaged one, or a header that claims more than the file can hold.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(24)
        if start[:4] != b"GGUF":
            raise BrokenHeaderError("it does not begin like a GGUF file" if start else "it is empty")
        if len(start) < 24:
            raise BrokenHeaderError("it is truncated")
        version, tensors, entries = struct.unpack("<IQQ", start[4:])
        if version not in (2, 3):
            big = "big-endian" if version & 0xFFFF == 0 else f"of version {version}"
            raise BrokenHeaderError(f"it is {big}, and only little-endian files of versions 2 and 3 can be read")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            _Walk(held).through(tensors, entries)


class _Walk:
    """Reads through a header from its 24th byte on."""

    def __init__(self, held: mmap.mmap) -> None:
        self.held, self.at, self.size = held, 24, len(held)

    def through(self, tensors: int, entries: int) -> None:
        for count, of in ((tensors, "tensors"), (entries, "metadata entries")):
            if count * _SMALLEST_ENTRY > self.size:
                raise BrokenHeaderError(f"it claims {count:,} {of}, more than the file can hold")
        stated = {}
        for _ in range(entries):
            key = self._string()
            value = self._value(self._integer("<I"))
            if value is not None:
                stated[key] = value
        widest = max([self._tensor() for _ in range(tensors)], default=0)
        for key, value in stated.items():
            most = {b"block_count": tensors, b"embedding_length": widest}.get(key.rsplit(b".", 1)[-1])
            if most is not None and not 0 <= value <= most:
                name = key.decode("utf-8", "replace")
                raise BrokenHeaderError(f"it says {name} = {value:,}, which contradicts its tensors")

    def _tensor(self) -> int:
        """Read one tensor's entry; returns its largest dimension."""
        self._string()
        dimensions = self._integer("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise BrokenHeaderError(f"it claims a tensor with {dimensions:,} dimensions")
        elements, widest = 1, 0
        for _ in range(dimensions):
            dimension = self._integer("<Q")
            elements, widest = elements * dimension, max(widest, dimension)
        self._integer("<I")
        offset = self._integer("<Q")
        if elements * _FEWEST_BITS > 8 * self.size or offset > self.size:
            raise BrokenHeaderError("it claims a tensor larger than the file; it may be truncated")
        return widest

    def _value(self, kind: int, depth: int = 0) -> int | None:
        """Read one value; returns it if it is an integer, else None."""
        if kind in _INTEGERS:
            return self._integer(_INTEGERS[kind])
        if kind in _SIZES:
            self._skip(_SIZES[kind])
        elif kind == _STRING:
            self._skip(self._integer("<Q"))
        elif kind == _ARRAY and depth < 4:
            inner, count = self._integer("<I"), self._integer("<Q")
            if inner in _SIZES:
                self._skip(count * _SIZES[inner])
            else:
                if count * 8 > self.size:
                    raise BrokenHeaderError(f"it claims a list of {count:,}, more than the file can hold")
                for _ in range(count):
                    self._value(inner, depth + 1)
        else:
            raise BrokenHeaderError(f"it holds a value of the unknown type {kind}")
        return None

    def _string(self) -> bytes:
        length = self._integer("<Q")
        start = self.at
        self._skip(length)
        return self.held[start : self.at]

    def _integer(self, form: str) -> int:
        start = self.at
        self._skip(struct.calcsize(form))
        return int(struct.unpack_from(form, self.held, start)[0])

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > self.size:
            raise BrokenHeaderError("it is truncated or damaged")
