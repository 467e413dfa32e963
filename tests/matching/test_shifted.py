"""The control by shifted text: the same codes, none of B's rows beside its own partner."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from stores import dense_rows, random_dense
from unifeat.matching.paired import CsrArrays, PairedCodes, as_paired
from unifeat.matching.shifted import ShiftedCodes


def dense(chunk: CsrArrays) -> np.ndarray:
    return dense_rows(*chunk, 32)


@pytest.mark.parametrize("rows", [2, 3, 10, 51])
@pytest.mark.parametrize("chunk_rows", [None, 7])
def test_only_b_is_rotated(rows: int, chunk_rows: int | None) -> None:
    rng = np.random.default_rng(rows)
    a, b = (csr_array(random_dense(rng, rows)) for _ in range(2))
    codes = as_paired(a, b, chunk_rows=chunk_rows)
    shifted = ShiftedCodes(codes)
    assert isinstance(shifted, PairedCodes)
    assert (shifted.n_rows, shifted.features_a, shifted.features_b) == (rows, 32, 32)
    for (plain_a, plain_b), (a_there, b_there) in zip(codes.chunks(), shifted.chunks(), strict=True):
        np.testing.assert_array_equal(dense(a_there), dense(plain_a))
        np.testing.assert_array_equal(dense(b_there), np.roll(dense(plain_b), -(plain_b.rows // 2), axis=0))


def test_no_row_stays_in_place() -> None:
    numbered = csr_array(np.arange(1, 31, dtype=np.float32).reshape(-1, 1))
    for chunk_rows in (2, 4, 10, None):
        for a, b in ShiftedCodes(as_paired(numbered, numbered, chunk_rows=chunk_rows)).chunks():
            assert not (a.value[a.indptr[0] : a.indptr[-1]] == b.value).any()


def test_nothing_is_lost_and_the_input_is_untouched() -> None:
    rng = np.random.default_rng(1)
    b = csr_array(random_dense(rng, 20))
    before = b.toarray()
    ((_, got),) = ShiftedCodes(as_paired(b, b)).chunks()
    np.testing.assert_array_equal(b.toarray(), before)
    np.testing.assert_array_equal(np.sort(dense(got), axis=0), np.sort(before, axis=0))


def test_chunks_are_the_same_each_time() -> None:
    codes = csr_array(random_dense(np.random.default_rng(2), 20))
    shifted = ShiftedCodes(as_paired(codes, codes, chunk_rows=6))
    for one, other in zip(shifted.chunks(), shifted.chunks(), strict=True):
        for left, right in zip((*one[0], *one[1]), (*other[0], *other[1]), strict=True):
            np.testing.assert_array_equal(left, right)
