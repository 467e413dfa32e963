"""Mutual nearest neighbours against brute force."""

from itertools import permutations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, mutual_knn


def brute_force(x, y, k, metric):
    near = []
    for side in (x, y):
        far = cdist(side, side, metric)
        np.fill_diagonal(far, np.inf)
        near.append(np.argsort(far, axis=1)[:, :k])
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("n", "k"), [(3, 1), (12, 4), (60, 10), (60, 1), (1100, 10)])
def test_equals_brute_force(metric, n, k, views):
    x, y = views(n=n)
    score = mutual_knn(x, y, k=k, metric=metric)
    assert float(score) == pytest.approx(brute_force(x, y, k, metric), abs=1e-12)
    assert score.settings == {"k": k, "metric": metric}
    assert score.details == {"neighbours": k, "chance": k / (n - 1), "tied_a": 0, "tied_b": 0}
    assert score.flags == ()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equals_scikit_learns_neighbours(metric, views):
    x, y = views(n=200)
    near = [NearestNeighbors(n_neighbors=8, metric=metric).fit(s).kneighbors(return_distance=False) for s in (x, y)]
    expected = np.mean([len(set(a) & set(b)) / 8 for a, b in zip(*near, strict=True)])
    assert float(mutual_knn(x, y, k=8, metric=metric)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_the_mean_over_every_pairing_is_the_stated_chance(tied):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 4))
    if tied:
        x, y = np.sign(x), np.round(y)
    prepared = MEASURES["mutual_knn"].prepare(x, y, k=2, metric="euclidean")
    values = [prepared.shuffled(np.array(order)) for order in permutations(range(6))]
    assert np.mean(values) == pytest.approx(2 / 5, abs=1e-12)


def test_ties_at_the_edge_are_shared_as_if_broken_at_random():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (25, 3)).astype(float), rng.standard_normal((25, 4))
    score = mutual_knn(x, y, k=4, metric="euclidean")
    trials = []
    for _ in range(400):
        far = cdist(x, x) + 1e-6 * rng.random((25, 25))
        np.fill_diagonal(far, np.inf)
        near_y = np.argsort(cdist(y, y), axis=1)[:, 1:5]
        near_x = np.argsort(far, axis=1)[:, :4]
        trials.append(np.mean([len(set(a) & set(b)) / 4 for a, b in zip(near_x, near_y, strict=True)]))
    assert float(score) == pytest.approx(np.mean(trials), abs=4 * np.std(trials) / np.sqrt(400))
    assert score.details["tied_a"] > 10
    assert score.details["tied_b"] == 0
    assert [flag.split(":")[0] for flag in score.flags] == ["ties x"]


def test_more_neighbours_than_rows_are_cut_and_said_to_be_saturated(views):
    x, y = views(n=8)
    score = mutual_knn(x, y)
    assert float(score) == pytest.approx(1.0)
    assert score.details["neighbours"] == 7
    assert [flag.split(":")[0] for flag in score.flags] == ["saturated"]
    assert mutual_knn(x, y, k=6).flags == ()


def test_rows_without_direction_leave_the_cosine_undefined(views):
    x, y = views()
    y[[3, 5]] = 0.0
    score = mutual_knn(x, y)
    assert np.isnan(float(score))
    assert score.flags == ("zero rows of y: 2 rows are zero, cosine is undefined there",)
    assert np.isfinite(float(mutual_knn(x, y, metric="euclidean")))


@pytest.mark.parametrize(
    ("settings", "words"), [({"k": 0}, "k=0"), ({"k": 2.5}, "k="), ({"metric": "cosin"}, "cosine")]
)
def test_bad_settings_are_named(settings, words, views):
    with pytest.raises(UserError, match=words):
        mutual_knn(*views(), **settings)
