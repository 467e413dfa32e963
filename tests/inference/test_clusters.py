"""Clusters of near-copies: found where they are planted and nowhere else, drawn whole, and counted."""

import numpy as np
import pytest
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

import unifeat as uf
from unifeat.errors import UserError
from unifeat.geometry import Measure, Score
from unifeat.geometry._input import as_matrix, centred
from unifeat.geometry.measure import Undefined
from unifeat.inference import clusters, effective_pairs, find_clusters, subsample_interval
from unifeat.inference.clusters import as_labels, chance_cosine
from unifeat.synthetic import plant_rows


def copies(sizes, d=(64, 48), spread=0.3, seed=0):
    """Pairs in clusters whose directions are independent between the sides, in random order, and the labels."""
    rng = np.random.default_rng([seed, 1])
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    sides = []
    for middles in plant_rows(len(sizes), *d, shared=0.0, decay=0.3, seed=seed):
        error = rng.standard_normal((labels.size, middles.shape[1]))
        rows = middles[labels] + spread * error / np.linalg.norm(error, axis=1, keepdims=True)
        sides.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return sides[0], sides[1], as_labels(labels)


def single_linkage(x, y, threshold_x, threshold_y):
    """The same rule by scipy's hierarchical clustering of all pairs at once."""
    near = False
    for side, threshold in ((x, threshold_x), (y, threshold_y)):
        rows = side - side.mean(axis=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        near = near | (np.abs(rows @ rows.T) >= threshold)
    far = 1.0 - near
    np.fill_diagonal(far, 0.0)
    return as_labels(fcluster(linkage(squareform(far), "single"), 0.5, "distance"))


def chance(side):
    rows = centred(as_matrix(side, "x"))
    return chance_cosine(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("sizes", [[1] * 30 + [2] * 20 + [9], [4] * 40, [8] * 12, [3] * 300])
def test_planted_clusters_are_found(sizes):
    x, y, labels = copies(sizes)
    found = find_clusters(x, y)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(find_clusters(x.astype(np.float32), y.astype(np.float32)), labels)


@pytest.mark.parametrize(
    ("n", "d", "decay"), [(80, 8, 0.0), (80, 16, 0.3), (200, 32, 0.3), (200, 64, 1.0), (1000, 512, 0.3)]
)
def test_unrelated_pairs_stay_alone(n, d, decay):
    """About one link by chance on both sides together, whatever n and d are."""
    lost = [n - find_clusters(*plant_rows(n, d, d, shared=0.0, decay=decay, seed=seed)).max() - 1 for seed in range(5)]
    assert np.mean(lost) <= 2.5


@pytest.mark.parametrize("block", [3, 64, 512])
@pytest.mark.parametrize("min_cosine", [0.5, 0.7, 0.95])
def test_it_is_single_linkage_block_by_block(block, min_cosine, monkeypatch):
    monkeypatch.setattr(clusters, "ROWS_PER_BLOCK", block)
    x, y, _ = copies([1] * 10 + [5] * 12 + [20], d=(24, 32), spread=0.25, seed=2)
    expected = single_linkage(x, y, *(max(min_cosine, chance(side)) for side in (x, y)))
    assert 1 < expected.max() + 1 < len(x)
    np.testing.assert_array_equal(find_clusters(x, y, min_cosine=min_cosine), expected)


def test_copies_on_either_side_and_opposite_rows_are_linked():
    x, y = plant_rows(60, 64, 48, shared=0.0, seed=3)
    x[7], y[12], x[20], x[30] = x[4], y[7], -x[21], 5 * x[31]
    expected = np.arange(60)
    expected[[7, 12]], expected[21], expected[31] = 4, 20, 30
    np.testing.assert_array_equal(find_clusters(x, y), as_labels(expected))


def test_what_all_rows_have_in_common_makes_no_cluster():
    x, y, labels = copies([1] * 40 + [3] * 20, seed=4)
    assert np.median((x + 2 * y[0, 0] + 1) @ (x + 2 * y[0, 0] + 1).T) > 0.9  # nearly parallel, were it not for the mean
    np.testing.assert_array_equal(find_clusters(x + 2 * y[0, 0] + 1, y), labels)


def test_neighbours_on_a_curve_are_one_cluster():
    """The danger of single linkage, as the docstring says: rows along an arc in many dimensions, its ends far apart."""
    rng = np.random.default_rng(0)
    x, y = plant_rows(100, 64, 48, shared=0.0, seed=5)
    basis = np.linalg.qr(rng.standard_normal((64, 2)))[0]
    angle = np.linspace(0, np.pi / 2, 12)
    x[:12] = np.column_stack([np.cos(angle), np.sin(angle)]) @ basis.T
    sizes = np.bincount(find_clusters(x, y))
    assert sizes.max() == 12
    assert (sizes == 1).sum() == 88


def test_links_join_too():
    x, y = plant_rows(30, 64, 48, shared=0.0, seed=6)
    links = sparse.csr_array(([1.0, 0.8, 0.0], ([0, 5, 7], [5, 9, 8])), shape=(30, 30))
    expected = np.arange(30)
    expected[[5, 9]] = 0
    np.testing.assert_array_equal(find_clusters(x, y, links=[links]), as_labels(expected))
    more = sparse.coo_matrix(([True], ([20], [9])), shape=(30, 30))
    expected[20] = 0
    np.testing.assert_array_equal(find_clusters(x, y, links=[links, more]), as_labels(expected))


@pytest.mark.parametrize(("n", "d"), [(20, 3), (30, 8), (40, 100)])
def test_the_chance_level_is_reached_once_in_n_squared(n, d):
    rng = np.random.default_rng([n, d])
    levels, rows = [], rng.standard_normal((100_000, 2, d))
    for _ in range(30):
        some = rng.standard_normal((n, d))
        levels.append(chance_cosine(some / np.linalg.norm(some, axis=1, keepdims=True)))
    cosines = np.abs(np.einsum("nd,nd->n", rows[:, 0], rows[:, 1])) / np.linalg.norm(rows, axis=2).prod(axis=1)
    assert 0.4 < np.mean(cosines > np.median(levels)) * n**2 < 2.5


def test_rows_on_one_line_are_told_apart_by_nothing():
    line = np.sign(np.random.default_rng(0).standard_normal((20, 1))) * np.ones((1, 3)) / np.sqrt(3)
    assert chance_cosine(line) == 1.0


def test_effective_pairs():
    assert effective_pairs(np.arange(7)) == 7
    assert effective_pairs([3, 3, 3]) == 1
    assert effective_pairs(np.repeat(np.arange(10), 4)) == pytest.approx(10)
    labels = np.array([0, 0, 0, 1, 1, 2])
    same = labels[:, None] == labels[None, :]  # the covariance of pairs that repeat their cluster's value
    assert effective_pairs(labels) == pytest.approx(1 / (np.full(6, 1 / 6) @ same @ np.full(6, 1 / 6)))
    assert effective_pairs(np.zeros(0, int)) == 0


def test_labels_are_numbered_as_they_appear():
    np.testing.assert_array_equal(as_labels([9, -2, 9, 4]), [0, 1, 0, 2])


@pytest.mark.parametrize("wrong", [[0.5, 1.0], np.zeros((2, 2), int), ["a", "b"]])
def test_labels_that_are_none(wrong):
    with pytest.raises(UserError, match="clusters: give whole numbers, one for each pair"):
        effective_pairs(wrong)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_cosine": 0}, "min_cosine=0: give a number in"),
        ({"min_cosine": 1.5}, "min_cosine=1.5"),
        ({"min_cosine": True}, "min_cosine=True"),
        ({"links": [np.eye(20)]}, r"links: give sparse arrays of shape \(20, 20\)"),
        ({"links": [sparse.eye_array(19)]}, r"links: give sparse arrays of shape \(20, 20\)"),
    ],
)
def test_mistakes_are_one_clear_line(settings, words):
    with pytest.raises(UserError, match=words):
        find_clusters(*plant_rows(20, 5, 6), **settings)


