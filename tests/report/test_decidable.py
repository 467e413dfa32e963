"""Tests that could not have come out significant are never among those that did not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from unifeat.report.decidable import _least_q, tally, undecidable, undecidable_rates
from unifeat.report.html import render
from unifeat.report.overview import group_overview
from unifeat.report.summary import summary
from unifeat.report.tables import measures
from unifeat.report.terminal import show
from unifeat.runs.folder import Run
from unifeat.subspaces.rates import rate_test

MakeRun = Callable[..., Run]


def changed(run: Run, permutations: int, p: Any = None, **facts: Any) -> Run:
    """The run with so many shuffles, other p, and its q."""
    path = run.folder / "study.yaml"
    path.write_text(path.read_text().replace("permutations: 500", f"permutations: {permutations}"))
    scores = pd.read_parquet(run.folder / "scores.parquet")
    p = scores["p"] if p is None else np.resize(p, len(scores))
    scores = scores.assign(p=p)
    scores.assign(q=false_discovery_control(scores["p"])).to_parquet(run.folder / "scores.parquet", index=False)
    info = json.loads((run.folder / "run.json").read_text())
    info["pairs"] = [own | facts for own in info["pairs"]]
    (run.folder / "run.json").write_text(json.dumps(info))
    return Run(run.folder)


def texts(run: Run, capsys: pytest.CaptureFixture[str]) -> tuple[str, str, str]:
    show(run)
    return summary(run).text, capsys.readouterr().out, render(run)


def test_with_enough_draws_all_are_decided(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = changed(make_run(), 500)
    assert (undecidable(run)["q"] == "").all()
    for text in texts(run, capsys):
        assert "undecidable" not in text
    over = int((run.scores["q"] < 0.05).sum())
    assert f"{over} of {len(run.scores)} scores of decoder geometry exceed" in texts(run, capsys)[0]
    assert "Draws of the nulls: shuffles: 500, no p below 0.002." in texts(run, capsys)[2]
    assert "shuffles: 500, no p below 0.002" in " ".join(texts(run, capsys)[1].split())


def test_with_too_few_draws_none_is(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = changed(make_run(), 9, [0.1, 0.3, 0.5])
    assert (undecidable(run)["q"] == "9 shuffles: p cannot be below 0.100").all()
    short, terminal, page = texts(run, capsys)
    assert "36 scores are undecidable (9 shuffles: p cannot be below 0.100)." in short
    for text in (short, terminal, page):
        assert "scores of decoder geometry exceed" not in text
        assert "0 of " not in text.replace("100 of ", "")
    assert "° undecidable: it could not have been significant" in " ".join(terminal.split())
    assert f"{run.scores['score'][0]:.2f}° " in terminal
    assert "0.100°" in page
    assert all("(undecidable)" in score for score in group_overview(run)[1][0].scores)


def test_many_tests_can_make_a_draws_least_p_too_large(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """39 shuffles reach p = 0.025; alone among 36 tests that is q = 0.9."""
    run = changed(make_run(kept=120), 39, [0.3, 0.5, 0.8])
    found = undecidable(run)["q"]
    assert found.str.startswith("39 shuffles: p cannot be below 0.025, nor q among 36 tests, with the others").all()
    assert "36 scores are undecidable (39 shuffles: p cannot be below 0.025, nor q among 36" in texts(run, capsys)[0]


def test_where_most_are_significant_the_others_could_have_been(make_run: MakeRun) -> None:
    p = np.full(36, 1 / 40)
    p[[3, 8]] = 0.6
    run = changed(make_run(), 39, p)
    assert (undecidable(run)["q"] == "").all()
    assert "34 of 36 scores of decoder geometry exceed" in summary(run).text


@pytest.mark.parametrize("seed", range(5))
def test_the_least_q_is_that_of_the_least_p(seed: int) -> None:
    rng = np.random.default_rng(seed)
    least = rng.choice([1 / 20, 1 / 200], 30)
    p = np.maximum(np.round(rng.uniform(0, 0.4, 30) ** 2, 2), least)
    least[3] = np.nan
    found = _least_q(p, least)
    for i in range(30):
        anew = p.copy()
        anew[i] = least[i]
        assert np.isnan(found[i]) if i == 3 else found[i] == pytest.approx(false_discovery_control(anew)[i])
    known = ~np.isnan(found)
    assert (found[known] <= false_discovery_control(p)[known] + 1e-12).all()


def test_few_pairs_have_few_pairings(make_run: MakeRun) -> None:
    run = make_run(kept=120)
    scores = pd.read_parquet(run.folder / "scores.parquet")
    scores.loc[0, "n_pairs"] = 3  # six pairings
    scores.to_parquet(run.folder / "scores.parquet", index=False)
    run = changed(run, 500, [0.4, *35 * [1 / 501]])
    assert undecidable(run)["q"].ne("").tolist() == [True] + 35 * [False]
    assert undecidable(run)["q"][0] == "500 shuffles: p cannot be below 0.167"


def test_tests_know_their_least_p(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Where clusters or strata are exchanged, the number of pairs does not say how many pairings there are."""
    run = make_run(kept=120)
    scores = pd.read_parquet(run.folder / "scores.parquet")
    scores = scores.assign(p=1 / 501, least_p=1 / 501, p_strata=[0.3, *35 * [1 / 501]], least_p_strata=1 / 501)
    scores = scores.assign(p_cluster=scores["p_strata"], q_cluster=0.2, least_p_cluster=[1 / 6, *35 * [1 / 501]])
    scores.loc[0, "least_p_strata"] = 0.25
    scores.to_parquet(run.folder / "scores.parquet", index=False)
    run = changed(run, 500, [1 / 501] * 36)
    found = undecidable(run)
    assert (found["q"] == "").all()
    assert found["q_strata"].ne("").tolist() == [True] + 35 * [False]
    assert found["q_strata"][0] == "500 shuffles: p cannot be below 0.250"
    assert found["q_cluster"][0] == "500 shuffles: p cannot be below 0.167"
    assert (found["q_cluster"][1:] == "").all()
    assert "shuffles of clusters: 500, no p below 0.002" in " ".join(texts(run, capsys)[1].split())


