"""What features do, beside sums over dense codes."""

import numpy as np
import pytest

from stores import dense_of, places, random_dense, shard_of, written
from unifeat.codes.activity import BINS, activity, activity_unit, partner_unit
from unifeat.codes.peaks import fired


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(3)
    where = [places([n] * 90, 3 * np.arange(1, 91)) for n in range(3)]
    return written(tmp_path, [shard_of(random_dense(rng, 90), place) for place in where], cut=[10_000, 10_000])


def test_counts_and_histograms(store):
    codes = np.concatenate([dense_of(shard) for shard in store.shards()])
    found = activity(store, 3)
    assert np.array_equal(found.count, (codes != 0).sum(axis=0))
    fires = found.count > 0
    assert not fires.all(), "the last feature is silent"
    assert np.isnan(found.mean[~fires]).all()
    assert (found.high[~fires] == 0).all()
    assert (found.histogram.sum(axis=1) == found.count).all()
    for feature in np.flatnonzero(fires):
        own = codes[:, feature][codes[:, feature] != 0]
        assert (found.low[feature], found.high[feature]) == (own.min(), own.max())
        assert found.mean[feature] == pytest.approx(own.mean(), rel=1e-5)
        expected = np.histogram(own, BINS, (min(own.min(), 0), max(own.max(), 0)))[0]
        assert np.abs(found.histogram[feature] - expected).sum() <= 2, "values at an edge may fall on either side"
    assert (found.fires >= 1).all()


def test_it_is_stored(store):
    unit = activity_unit(store, 3)
    made = activity(store, 3)
    for found in (unit.result(), unit.result()):
        assert np.array_equal(found.histogram, made.histogram)
        assert np.array_equal(found.activation, made.activation)
    assert activity_unit(store, 4).piece.path != unit.piece.path


def test_partners_in_the_same_contexts(store):
    partner = np.arange(32)[::-1].copy()
    partner[:4] = -1
    found = partner_unit(store, store, partner, 3, {"pairs": "made up"}).result()
    peaks = activity_unit(store, 3).result().peaks
    expected = fired(store, partner[peaks.feature], peaks, 70)
    assert np.array_equal(found.token, expected.token)
    assert found.count[peaks.feature < 4].sum() == 0
