"""Similarity from sums of products: the same as that of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import unifeat as uf
from unifeat.geometry._folds import held_out
from unifeat.geometry.streamed import PairedMoments


def rows(n: int = 600, d_a: int = 12, d_b: int = 9, shared: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, shared)) * 3
    x = z @ rng.normal(size=(shared, d_a)) + rng.normal(size=(n, d_a)) + 100 * rng.normal(size=d_a)
    y = z @ rng.normal(size=(shared, d_b)) + rng.normal(size=(n, d_b)) - 50
    return x, y


def added(x: np.ndarray, y: np.ndarray, fold: np.ndarray, chunk: int) -> PairedMoments:
    moments = PairedMoments()
    for start in range(0, x.shape[0], chunk):
        part = slice(start, start + chunk)
        moments.add(x[part], y[part], fold[part])
    assert moments.n == x.shape[0]
    return moments


def folds_of(n: int, seed: int = 0) -> np.ndarray:
    """The folds that `heldout_cca` makes."""
    fold = np.zeros(n, int)
    for number, own in enumerate(held_out(n, 5, seed)[0]):
        fold[own] = number
    return fold


@pytest.mark.parametrize("chunk", [1, 37, 600])
@pytest.mark.parametrize("shared", [0, 4])
@pytest.mark.parametrize("dims", [1, 3, 9])
def test_scores_are_those_of_the_rows(chunk: int, shared: int, dims: int) -> None:
    x, y = rows(shared=shared)
    moments = added(x, y, folds_of(len(x)), chunk)
    assert moments.cka() == pytest.approx(uf.cka(x, y, debiased=True).value, abs=1e-10)
    assert moments.svcca(dims) == pytest.approx(uf.svcca(x, y, dims=dims).value, abs=1e-9)
    assert moments.heldout_cca(dims) == pytest.approx(uf.heldout_cca(x, y, dims=dims).value, abs=1e-9)


@pytest.mark.parametrize("n", [4, 7, 20])
def test_few_rows(n: int) -> None:
    x, y = rows(n)
    moments = added(x, y, folds_of(n), 3)
    assert moments.cka() == pytest.approx(uf.cka(x, y, debiased=True).value, abs=1e-9)
    assert moments.svcca(3) == pytest.approx(uf.svcca(x, y, dims=3).value, abs=1e-9)


def test_float32_and_widths_of_one(tmp_path: object) -> None:
    x, y = rows(d_a=1, d_b=1)
    moments = added(x.astype(np.float32), y.astype(np.float32), folds_of(len(x)), 100)
    r = np.corrcoef(x[:, 0], y[:, 0])[0, 1]
    assert moments.svcca(5) == pytest.approx(abs(r), abs=1e-5)
    assert moments.heldout_cca(5) == pytest.approx(abs(r), abs=0.1)


@pytest.mark.parametrize("chunk", [50, 600])
def test_sparse_codes(chunk: int) -> None:
    rng = np.random.default_rng(3)
    x, y = (sparse.csr_array(rng.gamma(2, size=(600, 12)) * (rng.random((600, 12)) < 0.2)) for _ in "ab")
    y = sparse.csr_array(0.7 * x + y.multiply(0.5))
    dense = x.toarray(), y.toarray()
    fold = folds_of(600)
    moments = added(x, y, fold, chunk)  # type: ignore[arg-type]
    assert moments.cka() == pytest.approx(uf.cka(*dense, debiased=True).value, abs=1e-10)
    assert moments.svcca(4) == pytest.approx(uf.svcca(*dense, dims=4).value, abs=1e-9)
    assert moments.heldout_cca(4) == pytest.approx(uf.heldout_cca(*dense, dims=4).value, abs=1e-9)
    with pytest.raises(uf.UserError, match="NaN"):
        moments.add(sparse.csr_array(np.full((2, 12), np.nan)), sparse.csr_array(np.ones((2, 12))), [0, 1])


def test_nothing_shared_is_about_zero() -> None:
    x, y = rows(20_000, shared=0)
    moments = added(x, y, np.arange(20_000) // 100 % 5, 5000)
    assert abs(moments.cka()) < 0.003
    assert abs(moments.heldout_cca(8)) < 0.01


def test_the_undefined() -> None:
    x, y = rows(50)
    nothing = PairedMoments()
    assert np.isnan([nothing.cka(), nothing.svcca(2), nothing.heldout_cca(2)]).all()
    constant = added(np.ones_like(x), y, folds_of(50), 20)
    assert np.isnan([constant.cka(), constant.svcca(2), constant.heldout_cca(2)]).all()
    one_fold = added(x, y, np.zeros(50, int), 20)
    assert np.isnan(one_fold.heldout_cca(2))
    assert one_fold.svcca(2) == pytest.approx(uf.svcca(x, y, dims=2).value, abs=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "fold", "said"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), [0, 0, 0], "rows"),
        (np.ones((3, 2)), np.ones((3, 2)), [0, 0], "one whole number for each of 3 rows"),
        (np.ones((3, 2)), np.ones((3, 2)), [0.0, 0, 0], "one whole number"),
        (np.ones((3, 2)), np.ones((3, 2)), [0, 5, 0], "numbers from 0 to 4"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), [0, 0, 0], "NaN"),
        (np.ones((3, 5)), np.ones((3, 2)), [0, 0, 0], r"have \[5, 2\] columns, those before had \[2, 2\]"),
    ],
)
def test_wrong_rows(x: np.ndarray, y: np.ndarray, fold: list[float], said: str) -> None:
    moments = PairedMoments()
    moments.add(*np.random.default_rng(0).normal(size=(2, 3, 2)), [0, 1, 2])
    with pytest.raises(uf.UserError, match=said):
        moments.add(x, y, np.array(fold))
