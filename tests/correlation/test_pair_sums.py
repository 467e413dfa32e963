"""Correlations of given pairs: the same numbers as `correlate`, for the pairs asked for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from oracles import awkward, pearson
from unifeat.correlation.correlate import correlate
from unifeat.correlation.pair_sums import correlate_pairs
from unifeat.errors import UserError
from unifeat.vocabulary.paired_codes import as_paired


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_pairs(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    x, y = awkward(rng, 250, 30, dtype), awkward(rng, 250, 45, dtype)
    a, b = rng.integers(0, 30, 300), rng.integers(0, 45, 300)
    a[:100], b[100:200] = 4, 7  # hubs on both sides, and pairs asked for twice
    r, count = correlate_pairs((sparse.csr_array(x), sparse.csr_array(y)), a, b)
    np.testing.assert_allclose(r, pearson(x, y)[a, b], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(count, ((x != 0).astype(int).T @ (y != 0))[a, b])
    assert count.dtype == np.int64


def test_same_bits_as_correlate_however_it_is_cut() -> None:
    rng = np.random.default_rng(4)
    a, b = (sparse.csr_array(awkward(rng, 400, f)) for f in (40, 50))
    table = correlate(a, b).candidates()
    for chunk_rows, threads in ((None, 1), (None, 2), (37, 5)):
        codes = as_paired(a, b, chunk_rows=chunk_rows)
        r, count = correlate_pairs(codes, table["feature_a"], table["feature_b"], threads=threads)
        np.testing.assert_array_equal(r, table["correlation"])
        np.testing.assert_array_equal(count, table["cofiring"])


def test_features_that_never_vary_have_no_correlation() -> None:
    codes = sparse.csr_array(np.array([[1.0, 2, 0], [0, 2, 0], [3, 2, 0]]))
    r, count = correlate_pairs((codes, codes), [0, 1, 0, 2, 1], [0, 0, 1, 2, 1])
    assert r[0] == 1
    assert np.isnan(r[1:]).all()
    assert count.tolist() == [2, 2, 2, 0, 3]


def test_no_pairs() -> None:
    codes = sparse.csr_array(np.eye(3))
    r, count = correlate_pairs((codes, codes), [], [])
    assert r.shape == count.shape == (0,)


def test_pairs_that_do_not_exist() -> None:
    codes = (sparse.csr_array(np.eye(3)), sparse.csr_array(np.eye(3)))
    with pytest.raises(UserError, match="features of B: 3 is not one of 3 features"):
        correlate_pairs(codes, [0, 1], [0, 3])
    with pytest.raises(UserError, match="features of A: -1 is not one of 3 features"):
        correlate_pairs(codes, [-1, 1], [0, 1])
    with pytest.raises(UserError, match="2 features of A cannot be paired with 1 of B"):
        correlate_pairs(codes, [0, 1], [0])
