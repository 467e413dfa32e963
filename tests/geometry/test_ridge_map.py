"""The ridge map against scikit-learn's Ridge, fold by fold."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, _pairs, ridge_map
from unifeat.geometry._folds import held_out
from unifeat.geometry._ridge_map import PreparedRidgeMap
from unifeat.geometry._ridge_moments import PreparedByMoments


def by_scikit_learn(x, y, alpha, folds, seed):
    """R² of y from x over all pairs, each predicted by the fold that held it out."""
    n = len(x)
    wrong = whole = 0.0
    for test in held_out(n, folds, seed)[0]:
        train = np.setdiff1d(np.arange(n), test)
        penalty = alpha * np.mean(np.sum((x - x.mean(0)) ** 2, axis=0)) * len(train) / n
        predicted = Ridge(alpha=penalty).fit(x[train], y[train]).predict(x[test]).reshape(len(test), -1)
        wrong += np.sum((y[test] - predicted) ** 2)
        whole += np.sum((y[test] - y[train].mean(0)) ** 2)
    return 1 - wrong / whole


@pytest.mark.parametrize("n", [4, 9, 15, 60, 200])
@pytest.mark.parametrize(("alpha", "folds", "seed"), [(0.1, 5, 0), (1e-3, 2, 3), (10.0, 7, 1)])
def test_equals_scikit_learn_both_ways(n, alpha, folds, seed, views):
    x, y = views(n=n)
    x, y = 50 * x + 7, y / 9 - 2
    score = ridge_map(x, y, alpha=alpha, folds=folds, seed=seed)
    forth, back = (by_scikit_learn(a, b, alpha, folds, seed) for a, b in ((x, y), (y, x)))
    assert score.details["r2_a_to_b"] == pytest.approx(forth, abs=1e-9)
    assert score.details["r2_b_to_a"] == pytest.approx(back, abs=1e-9)
    assert float(score) == pytest.approx((forth + back) / 2, abs=1e-9)
    assert score.settings == {"alpha": alpha, "folds": folds, "seed": seed}


@pytest.mark.parametrize(("n", "d_a", "d_b"), [(101, 30, 60), (101, 120, 40), (50, 70, 90)])
def test_wide_sides_equal_scikit_learn(n, d_a, d_b, views):
    """Below, near and above n columns; two sizes of folds."""
    x, y = views(n=n, d_a=d_a, d_b=d_b)
    assert isinstance(MEASURES["ridge_map"].prepare(x, y), PreparedRidgeMap)
    for alpha in (0.1, 1e-3):
        details = ridge_map(x - 3, 40 * y, alpha=alpha).details
        assert details["r2_a_to_b"] == pytest.approx(by_scikit_learn(x, y, alpha, 5, 0), abs=1e-9)
        assert details["r2_b_to_a"] == pytest.approx(by_scikit_learn(y, x, alpha, 5, 0), abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(60, 20), (60, 55), (60, 90)])
def test_both_ways_to_a_score_agree_at_the_smallest_penalty(n, d, monkeypatch):
    """One direction holds nearly all of the variance, so that the penalty is tiny beside it."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, n, d)) * np.geomspace(1, 1e-3, d)
    y += x @ rng.standard_normal((d, d)) / d
    order = rng.permutation(n)
    one = MEASURES["ridge_map"].prepare(x, y, alpha=1e-6, folds=5)
    assert isinstance(one, PreparedRidgeMap)
    monkeypatch.setattr(_pairs, "FLOAT64_UP_TO", 0)
    other = MEASURES["ridge_map"].prepare(x, y, alpha=1e-6, folds=5)
    assert isinstance(other, PreparedByMoments)
    assert float(one.score()) == pytest.approx(float(other.score()), rel=1e-7, abs=one.tolerance)
    assert one.shuffled(order) == pytest.approx(other.shuffled(order), rel=1e-7, abs=one.tolerance)


def test_a_map_into_fewer_dimensions_works_one_way_only():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 12))
    details = ridge_map(x, x[:, :3] @ rng.standard_normal((3, 5)), alpha=1e-4).details
    assert details["r2_a_to_b"] > 0.999
    assert details["r2_b_to_a"] == pytest.approx(0.25, abs=0.05)


def test_shrinkage_of_a_perfect_map_is_as_documented():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 4))
    assert float(ridge_map(x, x, alpha=0.5)) == pytest.approx(1 - (0.5 / 1.5) ** 2, abs=1e-3)


@pytest.mark.parametrize("n", [10, 40, 300])
def test_unrelated_sides_score_at_most_zero(n):
    rng = np.random.default_rng(n)
    values = [float(ridge_map(rng.standard_normal((n, 20)), rng.standard_normal((n, 30)))) for _ in range(40)]
    assert np.mean(values) < 0
    assert max(values) < 0.05
    heavy = [float(ridge_map(*rng.standard_normal((2, n, 20)), alpha=1e4)) for _ in range(40)]
    assert np.mean(heavy) == pytest.approx(0.0, abs=1e-3)


def test_the_null_of_shuffles_is_that_of_unrelated_sides():
    rng = np.random.default_rng(0)
    fresh = [float(ridge_map(rng.standard_normal((50, 6)), rng.standard_normal((50, 8)))) for _ in range(80)]
    x = rng.standard_normal((50, 6))
    prepared = MEASURES["ridge_map"].prepare(x, x @ rng.standard_normal((6, 8)))
    shuffled = [prepared.shuffled(rng.permutation(50)) for _ in range(80)]
    assert prepared.score().value > 0.9
    assert np.mean(shuffled) == pytest.approx(np.mean(fresh), abs=0.05)


def test_degenerate_sizes_are_flagged(views):
    assert ridge_map(*views()).flags == ()
    assert [flag.split(":")[0] for flag in ridge_map(*views(n=7)).flags] == ["folds", "n <= d"]
    with pytest.raises(UserError, match="3 pairs are too few"):
        ridge_map(*views(n=3))


@pytest.mark.parametrize("alpha", [0, 1e-7, -1.0, float("inf"), float("nan"), True, "1"])
def test_bad_alphas_are_named(alpha, views):
    with pytest.raises(UserError, match="ridge_map alpha="):
        ridge_map(*views(), alpha=alpha)
