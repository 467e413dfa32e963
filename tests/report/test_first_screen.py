"""The first screen: some shared features drawn at random, and every comparison beside chance and controls."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from unifeat.inference.nulls import AGAIN
from unifeat.report.figures.controls import controls_figure
from unifeat.report.some_pairs import some_pairs
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
    names = figure["layout"]["yaxis"]["categoryarray"][::-1]
    assert len(names) == len(group_pairs(run))
    for (a, b), name in zip(group_pairs(run), names, strict=True):
        assert name.startswith(f"{a} × {b}")
        own = table[(table["group_a"] == a) & (table["group_b"] == b)]
        of_name = [trace for trace in figure["data"] if set(trace["y"]) == {name}]
        dots = [t for t in of_name if t["xaxis"] == "x" and t["marker"].get("symbol") is None]
        assert [sorted(t["x"]) for t in dots] == [sorted(own["kept"])]
        ticks = [t for t in of_name if t["xaxis"] == "x" and t["marker"].get("symbol") == "line-ns-open"]
        nulls = [name for name in AGAIN if name in own]
        assert len(ticks) == len(nulls)
        for trace, null in zip(ticks, nulls, strict=True):
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
