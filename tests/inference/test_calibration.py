"""The chance-corrected score against its reference implementation."""

import math

import numpy as np
import pytest

from unifeat import geometry
from unifeat.errors import UserError
from unifeat.inference import calibrate, permutation_test, permutations


@pytest.mark.parametrize("m", [1, 5, 19, 20, 99, 200, 1000])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("score", [-0.2, 0.1, 0.35, 0.6, 1.0])
def test_equals_calibrated_similarity_on_given_scores(m, alpha, score):
    reference = pytest.importorskip("calibrated_similarity")
    torch = pytest.importorskip("torch")
    null = np.random.default_rng(m).beta(2, 6, m).astype(np.float32)
    values = iter([score, *null.tolist()])
    x = torch.zeros(3, 1)
    corrected, p, tau = reference.calibrate(x, x, lambda a, b: next(values), K=m, alpha=alpha)
    ours = calibrate(float(np.float32(score)), null, alpha=alpha)
    assert ours.p == pytest.approx(p.item(), abs=1e-6)
    assert ours.threshold == pytest.approx(tau.item(), abs=1e-7)
    assert ours.corrected == pytest.approx(corrected.item(), abs=1e-6)


@pytest.mark.parametrize("name", ["svcca", "rsa", "cka"])
def test_a_whole_test_equals_calibrated_similarity(name):
    reference = pytest.importorskip("calibrated_similarity")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6))
    y = x @ rng.standard_normal((6, 8)) + 3 * rng.standard_normal((50, 8))
    orders = permutations(50, 60, 4)
    corrected, p, tau = reference.calibrate(
        torch.from_numpy(x),
        torch.from_numpy(y),
        lambda a, b: float(geometry.MEASURES[name].function(a, b)),
        K=60,
        perm_fn=lambda n, device: torch.from_numpy(next(orders)),
    )
    test = permutation_test(name, x, y, permutations=60, seed=4)
    assert test.p == pytest.approx(p.item(), abs=1e-6)
    assert test.threshold == pytest.approx(tau.item(), abs=1e-6)
    assert test.corrected == pytest.approx(corrected.item(), abs=1e-6)


def test_by_hand():
    null = np.arange(1, 20) / 100  # .01 … .19
    assert calibrate(0.5, null) == pytest.approx((1 / 20, (0.5 - 0.19) / (1 - 0.19), 0.19))
    assert calibrate(0.1, null) == pytest.approx((11 / 20, 0.0, 0.18))
    assert calibrate(1.0, null).corrected == 1.0


@pytest.mark.parametrize("m", [19, 99, 400])
@pytest.mark.parametrize("centre", [-2.0, -0.3, -0.05, 0.0, 0.3])
def test_it_is_never_more_than_the_score(m, centre):
    """Where chance is below 0, corrected is the score; where it is not, it is that of calibrated-similarity."""
    reference = pytest.importorskip("calibrated_similarity")
    torch = pytest.importorskip("torch")
    null = (centre + 0.1 * np.random.default_rng(m).standard_normal(m)).astype(np.float32)
    x = torch.zeros(3, 1)
    for score in np.float32([-1.5, -0.25, -0.01, 0.0, 0.01, 0.25, 0.9, 1.0]):
        values = iter([float(score), *null.tolist()])
        theirs, p, tau = reference.calibrate(x, x, lambda a, b, v=values: next(v), K=m)
        ours = calibrate(float(score), null)
        assert (ours.p, ours.threshold) == pytest.approx((p.item(), tau.item()), abs=1e-6)
        assert 0.0 <= ours.corrected <= max(float(score), 0.0)
        assert ours.corrected == pytest.approx(min(theirs.item(), max(float(score), 0.0)), abs=1e-6)
        if tau >= 0:
            assert ours.corrected == pytest.approx(theirs.item(), abs=1e-6)


def test_a_map_that_predicts_nothing_is_not_a_part_of_perfection():
    """Better than its shuffles, as a pairing that means something is, and still worse than the mean: corrected is 0."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 20))
    y = 0.7 * x @ rng.standard_normal((20, 30)) / np.sqrt(20) + rng.standard_normal((40, 30))
    test = permutation_test("ridge_map", x, y, permutations=199)
    assert test.threshold < test.score < 0
    assert test.p < 0.05
    assert test.corrected == 0.0
    y = 2.0 * x @ rng.standard_normal((20, 30)) / np.sqrt(20) + rng.standard_normal((40, 30))
    test = permutation_test("ridge_map", x, y, permutations=199)
    assert test.threshold < 0 < test.score == test.corrected


def test_ties_count_as_reached_up_to_rounding():
    assert calibrate(0.5, [0.5, 0.4]).p == pytest.approx(2 / 3)
    assert calibrate(0.5, [0.5 - 1e-13, 0.4]).p == pytest.approx(1 / 3)
    assert calibrate(0.5, [0.5 - 1e-13, 0.4], tolerance=1e-10).p == pytest.approx(2 / 3)
    assert calibrate(1.0, np.full(99, 1 - 1e-13), tolerance=1e-10) == (1.0, 0.0, pytest.approx(1.0))


def test_nan_in_nan_out():
    for result in (calibrate(math.nan, [0.1]), calibrate(0.5, [0.1, math.nan])):
        assert all(math.isnan(value) for value in result)


def test_bad_arguments():
    with pytest.raises(UserError, match="at least 1 permutation"):
        calibrate(0.5, [])
    with pytest.raises(UserError, match="alpha=1"):
        calibrate(0.5, [0.1], alpha=1)
