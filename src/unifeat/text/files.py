"""Documents of one local file: plain text, JSON lines (compressed or not), or a Parquet column.

A file's ending is not trusted, and reading is bounded in memory: a few kilobytes of .zst can hold a line of gigabytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.store.machine import machine_error

# A character takes up to four bytes of memory, and a line of JSON is in memory twice, as text and parsed. With these
# bounds, reading takes less than 1 GB.
LONGEST_LINE = 64 << 20  # characters of a line of .jsonl, or bytes of a cell of .parquet
LONGEST_FILE = 128 << 20  # bytes of a .txt file, which is one document
_BATCH_BYTES = 256 << 20  # text of a .parquet file that is in memory at once
_BATCH_ROWS = 256
_BYTE_ORDER_MARK = "\ufeff"  # at the start of some files written on Windows; not part of the text


def read_file(path: Path, field: str) -> Iterator[str]:
    """The documents of a file, including blank ones.

    Args:
        field: the field of rows that holds the text; a .txt file is one document.

    Raises:
        UserError: the file cannot be read, is damaged, is not what its name says, or holds something too long.
    """
    try:
        with path.open("rb"):  # an error here is the machine's; if Arrow fails later, the file is damaged
            pass
    except OSError as error:
        raise _unreadable(path, error) from error
    for suffix, reader in READERS.items():
        if path.name.endswith(suffix):
            yield from reader(path, field)
            return
    raise UserError(f"text file {path}: unifeat reads {', '.join(READERS)}")


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
    return text if text.isascii() else _whole_characters(text)


def _whole_characters(text: str) -> str:
    """Replace lone surrogates, which JSON can hold and no tokenizer accepts, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _from_txt(path: Path, field: str) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(raw) > LONGEST_FILE:
        raise UserError(
            f"text file {path} is longer than {LONGEST_FILE >> 20} MiB, and a .txt file is one document: "
            "divide it into several, or write .jsonl, one document per line"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"text file {path} is not UTF-8 (byte {error.start}): convert it first") from error
    text = text.removeprefix(_BYTE_ORDER_MARK)
    yield text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _from_jsonl(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa

    # Arrow reports a truncated .zst; the zstandard package treats it as the end of the file.
    compression = "zstd" if path.name.endswith(".zst") else None
    number = 0
    try:
        with pa.input_stream(str(path), compression=compression) as raw:
            file = io.TextIOWrapper(raw, encoding="utf-8")
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                where = f"text file {path}, line {number}"
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"{where} is longer than {LONGEST_LINE >> 20} MiB, and a line is one document: "
                        "divide it into several"
                    )
                line = line.removeprefix(_BYTE_ORDER_MARK)  # at the start of a file, or of one of concatenated files
                if line and not line.isspace():
                    yield text_of(_parsed(line, where), field, where)
    except UnicodeDecodeError as error:
        raise UserError(f"text file {path} is not UTF-8 (soon after line {number}): convert it first") from error
    except OSError as error:
        user_error = machine_error(error, path)
        raise user_error or UserError(f"text file {path} is damaged (soon after line {number}): {error}") from error


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise UserError(f"{where}: JSON nested too deeply to be read") from error
    except ValueError as error:  # Python refuses integers of more than 4,300 digits
        raise UserError(f"{where}: it holds a number too long to be read") from error


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


def _value(cell: Any, where: str) -> Any:
    cell = getattr(cell, "value", cell) if hasattr(cell, "index") else cell  # dictionary-encoded columns
    if cell.is_valid and hasattr(cell, "as_buffer"):
        size = cell.as_buffer().size
        if size > LONGEST_LINE:
            raise UserError(f"{where}: it holds a text longer than {LONGEST_LINE >> 20} MiB: divide it into several")
    return cell.as_py()


def _unreadable(path: Path, error: OSError) -> UserError:
    return machine_error(error, path) or UserError(f"text file {path} cannot be read: {error.strerror or error}")


Reader = Callable[[Path, str], Iterator[str]]
# By the ending of their names. Those of `vocabulary.text_files`, by which a study tells files from datasets.
READERS: dict[str, Reader] = {
    ".txt": _from_txt,
    ".jsonl": _from_jsonl,
    ".jsonl.zst": _from_jsonl,
    ".parquet": _from_parquet,
}
