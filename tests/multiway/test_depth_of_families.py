"""Streams of layers: how long features last and where partners stand, against planted truth and plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from unifeat.multiway import find_families
from unifeat.multiway.depth import Layer, correspondence, partner_depths, passages, spans, streams

LAYERS = {f"a@{n}": Layer("a", n) for n in (3, 6, 9, 12)} | {f"b@{n}": Layer("b", n) for n in (2, 4, 6)}


def one(a, b, r=0.9):
    n = len(a)
    return pd.DataFrame({"feature_a": a, "feature_b": b, "correlation": np.broadcast_to(r, n)})


@pytest.fixture
def found():
    """Feature 0 lives from a@3 to a@9, 1 from a@6 on, 2 skips a@9; 5 and 6 are b's partners of 0 and 1."""
    pairs = {
        ("a@3", "a@6"): one([0, 2], [0, 2]),
        ("a@6", "a@9"): one([0, 1], [0, 1]),
        ("a@9", "a@12"): one([1], [1]),
        ("a@6", "a@12"): one([2], [2]),
        ("a@3", "b@2"): one([0], [5], 0.5),
        ("a@9", "b@6"): one([1], [6], 0.5),
    }
    return find_families(pairs, "components", spaces=[*list(LAYERS)[:4], "b@2", "b@6"])


def test_streams_are_models_with_several_layers():
    more = {"b2@4": Layer("b", 4), "c@1": Layer("c", 1)}
    shuffled = {name: (LAYERS | more)[name] for name in ["b@6", "a@9", *LAYERS, *more]}
    assert streams(shuffled) == {"a": ["a@3", "a@6", "a@9", "a@12"], "b": ["b@2", "b@4", "b@6"]}


def test_where_a_feature_first_appears_and_how_long_it_lasts(found):
    table = spans(found, LAYERS)
    lives = {tuple(row) for row in table[["model", "first", "last", "layers", "missing"]].itertuples(index=False)}
    assert lives == {("a", 3, 9, 3, 0), ("a", 6, 12, 3, 0), ("a", 3, 12, 3, 1), ("b", 2, 2, 1, 0), ("b", 6, 6, 1, 0)}
    assert len(table) == 5
    for row in table.itertuples():
        own = found.table.set_index("family").loc[row.family]
        held = [LAYERS[name].layer for name in found.spaces if name.startswith(row.model) and own[name] is not pd.NA]
        assert (row.first, row.last, row.layers) == (min(held), max(held), len(held))


def test_passages_from_layer_to_layer(found):
    of_a = passages(found, LAYERS).query("model == 'a'")
    assert of_a[["stay", "end", "begin"]].to_numpy().tolist() == [[2, 0, 1], [2, 0, 0], [1, 1, 0]]
    assert of_a["next"].tolist() == ["a@6", "a@9", "a@12"]


def test_nothing_to_follow():
    alone = find_families({("a@3", "c"): one([0], [0])})
    layers = {"a@3": Layer("a", 3), "c": Layer("c", 1)}
    assert spans(alone, layers).empty
    assert passages(alone, layers).empty
    depths = partner_depths({("a@3", "c"): one([0], [0])}, layers, "a", "c")
    assert depths.empty
    nothing = correspondence(depths, draws=10)
    assert nothing.layers.empty
    assert np.isnan(nothing.order)


def test_the_strongest_partner_counts_from_either_side():
    pairs = {
        ("a@3", "b@2"): one([0, 1], [7, 8], [0.4, 0.9]),
        ("b@4", "a@3"): one([3, 4], [0, 1], [0.8, 0.9]),
        ("a@6", "b@6"): one([0], [1]),
    }
    depths = partner_depths(pairs, LAYERS, "a", "b")
    rows = depths[["space_a", "feature_a", "layer_a", "space_b", "layer_b", "r"]].to_numpy().tolist()
    # Of two that are as strong, the one at the earlier layer.
    assert rows == [["a@3", 0, 3, "b@4", 4, 0.8], ["a@3", 1, 3, "b@2", 2, 0.9], ["a@6", 0, 6, "b@6", 6, 0.9]]
    back = partner_depths(pairs, LAYERS, "b", "a")
    assert set(zip(back["space_a"], back["layer_b"], strict=True)) == {("b@2", 3), ("b@4", 3), ("b@6", 6)}


def planted_depths(rng, families=400, slope=0.5, spread=1.0, last=3):
    """Families of A's layers 0 to 11 whose partners stand at about half that depth; each lasts for some layers."""
    rows = []
    for family in range(families):
        first = int(rng.integers(0, 12))
        off = rng.normal(0, spread)
        for layer in range(first, min(first + last, 12)):
            rows.append([family, layer, int(np.clip(round(slope * layer + off), 0, 8))])
    return pd.DataFrame(rows, columns=["family", "layer_a", "layer_b"])


def test_the_ridge_of_two_depths_is_found():
    depths = planted_depths(np.random.default_rng(0), spread=0.5)
    found = correspondence(depths, depths["family"].to_numpy(), draws=200)
    inner = found.layers.query("layer_a >= 2")
    assert (np.abs(inner["mean"] - inner["layer_a"] / 2) < 0.3).all()
    assert ((inner["low"] <= inner["mean"]) & (inner["mean"] <= inner["high"])).all()
    assert found.low < found.order < found.high
    assert found.order > 0.8
    assert found.layers["features"].sum() == len(depths)
    own = depths[depths["layer_a"] == 5]["layer_b"]
    row = found.layers.set_index("layer_a").loc[5]
    assert row["mean"] == pytest.approx(own.mean())
    assert row["mode"] == own.mode().iloc[0]
    assert found.order == pytest.approx(stats.spearmanr(depths["layer_a"], depths["layer_b"])[0])


def test_without_a_ridge_there_is_no_order():
    rng = np.random.default_rng(1)
    depths = pd.DataFrame({"layer_a": rng.integers(0, 6, 500), "layer_b": rng.integers(0, 6, 500)})
    found = correspondence(depths, draws=200)
    assert found.low < 0 < found.high
    assert np.isnan(correspondence(depths.assign(layer_b=3), draws=20).order)


def test_families_that_last_are_drawn_whole():
    """Intervals cover when whole families are drawn; rows drawn one by one claim too much."""
    truth = planted_depths(np.random.default_rng(99), families=40_000)
    expected = truth[truth["layer_a"] == 6]["layer_b"].mean()
    order = stats.spearmanr(truth["layer_a"], truth["layer_b"])[0]
    inside = wide = narrow = 0
    studies = 40
    for seed in range(studies):
        depths = planted_depths(np.random.default_rng(seed), families=120)
        found = correspondence(depths, depths["family"].to_numpy(), draws=100, seed=seed)
        row = found.layers.set_index("layer_a").loc[6]
        inside += row["low"] <= expected <= row["high"]
        wide += found.low <= order <= found.high
        by_row = correspondence(depths, draws=100, seed=seed)
        narrow += by_row.low <= order <= by_row.high
    assert inside >= 33  # of 40 at a rate of 0.95: below 33 with a probability of 0.0007
    assert wide >= 33
    assert narrow < wide
