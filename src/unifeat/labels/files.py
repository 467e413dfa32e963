"""Reading names of features: exports of Neuronpedia, CSV, TSV, Parquet and JSON lines.

A Neuronpedia export is `MODEL/SOURCE/explanations/batch-N.jsonl.gz`, one explanation a line: `index` (a number, or as
text), `description`, `modelId`, `layer` (the source), and who explained it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.labels.lines import one_line
from unifeat.store.machine import machine_error
from unifeat.store.paths import user_path
from unifeat.text.rows import json_lines
from unifeat.text.unpacking import Reading, as_text

LONGEST = 500  # characters of a label
_FEATURE, _LABEL = ("feature", "index"), ("label", "description")
_BATCH = re.compile(r"batch-(\d+)\.jsonl(?:\.gz)?")

Row = tuple[Any, Any]


def read_labels(source: str | Path, *, features: int | None = None, what: str = "labels") -> dict[int, str]:
    """Labels by feature.

    Of several labels of a feature the first counts, in the order of the files' numbers and of their lines. Blank labels
    are left out; line breaks, other control characters and runs of blanks become one blank.

    Args:
        source: a file, by its ending: .csv, .tsv, .parquet, .jsonl or .jsonl.gz, with the columns `feature` and `label`
            (or `index` and `description`); or a folder of a Neuronpedia export: of a source, or its `explanations`.
        features: how many the dictionary has.
        what: how errors call it.

    Raises:
        UserError: no such file or folder, none of these kinds, damaged, columns missing, or a feature that is no whole
            number or that the dictionary does not have.
    """
    path = user_path(source, what)
    try:
        files = _files(path, what)
        labels: dict[int, str] = {}
        for file in files:
            for number, (feature, label) in enumerate(_reader(file, what)(file), start=1):
                missing = label is None or label != label  # (as a table's missing number is)
                text = "" if missing else one_line(str(label))[:LONGEST]
                if text:
                    labels.setdefault(_feature(feature, features, f"{what}: {file}, label {number}"), text)
    except OSError as error:
        raise machine_error(error, f"reading {path}") or UserError(f"{what}: {path} is damaged ({error})") from error
    if not labels:
        raise UserError(f"{what}: {path} holds no label")
    return dict(sorted(labels.items()))


def _files(path: Path, what: str) -> list[Path]:
    """The files to read, in order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{what}: {path} does not exist")
    inside = path / "explanations" if (path / "explanations").is_dir() else path
    batches = [(int(match[1]), file) for file in inside.iterdir() if (match := _BATCH.fullmatch(file.name))]
    if batches:
        return [file for _, file in sorted(batches)]
    sources = sorted(own.parent.name for own in path.glob("*/explanations"))
    if sources:
        raise UserError(f"{what}: {path} holds {len(sources)} sources; name one of them, such as {path / sources[0]}")
    raise UserError(f"{what}: {path} holds no explanations/batch-N.jsonl.gz, as a source of a Neuronpedia export does")


def _reader(file: Path, what: str) -> Callable[[Path], Iterable[Row]]:
    name = file.name.lower()
    for endings, reader in READERS.items():
        if name.endswith(endings):
            return reader
    known = ", ".join(ending for endings in READERS for ending in endings)
    raise UserError(f"{what}: {file} has none of the known endings ({known})")


def _feature(value: Any, features: int | None, where: str) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise UserError(f"{where}: {value!r} is no feature: give its number, from 0") from None
    if number < 0 or (features is not None and number >= features):
        has = f"the dictionary has features 0 to {features - 1:,}" if features is not None else "features count from 0"
        raise UserError(f"{where}: there is no feature {number:,}: {has}. Are these the labels of another SAE?")
    return number


def _json_lines(file: Path) -> Iterator[Row]:
    reading = Reading(file)
    with as_text(reading) as lines:
        for _, record in json_lines(lines, reading):
            names = _names(record if isinstance(record, dict) else (), file)
            yield record[names[0]], record[names[1]]


def _table(separator: str) -> Callable[[Path], Iterator[Row]]:
    def read(file: Path) -> Iterator[Row]:
        import pandas as pd

        try:
            table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except ValueError as error:  # pandas' own errors of parsing, and of decoding
            raise UserError(f"{file} is no table of text in UTF-8 ({str(error).splitlines()[0]})") from error
        names = _names(table, file)
        return zip(table[names[0]], table[names[1]], strict=True)

    return read


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (ValueError, pa.ArrowException) as error:
        raise UserError(f"{file} is no Parquet file, or a damaged one ({str(error).splitlines()[0]})") from error
    names = _names(table.column_names, file)
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _names(columns: Any, file: Path) -> tuple[str, str]:
    """What the columns of features and labels are called."""
    found = [next((name for name in names if name in columns), None) for names in (_FEATURE, _LABEL)]
    if found[0] is None or found[1] is None:
        raise UserError(f"{file} needs the columns feature and label (or index and description)")
    return found[0], found[1]


READERS: dict[tuple[str, ...], Callable[[Path], Iterable[Row]]] = {
    (".jsonl", ".jsonl.gz"): _json_lines,
    (".csv",): _table(","),
    (".tsv",): _table("\t"),
    (".parquet",): _parquet,
}
