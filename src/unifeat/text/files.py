"""Documents of one local file: plain text, rows of JSON or of a table, packed or not, or a Parquet or Arrow column.

A file's ending is not trusted, and reading is bounded in memory: a few kilobytes of .zst can hold a line of gigabytes.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from unifeat.errors import UserError
from unifeat.store.machine import machine_error
from unifeat.text.arrow_files import arrow_cells
from unifeat.text.rows import LONGEST_LINE, json_entries, json_lines, table_rows
from unifeat.text.unpacking import BYTE_ORDER_MARK, Reading, as_text, unreadable
from unifeat.vocabulary.text_files import IN_PARTS, PACKED, SAID

LONGEST_FILE = 128 << 20  # bytes of a .txt or .md file, which is one document
_BATCH_BYTES = 256 << 20  # text of a .parquet file that is in memory at once
_BATCH_ROWS = 256
_STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_BEGINS_ROWS = re.compile(rf"[\s{BYTE_ORDER_MARK}]*(\{{\s*\"|\[\s*[\{{\"\]])")
_FIRST = 4096  # characters of a stream by which its kind is told


def read_file(path: Path, field: str) -> Iterator[str]:
    """The documents of a file or stream, including blank ones.

    Args:
        field: the field of rows that holds the text; a .txt or .md file is one document.

    Raises:
        UserError: the file cannot be read, is damaged, is not what its name says, or holds something too long.
    """
    try:
        if not is_stream(path):
            with path.open("rb"):  # an error here is the machine's; if Arrow fails later, the file is damaged
                pass
    except OSError as error:
        raise unreadable(path, error) from error
    if is_stream(path):
        yield from _from_stream(path, field)
        return
    name = whole = path.name.lower()
    for packing in PACKED:
        name = name.removesuffix(packing)
    for suffix, reader in READERS.items():
        if name.endswith(suffix) and (name == whole or suffix not in IN_PARTS):
            yield from reader(path, field)
            return
    raise unknown_kind(path)


def unknown_kind(path: Path) -> UserError:
    """The message for a file that is not read."""
    parts = next((kind for kind in IN_PARTS for packing in PACKED if path.name.lower().endswith(kind + packing)), None)
    if parts:
        return UserError(f"text source {path}: unpack it first ({parts} files are packed within)")
    return UserError(f"text source {path}: unifeat reads {SAID}")


def is_stream(path: Path) -> bool:
    """Whether a path is standard input or another open file of this process, as the shell's `<(…)` gives."""
    return str(path).startswith(_STREAMS)


def is_terminal(mode: int) -> bool:
    """Whether a file of this mode can be no text: a terminal or another device."""
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def text_of(row: Any, field: str, where: str) -> str:
    """The text in a row, with lone surrogates replaced.

    Raises:
        UserError: the row has no such field, or the field does not hold text.
    """
    if not isinstance(row, dict) or field not in row:
        fields = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{where} has no field {field!r}: set text.field to one of {fields}")
    text = row[field]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(f"{where}: field {field!r} holds {type(text).__name__}, not text")
    return _whole_characters(text)


