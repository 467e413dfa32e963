"""SVCCA against independent ways to canonical correlations, and its conventions."""

import numpy as np
import pytest
from scipy.linalg import qr, svdvals
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, _components, svcca
from unifeat.geometry.measure import Nested


def qr_cca(a, b):
    """Canonical correlations by the method of Björck & Golub, for full column rank."""
    qa, qb = (qr(m - m.mean(0), mode="economic")[0] for m in (a, b))
    return np.clip(svdvals(qa.T @ qb), 0, 1)


@pytest.mark.parametrize("dims", [1, 3, 8, 12])
def test_dims_is_cca_of_that_many_principal_components(dims, views):
    x, y = views()
    expected = qr_cca(PCA(dims).fit_transform(x), PCA(dims).fit_transform(y))
    score = svcca(x, y, dims=dims)
    assert float(score) == pytest.approx(expected.mean(), abs=1e-12)
    np.testing.assert_allclose(score.details["correlations"], expected, atol=1e-12)
    assert score.settings == {"dims": dims}
    assert (score.details["dims_a"], score.details["dims_b"]) == (dims, dims)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99])
def test_variance_keeps_the_fewest_components_that_reach_it(variance, views):
    x, y = views()
    kept = [PCA(variance, svd_solver="full").fit_transform(m) for m in (x, y)]
    score = svcca(x, y, variance=variance)
    assert (score.details["dims_a"], score.details["dims_b"]) == tuple(k.shape[1] for k in kept)
    assert float(score) == pytest.approx(qr_cca(*kept).mean(), abs=1e-12)


def test_default_is_99_percent_of_the_variance(views):
    x, y = views()
    assert float(svcca(x, y)) == float(svcca(x, y, variance=0.99))
    assert svcca(x, y).settings == {"variance": 0.99}


def test_all_components_are_plain_cca_as_scikit_learn_has_it(views):
    x, y = views(n=200, d_a=4, d_b=5)
    cca = CCA(4, max_iter=5000, tol=1e-12).fit(x, y)
    a, b = cca.transform(x, y)
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    score = svcca(x, y, variance=1.0)
    np.testing.assert_allclose(score.details["correlations"], expected, atol=1e-5)
    assert float(score) == pytest.approx(qr_cca(x, y).mean(), abs=1e-12)


def test_one_component_is_the_legacy_correlation_of_first_principal_components(views):
    x, y = views()
    first = [PCA(1).fit_transform(m)[:, 0] for m in (x, y)]
    assert float(svcca(x, y, dims=1)) == pytest.approx(abs(np.corrcoef(*first)[0, 1]), abs=1e-12)


def test_dims_beyond_the_rank_are_cut_and_said(views):
    x, y = views(d_a=6)
    wide = np.hstack([x, x @ np.ones((6, 4))])  # ten columns of rank six
    score = svcca(wide, y, dims=8)
    assert (score.details["dims_a"], score.details["dims_b"]) == (6, 8)
    assert score.details["rank_a"] == 6
    assert any(flag.startswith("rank:") for flag in score.flags)
    assert float(score) == pytest.approx(float(np.mean(qr_cca(x, PCA(8).fit_transform(y)))), abs=1e-10)


def test_a_shared_subspace_is_found():
    rng = np.random.default_rng(0)
    common = rng.standard_normal((500, 4))
    x = np.hstack([common * 10, rng.standard_normal((500, 6))])
    y = np.hstack([common @ rng.standard_normal((4, 4)) * 10, rng.standard_normal((500, 6))])
    assert float(svcca(x, y, dims=4)) > 0.97
    assert svcca(x, y, variance=1.0).details["correlations"][:4] == pytest.approx([1] * 4, abs=1e-9)


def test_published_inflation_of_unrelated_data():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1000, 102)), rng.standard_normal((1000, 154))  # 512 × 768 at 5,000, fifthed
    assert float(svcca(x, y)) == pytest.approx(0.35, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 10, 13])
def test_too_few_pairs_are_trivially_alike_and_said_to_be(n, views):
    x, y = views(n=n)
    score = svcca(x, y, variance=1.0)
    assert float(score) == pytest.approx(1.0, abs=1e-9)
    assert any(flag.startswith("saturated:") for flag in score.flags)
    assert any(flag.startswith("n <= d:") for flag in score.flags)


def test_partial_saturation_counts_the_forced_correlations(views):
    x, y = views(n=21, noise=5)
    score = svcca(x, y, dims=12)
    forced = 12 + 12 - 20
    assert any(f"force {forced} of 12" in flag for flag in score.flags)
    assert score.details["correlations"][forced - 1] == pytest.approx(1.0, abs=1e-9)
    assert score.details["correlations"][forced] < 1 - 1e-6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dims": 2, "variance": 0.9}, "not both"),
        ({"dims": 0}, "dims=0"),
        ({"dims": 2.5}, r"dims=2\.5"),
        ({"dims": True}, "dims=True"),
        ({"variance": 0}, "variance=0"),
        ({"variance": 1.5}, r"variance=1\.5"),
        ({"variance": "most"}, "variance='most'"),
        ({"variance": float("nan")}, "variance=nan"),
    ],
)
def test_bad_settings_are_named(settings, words, views):
    with pytest.raises(UserError, match=words):
        svcca(*views(), **settings)


def without_gram(monkeypatch, call):
    with monkeypatch.context() as patched:
        patched.setattr(_components, "_few_of_full_rank", lambda *_: None)
        return call()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d_a", "d_b"), [(14, 40, 45), (41, 40, 45), (40, 40, 45), (60, 40, 45), (300, 40, 200)])
@pytest.mark.parametrize("dims", [1, 5, 12])
def test_few_components_come_from_the_gram_matrix(dims, n, d_a, d_b, dtype, views, monkeypatch):
    x, y = (side.astype(dtype) for side in views(n=n, d_a=d_a, d_b=d_b))
    expected = without_gram(monkeypatch, lambda: svcca(x, y, dims=dims))
    if n > d_a + 1:  # with fewer, a component of x may be small
        monkeypatch.setattr(_components, "svd", lambda *_: pytest.fail("the slow way"))
    score = svcca(x, y, dims=dims)
    assert float(score) == pytest.approx(float(expected), abs=1e-10)
    assert score.flags == expected.flags
    assert {k: v for k, v in score.details.items() if k != "correlations"} == {
        k: v for k, v in expected.details.items() if k != "correlations"
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dims", [2, 12])
def test_rows_of_low_rank_are_decomposed(dims, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    low = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, 30))).astype(dtype)
    steep = (rng.standard_normal((200, 30)) * 10.0 ** -np.arange(30)).astype(dtype)
    assert svcca(low, steep, dims=dims) == without_gram(monkeypatch, lambda: svcca(low, steep, dims=dims))


@pytest.mark.parametrize("shape", [(60, 20, 15), (30, 40, 50), (200, 12, 30)])
def test_fewer_components_of_one_decomposition(shape):
    n, d_a, d_b = shape
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 4))
    x, y = (shared @ rng.normal(size=(4, d)) + 0.5 * rng.normal(size=(n, d)) for d in (d_a, d_b))
    prepared = MEASURES["svcca"].prepare(x, y, dims=10)
    assert isinstance(prepared, Nested)
    for dims in (1, 3, 10):
        assert prepared.with_fewer(dims) == pytest.approx(float(svcca(x, y, dims=dims)), abs=1e-9)
    assert prepared.with_fewer(11) is None
    poor = np.outer(np.arange(n), np.ones(d_a))  # of rank 1
    assert MEASURES["svcca"].prepare(poor, y, dims=5).with_fewer(2) is None
