"""docs/run-folder.md is compared with a real run: the files, their columns and types, the keys of run.json."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import unifeat
from homes import GROUP, Place, shared_place, shared_warm, write_study
from pages import read
from tiny import sentences, write_text

TABLES = (
    *("pairs", "scores", "members", "rates", "families", "family_sets", "sharedness"),
    *("transfer", "transfer_pairs", "effects", "steering", "labels", "shown", "examples"),
)
_KINDS = {"double": "float64", "float": "float32", "string": "text", "large_string": "text"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[..., Path]) -> Place:
    """A copy of the shared place where a study with all kinds of tables has been run."""
    place = shared_place(tmp_path_factory, model_folder).copy(tmp_path_factory.mktemp("docs") / "place")
    (place.home / "words.yaml").write_text("Sea: [tide, ship, sailor, storm]\nCity: [mayor, bus, crowded, baker]\n")
    write_text(place.home, sentences(12, seed=7), "other.jsonl")
    study = write_study(
        place.home,
        text={"source": "text.jsonl", "context": 32, "group": GROUP, "elsewhere": {"source": "other.jsonl"}},
        subspaces={"categories": "words.yaml", "at_least": 1, "subsets": 5},
        activations={"rows": 2000, "dims": 3},
        families={"draws": 2, "bootstraps": 3, "groups": {"first": ["one@0"], "last": ["one@2"]}},
        transfer={"draws": 3, "loss_draws": 2, "loss_tokens": 60, "pairs": 8, "contexts": 3},
        inference={
            "permutations": 9,
            "bootstraps": 9,
            "subsamples": 9,
            "rematches": 2,
            "same_token": 2,
            "same_two_tokens": 2,
        },
    )
    done = place.unifeat(shared_warm(), "run", study, "--quiet")
    assert done.code == 0, done.err
    return place


def documented(table: str, page: str) -> dict[str, str]:
    """Columns and types in a table's section of docs/run-folder.md."""
    section = page.split(f"\n## `{table}.parquet`\n")[1].split("\n## ")[0]
    rows = [row.strip("|").split("|") for row in section.splitlines() if row.startswith("| `")]
    found = {column: row[1].strip() for row in rows for column in re.findall(r"`([^`]+)`", row[0])}
    whole = re.search(r"the columns of `(\w+)\.parquet`, and", section)
    return documented(whole[1], page) | found if whole else found


def columns(place: Place, table: str) -> dict[str, str]:
    """Columns and types of a real run's table."""
    found = {}
    spaces = unifeat.open(place.run).info["spaces"]
    for entry in pq.read_schema(place.run / f"{table}.parquet"):
        if entry.name in spaces:  # a column of each space's features
            assert str(entry.type) == "int32"
            continue
        listed = str(entry.type).startswith(("list", "large_list"))
        kind = str(entry.type.value_type if listed else entry.type)
        # (Lists that are empty throughout have no type.)
        kind = "text" if listed and kind == "null" else _KINDS.get(kind, kind)
        found[entry.name] = f"list of {kind}" if listed else kind
    return found


@pytest.mark.parametrize("table", TABLES)
def test_columns_of_the_tables(place: Place, table: str):
    assert documented(table, read("docs/run-folder.md")) == columns(place, table)


def test_wrong_columns_and_types_are_found(place: Place):
    page = read("docs/run-folder.md")
    for table, old, new in (
        ("rates", "| `p`, `q` |", "| `p` |"),
        ("rates", "| `side` |", "| `side`, `invented` |"),
        ("pairs", "| `cofiring` | int64 |", "| `cofiring` | int32 |"),
    ):
        assert page.count(old) == 1
        assert documented(table, page.replace(old, new)) != columns(place, table)


def test_keys_of_run_json(place: Place):
    info = unifeat.open(place.run).info
    section = read("docs/run-folder.md").split("\n## `run.json`\n")[1]
    said: dict[str, str] = {}
    for row in re.findall(r"^\| (`.+?) \| (.+) \|$", section, re.M):
        said |= dict.fromkeys(re.findall(r"`(\w+)`", row[0]), row[1])
    assert set(said) == set(info)
    held = {"text": info["text"], "models": info["models"]["one"], "spaces": info["spaces"]["one@0"]}
    for key, value in {**held, "pairs": info["pairs"][0]}.items():
        assert set(re.findall(r"`([\w.]+)`", said[key])) == set(value), key


def test_all_files_of_a_run_are_named(place: Place):
    named = set(re.findall(r"`(\w+\.(?:yaml|json|parquet|html))`", read("docs/run-folder.md")))
    assert named == {path.name for path in place.run.iterdir()}
