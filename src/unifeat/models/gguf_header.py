"""The header of a GGUF file, walked through once before anything is made from what it says.

Readers believe a header: one that is cut short, or noise, makes them raise whatever comes to hand, and one that speaks
of 10¹² tensors makes them allocate for hours. Here every length is compared with the size of the file.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

# Bytes of a metadata value by the number of its type; 8 is a string and 9 an array.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_INTEGERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_STRING, _ARRAY = 8, 9
_DIMENSIONS = 8  # ggml has at most 4
_FEWEST_BITS = 1  # a weight takes; formats in use have 1.5 and more
_SMALLEST_ENTRY = 13  # bytes that a metadata entry, or a tensor's, takes at least


class BrokenHeaderError(Exception):
    """A header that cannot be right; the text says how."""


def check_header(path: Path) -> None:
    """Walk through a file's header.

    Raises:
        BrokenHeaderError: it is no GGUF file, or damaged, or says what the file cannot hold.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(24)
        if start[:4] != b"GGUF":
            raise BrokenHeaderError("it does not begin like a GGUF file" if start else "it is empty")
        if len(start) < 24:
            raise BrokenHeaderError("it is cut short")
        version, tensors, entries = struct.unpack("<IQQ", start[4:])
        if version not in (2, 3):
            big = "big-endian" if version & 0xFFFF == 0 else f"of version {version}"
            raise BrokenHeaderError(f"it is {big}, and only little-endian files of versions 2 and 3 can be read")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            _Walk(held).through(tensors, entries)


class _Walk:
    def __init__(self, held: mmap.mmap) -> None:
        self.held, self.at, self.size = held, 24, len(held)

    def through(self, tensors: int, entries: int) -> None:
        for count, of in ((tensors, "tensors"), (entries, "metadata entries")):
            if count * _SMALLEST_ENTRY > self.size:
                raise BrokenHeaderError(f"it speaks of {count:,} {of}, more than it has room for")
        said = {}
        for _ in range(entries):
            key = self._string()
            value = self._value(self._integer("<I"))
            if value is not None:
                said[key] = value
        widest = max([self._tensor() for _ in range(tensors)], default=0)
        for key, value in said.items():
            most = {b"block_count": tensors, b"embedding_length": widest}.get(key.rsplit(b".", 1)[-1])
            if most is not None and not 0 <= value <= most:
                name = key.decode("utf-8", "replace")
                raise BrokenHeaderError(f"it says {name} = {value:,}, which its tensors do not bear out")

    def _tensor(self) -> int:
        """Walks by one tensor's entry; its largest dimension."""
        self._string()
        dimensions = self._integer("<I")
        if dimensions > _DIMENSIONS:
            raise BrokenHeaderError(f"it speaks of a tensor with {dimensions:,} dimensions")
        elements, widest = 1, 0
        for _ in range(dimensions):
            dimension = self._integer("<Q")
            elements, widest = elements * dimension, max(widest, dimension)
        self._integer("<I")
        offset = self._integer("<Q")
        if elements * _FEWEST_BITS > 8 * self.size or offset > self.size:
            raise BrokenHeaderError("it speaks of a tensor that it has no room for; it may be cut short")
        return widest

    def _value(self, kind: int, depth: int = 0) -> int | None:
        """Walks by one value; what it is, of an integer."""
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
                    raise BrokenHeaderError(f"it speaks of a list of {count:,}, more than it has room for")
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
            raise BrokenHeaderError("it is cut short, or damaged")
