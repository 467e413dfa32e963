"""The rematch null: the same codes, B's text shifted by whole documents, none of its rows beside its own partner."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.sparse import csr_array

from oracles import same
from stores import dense_rows, random_dense
from unifeat.correlation.correlate import correlate
from unifeat.correlation.shifted import ShiftedCodes, shifts
from unifeat.errors import UserError
from unifeat.vocabulary.paired_codes import ChunkPair, CsrArrays, InMemoryCodes, PairedCodes, as_paired


def dense(chunks: list[CsrArrays]) -> np.ndarray:
    return np.concatenate([dense_rows(*chunk, 32) for chunk in chunks])


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 51])
@pytest.mark.parametrize("chunk_rows", [None, 1, 7])
def test_only_b_is_shifted(rows: int, chunk_rows: int | None) -> None:
    rng = np.random.default_rng(rows)
    a, b = (csr_array(random_dense(rng, rows)) for _ in range(2))
    for by_rows in {0, 1, rows // 2, rows - 1, rows}:
        shifted = ShiftedCodes(as_paired(a, b, chunk_rows=chunk_rows), by_rows)
        assert isinstance(shifted, PairedCodes)
        assert (shifted.n_rows, shifted.features_a, shifted.features_b) == (rows, 32, 32)
        chunks = list(shifted.chunks())
        assert all(one.rows == other.rows > 0 for one, other in chunks)
        np.testing.assert_array_equal(dense([one for one, _ in chunks]), a.toarray())
        np.testing.assert_array_equal(dense([two for _, two in chunks]), np.roll(b.toarray(), -by_rows, axis=0))


def test_correlations_are_those_of_the_rolled_matrix() -> None:
    rng = np.random.default_rng(3)
    a, b = (random_dense(rng, 120, share=0.4) for _ in range(2))
    rolled = csr_array(np.roll(b, -43, axis=0))
    for chunk_rows in (None, 50, 11):
        codes = as_paired(csr_array(a), csr_array(b), chunk_rows=chunk_rows)
        same(correlate(ShiftedCodes(codes, 43)), correlate(csr_array(a), rolled))


class Streamed:
    """Chunks made one at a time and not kept; counts how many of them are alive."""

    def __init__(self, n_rows: int, chunk_rows: int) -> None:
        self.n_rows, self.chunk_rows, self.features_a, self.features_b = n_rows, chunk_rows, 32, 32
        self.alive: list[weakref.ref] = []
        self.most = 0

    def chunks(self) -> Iterator[ChunkPair]:
        for first in range(0, self.n_rows, self.chunk_rows):
            both = []
            for side in (0, 1):
                codes = csr_array(random_dense(np.random.default_rng([side, first]), self.chunk_rows))
                value = codes.data.view(_Watched)
                self.alive.append(weakref.ref(value))
                both.append(CsrArrays(codes.indptr.astype(np.int64), codes.indices, value))
            self.alive = [ref for ref in self.alive if ref() is not None]
            self.most = max(self.most, len(self.alive))
            yield both[0], both[1]


class _Watched(np.ndarray):
    pass


def test_memory_does_not_grow_with_the_text() -> None:
    for rows in (200, 2000):
        codes = Streamed(rows, 20)
        for _ in ShiftedCodes(codes, rows // 3 + 5).chunks():
            pass
        assert codes.most <= 8  # two streams, each with the chunk it gives and the one it makes


def test_nothing_is_lost_and_the_input_is_untouched() -> None:
    b = csr_array(random_dense(np.random.default_rng(1), 20))
    before = b.toarray()
    got = [chunk for _, chunk in ShiftedCodes(as_paired(b, b, chunk_rows=6), 9).chunks()]
    np.testing.assert_array_equal(b.toarray(), before)
    np.testing.assert_array_equal(np.sort(dense(got), axis=0), np.sort(before, axis=0))


def test_chunks_are_the_same_each_time() -> None:
    codes = csr_array(random_dense(np.random.default_rng(2), 20))
    shifted = ShiftedCodes(as_paired(codes, codes, chunk_rows=6), 7)
    for one, other in zip(shifted.chunks(), shifted.chunks(), strict=True):
        for left, right in zip((*one[0], *one[1]), (*other[0], *other[1]), strict=True):
            np.testing.assert_array_equal(left, right)


def test_fewer_rows_than_promised_are_noticed() -> None:
    class Liar(InMemoryCodes):
        @property
        def n_rows(self) -> int:
            return 25

        def chunks(self) -> Iterator[ChunkPair]:
            yield self.a, self.b

    codes = as_paired(*[csr_array(random_dense(np.random.default_rng(2), 20))] * 2)
    assert isinstance(codes, InMemoryCodes)
    with pytest.raises(UserError, match="the chunks hold 20 rows, but n_rows is 25"):
        correlate(ShiftedCodes(Liar(codes.a, codes.b, 32, 32), 7))


@pytest.mark.parametrize("seed", range(5))
def test_no_token_meets_its_own_document(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, 30)
    of_row = np.repeat(np.arange(30), lengths)
    start = np.r_[0, np.cumsum(lengths)[:-1]]
    chosen = shifts(np.arange(30), start, lengths.sum(), None, seed)
    assert len(chosen) == len(set(chosen.tolist())) > 15
    for at in chosen:
        assert (np.roll(of_row, -start[at]) != of_row).all()
    # And no shift that keeps all tokens out of their documents by the rule's distance was left out.
    far = [k for k in range(30) if min(start[k], lengths.sum() - start[k]) >= lengths.max()]
    assert sorted(chosen.tolist()) == far


def test_shifts_are_drawn_by_the_seed() -> None:
    document, start = np.arange(50), 10 * np.arange(50)
    drawn = [shifts(document, start, 500, 5, seed).tolist() for seed in range(20)]
    assert len({tuple(d) for d in drawn}) == 20
    assert drawn[3] == shifts(document, start, 500, 5, 3).tolist()
    assert shifts(document, start, 500, 20, 3).tolist()[:5] == drawn[3]  # more of them, the same first
    often = np.bincount([k for seed in range(2000) for k in shifts(document, start, 500, 1, seed)], minlength=50)
    assert often[0] == 0
    assert (often[1:] > 15).all()  # 41 on average each


def test_spaces_are_shifted_at_the_same_documents() -> None:
    document = np.arange(40)
    one = shifts(document, 10 * document, 400, 8, 4)
    fewer = np.delete(document, [0, 11, 12, 30])  # fully masked in another pair of spaces, whose documents are shorter
    other = shifts(fewer, 7 * np.arange(36), 7 * 36, None, 4)
    expected = [d for d in one.tolist() if d in set(fewer.tolist())]
    assert fewer[other].tolist()[: len(expected)] == expected


def test_too_few_documents() -> None:
    def drawn(lengths: list[int]) -> list[int]:
        start = np.cumsum([0, *lengths[:-1]])[: len(lengths)]
        return sorted(shifts(np.arange(len(lengths)), start, sum(lengths), 10, 0).tolist())

    assert drawn([]) == drawn([9]) == []
    assert drawn([5, 5]) == [1]
    assert drawn([5, 4]) == []  # one token of the longer would stay in it
    assert drawn([3, 3, 3, 3]) == [1, 2, 3]
    assert drawn([1, 1, 9, 1]) == []
