"""PWCCA against the arithmetic of Morcos et al. 2018 written out, and its conventions."""

import numpy as np
import pytest
from scipy.linalg import qr, svd

from unifeat.errors import UserError
from unifeat.geometry import pwcca, svcca


def morcos(x, y):
    """Google's svcca/pwcca.py with centred columns and the weights from x: CCA vectors made orthonormal by QR in
    the order of their correlations, weights = Σ_j |⟨h_i, x_j⟩|."""
    x, y = x - x.mean(0), y - y.mean(0)
    qx, rx = qr(x, mode="economic")
    qy, _ = qr(y, mode="economic")
    u, rho, _ = svd(qx.T @ qy, full_matrices=False)
    h, _ = qr(x @ np.linalg.solve(rx, u), mode="economic")
    weights = np.abs(h.T @ x).sum(axis=1)
    weights /= weights.sum()
    return float(weights @ rho), weights, rho


@pytest.mark.parametrize(("d_a", "d_b"), [(12, 17), (17, 12), (9, 9), (1, 4)])
def test_equals_the_paper(d_a, d_b, views):
    x, y = views(n=90, d_a=d_a, d_b=d_b)
    value, weights, rho = morcos(x + 3, y)
    score = pwcca(x + 3, y)
    assert float(score) == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(score.details["weights"], weights, atol=1e-10)
    np.testing.assert_allclose(score.details["correlations"], rho, atol=1e-12)
    assert score.settings == {"variance": 1.0}
    assert score.flags == ()


def test_weights_come_from_the_first_side(views):
    x, y = views(n=200)
    loud = np.hstack([50 * (y @ np.ones((17, 3))), x])  # what x shares with y dominates it
    assert float(pwcca(loud, y)) > 0.9 > float(svcca(loud, y, variance=1.0))
    assert float(pwcca(loud, y)) > float(pwcca(y, loud)) + 0.05


def test_components_cut_as_in_svcca(views):
    x, y = views()
    for settings in ({"dims": 4}, {"variance": 0.8}):
        score, plain = pwcca(x, y, **settings), svcca(x, y, **settings)
        np.testing.assert_allclose(score.details["correlations"], plain.details["correlations"], atol=1e-12)
        assert score.details["dims_b"] == plain.details["dims_b"]
        assert sum(score.details["weights"]) == pytest.approx(1.0)
    assert any(flag.startswith("rank: 13 ") for flag in pwcca(x, y, dims=13).flags)


@pytest.mark.parametrize("n", [2, 3, 10, 13])
def test_too_few_pairs_are_trivially_alike_and_said_to_be(n, views):
    score = pwcca(*views(n=n))
    assert float(score) == pytest.approx(1.0, abs=1e-9)
    assert [flag.split(":")[0] for flag in score.flags] == ["n <= d", "saturated"]


@pytest.mark.parametrize("n", [19, 24, 28])
def test_forced_correlations_do_not_leave_the_weights_to_rounding(n, views):
    x, y = views(n=n, noise=5)
    score = pwcca(x, y)
    assert any(flag.startswith(f"saturated: {n} pairs force {29 - (n - 1)} of 12") for flag in score.flags)
    rng = np.random.default_rng(0)
    for _ in range(5):
        turned = y @ (rng.standard_normal((17, 17)) + 3 * np.eye(17)) + rng.standard_normal(17)
        assert float(pwcca(7 * x + 1, turned)) == pytest.approx(float(score), abs=1e-8)


def test_bad_settings_are_named(views):
    with pytest.raises(UserError, match="pwcca dims=0"):
        pwcca(*views(), dims=0)
    with pytest.raises(UserError, match="pwcca takes dims or variance"):
        pwcca(*views(), dims=2, variance=0.5)
