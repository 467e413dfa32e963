"""Documents from local files or a Hugging Face dataset, one at a time, in a fixed order."""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.store import file_stamp
from unifeat.vocabulary.text_files import LOCAL_SUFFIXES

SHIPPED_TEXT = Path(__file__).with_name("alice.txt")  # Carroll 1865, chapters I to III; public domain


def find_source(source: str) -> list[Path] | str:
    """The sorted local files that `source` (a path or glob) names, or the dataset's name as it is.

    Raises:
        UserError: a path that is not there, a glob that matches nothing, or a file of another kind.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(LOCAL_SUFFIXES))
        if not files:
            raise UserError(f"text source {source}: the folder holds none of {', '.join(LOCAL_SUFFIXES)}")
        return files
    if path.is_file():
        files = [path]
    elif glob.has_magic(str(path)):
        files = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if not files:
            raise UserError(f"text source {source}: no file matches this pattern")
    elif source.endswith(LOCAL_SUFFIXES) or source.startswith((".", "/", "~")):
        raise UserError(f"text source {source}: no such file")
    else:
        return source
    wrong = [p for p in files if not p.name.endswith(LOCAL_SUFFIXES)]
    if wrong:
        raise UserError(f"text source {wrong[0]}: unifeat reads {', '.join(LOCAL_SUFFIXES)}")
    return files


def source_stamp(found: list[Path] | str) -> Any:
    """What identifies the source's content without reading it."""
    return found if isinstance(found, str) else [file_stamp(p) for p in found]


def read_documents(found: list[Path] | str, field: str, split: str, config: str | None) -> Iterator[str]:
    """Stream the documents of a source found by `find_source`; blank ones are left out.

    Args:
        found: files, or the name of a Hugging Face dataset.
        field: the text field of .jsonl and .parquet rows and of dataset rows.
        split: the dataset's split; local files ignore it.
        config: the dataset's configuration name, if it has several.
    """
    if isinstance(found, str):
        documents = _from_dataset(found, field, split, config)
    else:
        documents = (text for path in found for text in _from_file(path, field))
    return (text for text in documents if text.strip())


def _from_file(path: Path, field: str) -> Iterator[str]:
    if path.name.endswith(".txt"):
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"text file {path} is not UTF-8 (byte {error.start}): convert it first") from error
    elif path.name.endswith(".parquet"):
        yield from _from_parquet(path, field)
    else:
        yield from _from_jsonl(path, field)


def _from_jsonl(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa

    # Arrow notices a truncated .zst; the zstandard package takes it for the end of the file.
    compression = "zstd" if path.name.endswith(".zst") else None
    number = 0
    try:
        with pa.input_stream(str(path), compression=compression) as raw:
            for number, line in enumerate(io.TextIOWrapper(raw, encoding="utf-8"), start=1):
                if line.strip():
                    yield _text_of(json.loads(line), field, f"text file {path}, line {number}")
    except json.JSONDecodeError as error:
        raise UserError(f"text file {path}, line {number}: not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"text file {path} is not UTF-8 (soon after line {number}): convert it first") from error
    except OSError as error:
        raise UserError(f"text file {path} is damaged (soon after line {number}): {error}") from error


def _from_parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if field not in file.schema_arrow.names:
            raise UserError(
                f"text file {path} has no column {field!r}: set text.field to one of {file.schema_arrow.names}"
            )
        for batch in file.iter_batches(batch_size=256, columns=[field]):
            for value in batch.column(0).to_pylist():
                yield _text_of({field: value}, field, f"text file {path}")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"text file {path} is not a parquet file, or is damaged: {error}") from error


def _from_dataset(name: str, field: str, split: str, config: str | None) -> Iterator[str]:
    import datasets

    try:
        for row in datasets.load_dataset(name, config, split=split, streaming=True):
            yield _text_of(row, field, f"dataset {name}")
    except UserError:
        raise
    except Exception as error:  # datasets raises a different type for every way a name can be wrong
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"text source {name!r} is neither a local file nor a dataset that can be read now: {reason}"
        ) from error


def _text_of(row: Any, field: str, where: str) -> str:
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
    """JSON can hold half a character (a lone surrogate), which no tokenizer takes: it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