# Intervals


def test_halves_hold_whole_clusters():
    seen = []

    def spy(x, y):
        seen.append(x[:, 0].astype(int))
        return Score("spy", float(np.mean(x)), {}, len(x), 1, 1)

    measure = Measure("spy", spy, lambda x, y: Undefined(spy(x, y)), ())
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(25), np.arange(1, 26) % 5 + 1))
    rows = labels[:, None].astype(float)
    interval = subsample_interval(measure, rows, rows, subsamples=40, clusters=labels + 100)
    sizes = np.bincount(labels)
    for half in seen[1:]:
        here = np.unique(half)
        assert here.size == 12
        assert half.size == sizes[here].sum()
    assert interval.clusters == 25
    assert interval.sd == pytest.approx(interval.halves.std(ddof=1) * np.sqrt(12 / 13))
    assert "few clusters: halves of 12 make a rough interval" in interval.flags


def test_clusters_of_one_change_nothing():
    x, y = plant_rows(50, 6, 9, shared=0.5, noise=0.6)
    plain = uf.subsample_interval("rsa", x, y, subsamples=12)
    alone = uf.subsample_interval("rsa", x, y, subsamples=12, clusters=np.arange(50)[::-1])
    np.testing.assert_array_equal(plain.halves, alone.halves)
    assert tuple(plain) == tuple(alone)
    assert plain.clusters == alone.clusters == 50


def test_a_mean_over_clusters_has_its_textbook_standard_error():
    """The mean of pairs that repeat their cluster's value is as uncertain as that of K values."""

    def mean(x, y):
        return Score("mean", float(np.mean(x * y)), {}, len(x), 1, 1)

    measure = Measure("mean", mean, lambda x, y: Undefined(mean(x, y)), ())
    values = np.random.default_rng(0).uniform(size=200)
    labels = np.repeat(np.arange(200), 5)
    x, y = values[labels][:, None], np.ones((1000, 1))
    interval = uf.subsample_interval(measure, x, y, subsamples=2000, clusters=labels)
    assert interval.sd == pytest.approx(values.std(ddof=1) / np.sqrt(200), rel=0.06)
    assert interval.sd > 2 * uf.subsample_interval(measure, x, y, subsamples=200).sd


def test_intervals_refuse_labels_that_do_not_fit():
    x, y = plant_rows(20, 5, 6)
    with pytest.raises(UserError, match="one for each of 20 pairs, not int64 of shape"):
        uf.subsample_interval("rsa", x, y, clusters=np.arange(19))
    with pytest.raises(UserError, match="5 clusters are too few for an interval: halves need at least 8"):
        uf.subsample_interval("rsa", x, y, clusters=np.arange(20) // 4)
