"""Codes with one side's rows rearranged: what nulls correlate and match in place of the text as it is.

* `documents`: each document of A beside another document of B, one of like length, both from their first token on and
  cut to the shorter. Firing rates, the order of activations, and what depends on the place in the document stay; only
  the text differs.
* `types`: rows of B are permuted among those of the same token type. Every token still meets its own kind, but not its
  own context: what correlates here does so because of the tokens.

A draw depends on its seed and number, and on the places of the rows in the text. So pairs of spaces over one text are
rearranged alike, whatever tokens they share. Few documents can be put beside each other in few ways (`cycles`): then
no two draws are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numba import njit

from unifeat.vocabulary.paired_codes import Array, ChunkPair, CsrArrays, normal

Kind = Literal["documents", "types"]
ALIKE = 8  # documents of like length, within which partners are drawn
_COUNTED = 8  # so many documents have 5,040 cycles: draws of more hardly ever repeat


class Stretch(NamedTuple):
    """Rows of two spaces in memory. A text that is too large for it is rearranged one stretch at a time."""

    a: CsrArrays
    b: CsrArrays
    document: Array  # (rows,) int, ascending
    place: Array  # (rows,) uint64, names the row's place in the text
    kind: Array  # (rows,) uint64, the row's token type: within these rows are permuted
    group: Array  # (rows,) int64, the row's group, for correlation within groups


class Rearrangement(Protocol):
    """Says which rows of a stretch stand beside each other."""

    def rows(self, stretch: Stretch) -> tuple[Array, Array]:
        """The rows of A and of B that stand beside each other: two (n,) int64 arrays."""
        ...


@dataclass(frozen=True)
class Draw:
    """One rearrangement.

    Attributes:
        how: what is rearranged.
        seed, number: which draw.
    """

    how: Kind
    seed: int
    number: int

    def rows(self, stretch: Stretch) -> tuple[Array, Array]:
        """The rows of A and of B that stand beside each other: two (n,) int64 arrays."""
        if self.how == "types":
            return np.arange(len(stretch.kind)), self._permuted(stretch)
        return self._paired(stretch)

    def _words(self, values: Array) -> Array:
        """A random word for each value: the same value gets the same word in every pair of spaces."""
        key = mixed(np.array([self.seed], np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self.number))
        return mixed(mixed(values.astype(np.uint64)) ^ key)

    def _permuted(self, stretch: Stretch) -> Array:
        rows = np.empty(len(stretch.kind), np.int64)
        rows[np.argsort(stretch.kind, kind="stable")] = np.lexsort((self._words(stretch.place), stretch.kind))
        return rows

    def _paired(self, stretch: Stretch) -> tuple[Array, Array]:
        document, start, length = np.unique(stretch.document, return_index=True, return_counts=True)
        partner = np.arange(len(document))
        word = self._words(document)
        for alike in np.array_split(np.lexsort((document, length)), max(len(document) // ALIKE, 1)):
            # One random cycle: no document meets itself.
            if len(document) <= _COUNTED and self.number < cycles(len(document)):
                cycle = alike[_cycle(len(alike), self.seed, self.number)]
            else:
                cycle = alike[np.argsort(word[alike], kind="stable")]
            partner[cycle] = np.roll(cycle, -1)
        shorter = np.minimum(length, length[partner])
        within = np.arange(int(shorter.sum())) - np.repeat(np.cumsum(shorter) - shorter, shorter)
        return np.repeat(start, shorter) + within, np.repeat(start[partner], shorter) + within


@dataclass(frozen=True)
class RearrangedCodes:
    """Rearranged codes (`PairedCodes`; and `GroupedCodes`, by the groups of A's rows).

    Attributes:
        stretches: gives the stretches of the text, in order, each time it is called.
        draw: how their rows are rearranged.
        n_rows, features_a, features_b: as for all paired codes.
        sizes: (groups,) int64, the rows of each group.
    """

    stretches: Callable[[], Iterable[Stretch]]
    draw: Rearrangement
    n_rows: int
    features_a: int
    features_b: int
    sizes: Array

    @classmethod
    def of(
        cls, stretches: Callable[[], Iterable[Stretch]], draw: Rearrangement, features_a: int, features_b: int
    ) -> RearrangedCodes:
        """Rearranged codes; reads the text once to count the rows."""
        rows, sizes = 0, np.zeros(0, np.int64)
        for stretch in stretches():
            kept, _ = draw.rows(stretch)
            rows += len(kept)
            own = np.bincount(stretch.group[kept], minlength=len(sizes))
            own[: len(sizes)] += sizes
            sizes = own
        return cls(stretches, draw, rows, features_a, features_b, sizes)

    def chunks(self) -> Iterator[ChunkPair]:
        """The rows beside each other, a stretch at a time."""
        return (chunk for chunk, _ in self.grouped_chunks())

    def grouped_chunks(self) -> Iterator[tuple[ChunkPair, Array]]:
        """The rows beside each other, and the groups of A's rows."""
        for stretch in self.stretches():
            rows_a, rows_b = self.draw.rows(stretch)
            if len(rows_a):
                yield (taken(stretch.a, rows_a), taken(stretch.b, rows_b)), stretch.group[rows_a]


def cycles(documents: int, alike: int = ALIKE) -> int:
    """In how many ways a draw can put documents of one stretch beside each other; 0 if there is but one.

    A null cannot have more draws than that: further ones would be the same again, and p too small.

    Args:
        documents: how many.
        alike: how many at least are exchanged with each other.
    """
    groups = max(documents // alike, 1)
    sizes = [documents // groups + (place < documents % groups) for place in range(groups)]
    return math.prod(math.factorial(size - 1) for size in sizes) if documents > 1 else 0


def _cycle(documents: int, seed: int, number: int) -> list[int]:
    """One of the cycles of few documents; each number has another."""
    rank, left, order = int(_ranks(documents, seed)[number]), list(range(1, documents)), [0]
    while left:
        rank, place = divmod(rank, len(left))
        order.append(left.pop(place))
    return order


@cache
def _ranks(documents: int, seed: int) -> Array:
    return np.random.default_rng([seed, documents]).permutation(math.factorial(documents - 1))


def taken(codes: CsrArrays, rows: Array) -> CsrArrays:
    """Some rows, in the order given; the codes themselves if these are all rows in order."""
    if len(rows) == codes.rows and np.array_equal(rows, np.arange(len(rows))):
        return codes
    source = normal(codes)
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.diff(source.indptr)[rows], out=indptr[1:])
    index, value = np.empty(int(indptr[-1]), np.int32), np.empty(int(indptr[-1]), source.value.dtype)
    _take(*source, rows, indptr, index, value)
    return CsrArrays(indptr, index, value)


def mixed(words: Array) -> Array:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014): a bijection of 64-bit words that spreads similar ones."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@njit(nogil=True, cache=True)
def _take(indptr, index, value, rows, start, out_index, out_value):  # type: ignore[no-untyped-def]
    for i in range(rows.size):
        at = start[i]
        for q in range(indptr[rows[i]], indptr[rows[i] + 1]):
            out_index[at] = index[q]
            out_value[at] = value[q]
            at += 1
