"""Rows of a text file: lines of JSON, a JSON array, or lines of a table (.csv, .tsv); never a whole file in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import IO, Any

from unifeat.errors import UserError
from unifeat.text.unpacking import BYTE_ORDER_MARK, Reading

# A character takes up to four bytes of memory, and a row is in memory twice, as text and parsed. With this bound,
# reading takes less than 1 GB.
LONGEST_LINE = 64 << 20  # characters of a line, or bytes of a cell of .parquet and .arrow
LONGEST_ENTRY = 32 << 20  # characters of a row that may have several lines: it is in memory once more
_CHUNK = 1 << 16
_SPACE = f" \t\r\n{BYTE_ORDER_MARK}"
_SHOWN = 20  # columns that a message names


def json_lines(file: IO[str], reading: Reading) -> Iterator[tuple[str, Any]]:
    """Where each row is, for messages, and the row: one a line.

    Raises:
        UserError: a line that is not JSON, or too long.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        reading.at = f"soon after line {number}"
        where = f"{reading}, line {number}"
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{where} is longer than {LONGEST_LINE >> 20} MiB, and a line is one document: divide it into several"
            )
        line = line.removeprefix(BYTE_ORDER_MARK)  # at the start of a file, or of one of concatenated files
        if line and not line.isspace():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _json_error(error, where) from error
            yield where, row


def _json_error(error: ValueError | RecursionError, where: str) -> UserError:
    if isinstance(error, json.JSONDecodeError):
        return UserError(f"{where}: not JSON ({error.msg})")
    if isinstance(error, RecursionError):
        return UserError(f"{where}: JSON nested too deeply to be read")
    return UserError(f"{where}: it holds a number too long to be read")  # Python refuses more than 4,300 digits


def json_entries(file: IO[str], reading: Reading) -> Iterator[tuple[str, Any]]:
    """Where each entry is, for messages, and the entry: of an array, or of values one after the other.

    Commas and brackets between entries may be missing, as in concatenated files and in lines of JSON.

    Raises:
        UserError: an entry that is not JSON, or too long.
    """
    decoder, text, at, number = json.JSONDecoder(), "", 0, 0
    inside = ended = False  # an array; the file
    while True:
        between = _SPACE + ("," if inside else "")
        while at < len(text) and text[at] in between:
            at += 1
        if at == len(text):
            text, at = file.read(_CHUNK), 0
            if not text:
                break
            continue
        if text[at] == ("]" if inside else "["):
            inside, at = not inside, at + 1
            continue
        where = f"{reading}, entry {number + 1}"
        reading.at = f"soon after entry {number}"
        left = len(text) - at
        try:
            entry, end = decoder.raw_decode(text, at)
            whole = ended or end < len(text) or isinstance(entry, dict | list | str)  # a number may go on
        except (ValueError, RecursionError) as error:
            if ended or not isinstance(error, json.JSONDecodeError):
                raise _json_error(error, where) from error
            if left > LONGEST_ENTRY:
                raise UserError(
                    f"{where} is longer than {LONGEST_ENTRY >> 20} MiB, or is not JSON ({error.msg}): divide it"
                ) from error
            whole, end, entry = False, at, None  # it may go on
        if not whole:  # twice as much of it is read
            more = file.read(min(max(left, _CHUNK), LONGEST_ENTRY + _CHUNK))
            text, at, ended = text[at:] + more, 0, not more
            continue
        number, at = number + 1, end
        yield where, entry
    if inside:
        raise UserError(f"{reading} is damaged: it ends before the end of its array")


def table_rows(file: IO[str], reading: Reading, delimiter: str, field: str) -> Iterator[tuple[str, str]]:
    """Where each row is, for messages, and its cell in one column. The first row names the columns.

    Cells may be quoted, with quotes in them doubled (RFC 4180). Blank lines are left out.

    Args:
        file: opened with `newline=""`.

    Raises:
        UserError: no such column, a row with more or fewer cells than columns, quotes that do not close, or a row that
            is too long.
    """
    lines = _Lines(file, reading)
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        lines.row = 0
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise UserError(f"{reading}, line {lines.number}: not {_NAMES[delimiter]} ({error})") from error
        if cells is None:
            return
        if not cells:
            continue
        if columns is None:
            columns = cells
            if field not in columns:
                shown = [name if len(name) <= 40 else f"{name[:39]}…" for name in columns[:_SHOWN]]
                raise UserError(f"{reading} has no column {field!r}: set text.field to one of {shown}")
            continue
        where = f"{reading}, line {lines.number}"
        if len(cells) != len(columns):
            raise UserError(f"{where}: {len(cells)} cells, but the first row names {len(columns)} columns")
        yield where, cells[columns.index(field)]


_NAMES = {",": "a table with commas", "\t": "a table with tabs"}


class _Lines:
    """Lines of a file, for the parser of tables, which may ask for several to a row."""

    def __init__(self, file: IO[str], reading: Reading) -> None:
        self._file, self._reading = file, reading
        self.number = 0
        self.row = 0  # characters of the row that have been read

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_ENTRY - self.row + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.row += len(line)
        self._reading.at = f"soon after line {self.number}"
        if self.row > LONGEST_ENTRY:
            raise UserError(
                f"{self._reading}, line {self.number}: a row longer than {LONGEST_ENTRY >> 20} MiB, or with a quote "
                "that is not closed: divide it"
            )
        return line.removeprefix(BYTE_ORDER_MARK) if self.number == 1 else line
