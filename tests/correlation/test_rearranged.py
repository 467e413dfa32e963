"""Rows beside others than their own: documents of like length, and rows of one token type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.sparse import csr_array

from oracles import same
from stores import dense_rows, random_dense
from unifeat.correlation.correlate import correlate
from unifeat.correlation.rearranged import ALIKE, Draw, RearrangedCodes, Stretch, cycles, taken
from unifeat.vocabulary.grouped_codes import GroupedCodes
from unifeat.vocabulary.paired_codes import CsrArrays, as_paired


def arrays(x: np.ndarray) -> CsrArrays:
    csr = csr_array(x)
    return CsrArrays(csr.indptr.astype(np.int64), csr.indices, csr.data)


def stretch_of(rng: np.random.Generator, lengths: list[int], first: int = 0, kinds: int = 6) -> Stretch:
    rows = sum(lengths)
    document = np.repeat(np.arange(first, first + len(lengths)), lengths)
    place = (document.astype(np.uint64) << np.uint64(32)) + np.arange(rows).astype(np.uint64)
    kind = rng.integers(0, kinds, rows).astype(np.uint64)
    a, b = (arrays(random_dense(rng, rows, share=0.3)) for _ in "ab")
    return Stretch(a, b, document, place, kind, kind.astype(np.int64))


@pytest.mark.parametrize("number", range(5))
def test_every_document_beside_another_of_like_length_from_its_first_token_on(number: int) -> None:
    rng = np.random.default_rng(number)
    lengths = rng.integers(1, 40, 50).tolist()
    stretch = stretch_of(rng, lengths)
    rows_a, rows_b = Draw("documents", 3, number).rows(stretch)
    start = np.r_[0, np.cumsum(lengths)]
    of_a, of_b = stretch.document[rows_a], stretch.document[rows_b]
    assert (of_a != of_b).all()
    partner = {a: set(of_b[of_a == a]) for a in range(50)}
    assert all(len(found) == 1 for found in partner.values())
    assert sorted(b for found in partner.values() for b in found) == list(range(50))  # each once
    np.testing.assert_array_equal(rows_a - start[of_a], rows_b - start[of_b])  # the same place in the document
    by_length = np.argsort(np.lexsort((np.arange(50), lengths)))
    for a, (b,) in ((a, tuple(found)) for a, found in partner.items()):
        assert (of_a == a).sum() == min(lengths[a], lengths[b])
        assert abs(by_length[a] - by_length[b]) < 2 * ALIKE


@pytest.mark.parametrize("documents", [2, 3, 7, 9, 17])
def test_few_documents(documents: int) -> None:
    stretch = stretch_of(np.random.default_rng(0), [5] * documents)
    rows_a, rows_b = Draw("documents", 0, 0).rows(stretch)
    assert len(rows_a) == 5 * documents
    assert (stretch.document[rows_a] != stretch.document[rows_b]).all()


def test_rows_meet_their_own_kind() -> None:
    stretch = stretch_of(np.random.default_rng(0), [30, 50, 20])
    rows_a, rows_b = Draw("types", 0, 1).rows(stretch)
    np.testing.assert_array_equal(rows_a, np.arange(100))
    assert sorted(rows_b) == list(range(100))
    np.testing.assert_array_equal(stretch.kind[rows_b], stretch.kind)
    assert (rows_b != rows_a).mean() > 0.5
    alone = stretch._replace(kind=np.arange(100).astype(np.uint64))
    np.testing.assert_array_equal(Draw("types", 0, 1).rows(alone)[1], np.arange(100))


def test_every_order_is_as_likely() -> None:
    stretch = stretch_of(np.random.default_rng(0), [3], kinds=1)
    orders = Counter(tuple(Draw("types", 0, number).rows(stretch)[1]) for number in range(6000))
    assert len(orders) == 6
    assert all(850 < count < 1150 for count in orders.values())
    few = stretch_of(np.random.default_rng(0), [1] * 4)
    partners = Counter(tuple(Draw("documents", seed, 0).rows(few)[1]) for seed in range(6000))
    assert len(partners) == 6  # the cycles of four documents
    assert all(850 < count < 1150 for count in partners.values())


@pytest.mark.parametrize(("documents", "ways"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 6), (5, 24), (17, 5040 * 40320)])
def test_few_documents_have_few_arrangements_and_each_is_drawn_once(documents: int, ways: int) -> None:
    """A p-value from draws that repeat each other would be too small."""
    assert cycles(documents) == ways
    drawn = range(min(ways, 99))
    stretch = stretch_of(np.random.default_rng(0), [3] * documents)
    assert len({tuple(Draw("documents", 5, number).rows(stretch)[1]) for number in drawn}) == len(drawn)


@pytest.mark.parametrize("how", ["documents", "types"])
def test_draws_depend_on_seed_and_number_alone(how: str) -> None:
    stretch = stretch_of(np.random.default_rng(0), [20] * 20)
    drawn = {(seed, number): Draw(how, seed, number).rows(stretch)[1].tolist() for seed in (0, 1) for number in (0, 1)}
    assert len({tuple(rows) for rows in drawn.values()}) == 4
    assert drawn[1, 1] == Draw(how, 1, 1).rows(stretch)[1].tolist()


def test_two_spaces_that_share_other_rows_are_rearranged_alike() -> None:
    """A row of one kind that is missing changes the partners of few others."""
    stretch = stretch_of(np.random.default_rng(0), [40] * 10, kinds=3)
    left = np.delete(np.arange(400), [17])
    fewer = Stretch(*(taken(side, left) for side in (stretch.a, stretch.b)), *(part[left] for part in stretch[2:]))
    whole, other = Draw("types", 0, 0).rows(stretch)[1], left[Draw("types", 0, 0).rows(fewer)[1]]
    kept = stretch.kind[left] != stretch.kind[17]
    np.testing.assert_array_equal(whole[left][kept], other[kept])


@pytest.mark.parametrize("how", ["documents", "types"])
def test_codes_a_stretch_at_a_time(how: str) -> None:
    rng = np.random.default_rng(1)
    parts = [stretch_of(rng, [7, 9, 30, 8], first=0), stretch_of(rng, [12, 11], first=4)]

    def read() -> Iterator[Stretch]:
        return iter(parts)

    draw = Draw(how, 5, 2)
    codes = RearrangedCodes.of(read, draw, 32, 32)
    assert isinstance(codes, GroupedCodes)
    chunks = list(codes.grouped_chunks())
    assert codes.n_rows == sum(a.rows for (a, _), _ in chunks)
    np.testing.assert_array_equal(codes.sizes, np.bincount(np.concatenate([group for _, group in chunks]), minlength=6))
    wanted_a, wanted_b = [], []
    for part, ((a, b), group) in zip(parts, chunks, strict=True):
        rows_a, rows_b = draw.rows(part)
        wanted_a.append(dense_rows(*part.a, 32)[rows_a])
        wanted_b.append(dense_rows(*part.b, 32)[rows_b])
        np.testing.assert_array_equal(dense_rows(*a, 32), wanted_a[-1])
        np.testing.assert_array_equal(dense_rows(*b, 32), wanted_b[-1])
        np.testing.assert_array_equal(group, part.group[rows_a])
    both = as_paired(*(csr_array(np.concatenate(side)) for side in (wanted_a, wanted_b)))
    same(correlate(codes), correlate(both))
