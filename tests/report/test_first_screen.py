"""The first screen: some shared features drawn at random, and every comparison beside chance and controls."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd

from unifeat.inference.nulls import AGAIN
from unifeat.report.figures.controls import controls_figure
from unifeat.report.some_pairs import some_pairs
from unifeat.report.summary import summary
from unifeat.report.tables import cells, group_pairs, richest


def test_pairs_of_the_richest_cell_drawn_at_random(make_run: Any) -> None:
    run = make_run()
    best = cells(run).iloc[richest(run)]
    found = some_pairs(run)
    assert found is not None
    assert (found["space_a"], found["space_b"]) == (best["space_a"], best["space_b"])
    drawn = run.shown.query("chosen == 'random' and space_a == @best.space_a and space_b == @best.space_b")
    expected = drawn[["feature_a", "feature_b"]].head(8).to_numpy().tolist()
    assert [[side["feature"] for side in pair["sides"]] for pair in found["pairs"]] == expected
    for pair in found["pairs"]:
        for side in pair["sides"]:
            assert len(side["words"]) == len(set(side["words"]))


def test_a_dot_for_each_cell_and_ticks_for_chance(make_run: Any) -> None:
    run = make_run()
    figure, table = controls_figure(run), cells(run)
    names = figure["layout"]["yaxis"]["ticktext"]
    assert len(names) == len(group_pairs(run))
    for row, ((a, b), name) in enumerate(zip(group_pairs(run), names, strict=True)):
        assert name.startswith(f"{a} × {b}")
        own = table[(table["group_a"] == a) & (table["group_b"] == b)]
        of_name = [trace for trace in figure["data"] if {round(y) for y in trace["y"]} == {row}]
        dots = [t for t in of_name if t["xaxis"] == "x" and t["marker"].get("symbol") is None]
        assert [t["x"] for t in dots] == [own["kept"].tolist()]
        assert len(set(dots[0]["y"])) == len(own), "each pair of layers has a height of its own"
        ticks = [t for t in of_name if t["xaxis"] == "x" and t["marker"].get("symbol") == "line-ns-open"]
        nulls = [name for name in AGAIN if name in own]
        assert len(ticks) == len(nulls)
        for trace, null in zip(ticks, nulls, strict=True):
            assert trace["y"] == dots[0]["y"], "and its ticks are beside it"
            np.testing.assert_allclose(trace["x"], [np.mean(facts["kept"]) for facts in own[null]], atol=1e-4)
    axes = [axis for axis in figure["layout"] if axis.startswith("xaxis")]
    assert len(axes) >= 2
    domains = sorted(figure["layout"][axis]["domain"] for axis in axes)
    assert domains[0][0] == 0
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(domains))


def test_the_answer_comes_before_the_evidence(make_run: Any) -> None:
    run = make_run()
    from unifeat.report.html import render

    text = render(run)
    places = [text.index(what) for what in ("Which features?", 'data-figure="dots"', 'id="cell"', 'id="compared"')]
    assert places == sorted(places)


def test_the_lead_says_what_the_token_alone_gives(make_run: Any) -> None:
    """A small p against shuffled pairs must not stand alone where rows of the same token give as alike pairs."""
    run = make_run()
    token = {"token_mean": 0.144, "token_score": 0.161, "token_p": 0.175, "token_draws": 39}
    run.scores.assign(**token).to_parquet(run.folder / "scores.parquet", index=False)
    info = json.loads((run.folder / "run.json").read_text())
    best = richest(run)
    info["pairs"][best] |= {
        "rematch": {"kept": [2, 4], "same": [0, 0], "draws": 2},
        "same_token": {"kept": [30, 32], "same": [28, 28], "draws": 2},
        "beyond_token": info["pairs"][best].get("beyond_token", {})
        | {"more_than_a_token": 0.96, "mean_correlation_within_token": 0.39, "mean_token_share": 0.6},
    }
    (run.folder / "run.json").write_text(json.dumps(info))
    lead = " ".join(summary(type(run)(run.folder)).lead)
    assert "Pairs that the token alone finds are as alike: 0.14, against 0.16 for as many of these (p = 0.175)" in lead
    assert "The same rules keep 3 when the documents of one model are rearranged and 31 when rows of one model" in lead
    assert "(28 of them the very same pairs)" in lead
    assert "Of the pairs, 96 % are more than a token: they still correlate within one, at r 0.39 on average" in lead


def test_a_p_that_no_draw_could_lower_is_a_bound(make_run: Any) -> None:
    run = make_run()
    run.scores.assign(p=1 / 501).to_parquet(run.folder / "scores.parquet", index=False)
    assert "(p ≤ 0.002)" in summary(type(run)(run.folder)).lead[-1]
    run.scores.assign(p=0.04).to_parquet(run.folder / "scores.parquet", index=False)
    assert "(p = 0.040)" in summary(type(run)(run.folder)).lead[-1]


def test_figures_at_the_top_are_those_between_the_models(make_run: Any) -> None:
    from unifeat.report.html import render

    run = make_run(groups={"a": [1, 2], "b": [3], "noise": [1]}, kept=40)
    info = json.loads((run.folder / "run.json").read_text())
    info["spaces"]["noise@1"]["control"] = "random weights"
    (run.folder / "run.json").write_text(json.dumps(info))
    changed = type(run)(run.folder)
    kept = [pair["kept"] for pair in info["pairs"] if "noise@1" not in pair.values()]
    text = render(changed)
    assert f"<dt>feature pairs kept</dt><dd>{sum(kept)}</dd>" in text
    assert f"<dt>ceilings and controls beside them</dt><dd>{len(info['pairs']) - len(kept)}</dd>" in text


def test_the_picture_has_whole_measures_first(make_run: Any) -> None:
    """RSA with the embeddings taken out comes after RSA in the tables, and would push CKA out of the picture."""
    run = make_run()
    own = run.scores[run.scores["metric"] == "rsa"]
    more = own.assign(settings='{"given": ["token_embeddings"]}')
    pd.concat([run.scores, more]).to_parquet(run.folder / "scores.parquet", index=False)
    titles = [note["text"] for note in controls_figure(type(run)(run.folder))["layout"]["annotations"]]
    assert {"pairs kept", "RSA", "CKA"} <= {*titles}
    assert not any("given" in title for title in titles)
