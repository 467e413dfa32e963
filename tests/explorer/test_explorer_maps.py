"""Maps: exact neighbours, UMAP on planted groups, and turning one map towards another."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors

from stores import places, shard_of, written
from unifeat.explorer.gather import _on_grid, turned
from unifeat.explorer.maps import NEIGHBOURS, map_of_codes, map_of_rows, nearest


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_nearest_are_exact(monkeypatch):
    monkeypatch.setattr("unifeat.explorer.maps._BLOCK", 64)
    rows = unit(np.random.default_rng(0).standard_normal((150, 12)))
    index, distance = nearest(rows, 7)
    expected, where = NearestNeighbors(n_neighbors=7, metric="cosine").fit(rows).kneighbors(rows)
    assert np.array_equal(index, where)
    assert np.allclose(distance, expected, atol=1e-6)


def test_copies_are_their_own_first_neighbours():
    rows = np.repeat(unit(np.random.default_rng(0).standard_normal((3, 5))), 6, axis=0)
    index, distance = nearest(rows, 4)
    assert np.array_equal(index[:, 0], np.arange(18))
    assert (distance >= 0).all()


def planted(groups: int = 3, each: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(groups), each)
    return unit(3 * np.eye(groups, 10)[group] + 0.4 * rng.standard_normal((len(group), 10))), group


def apart(place: np.ndarray, group: np.ndarray) -> float:
    """Share of points whose nearest other point is of their own group."""
    known = np.isfinite(place).all(axis=1)
    where = NearestNeighbors(n_neighbors=2).fit(place[known]).kneighbors(return_distance=False, n_neighbors=1)[:, 0]
    return float((group[known][where] == group[known]).mean())


def test_planted_groups_lie_together():
    rows, group = planted()
    rows[5] = 0
    found = map_of_rows(rows)
    assert np.isnan(found[5]).all()
    assert np.isfinite(np.delete(found, 5, axis=0)).all()
    assert apart(found, group) > 0.95
    assert np.array_equal(found, map_of_rows(rows), equal_nan=True), "the same map each time"


def test_features_that_fire_together_lie_together(tmp_path):
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(3), 24)
    cause = rng.random((600, 3)) < 0.2
    dense = (cause[:, group] & (rng.random((600, 72)) < 0.8)) * rng.random((600, 72))
    dense[:, 7] = 0  # never fires
    shard = shard_of(dense.astype(np.float32), places([0] * 600, np.arange(1, 601)))
    found = map_of_codes(written(tmp_path, [shard], d_sae=72))
    assert np.flatnonzero(np.isnan(found[:, 0])).tolist() == [7]
    assert apart(found, group) > 0.95


def test_too_few_for_a_map():
    assert np.isnan(map_of_rows(unit(np.random.default_rng(0).standard_normal((NEIGHBOURS + 1, 4))))).all()
    assert map_of_rows(np.zeros((0, 4), np.float32)).shape == (0, 2)


@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_towards_the_other_map(mirrored):
    rng = np.random.default_rng(0)
    place = rng.standard_normal((50, 2)).astype(np.float32)
    turn = np.array([[np.cos(2), -np.sin(2)], [np.sin(2), np.cos(2)]]) @ np.diag([1, -1 if mirrored else 1])
    order = rng.permutation(50)
    other = (4 * place @ turn + [3, -7])[np.argsort(order)].astype(np.float32)
    pairs = pd.DataFrame({"feature_a": np.argsort(order).argsort(), "feature_b": np.arange(50), "kept": True})
    assert np.array_equal(other[pairs["feature_a"]], (4 * place @ turn + [3, -7]).astype(np.float32))
    found = turned(place, other, pairs)
    assert np.allclose(found, place @ turn, atol=1e-4)
    few = pairs.assign(kept=pairs.index < 2)
    assert np.array_equal(turned(place, other, few), place)


def test_on_grid():
    place = np.array([[0, 0], [4, 1], [np.nan, np.nan], [2, -1]], np.float32)
    found = _on_grid(place)
    assert found[2].tolist() == [65535, 65535]
    assert found[:, 0].tolist()[:2] == [0, 65534]
    assert int(found[1, 1]) - int(found[3, 1]) == pytest.approx(32767, abs=1), "one scale for both directions"
    assert (_on_grid(np.full((3, 2), np.nan, np.float32)) == 65535).all()
