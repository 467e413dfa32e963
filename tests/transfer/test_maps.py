"""Linear maps between activations: against scikit-learn and SciPy, and planted truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse, stats
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge

import unifeat as uf
from unifeat.transfer.maps import _PENALTIES, _Ridge, fit_affine, fit_rotation

N, DOCUMENTS = 1200, 24


def rows(seed: int = 0, d_a: int = 10, d_b: int = 14, noise: float = 0.5) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, d_a)) @ rng.normal(size=(d_a, d_a)) + rng.normal(size=d_a) * 5
    y = x @ rng.normal(size=(d_a, d_b)) + noise * rng.normal(size=(N, d_b)) - 3
    return x, y, np.repeat(np.arange(DOCUMENTS), N // DOCUMENTS)


@pytest.mark.parametrize("n", [8, 300])
@pytest.mark.parametrize("penalty", [1e-6, 0.03, 10.0])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_ridge_is_that_of_scikit_learn(n: int, penalty: float, kind: str) -> None:
    x, y, _ = rows()
    x, y = x[:n], y[:n]
    x[np.abs(x) < 1] = 0
    given = sparse.csr_array(x) if kind == "sparse" else x
    found = _Ridge(given, y).map(penalty)
    alpha = penalty * np.sum((x - x.mean(0)) ** 2) / x.shape[1]
    expected = Ridge(alpha=alpha).fit(x, y)
    np.testing.assert_allclose(found.weights, expected.coef_.T, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found(given), expected.predict(x), rtol=1e-6, atol=1e-6)


def test_the_penalty_is_the_best_on_documents_left_out() -> None:
    x, y, documents = rows(noise=5.0)
    clean = fit_affine(x, y, documents).penalty
    rng = np.random.default_rng(0)
    wide = np.hstack([x, 3 * rng.normal(size=(N, 500))])[:300]
    assert fit_affine(wide, y[:300], documents[:300]).penalty > clean
    assert clean in _PENALTIES


def test_rotation_is_procrustes() -> None:
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.normal(size=(14, 14)))[0][:10]
    x, _, _ = rows(1)
    y = 2.5 * x @ q + 7
    found = fit_rotation(x, y)
    assert found is not None
    np.testing.assert_allclose(found.weights, 2.5 * q, atol=1e-8)
    np.testing.assert_allclose(found(x), y, atol=1e-8)
    square = x @ rng.normal(size=(10, 10))
    a, b = x - x.mean(0), square - square.mean(0)
    turn, scale = orthogonal_procrustes(a, b)
    np.testing.assert_allclose(fit_rotation(x, square).weights, turn * scale / np.sum(a * a), atol=1e-8)  # type: ignore[union-attr]
    assert fit_rotation(y, x) is None


def test_stitch_finds_what_is_linear() -> None:
    x, y, documents = rows(2)
    found = uf.stitch(x, y, documents=documents)
    assert 0.9 < found.low < found.value < found.high <= 1
    assert found.p == pytest.approx(1 / 101)
    assert found.null_mean < 0
    assert found.fvu == pytest.approx(1 - found.value)
    assert found.rows == (N // 2, N // 2)
    fit = np.isin(documents, np.unique(documents)[::2])
    own = uf.stitch(x, y, documents=documents, fit=fit)
    missed = y[~fit] - own.map(x[~fit])
    assert own.fvu == pytest.approx(np.sum(missed**2) / np.sum((y[~fit] - y[~fit].mean(0)) ** 2), rel=1e-4)
    assert "affine stitch 0.9" in repr(found)
    assert "affine" in found._repr_html_()


def test_unrelated_activations_do_not_stitch() -> None:
    x, _, documents = rows(3)
    _, other, _ = rows(4)
    found = uf.stitch(x, other, documents=documents)
    assert abs(found.value) < 0.05


def p_of_unrelated(seed: int, documents: int) -> float:
    """Documents have topics, which differ between the sides."""
    rng = np.random.default_rng(seed)
    topic, other = (np.repeat(rng.normal(size=(documents, d)), 20, axis=0) for d in (6, 5))
    x, y = (side + rng.normal(size=side.shape) for side in (topic, other))
    return uf.stitch(x, y, documents=np.arange(len(x)) // 20, draws=39, seed=seed).p


@pytest.mark.slow
def test_p_is_uniform_where_nothing_is_shared() -> None:
    p = np.array([p_of_unrelated(seed, 20) for seed in range(600)])
    spread = p - np.random.default_rng(0).random(len(p)) / 40
    assert stats.kstest(spread, "uniform").pvalue > 0.01


@pytest.mark.parametrize("documents", [4, 5, 6, 8, 12])
def test_p_is_no_smaller_than_chance_with_few_documents(documents: int) -> None:
    """Draws that never leave a document in its place gave p ≤ 0.05 in 58 % of the cases with four documents."""
    p = np.array([p_of_unrelated(seed, documents) for seed in range(200)])
    for level in (0.05, 0.25, 0.5):
        assert stats.binomtest(int((p <= level).sum()), len(p), level, alternative="greater").pvalue > 0.001


def test_few_documents_are_said() -> None:
    x, y, documents = rows(2)
    assert uf.stitch(x, y, documents=documents).flags == ()
    few = uf.stitch(x, y, documents=documents // 6)  # two are judged
    said = "few documents: there are only 2 orders of the judged ones, so p is hardly below 0.5"
    assert few.flags == (said,)
    assert few.p > 0.3
    assert said in repr(few)
    assert set(np.round(few.null, 9)) == {round(few.value, 9), round(float(few.null.min()), 9)}


def test_sparse_codes_and_tensors_stitch() -> None:
    import torch

    x, y, documents = rows(2)
    plain = uf.stitch(x, y, documents=documents)
    assert uf.stitch(sparse.csr_array(x), y, documents=documents).value == pytest.approx(plain.value, abs=1e-6)
    tensors = torch.tensor(x, requires_grad=True), torch.tensor(y)
    assert uf.stitch(*tensors, documents=documents).value == plain.value
    turned = uf.stitch(sparse.csr_array(x), y, documents=documents, kind="rotation")
    assert turned.value == pytest.approx(uf.stitch(x, y, documents=documents, kind="rotation").value, abs=1e-6)
    same = uf.stitch(np.ones_like(x), y, documents=documents)
    assert (same.value, same.p) == (pytest.approx(0, abs=0.01), 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "afine"}, "did you mean 'affine'"),
        ({"x_b": np.zeros((3, 2))}, "the same tokens"),
        ({"x_a": np.full((N, 10), np.nan)}, "NaN"),
        ({"kind": "rotation", "x_a": np.zeros((N, 20))}, "no rotation maps 20 dimensions into 14"),
        ({"documents": np.zeros(N, int)}, "fewer than two documents"),
        ({"fit": np.ones(N)}, "fit: give"),
        ({"documents": np.zeros(N)}, "documents: give"),
        ({"x_a": "abc"}, "x_a: give an array of numbers"),
        ({"x_b": np.ones((N, 14))}, "x_b is the same at all judged tokens"),
        ({"level": 95}, "level=95"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_input(change: dict[str, Any], said: str) -> None:
    x, y, documents = rows()
    given = {"x_a": x, "x_b": y, "documents": documents} | change
    with pytest.raises(uf.UserError, match=said):
        uf.stitch(given.pop("x_a"), given.pop("x_b"), **given)
