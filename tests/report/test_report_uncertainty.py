"""What the report and the terminal say of how sure a run is: intervals, rematches, controls, categories."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unifeat.report.html import render
from unifeat.report.overview import group_overview
from unifeat.report.sections import categories
from unifeat.report.tables import cells, role, rows_of
from unifeat.report.terminal import show
from unifeat.report.uncertainty import hubs, pair_table
from unifeat.runs.folder import Run

MakeRun = Callable[..., Run]


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    """Two ordinary layers, a ceiling, a control, and two categories with lists of random words."""
    made = make_run(groups={"one": [3, 5], "two": [2], "one-seed1": [5], "noise": [5]}, kept=40)
    info = json.loads((made.folder / "run.json").read_text())
    for name, space in info["spaces"].items():
        space["model"] = "one" if name.startswith("one") else space["model"]
    info["spaces"]["noise@5"]["control"] = "random weights"
    for facts in info["pairs"]:
        kept = float(facts["kept"])
        facts["rematch"] = {
            "kept": [3, 5],
            "mean_correlation": [0.12, None],
            "p_kept": 1 / 3,
            "p_mean_correlation": 1 / 3,
            "p_kept_family": 2 / 3,
            "same": [1, 0],
        }
        facts["same_token"] = facts["rematch"] | {"kept": [30, 32], "same": [26, 28]}
        facts["beyond_token"] = {
            "types": 900,
            "rows": 52_221,
            "rows_alone": 321,
            "mean_correlation_within_token": 0.432,
            "mean_token_share": 0.61,
            "more_than_a_token": 0.875,
            "at_random": 400,
        }
        facts["intervals"] = {"kept": {"estimate": kept, "low": kept - 2, "high": kept + 3}}
        facts["intervals"]["share_a"] = {"estimate": 0.25, "low": 0.2, "high": None}
        facts["stability"] = {"share": 0.75, "chance": 0.01}
        ways = {"a_to_b": {"largest_share": 0.021}, "b_to_a": {"largest_share": 0.034}}
        facts |= {"hubness": ways, "reciprocity": {"a_to_b": 0.4, "b_to_a": 0.5}}
    (made.folder / "run.json").write_text(json.dumps(info))
    scores = made.scores
    extra = []
    for place, (name, n, score) in enumerate(
        [("Time", 12, 0.31), ("Time · random words", 7, 0.11), ("Odd", 2, 1.0), ("Odd · random words", 0, np.nan)]
    ):
        own = scores[(scores["metric"] == "rsa")].assign(
            subspace=name, n_pairs=n, score=score, subset_mean=0.2, subset_score=0.25, subset_n=n
        )
        extra.append(own.assign(subset_q=0.01 if place == 0 else 0.9))
    table = pd.concat([scores, *extra], ignore_index=True)
    table.to_parquet(made.folder / "scores.parquet", index=False)
    rates = [
        {"space_a": f["space_a"], "space_b": f["space_b"], "subspace": name, "side": side, "features": features}
        | {
            "rate": 0.6,
            "rate_expected": 0.4,
            "odds_ratio": 2.3,
            "odds_ratio_low": 1.1,
            "odds_ratio_high": 4.7,
            "q": 0.03,
        }
        for f in info["pairs"]
        for name, features in (("Time", 21), ("Odd", 0))
        for side in "ab"
    ]
    pd.DataFrame(rates).to_parquet(made.folder / "rates.parquet", index=False)
    with (made.folder / "study.yaml").open("a") as study:
        study.write("subspaces: {categories: paper, top_tokens: 5, at_least: 2, window: 0}\n")
    return Run(made.folder)


def test_every_comparison_has_its_line_and_its_role(run: Run) -> None:
    _, lines = group_overview(run)
    roles = {line.groups: line.role for line in lines}
    assert roles["one", "two"] == ""
    assert roles["one", "one-seed1"] == "ceiling: two SAEs of one model"
    assert roles["two", "noise"] == "control: random weights"
    ordinary = next(line for line in lines if line.groups == ("one", "two"))
    kept = cells(run).query("group_a == 'one' and group_b == 'two'")["kept"]
    assert ordinary.kept == f"{kept.min()}–{kept.max()}"
    assert ordinary.kept_again == {"other text": "4", "same token": "31"}
    assert (ordinary.within, ordinary.found_again, ordinary.cells) == ("0.43", "75 %", 2)


def test_the_pairs_of_a_cell_with_intervals_and_the_null(run: Run) -> None:
    cell = rows_of(cells(run))[0]
    table = pair_table(cell)
    assert [(label, draws, least) for label, _, draws, least in table.nulls] == [
        *(("other text", "2", "0.333"), ("same token", "2", "0.333"))
    ]
    lines = {line["what"]: line for line in table.lines}
    kept = lines["pairs kept"]
    assert (kept["value"], kept["interval"]) == (str(cell.kept), f"{cell.kept - 2} to {cell.kept + 3}")
    assert kept["nulls"][0] == {"mean": "4", "p": "0.333°", "family": "0.667°"}, "two draws cannot decide"
    assert kept["nulls"][1]["mean"] == "31"
    assert [null["mean"] for null in lines["of them, pairs of this run"]["nulls"]] == ["0", "27"]
    assert lines["mean r where found"]["nulls"][0]["mean"] == "0.120", "rematches without a pair have no mean"
    assert lines["mean r within token"]["value"] == "0.432"
    assert lines["share of the features’ variance that is the token’s"]["value"] == "61 %"
    assert lines["share of pairs that are more than a token"]["value"] == "88 %"
    assert lines["share found again on the other half (by chance 1.0 %)"]["value"] == "75 %"
    assert "2.1 % and 3.4 %" in hubs(cell)


def test_categories_stand_beside_their_nulls(run: Run) -> None:
    assert categories.categories(run) == ["Time", "Odd"]
    found = categories.of_cell(run, rows_of(cells(run))[0])
    assert found is not None
    time, odd = found["lines"]
    assert time["rates"][0] == {"features": "21", "rate": "60 % / 40 %", "odds": "2.3 (1.1–4.7)*"}
    assert odd["rates"][0]["features"] == "0"
    assert time["scores"][0]["score"].startswith("0.31")
    assert (time["scores"][0]["subsets"], time["scores"][0]["control"]) == ("0.25 / 0.20*", "0.11 (7)")
    assert odd["scores"][0]["control"] == "–"
    drawn: dict[str, Any] = {}
    section = categories.subspaces(run, drawn)
    assert section is not None
    figure = drawn[section["overview"][0]["key"]]
    z = dict(zip(figure["data"][0]["y"], figure["data"][0]["z"], strict=True))
    assert z["Time"][0] == pytest.approx(0.31)
    assert z["Odd"][0] is None, "two pairs have no score worth a colour"
    assert any(a["text"] == "n=2" for a in figure["layout"]["annotations"])


def test_page_and_terminal_say_it(run: Run, capsys, monkeypatch) -> None:
    page = render(run)
    for words in (
        "control: random weights",
        "ceiling: two SAEs of one model",
        "Found again",
        "Subspaces",
        "random words",
        "same token, 2 draws",
        "of them, pairs of this run",
        "mean r within token",
    ):
        assert words in page
    for columns in ("60", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        show(run)
        text = capsys.readouterr().out
        assert "control: random weights" in text
        assert "Time" in text
        assert "0.31" in text
        assert max(map(len, text.splitlines()[:-1])) <= int(columns)


def test_two_spaces_beside_the_nulls_that_match_again(run: Run, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    show(run, "one@3", "two@2")
    text = capsys.readouterr().out
    assert "within token: mean r 0.43; 88 % of the pairs are more than a token" in text
    assert "same token: 31 pairs, 27 of them this run's; undecidable (2 draws: p cannot be below 0.333)" in text


def test_an_ordinary_run_has_nothing_of_it(make_run: MakeRun) -> None:
    plain = make_run()
    assert categories.subspaces(plain, {}) is None
    assert categories.of_cell(plain, rows_of(cells(plain))[0]) is None
    assert pair_table(rows_of(cells(plain))[0]) == ([], [])
    assert hubs(rows_of(cells(plain))[0]) == ""
    assert role(plain, ("smollm2", "gemma3")) == ""
