"""Procrustes similarity against scipy's two, in-sample and fold by fold."""

from itertools import permutations

import numpy as np
import pytest
from scipy import spatial
from scipy.linalg import orthogonal_procrustes, sqrtm

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, procrustes
from unifeat.geometry._folds import held_out


def padded(x, y):
    """Centred, of norm 1, the narrower with columns of zeros."""
    width = max(x.shape[1], y.shape[1])
    sides = []
    for side in (x, y):
        side = np.pad(side - side.mean(0), ((0, 0), (0, width - side.shape[1])))
        sides.append(side / np.linalg.norm(side))
    return sides


@pytest.mark.parametrize("n", [2, 5, 15, 60, 300])
@pytest.mark.parametrize(("d_a", "d_b"), [(12, 12), (12, 17), (40, 3)])
def test_equals_scipys_orthogonal_procrustes(n, d_a, d_b, views):
    x, y = views(n=n, d_a=d_a, d_b=d_b)
    a, b = padded(x, y)
    rotation, nuclear = orthogonal_procrustes(a, b)
    score = procrustes(x, y)
    assert float(score) == pytest.approx(nuclear, abs=1e-10)
    assert float(score) == pytest.approx(np.sum((a @ rotation) * b), abs=1e-10)
    assert float(score) == pytest.approx(1 - np.sum((a @ rotation - b) ** 2) / 2, abs=1e-10)
    assert score.details["angle"] == pytest.approx(np.arccos(min(1, nuclear)), abs=1e-6)


def test_residual_is_the_disparity_of_scipy(views):
    x, y = views(d_b=12)
    assert procrustes(x, y).details["residual"] == pytest.approx(spatial.procrustes(x, y)[2], abs=1e-12)
    assert procrustes(x, y).settings == {"heldout": False}


def test_is_the_normalised_bures_similarity_of_the_gram_matrices(views):
    x, y = views(n=20, d_a=30, d_b=25)
    k, l = (m @ m.T for m in padded(x, y))
    root = np.real(sqrtm(k + 1e-15 * np.eye(20)))
    assert float(procrustes(x, y)) == pytest.approx(np.trace(np.real(sqrtm(root @ l @ root))), abs=1e-5)


@pytest.mark.parametrize(("d_a", "d_b", "folds"), [(12, 12, 5), (12, 17, 5), (17, 12, 3)])
def test_heldout_equals_scipys_map_of_each_fold(d_a, d_b, folds, views):
    x, y = views(n=90, d_a=d_a, d_b=d_b)
    a, b = padded(x, y)
    expected = []
    for test in held_out(90, folds, 4)[0]:
        train = np.setdiff1d(np.arange(90), test)
        rotation, _ = orthogonal_procrustes(a[train] - a[train].mean(0), b[train] - b[train].mean(0))
        left, right = a[test] - a[test].mean(0), b[test] - b[test].mean(0)
        expected.append(np.sum((left @ rotation) * right) / np.linalg.norm(left) / np.linalg.norm(right))
    score = procrustes(x, y, heldout=True, folds=folds, seed=4)
    np.testing.assert_allclose(score.details["by_fold"], expected, atol=1e-9)
    assert float(score) == pytest.approx(np.mean(expected), abs=1e-9)
    assert score.settings == {"heldout": True, "folds": folds, "seed": 4}


@pytest.mark.parametrize(("n", "d"), [(6, 2), (6, 11)])
def test_the_heldout_mean_over_every_pairing_is_exactly_zero(n, d):
    rng = np.random.default_rng(d)
    x, y = rng.lognormal(size=(n, d)), rng.standard_normal((n, d + 1))
    prepared = MEASURES["procrustes"].prepare(x, y, heldout=True, folds=3)
    values = [prepared.shuffled(np.array(order)) for order in permutations(range(n))]
    assert np.std(values) > 0.05
    assert np.mean(values) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("n", [8, 40, 200])
def test_unrelated_sides_are_inflated_in_sample_and_not_held_out(n):
    rng = np.random.default_rng(n)
    pairs = [(rng.standard_normal((n, 20)), rng.standard_normal((n, 30))) for _ in range(60)]
    held = [float(procrustes(x, y, heldout=True)) for x, y in pairs]
    assert abs(np.mean(held)) < 4 * np.std(held) / np.sqrt(60)
    assert np.mean([float(procrustes(x, y)) for x, y in pairs]) > 0.25


def test_a_rotated_scaled_copy_is_recognised_on_unseen_pairs():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 8))
    rotation = np.linalg.qr(rng.standard_normal((11, 11)))[0][:8]
    for heldout in (False, True):
        assert float(procrustes(x, 3 * x @ rotation + 1, heldout=heldout)) == pytest.approx(1.0, abs=1e-10)


def test_degenerate_sizes_are_flagged(views):
    def codes(score):
        return [flag.split(":")[0] for flag in score.flags]

    assert codes(procrustes(*views(n=60))) == []
    assert codes(procrustes(*views(n=12))) == ["n <= d"]
    assert codes(procrustes(*views(n=2))) == ["n <= d", "saturated"]
    assert codes(procrustes(*views(n=2, d_a=1, d_b=1))) == ["saturated"]
    assert float(procrustes(*views(n=2, d_a=1, d_b=1))) == pytest.approx(1.0)
    assert codes(procrustes(*views(n=8), heldout=True)) == ["folds", "n <= d"]
    assert float(procrustes(*views(n=8, noise=9), heldout=True)) < 0.6


def test_bad_settings_are_named(views):
    with pytest.raises(UserError, match="procrustes heldout='yes'"):
        procrustes(*views(), heldout="yes")
    with pytest.raises(UserError, match="procrustes folds=1"):
        procrustes(*views(), folds=1)
    with pytest.raises(UserError, match="3 pairs are too few: held-out Procrustes needs at least 4"):
        procrustes(*views(n=3), heldout=True)
