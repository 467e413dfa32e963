"""Planted families: what was asked for is there, and methods find it; recovery against plain counting."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import unifeat as uf
from unifeat.errors import UserError
from unifeat.multiway import METHODS
from unifeat.synthetic import plant_families


def pairs_of(world):
    return {
        (a, b): uf.match(uf.correlate(world.codes[a], world.codes[b], top=1), min_correlation=0.1)
        for a, b in combinations(world.codes, 2)
    }


def test_features_of_one_concept_fire_together_and_others_do_not():
    world = plant_families(spaces=3, features=40, families=20, n_tokens=8000, topicality=0.0, split=0.3, seed=1)
    for (a, b), (i, j) in zip(combinations(world.codes, 2), combinations(range(3), 2), strict=True):
        r = np.corrcoef(world.codes[a].toarray().T, world.codes[b].toarray().T)[:40, 40:]
        one, other = world.concept[a][:, None], world.concept[b][None, :]
        same = (one == other) & (one >= 0)
        assert same.sum() >= (world.has[:, i] & world.has[:, j]).sum()
        assert r[same].min() > 0.1
        assert np.quantile(r[~same], 0.99) < 0.1
    for i, name in enumerate(world.codes):
        parts = np.bincount(world.concept[name] + 1, minlength=21)[1:]
        assert (parts == np.where(world.split[:, i], 2, world.has[:, i])).all()


def test_shares_are_those_asked_for_and_every_family_has_two_spaces():
    world = plant_families(spaces=10, families=400, features=500, presence=0.3, split=0.2, n_tokens=500, documents=5)
    assert world.has.sum(axis=1).min() >= 2
    assert world.has.mean() == pytest.approx((2 + 8 * 0.3) / 10, abs=0.02)  # two are there for certain
    assert world.split[world.has].mean() == pytest.approx(0.2, abs=0.03)
    assert not (world.split & ~world.has).any()


def test_the_same_seed_gives_the_same_spaces():
    settings = {"spaces": 3, "n_tokens": 500, "documents": 5, "features": 30, "families": 10, "noise": 0.3}
    one, again, other = (plant_families(**settings, seed=seed) for seed in (1, 1, 2))
    assert all((one.codes[name] != again.codes[name]).nnz == 0 for name in one.codes)
    assert any((one.codes[name] != other.codes[name]).nnz for name in one.codes)
    assert plant_families(**one.settings).concept["s1"].tolist() == one.concept["s1"].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_clean_families_are_found(method):
    world = plant_families(
        features=80, families=40, n_tokens=6000, presence=0.9, topicality=0.2, frequency=0.03, seed=2
    )
    found = world.recovery(uf.families(pairs_of(world), method))
    assert found.precision > 0.9
    assert found.recall > 0.97
    assert found.whole > 0.85


def test_what_each_method_is_good_for():
    """Chance joins families by components; lost firings tear cliques apart; consistent families stand in between."""
    chance, torn = [], []
    for seed in range(2):
        sparse = plant_families(spaces=5, features=80, families=50, n_tokens=6000, presence=0.3, seed=seed)
        noisy = plant_families(spaces=5, features=80, families=50, n_tokens=6000, dropout=0.6, seed=seed)
        for world, found in ((sparse, chance), (noisy, torn)):
            pairs = pairs_of(world)
            found.append(
                [world.recovery(uf.families(pairs, method)) for method in ("cliques", "consistent", "components")]
            )
    precision = np.mean([[own.precision for own in row] for row in chance], axis=0)
    recall = np.mean([[own.recall for own in row] for row in torn], axis=0)
    assert precision[0] >= precision[1] > precision[2] + 0.05
    assert recall[0] + 0.02 < recall[1] < recall[2]


def test_recovery_against_plain_counting():
    world = plant_families(spaces=3, features=12, families=6, n_tokens=300, documents=3, split=0.4, seed=4)
    rng = np.random.default_rng(0)
    rows = [[rng.choice([-1, *rng.permutation(12)[:3]]) for _ in range(3)] for _ in range(40)]
    names = tuple(world.codes)
    table = pd.DataFrame({name: pd.array([r[i] for r in rows], dtype="Int32") for i, name in enumerate(names)})
    table = table.mask(table < 0)
    found = world.recovery(SimpleNamespace(spaces=names, table=table))
    right = given = 0
    together, whole = set(), set()
    for row in rows:
        kinds = {i: int(world.concept[names[i]][f]) for i, f in enumerate(row) if f >= 0}
        for i, j in combinations(sorted(kinds), 2):
            given += 1
            if kinds[i] == kinds[j] >= 0:
                right += 1
                together.add((kinds[i], i, j))
        for concept in range(6):
            if set(kinds.values()) == {concept} and set(kinds) == set(np.flatnonzero(world.has[concept])):
                whole.add(concept)
    true = sum(int(world.has[:, i].astype(int) @ world.has[:, j]) for i, j in combinations(range(3), 2))
    assert found == pytest.approx((right / given, len(together) / true, len(whole) / 6))
    assert 0 < found.precision < 1


def test_nothing_found_and_nothing_there():
    world = plant_families(spaces=2, features=5, families=0, n_tokens=100, documents=2)
    empty = uf.families({("s0", "s1"): pd.DataFrame({"feature_a": [], "feature_b": [], "correlation": []})})
    assert np.isnan(world.recovery(empty)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spaces": 1}, "spaces=1"),
        ({"presence": 1.5}, "from 0 to 1"),
        ({"families": 300}, "do not fit"),
        ({"documents": 10, "n_tokens": 5}, "more than n_tokens"),
        ({"split": True}, "split=True"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        plant_families(**settings)
