"""Reading names of features: every kind of file, and one clear line for what is wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unifeat.errors import UserError
from unifeat.labels.files import LONGEST, read_labels


def explanation(index: Any, description: Any, **more: Any) -> str:
    """A line of a Neuronpedia export."""
    known = {"modelId": "gpt2-small", "layer": "6-res-jb", "typeName": "oai_token-act-pair"}
    return json.dumps(known | {"index": index, "description": description} | more)


def export(folder: Path, batches: dict[int, list[str]], source: str = "6-res-jb") -> Path:
    """A source of an export."""
    inside = folder / "gpt2-small" / source / "explanations"
    inside.mkdir(parents=True)
    for number, lines in batches.items():
        with gzip.open(inside / f"batch-{number}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines))
    return inside.parent


def test_an_export_is_read_in_the_order_of_its_batches(tmp_path: Path) -> None:
    batches = {
        10: [explanation("11", "never seen: 11 has one")],
        0: [explanation("0", " time  words\n"), "", explanation(3, "names"), explanation("3", "a second one")],
        2: [explanation("11", "months"), explanation("12", ""), explanation("13", None)],
    }
    source = export(tmp_path, batches)
    expected = {0: "time words", 3: "names", 11: "months"}
    assert read_labels(source) == expected
    assert read_labels(source / "explanations") == expected
    assert read_labels(source / "explanations" / "batch-0.jsonl.gz") == {0: "time words", 3: "names"}
    assert list(read_labels(source)) == [0, 3, 11]


def test_a_model_with_several_sources_is_not_a_source(tmp_path: Path) -> None:
    export(tmp_path, {0: [explanation(0, "x")]}, "6-res-jb")
    export(tmp_path, {0: [explanation(0, "x")]}, "7-res-jb")
    with pytest.raises(UserError, match=r"holds 2 sources; name one of them, such as .*/gpt2-small/6-res-jb"):
        read_labels(tmp_path / "gpt2-small")


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_tables(tmp_path: Path, ending: str) -> None:
    table = pd.DataFrame({"feature": [4, 0, 7], "label": ["a, b", "“quoted”", " "], "more": [1, 2, 3]})
    path = tmp_path / f"labels.{ending}"
    if ending == "parquet":
        table.to_parquet(path)
    elif ending == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        separator = "," if ending == "csv" else "\t"
        path.write_text("\ufeff" + table.to_csv(index=False, sep=separator), encoding="utf-8")
    assert read_labels(path, features=8) == {0: "“quoted”", 4: "a, b"}


def test_what_a_table_lacks_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    for labels in (["a", None, "c"], pd.array(["a", pd.NA, "c"], dtype="string"), pd.Categorical(["a", None, "c"])):
        pd.DataFrame({"feature": [0, 1, 2], "label": labels}).to_parquet(path)
        assert read_labels(path) == {0: "a", 2: "c"}
    lines = tmp_path / "labels.jsonl"
    lines.write_text('{"feature": 0, "label": NaN}\n{"feature": 1, "label": "b"}\n', encoding="utf-8")
    assert read_labels(lines) == {1: "b"}


def test_control_characters_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"feature": 0, "label": "\x1b[31mred\x00\x85 light\x07"}) + "\n", encoding="utf-8")
    assert read_labels(path) == {0: "[31mred light"}


def test_labels_are_one_line_and_of_bounded_length(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    pd.DataFrame({"feature": [0, 1], "label": ["two\nlines\tand  more", "x" * 9999]}).to_csv(path, index=False)
    found = read_labels(path)
    assert found[0] == "two lines and more"
    assert len(found[1]) == LONGEST


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"feature,name\n0,a\n", r"x.csv needs the columns feature and label \(or index and description\)"),
        ("x.csv", b"feature,label\none,a\n", r"x.csv, label 1: 'one' is no feature: give its number, from 0"),
        ("x.csv", b"feature,label\n1.5,a\n", r"label 1: '1.5' is no feature"),
        ("x.csv", b"feature,label\n-1,a\n", r"there is no feature -1: the dictionary has features 0 to 31"),
        ("x.csv", b"feature,label\n3,a\n32,b\n", r"label 2: there is no feature 32: .*0 to 31.*labels of another SAE"),
        ("x.csv", b"feature,label\n3,\n", r"x.csv holds no label"),
        ("x.csv", b"feature,label\n3,\xff\xfe\n", r"x.csv is no table of text in UTF-8"),
        ("x.csv", b"", r"x.csv is no table of text"),
        ("x.parquet", b"not parquet", r"x.parquet is no Parquet file, or a damaged one"),
        ("x.jsonl", b'{"feature": 1, "label": "a"}\nnot json\n', r"x.jsonl, line 2: not JSON"),
        ("x.jsonl", b"[1, 2]\n", r"x.jsonl needs the columns feature and label"),
        ("x.jsonl", b"17\n", r"x.jsonl needs the columns feature and label"),
        ("x.jsonl", b"\xff\xfe\x00", r"x.jsonl is not UTF-8"),
        ("x.jsonl.gz", b"not gzip", r"x.jsonl.gz is damaged"),
        (
            "x.jsonl.gz",
            gzip.compress(b'{"index": 1, "description": "a"}\n' * 9, mtime=0)[:-12],
            r"x.jsonl.gz is damaged",
        ),
        ("x.txt", b"0 a", r"x.txt has none of the known endings \(.jsonl, .jsonl.gz, .csv, .tsv, .parquet\)"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_labels(tmp_path / name, features=32)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels of one@2: .*nowhere does not exist"):
        read_labels(tmp_path / "nowhere", what="labels of one@2")
    with pytest.raises(UserError, match=r"holds no explanations/batch-N.jsonl.gz"):
        read_labels(tmp_path)
