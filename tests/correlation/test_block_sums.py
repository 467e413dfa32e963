"""Sums in blocks of documents: against plain arithmetic, and together the correlation of the whole text."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse

from oracles import awkward
from unifeat.correlation.block_sums import BlockSums, block_edges, block_sums
from unifeat.correlation.pair_sums import correlate_pairs
from unifeat.errors import UserError
from unifeat.matching.bootstrap import resampled_r
from unifeat.vocabulary.paired_codes import as_paired


def some_pairs(rng: np.random.Generator, features_a: int, features_b: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = rng.integers(0, features_a, 150), rng.integers(0, features_b, 150)
    a[:40], b[40:80] = 2, 1  # hubs on both sides, and pairs asked for twice
    return a, b


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_are_summed_exactly(seed: int, dtype: type) -> None:
    """Features of both signs that fire on less than half of the rows, so that nothing is shifted."""
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(-3, 4, (300, f)) * (rng.random((300, f)) < 0.3) for f in (20, 30))
    x[:, 4] = y[:, 5] = 0
    edges = np.r_[0, np.sort(rng.integers(0, 301, 9)), 300]  # some blocks may be empty
    ids = some_pairs(rng, 20, 30)
    codes = as_paired(sparse.csr_array(x.astype(dtype)), sparse.csr_array(y.astype(dtype)), chunk_rows=37)
    sums = block_sums(codes, edges, *ids, threads=2)
    assert (sums.blocks, sums.pairs) == (10, 150)
    for k, (first, last) in enumerate(itertools.pairwise(edges.tolist())):
        u, v = x[first:last, ids[0]], y[first:last, ids[1]]
        assert sums.n[k] == last - first
        np.testing.assert_array_equal(sums.product[k], (u * v).sum(axis=0))
        for side, place, codes_ in ((sums.a, sums.pair_a, u), (sums.b, sums.pair_b, v)):
            np.testing.assert_array_equal(side.count[k, place], (codes_ != 0).sum(axis=0))
            np.testing.assert_array_equal(side.total[k, place], codes_.sum(axis=0))
            np.testing.assert_array_equal(side.squares[k, place], (codes_**2).sum(axis=0))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("chunk_rows", [None, 1, 41])
def test_all_blocks_once_are_the_correlation(seed: int, chunk_rows: int | None) -> None:
    rng = np.random.default_rng(seed)
    x, y = awkward(rng, 250, 30), awkward(rng, 250, 45)
    ids = some_pairs(rng, 30, 45)
    codes = as_paired(sparse.csr_array(x), sparse.csr_array(y), chunk_rows=chunk_rows)
    r, _ = correlate_pairs(codes, *ids)
    for edges in ([0, 250], [0, 7, 7, 90, 249, 250], range(251)):
        sums = block_sums(codes, np.array(edges), *ids)
        got = resampled_r(sums, np.ones((1, sums.blocks)))[0]
        np.testing.assert_allclose(got, r, rtol=0, atol=2e-12)
        assert ((got != r) & ~np.isnan(r)).mean() < 0.02  # all but the odd one is equal to the last bit kept


@pytest.mark.parametrize("seed", range(6))
def test_blocks_drawn_are_rows_repeated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = awkward(rng, 120, 20, np.float64), awkward(rng, 120, 25, np.float64)
    ids = some_pairs(rng, 20, 25)
    edges = np.array([0, 10, 45, 46, 80, 120])
    sums = block_sums((sparse.csr_array(x), sparse.csr_array(y)), edges, *ids)
    weights = rng.multinomial(5, np.full(5, 0.2), size=12).astype(float)
    got = resampled_r(sums, weights)
    for draw, counts in enumerate(weights.astype(int)):
        rows = np.concatenate(
            [np.arange(edges[k], edges[k + 1]) for k, times in enumerate(counts) for _ in range(times)]
        )
        r, _ = correlate_pairs((sparse.csr_array(x[rows]), sparse.csr_array(y[rows])), *ids)
        np.testing.assert_allclose(got[draw], r, rtol=0, atol=1e-9)
        np.testing.assert_allclose(resampled_r(sums, weights, slice(30, 50))[draw], r[30:50], rtol=0, atol=1e-9)


def test_far_from_zero_nothing_cancels() -> None:
    rng = np.random.default_rng(7)
    hidden = rng.standard_normal((2000, 3))
    x = 1e6 + 1e-2 * hidden
    y = -1e6 + 1e-2 * (hidden @ rng.standard_normal((3, 3)))
    sums = block_sums((sparse.csr_array(x), sparse.csr_array(y)), np.arange(0, 2001, 100), *np.divmod(np.arange(9), 3))
    weights = rng.multinomial(20, np.full(20, 0.05), size=5).astype(float)
    for got, counts in zip(resampled_r(sums, weights), weights, strict=True):
        rows = counts.astype(int).repeat(100)
        u, v = (np.repeat(z - z.mean(axis=0), rows, axis=0) for z in (x, y))
        np.testing.assert_allclose(got, np.corrcoef(u, v, rowvar=False)[:3, 3:].ravel(), rtol=0, atol=1e-6)


def test_what_does_not_vary_in_the_blocks_drawn_has_no_r() -> None:
    """A feature that only the first block holds, one constant but there, and one constant but in the last block."""
    x = np.random.default_rng(8).random((60, 3))
    x[20:, 0] = 0
    x[20:, 1] = 0.3
    x[:40, 2] = 0.7
    sums = block_sums((sparse.csr_array(x), sparse.csr_array(x)), np.array([0, 20, 40, 60]), [0, 1, 2], [0, 1, 2])
    got = resampled_r(sums, np.array([[1.0, 1, 1], [0, 3, 0], [0, 1, 2], [2, 1, 0]]))
    expected = [[1, 1, 1], [np.nan] * 3, [np.nan, np.nan, 1], [1, 1, np.nan]]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_no_pairs_no_rows_no_blocks() -> None:
    codes = (sparse.csr_array(np.eye(3)), sparse.csr_array(np.eye(3)))
    none = block_sums(codes, np.array([0, 2, 3]), [], [])
    assert none.product.shape == (2, 0)
    assert resampled_r(none, np.ones((4, 2))).shape == (4, 0)
    empty = (sparse.csr_array((0, 3)), sparse.csr_array((0, 3)))
    nothing = block_sums(empty, block_edges(np.zeros(0, int), 0), [0, 1], [2, 2])
    assert nothing.blocks == 0
    assert np.isnan(resampled_r(nothing, np.ones((4, 0)))).all()


def test_same_bits_however_many_threads() -> None:
    rng = np.random.default_rng(3)
    codes = tuple(sparse.csr_array(awkward(rng, 200, f)) for f in (20, 30))
    ids = some_pairs(rng, 20, 30)
    one, other = (block_sums(codes, np.array([0, 90, 200]), *ids, threads=t) for t in (1, 5))
    equal(one, other)


def equal(one: BlockSums, other: BlockSums) -> None:
    for name in ("n", "pair_a", "pair_b", "product"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for left, right in ((one.a, other.a), (one.b, other.b)):
        for x, y in zip(left, right, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


@pytest.mark.parametrize(("documents", "most"), [(1, 128), (5, 128), (128, 128), (129, 128), (1000, 128), (7, 3)])
def test_blocks_are_whole_documents(documents: int, most: int) -> None:
    lengths = np.random.default_rng(documents).integers(1, 50, documents)
    start, n_rows = np.r_[0, np.cumsum(lengths)[:-1]], int(lengths.sum())
    edges = block_edges(start, n_rows, most)
    assert (edges[0], edges[-1], edges.dtype) == (0, n_rows, np.int64)
    assert len(edges) == min(documents, most) + 1
    assert set(edges[:-1].tolist()) <= set(start.tolist())
    in_each = np.histogram(start, edges)[0]
    assert in_each.max() - in_each.min() <= 1


def test_edges_that_do_not_fit() -> None:
    codes = (sparse.csr_array(np.eye(3)), sparse.csr_array(np.eye(3)))
    for edges in ([0, 2], [1, 3], [0, 2, 1, 3], []):
        with pytest.raises(UserError, match="block edges must ascend from 0 to the 3 rows"):
            block_sums(codes, np.array(edges), [0], [0])
    with pytest.raises(UserError, match="features of B: 3 is not one of 3 features"):
        block_sums(codes, np.array([0, 3]), [0, 1], [0, 3])
