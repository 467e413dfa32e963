"""Opening a file of text, packed or not, and one clear line for whatever is wrong with it.

Reading is bounded in memory: what comes out of a packed file is asked for piece by piece, and a .xz file may not ask
for a dictionary of gigabytes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.store.machine import machine_error
from unifeat.vocabulary.text_files import PACKED

_XZ_MEMORY = 256 << 20  # bytes that unpacking .xz may take: four times what `xz -9` needs
_CHUNK = 1 << 16
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_LONGEST_MAGIC = max(map(len, _MAGIC))
# UTF-32 before UTF-16, whose mark begins like that of UTF-32.
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
BYTE_ORDER_MARK = "\ufeff"  # at the start of some files written on Windows; not part of the text


class Reading:
    """A file while it is read.

    Attributes:
        path: the file.
        at: what has been read, for messages: "soon after line 7".
    """

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, "at its start"

    def __str__(self) -> str:
        return f"text file {self.path}"

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Inside this context, whatever is wrong with the file, or with the machine, is one clear line.

        Raises:
            UserError: instead of the errors of files, of text and of unpacking.
        """
        try:
            yield
        except UnicodeError as error:
            raise UserError(f"{self} is not UTF-8 ({self.at}): convert it first") from error
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise UserError(f"{self} is damaged ({self.at}): {error}") from error
        except OSError as error:
            user_error = machine_error(error, self.path)
            raise user_error or UserError(f"{self} is damaged ({self.at}): {error}") from error


@contextmanager
def opened(reading: Reading, *, sniff: bool = False) -> Iterator[io.BufferedReader]:
    """A file's bytes, unpacked.

    Args:
        sniff: find out from its first bytes whether it is packed (of a stream, which has no name), not from its name.

    Raises:
        UserError: the file cannot be opened. (Inside the context, `Reading.errors` turns errors into one.)
    """
    try:
        raw = reading.path.open("rb")
    except OSError as error:
        raise unreadable(reading.path, error) from error
    with raw:
        if not sniff:
            packing = next((ending for ending in PACKED if reading.path.name.lower().endswith(ending)), "")
            yield _unpacked(raw, packing)
            return
        with reading.errors():
            head = raw.read(_LONGEST_MAGIC)
        packing = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
        yield _unpacked(io.BufferedReader(_Behind(head, raw)), packing)


def unreadable(path: Path, error: OSError) -> UserError:
    """The message for a file that cannot be opened."""
    return machine_error(error, path) or UserError(f"text file {path} cannot be read: {error.strerror or error}")


@contextmanager
def as_text(reading: Reading, *, newline: str | None = None, sniff: bool = False) -> Iterator[io.TextIOWrapper]:
    """A file's characters: UTF-8, or UTF-16 or 32 with a byte order mark. UTF-8's own mark is left to the caller.

    Args:
        newline: as for `open`.
    """
    with opened(reading, sniff=sniff) as file, reading.errors():
        head = file.peek(4)[:4]
        encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
        yield io.TextIOWrapper(file, encoding=encoding, newline=newline)


def _unpacked(raw: Any, packing: str) -> io.BufferedReader:
    if packing == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw))
    if packing == ".bz2" and raw.peek(1):  # (bz2 takes an empty file for a damaged one, the others do not)
        return io.BufferedReader(bz2.BZ2File(raw))
    if packing == ".xz":
        return io.BufferedReader(_Xz(raw))
    if packing == ".zst":
        import pyarrow as pa

        # Arrow reports a file that was cut off; the zstandard package treats it as the end of the file.
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
    return raw


class _Behind(io.RawIOBase):
    """A stream behind bytes that were read from it."""

    def __init__(self, head: bytes, rest: io.BufferedReader) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        if not self._head:
            return self._rest.readinto1(into)
        taken, self._head = self._head[: len(into)], self._head[len(into) :]
        into[: len(taken)] = taken
        return len(taken)


class _Xz(io.RawIOBase):
    """An .xz file, of one stream or several, within bounds: `lzma.open` takes as much memory as a file asks for."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw = raw
        self._stream: lzma.LZMADecompressor | None = None  # None between streams
        self._left = b""  # what was read and not yet given to a stream

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while True:
            if self._stream is None:
                read = self._left or self._raw.read(_CHUNK)
                if not read:
                    return 0
                self._left = read.lstrip(b"\0")  # streams may be padded
                if not self._left:
                    continue
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            given = b""
            if self._stream.needs_input:
                given, self._left = self._left or self._raw.read(_CHUNK), b""
                if not given:
                    raise EOFError("it ends before the end of its packed data")
            made = self._stream.decompress(given, max_length=len(into))
            if self._stream.eof:
                self._left, self._stream = self._stream.unused_data, None
            if made:
                into[: len(made)] = made
                return len(made)
