"""The strongest places of features, and what fires around a place, beside plain loops over dense codes."""

import numpy as np
import pytest

from stores import dense_of, places, random_dense, shard_of, written
from unifeat.codes.peaks import Peaks, fired, passages, strongest
from worlds import FEATURES, make_world

FEATURES_OF_STORE = 32


@pytest.fixture
def store(tmp_path):
    """Two shards of two documents each, values of both signs, several tokens ending at one character."""
    rng = np.random.default_rng(0)
    shards = []
    for number in range(2):
        end = np.sort(rng.integers(1, 200, 80))
        where = places(np.repeat([2 * number, 2 * number + 1], 40), np.concatenate([end[:40], np.sort(end[40:])]))
        shards.append(shard_of(random_dense(rng, 80), where))
    return written(tmp_path, shards, cut=[10_000, 10_000])


def all_rows(store):
    """Documents, character ends and dense codes of a whole store."""
    shards = list(store.shards())
    document = np.concatenate([np.array(shard.places.document) for shard in shards])
    end = np.concatenate([np.array(shard.places.char_end) for shard in shards])
    return document, end, np.concatenate([dense_of(shard) for shard in shards])


@pytest.mark.parametrize(("n", "apart"), [(1, 1), (3, 30), (5, 70), (4, 10**6)])
def test_strongest_places(store, n, apart):
    document, end, codes = all_rows(store)
    found = strongest(store, n, apart)
    assert (np.diff(found.feature) >= 0).all()
    for feature in range(FEATURES_OF_STORE):
        expected = []
        rows = np.flatnonzero(codes[:, feature])
        # (a shard is searched by itself, so that places of different documents never come too near)
        for row in rows[np.argsort(-codes[rows, feature], kind="stable")]:
            near = any(d == document[row] and abs(e - end[row]) < apart for d, e, _ in expected)
            if len(expected) < n and not near:
                expected.append((document[row], end[row], codes[row, feature]))
        own = found.feature == feature
        assert list(zip(found.document[own], found.char_end[own], found.value[own], strict=True)) == expected


def test_equal_values_keep_their_order(tmp_path):
    dense = np.zeros((6, 32), np.float32)
    dense[[0, 2, 4, 5], 3] = 2.0
    store = written(tmp_path, [shard_of(dense, places([0] * 6, 100 * np.arange(1, 7)))], cut=[10_000, 10_000])
    assert strongest(store, 3, 1).char_end.tolist() == [100, 300, 500]


def test_nothing_fires(tmp_path):
    store = written(tmp_path, [shard_of(np.zeros((4, 32), np.float32), places([0] * 4, [1, 2, 3, 4]))], cut=[50, 50])
    found = strongest(store, 3, 1)
    assert all(len(array) == 0 for array in found)
    around = fired(store, found.feature, found, 10)
    assert len(around.count) == len(around.token) == 0


@pytest.mark.parametrize("around", [5, 70, 1000])
def test_what_fires_around_a_place(store, around):
    document, end, codes = all_rows(store)
    peaks = strongest(store, 3, 1)
    wanted = (peaks.feature + 5) % FEATURES_OF_STORE
    wanted[::7] = -1
    found = fired(store, wanted, peaks, around)
    at = 0
    for i, (d, e) in enumerate(zip(peaks.document, peaks.char_end, strict=True)):
        inside = np.flatnonzero((document == d) & (end > max(e - around, 0)) & (end <= e + around))
        hits = np.flatnonzero(codes[inside, wanted[i]]) if wanted[i] >= 0 else np.zeros(0, int)
        count = found.count[i]
        assert found.token[at : at + count].tolist() == hits.tolist()
        assert np.array_equal(found.value[at : at + count], codes[inside[hits], wanted[i]])
        at += count
    assert at == len(found.token)


def test_windows_stay_within_their_part():
    peaks = Peaks(*(np.array(x) for x in ([0] * 4, [0] * 4, [0] * 4, [100, 101, 5, 199], [1.0] * 4)))
    low, high = peaks.reach(10, 100)
    # (A token that ends where one part ends belongs to that part.)
    assert low.tolist() == [90, 100, 0, 189]
    assert high.tolist() == [100, 111, 15, 200]


def test_in_a_run(tmp_path):
    world = make_world(tmp_path / "world")
    """Documents of several parts and shards; features that never fire."""
    document, end, codes = world.rows[0]
    found = strongest(world.stores[0], 4, 50)
    fires = {f for f in range(FEATURES) if codes[:, f].any()}
    assert set(found.feature.tolist()) == fires
    for feature in fires:
        own = found.feature == feature
        best = codes[:, feature].argmax()
        assert (found.document[own][0], found.char_end[own][0]) == (document[best], end[best])


@pytest.mark.parametrize("around", [0, 3, 200])
def test_passages_are_the_tokens_around(store, around):
    document, end, codes = all_rows(store)
    token = np.concatenate([np.array(shard.places.token) for shard in store.shards()])
    peaks = strongest(store, 4, 30)
    found = passages(store, peaks, around)
    assert len(found) == len(peaks.feature) > 50
    for feature, own, where, value, passage in zip(
        peaks.feature, peaks.document, peaks.char_end, peaks.value, found, strict=True
    ):
        here = np.flatnonzero(document == own)
        (row,) = [r for r in here[end[here] == where] if codes[r, feature] == value][:1]
        near = here[(here >= row - around) & (here <= row + around)]
        assert np.array_equal(passage.token, token[near])
        assert np.array_equal(passage.value, codes[near, feature])
        assert near[passage.at] == row
