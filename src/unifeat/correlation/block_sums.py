"""Sums of given pairs in blocks of whole documents: all that a bootstrap over documents needs, from one pass.

There are at most 128 blocks, however long the text, so that neither the memory nor the cost of a draw grows with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from unifeat.correlation.moments import Profile, profiles
from unifeat.correlation.pair_sums import PairSums, pair_ids, thread_count
from unifeat.errors import UserError
from unifeat.progress import track
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, ChunkPair, PairedCodes, as_paired, normal_chunks, row_slice

MOST_BLOCKS = 128


class FeatureSums(NamedTuple):
    """Sums of single features, (blocks, features). A dense feature is measured from a shift near its mean."""

    count: Array  # type: ignore[assignment]  # int64, rows on which it fires; hides tuple.count
    total: Array  # float64, Σ(x − shift) over all rows, with x = 0 where the feature does not fire
    squares: Array  # float64, Σ(x − shift)²


@dataclass(frozen=True)
class BlockSums:
    """Sufficient statistics of Pearson's r for given pairs, block by block.

    The shift of dense features (see `moments`) does not change any r, but avoids cancellation.

    Attributes:
        n: (blocks,) int64, rows.
        a, b: sums of the features that occur in any pair.
        pair_a, pair_b: (pairs,) int64, the columns of `a` and `b` that belong to each pair.
        product: (blocks, pairs) float64, Σ(a − shift)(b − shift).
    """

    n: Array
    a: FeatureSums
    b: FeatureSums
    pair_a: Array
    pair_b: Array
    product: Array

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.n)

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.pair_a)


def block_edges(start: Array, n_rows: int, most: int = MOST_BLOCKS) -> Array:
    """Where blocks of whole documents begin and end: contiguous, with numbers of documents as equal as possible.

    Args:
        start: (documents,) the first row of each document, ascending from 0.
        n_rows: rows in all.
        most: largest number of blocks; with fewer documents, each is a block.

    Returns:
        (blocks + 1,) int64 rows.
    """
    blocks = min(len(start), most)
    first = np.linspace(0, len(start), blocks + 1).astype(np.int64)[:-1]
    return np.append(np.asarray(start, np.int64)[first], n_rows)


def block_sums(codes: Any, edges: Array, feature_a: Any, feature_b: Any, *, threads: int | None = None) -> BlockSums:
    """Sum given pairs over blocks of rows.

    Args:
        codes: `PairedCodes`, or (codes_a, codes_b) as for `correlate`.
        edges: (blocks + 1,) rows at which blocks begin and end: ascending from 0 to the number of rows.
        feature_a, feature_b: (pairs,) feature ids.
        threads: as for `correlate`.

    Raises:
        UserError: as `correlate_pairs`; also edges that do not cover the rows.
    """
    paired, threads = as_paired(codes), thread_count(threads)
    edges = np.asarray(edges, np.int64)
    if not len(edges) or edges[0] != 0 or edges[-1] != paired.n_rows or np.any(np.diff(edges) < 0):
        raise UserError(f"block edges must ascend from 0 to the {paired.n_rows} rows of the codes")
    ids = pair_ids(paired, feature_a, feature_b)
    blocks = len(edges) - 1
    product = np.zeros((blocks, len(ids[0])))
    with ThreadPoolExecutor(threads) as pool:
        a, b, dtype = profiles(paired, pool, threads)
        work = PairSums(a, b, *ids, Team(pool, threads))
        sides = _Side(a, ids[0], blocks), _Side(b, ids[1], blocks)
        current = 0
        with track("sums in blocks", paired.n_rows) as advance:
            for block, part in _block_parts(paired, dtype, edges):
                if block != current:
                    product[current] = work.take().total
                    current = block
                list(pool.map(lambda side, p=part, k=block: sides[side].add(p[side], k), (0, 1)))
                work.add(part)
                advance(part[0].rows)
        if blocks:
            product[current] = work.take().total
    n = np.diff(edges)
    a_sums, b_sums = (side.finished(n) for side in sides)
    return BlockSums(n, a_sums, b_sums, sides[0].of_pair, sides[1].of_pair, product)


class _Side:
    """The sums of one side's features."""

    def __init__(self, profile: Profile, ids: Array, blocks: int) -> None:
        features, self.of_pair = np.unique(ids, return_inverse=True)
        self.slot = np.full(len(profile.rank), -1, np.int32)
        self.slot[features] = np.arange(len(features))
        self.shift = np.zeros(len(features))
        dense = profile.order[: profile.dense]
        in_pairs = self.slot[dense] >= 0
        self.shift[self.slot[dense[in_pairs]]] = profile.shift[in_pairs]
        self.count = np.zeros((blocks, len(features)), np.int64)
        self.total, self.squares = np.zeros((2, blocks, len(features)))

    def add(self, codes: Any, block: int) -> None:
        _sum_features(*codes, self.slot, self.shift, self.count[block], self.total[block], self.squares[block])

    def finished(self, n: Array) -> FeatureSums:
        """The sums over all rows: on rows where a feature does not fire, it counts as minus its shift."""
        silent = n[:, None] - self.count
        return FeatureSums(self.count, self.total - silent * self.shift, self.squares + silent * self.shift**2)


def _block_parts(paired: PairedCodes, dtype: Any, edges: Array) -> Iterator[tuple[int, ChunkPair]]:
    """The rows in order, cut where a chunk or a block ends: (block, part of a chunk)."""
    begin = 0
    for a, b in normal_chunks(paired, dtype):
        end = begin + a.rows
        inner = edges[(edges > begin) & (edges < end)]
        cuts = np.unique(np.concatenate([[begin], inner, [end]]))
        for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            block = int(np.searchsorted(edges, first, side="right")) - 1
            yield block, (row_slice(a, first - begin, last - begin), row_slice(b, first - begin, last - begin))
        begin = end


@njit(nogil=True, cache=True)
def _sum_features(indptr, index, value, slot, shift, count, total, squares):  # type: ignore[no-untyped-def]
    for q in range(np.uint64(indptr[0]), np.uint64(indptr[-1])):
        s = slot[np.uint32(index[q])]
        if s >= 0 and value[q] != 0:
            x = np.float64(value[q]) - shift[s]
            count[s] += 1
            total[s] += x
            squares[s] += x * x