def _whole_characters(text: str) -> str:
    """Replace lone surrogates, which JSON can hold and no tokenizer accepts, by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _from_txt(path: Path, field: str) -> Iterator[str]:
    reading = Reading(path)
    with as_text(reading, newline="") as file:
        yield _one_document(reading, file)


def _one_document(reading: Reading, file: IO[str], head: str = "") -> str:
    # Of characters, as many as there can be bytes: no document of fewer bytes is refused.
    parts, size = [head], len(head.encode())
    while part := file.read(1 << 20):
        parts.append(part)
        size += len(part) if part.isascii() else len(part.encode())
        reading.at = f"soon after byte {size}"
        if size > LONGEST_FILE:
            raise UserError(
                f"{reading} is longer than {LONGEST_FILE >> 20} MiB, and a text that is not in rows is one document: "
                "divide it into several, or write .jsonl, one document per line"
            )
    text = "".join(parts).removeprefix(BYTE_ORDER_MARK)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _from_jsonl(path: Path, field: str) -> Iterator[str]:
    reading = Reading(path)
    with as_text(reading) as file:
        for where, row in json_lines(file, reading):
            yield text_of(row, field, where)


def _from_json(path: Path, field: str) -> Iterator[str]:
    reading = Reading(path)
    with as_text(reading) as file:
        yield from _of_entries(file, reading, field)


def _of_entries(file: IO[str], reading: Reading, field: str) -> Iterator[str]:
    for where, entry in json_entries(file, reading):
        yield _whole_characters(entry) if isinstance(entry, str) else text_of(entry, field, where)


def _from_csv(path: Path, field: str, delimiter: str = ",") -> Iterator[str]:
    reading = Reading(path)
    with as_text(reading, newline="") as file:
        for _, text in table_rows(file, reading, delimiter, field):
            yield _whole_characters(text)


def _from_tsv(path: Path, field: str) -> Iterator[str]:
    return _from_csv(path, field, "\t")


def _from_stream(path: Path, field: str) -> Iterator[str]:
    """Rows of JSON if it begins like them, or else one document."""
    reading = Reading(path)
    with as_text(reading, sniff=True) as file:
        head = file.read(_FIRST)
        if _BEGINS_ROWS.match(head):
            yield from _of_entries(_Behind(head, file), reading, field)  # type: ignore[arg-type]
        else:
            yield _one_document(reading, file, head)


class _Behind:
    """A text file behind characters that were read from it."""

    def __init__(self, head: str, rest: IO[str]) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int) -> str:
        head, self._head = self._head, ""
        return head or self._rest.read(size)


def _from_parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = f"text file {path}"
    try:
        with pq.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise UserError(f"{where} has no column {field!r}: set text.field to one of {file.schema_arrow.names}")
            for group in range(file.num_row_groups):
                rows = _rows_at_once(file.metadata.row_group(group), field)
                for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[field]):
                    for cell in batch.column(0):
                        yield text_of({field: _value(cell, where)}, field, where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: it holds a text that is not UTF-8: write the file again") from error
    except (pa.ArrowException, OSError) as error:
        user_error = machine_error(error, path)
        raise user_error or UserError(f"{where} is not a parquet file, or is damaged: {error}") from error


def _rows_at_once(group: Any, field: str) -> int:
    """Rows to read at once. Parquet can store one value for many rows, so each row may be as long as the column."""
    columns = [group.column(i) for i in range(group.num_columns)]
    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == field)
    return int(min(max(_BATCH_BYTES // max(size, 1), 1), _BATCH_ROWS))


def _from_arrow(path: Path, field: str) -> Iterator[str]:
    import struct

    import pyarrow as pa

    where = f"text file {path}"
    try:
        for cell in arrow_cells(Reading(path), field):
            yield text_of({field: _value(cell, where)}, field, where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: it holds a text that is not UTF-8: write the file again") from error
    except (pa.ArrowException, OSError, struct.error) as error:
        user_error = machine_error(error, path)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise user_error or UserError(f"{where} is not an Arrow file, or is damaged: {reason}") from error


def _value(cell: Any, where: str) -> Any:
    cell = getattr(cell, "value", cell) if hasattr(cell, "index") else cell  # dictionary-encoded columns
    if cell.is_valid and hasattr(cell, "as_buffer"):
        size = cell.as_buffer().size
        if size > LONGEST_LINE:
            raise UserError(f"{where}: it holds a text longer than {LONGEST_LINE >> 20} MiB: divide it into several")
    return cell.as_py()


Reader = Callable[[Path, str], Iterator[str]]
# By the ending of their names, without that of a packed file. The endings are those of `vocabulary.text_files`, by
# which a study tells files from datasets.
READERS: dict[str, Reader] = {
    ".txt": _from_txt,
    ".jsonl": _from_jsonl,
    ".ndjson": _from_jsonl,
    ".json": _from_json,
    ".csv": _from_csv,
    ".tsv": _from_tsv,
    ".md": _from_txt,
    ".parquet": _from_parquet,
    ".arrow": _from_arrow,
    ".feather": _from_arrow,
}
