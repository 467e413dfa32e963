"""Words for features in the report and in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from unifeat.report.html import render
from unifeat.report.labels import labels_sentence, matching, with_labels
from unifeat.report.tables import cells, rows_of
from unifeat.report.terminal import show
from unifeat.report.uncertainty import pair_table
from unifeat.runs.folder import Run

MakeRun = Callable[..., Run]
AGREED: dict[str, Any] = {"pairs": 1234, "mean": 0.5, "chance": 0.02, "p": 0.005, "draws": 199, "automatic": False}


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    """Every feature of A has a label with markup in it; those of B have none."""
    made = make_run()
    for name in ("pairs", "shown"):
        table = pd.read_parquet(made.folder / f"{name}.parquet")
        labels = [f"<b>tides</b> {feature}" for feature in table["feature_a"]]
        table.assign(label_a=labels, label_b="").to_parquet(made.folder / f"{name}.parquet", index=False)
    info = json.loads((made.folder / "run.json").read_text())
    info.pop("files", None)
    info["pairs"] = [facts | {"labels": AGREED} for facts in info["pairs"]]
    (made.folder / "run.json").write_text(json.dumps(info))
    return Run(made.folder)


def test_labels_stand_above_the_contexts_as_text(run: Run) -> None:
    page = render(run)
    feature = run.shown["feature_a"].iloc[0]
    assert f'<p class="label"><bdi>&lt;b&gt;tides&lt;/b&gt; {feature}</bdi></p>' in page
    assert "<b>tides" not in page


def test_labels_stand_below_the_top_tokens_in_the_terminal(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run.info["pairs"][0]["space_a"], run.info["pairs"][0]["space_b"]
    show(run, a, b)
    said = capsys.readouterr().out
    strongest = run.space_pair(a, b).query("kept").nlargest(1, "correlation").iloc[0]
    assert f"<b>tides</b> {strongest['feature_a']}" in said
    assert "labels: partners have 50 % of their word stems in common, partners at random 2.0 %" in said


def test_a_search_finds_labels_and_tokens(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = run.info["pairs"][0]["space_a"], run.info["pairs"][0]["space_b"]
    kept = run.space_pair(a, b).query("kept")
    one = kept["feature_a"].iloc[3]
    found = matching(kept, f"TIDES</b> {one}")
    assert {*found["feature_a"]} == {f for f in kept["feature_a"] if str(f).startswith(str(one))}
    token = str(kept["top_tokens_b"].iloc[5][0]).strip()
    assert kept.index[5] in matching(kept, token.upper()).index
    assert not len(matching(kept, "no such word"))
    assert not len(matching(kept.iloc[:0], "tides"))


def test_other_labels_take_the_place_of_the_runs(run: Run) -> None:
    a, b = run.info["pairs"][0]["space_a"], run.info["pairs"][0]["space_b"]
    kept = run.space_pair(a, b).query("kept")
    feature = int(kept["feature_b"].iloc[0])
    other = with_labels(kept, {b: {feature: "mine"}})
    assert other["label_b"].tolist() == ["mine" if f == feature else "" for f in kept["feature_b"]]
    assert other["label_a"].tolist() == kept["label_a"].tolist()
    older = with_labels(kept.drop(columns=["label_a", "label_b"]), {a: {}})
    assert (older[["label_a", "label_b"]] == "").all(axis=None)
    assert "label_a" not in with_labels(kept.drop(columns=["label_a", "label_b"]), {})


def test_what_the_agreement_is_of_is_said(run: Run) -> None:
    cell = rows_of(cells(run))[0]
    lines = {line["what"]: line["value"] for line in pair_table(cell).lines}
    assert lines["word stems that the labels of 1,234 pairs have in common (partners at random 2.0 %)"] == "50 %"
    automatic = cell._replace(labels=AGREED | {"automatic": True})
    assert labels_sentence(automatic).startswith("labels made from contexts: partners have")
    assert any("labels (made from contexts)" in line["what"] for line in pair_table(automatic).lines)
    assert labels_sentence(cell._replace(labels=None)) == ""