def test_nulls_that_match_again_have_their_own_draws(make_run: MakeRun) -> None:
    run = make_run()
    scores = pd.read_parquet(run.folder / "scores.parquet")
    scores = scores.assign(rematch_p=1 / 30, rematch_q=1 / 30, token_p=0.5, token_q=0.5)
    scores.to_parquet(run.folder / "scores.parquet", index=False)
    again = {"draws": 29, "kept": [4] * 29, "mean_correlation": [0.2] * 29, "same": [1] * 29}
    again |= {"p_kept": 0.5, "p_mean_correlation": 0.5}
    run = changed(run, 500, rematch=again, same_token=again | {"draws": 9, "kept": [4] * 9})
    found = undecidable(run)
    assert (found["rematch_q"] == "").all()
    assert (found["token_q"] == "9 draws: p cannot be below 0.100").all()
    assert found["subset_q"].eq("").all(), "not tested"


def test_draws_that_were_spared_are_said(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    scores = pd.read_parquet(run.folder / "scores.parquet")
    early = np.arange(len(scores)) < 8
    scores = scores.assign(token_p=0.5, token_q=0.5, token_draws=np.where(early, 40, 99), token_stopped=early)
    scores.to_parquet(run.folder / "scores.parquet", index=False)
    with (run.folder / "study.yaml").open("a") as study:
        study.write("inference: {permutations: 500, enough: 10, same_token: 99}\n")
    again = {"draws": 40, "asked": 99, "stopped": True, "kept": [4] * 40, "mean_correlation": [0.2] * 40}
    run = changed(run, 500, same_token=again | {"same": [1] * 40, "p_kept": 0.5, "p_mean_correlation": 0.5})
    # What counts is how many draws there could have been.
    assert undecidable(run)["token_q"].str.startswith("99 draws: p cannot be below 0.010, nor q among").all()
    _, terminal, page = texts(run, capsys)
    for text in (page, " ".join(terminal.split())):
        assert "same token: 99, no p below 0.010 (8 of 36 settled early)" in text
    assert "because 10 draws had reached its score; p is then 10 over" in page
    cells = len(run.info["pairs"])
    assert f"Stopped: same token, {cells} of {cells} pairs of spaces and 8 scores." in page
    assert "40 of 99 draws, so no p is below 0.010" in page


def test_an_exact_test_of_few_features_could_not_have_been_significant(make_run: MakeRun) -> None:
    """Two of eight features are in the category, and half are matched: the least Fisher p is 12 / 28 or 6 / 28 each."""
    matched, inside = np.arange(8) < 4, np.isin(np.arange(8), [0, 1])
    found = rate_test(matched, inside, np.ones(8), bins=1)
    assert found.p == found.least_p == pytest.approx(12 / 28)
    many = rate_test(np.arange(80) < 40, np.arange(80) % 2 == 0, np.ones(80), bins=1)
    assert many.p == pytest.approx(1.0)
    assert many.least_p < 1e-20
    run = make_run()
    a, b = run.info["pairs"][0]["space_a"], run.info["pairs"][0]["space_b"]
    rates = pd.DataFrame({"space_a": a, "space_b": b, "p": [found.p, many.p], "least_p": [found.least_p, many.least_p]})
    run.__dict__["rates"] = rates
    assert undecidable_rates(run).tolist() == ["so few features: p cannot be below 0.429", ""]


def test_older_runs_say_nothing_of_it(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    (run.folder / "study.yaml").unlink()
    assert (undecidable(run) == "").all(axis=None)
    assert measures(run)


def test_a_tally_leaves_out_what_was_not_tested() -> None:
    table = pd.DataFrame({"q": [0.01, 0.2, 0.4, np.nan], "undecidable": ["", "", "why", ""]})
    assert str(tally(table)) == "1 of 2, 1 undecidable"
    assert str(tally(table.iloc[:2])) == "1 of 2"
    assert str(tally(table.iloc[2:])) == "undecidable"
