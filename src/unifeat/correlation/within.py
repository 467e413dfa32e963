"""Correlation within groups of rows: Pearson's r of both features' deviations from the means of the groups.

For rows grouped by token it is what two features share beyond the token. (The pooled within-group correlation of the
analysis of covariance: Snedecor & Cochran 1967, "Statistical methods", chapter 14.)

    r_within = Σ (a − ā_g)(b − b̄_g) / √(Σ (a − ā_g)² Σ (b − b̄_g)²)

All sums are exact and sparse (see `deviations`). Memory holds, beside what plain correlation takes, one entry for every
feature of every group in which it fires.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from unifeat.correlation import kernels
from unifeat.correlation.best_partners import best_partners
from unifeat.correlation.block_sums import BlockSums, FeatureSums
from unifeat.correlation.deviations import (
    ROUNDING_SHARE,
    Adding,
    GroupSums,
    Taken,
    arrays_of,
    count_of,
    group_sums,
    grouped_rows,
    rows_of,
    scaled,
    squares_of,
)
from unifeat.correlation.found import Found
from unifeat.correlation.moments import Moments, Profile, profiles
from unifeat.correlation.pair_sums import PairSums, cofiring, pair_ids
from unifeat.memory import working_memory
from unifeat.progress import track
from unifeat.threads import Team
from unifeat.vocabulary.grouped_codes import GroupedCodes
from unifeat.vocabulary.paired_codes import Array, ChunkPair, CodesOver, CsrArrays, normal, row_slice

_GROUPS_AT_ONCE = 4096


@dataclass(frozen=True)
class DeviationCodes(CodesOver):
    """Codes whose products Σab are those of deviations within groups: the rows, and a row for each group whose A side
    is negative."""

    codes: GroupedCodes
    a: Taken
    b: Taken
    sums: GroupSums

    @property
    def n_rows(self) -> int:
        """Rows that are not alone in their group, and groups."""
        sizes = self.codes.sizes
        return int(sizes[sizes > 1].sum()) + len(self.sums.group)

    def chunks(self) -> Iterator[ChunkPair]:
        """The rows, chunk by chunk, and then the groups."""
        for rows_a, rows_b, _ in grouped_rows(self.codes, self.a, self.b):
            yield arrays_of(rows_a), arrays_of(rows_b)
        share = 1 / np.sqrt(self.sums.rows)
        for low in range(0, len(share), _GROUPS_AT_ONCE):
            some = slice(low, low + _GROUPS_AT_ONCE)
            yield (
                arrays_of(scaled(self.sums.a[some], -share[some])),
                arrays_of(scaled(self.sums.b[some], share[some])),
            )


def partners_within(codes: GroupedCodes, top: int, memory_gb: float | None, team: Team) -> Found:
    """The best partners in both directions by correlation within groups, and on how many rows they fire together.

    Raises:
        UserError: as `correlate`.
    """
    plain_a, plain_b, _ = profiles(codes, team.pool, team.threads)
    taken = Taken.of(plain_a), Taken.of(plain_b)
    sums, tallies = group_sums(codes, *taken)
    deviations = DeviationCodes(codes, *taken, sums)
    within = []
    for plain, own, tally in zip((plain_a, plain_b), (sums.a, sums.b), tallies, strict=True):
        left = tally.squares - squares_of(own, 1 / sums.rows)
        within.append(_profile(plain, tally.count + count_of(own), left, tally.squares))
    memory = working_memory() / 1e9 if memory_gb is None else memory_gb
    of_a, of_b = best_partners(deviations, within[0], within[1], np.float64, top, memory, team)
    return Found(*of_a, *of_b, *cofiring(codes, of_a[0], of_b[0], team), plain_a.moments, plain_b.moments)


def _profile(plain: Profile, count: Array, left: Array, squares: Array) -> Profile:
    """A side as the kernels read it: no shift and no mean, since those of deviations are zero."""
    varies = np.flatnonzero((plain.rank >= 0) & (left > ROUNDING_SHARE * squares))
    order = varies[np.argsort(-count[varies], kind="stable")].astype(np.int32)
    rank = np.full(len(plain.rank), -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    moments = Moments(count, plain.moments.mean, plain.moments.sd)
    return Profile(moments, order, rank, np.zeros(0), 1 / np.sqrt(left[order]), np.zeros(len(order)))


@dataclass(frozen=True)
class Within:
    """Given pairs within groups.

    Attributes:
        sums: sums of deviations in blocks of rows. All deviations are from the means over all rows of a group, so that
            the blocks' sums add up. (A bootstrap of blocks leaves the means as they are. Σ (a − m)(b − m′) does not
            change to first order when m and m′ move away from the means, so nothing is lost by that to first order.)
        share_a, share_b: (pairs,) float64, the share of the variance of a pair's features that lies between groups,
            corrected for the number of groups; NaN where a feature does not vary. ε² of Kelley (1935, "An unbiased
            correlation ratio measure", PNAS 21): 1 − (SS_within / (n − groups)) / (SS_total / (n − 1)). It can be
            slightly negative where there is none.
        alone: rows that are alone in their group, and so say nothing.
    """

    sums: BlockSums
    share_a: Array
    share_b: Array
    alone: int

    def correlation(self) -> Array:
        """(pairs,) float64, NaN where a feature does not vary within groups."""
        total = self.sums.product.sum(axis=0)
        spread = [side.squares.sum(axis=0) for side in (self.sums.a, self.sums.b)]
        norm = np.sqrt(spread[0][self.sums.pair_a]) * np.sqrt(spread[1][self.sums.pair_b])
        r = np.full(len(total), np.nan)
        np.divide(total, norm, out=r, where=norm > 0)
        return np.clip((r + kernels.ROUNDING) - kernels.ROUNDING, -1.0, 1.0)


def within_groups(codes: GroupedCodes, edges: Array, feature_a: Array, feature_b: Array, *, threads: int) -> Within:
    """Sum given pairs within groups.

    Args:
        edges: (blocks + 1,) rows at which blocks begin and end: ascending from 0 to the number of rows.
        feature_a, feature_b: (pairs,) feature ids.

    Raises:
        UserError: as `correlate_pairs`.
    """
    ids = pair_ids(codes, feature_a, feature_b)
    with ThreadPoolExecutor(threads) as pool:
        plain_a, plain_b, _ = profiles(codes, pool, threads)
        work = _InBlocks(codes, (plain_a, plain_b), ids, len(edges) - 1, Team(pool, threads))
        with track("correlation within groups", codes.n_rows) as advance:
            done = 0
            for chunk, group in codes.grouped_chunks():
                work.add([normal(side) for side in chunk], group, np.clip(edges - done, 0, len(group)))
                done += len(group)
                advance(len(group))
        return work.finished(edges)


class _InBlocks:
    """The sums over blocks in progress."""

    def __init__(
        self, codes: GroupedCodes, plain: tuple[Profile, Profile], ids: tuple[Array, Array], blocks: int, team: Team
    ) -> None:
        self.codes, self.plain = codes, plain
        features_a, self.pair_a = np.unique(ids[0], return_inverse=True)
        features_b, self.pair_b = np.unique(ids[1], return_inverse=True)
        self.features = features_a, features_b
        self.taken = Taken.of(plain[0], features_a), Taken.of(plain[1], features_b)
        self.sums, tallies = group_sums(codes, *self.taken)
        self.total = [tally.squares for tally in tallies]  # for what is a rounding error beside it
        sides = [_ranked(p, f) for p, f in zip(plain, self.features, strict=True)]
        self.pairs = PairSums(sides[0], sides[1], self.pair_a, self.pair_b, team)
        self.product = np.zeros((blocks, len(self.pair_a)))
        self.squares = tuple(np.zeros((blocks, len(f))) for f in self.features)
        self.counts = tuple(np.zeros((blocks, len(f)), np.int64) for f in self.features)
        self.current, self.in_block = 0, Adding()

    def add(self, chunk: list[CsrArrays], group: Array, edges: Array) -> None:
        """Add a chunk. `edges` are those of the blocks, counted from the chunk's first row."""
        for block, (low, high) in enumerate(pairwise(edges.tolist())):
            for side, (codes, taken) in enumerate(zip(chunk, self.taken, strict=True)):
                self.counts[side][block] += _fires(row_slice(codes, low, high), taken)
        keep = self.codes.sizes[group] > 1
        rows = [rows_of(side, keep, taken) for side, taken in zip(chunk, self.taken, strict=True)]
        group, ends = group[keep], np.r_[0, np.cumsum(keep)][edges]
        for block, (low, high) in enumerate(pairwise(ends.tolist())):
            if low == high:
                continue
            if block != self.current:
                self._close()
                self.current = block
            a, b = (side[low:high] for side in rows)
            self.pairs.add((arrays_of(a), arrays_of(b)))
            for side, part in enumerate((a, b)):
                self.squares[side][block] += squares_of(part)
            self.in_block.add(GroupSums.of(a, b, group[low:high]))

    def _close(self) -> None:
        """Take the means out of the block's sums: Σ (a − m)(b − m′) = Σ ab − Σ_g (S m′ + m S′ − n_g m m′)."""
        here = self.in_block.whole()
        self.in_block = Adding()
        if here is None:
            return
        at = np.searchsorted(self.sums.group, here.group)
        share = 1 / self.sums.rows[at]
        means = [scaled(side[at], share) for side in (self.sums.a, self.sums.b)]
        rest = [own - scaled(mean, here.rows / 2) for own, mean in zip((here.a, here.b), means, strict=True)]
        for minus, plus in ((rest[0], means[1]), (means[0], rest[1])):
            self.pairs.add((arrays_of(-minus.tocsr()), arrays_of(plus.tocsr())))
        self.product[self.current] = self.pairs.take().total
        for squares, mean, half in zip(self.squares, means, rest, strict=True):
            squares[self.current] -= 2 * np.asarray(mean.multiply(half).sum(axis=0)).ravel()

    def finished(self, edges: Array) -> Within:
        self._close()
        n, sizes = self.codes.n_rows, self.codes.sizes
        sums, shares = [], []
        for side, (plain, features, of_pair) in enumerate(
            zip(self.plain, self.features, (self.pair_a, self.pair_b), strict=True)
        ):
            squares = np.maximum(self.squares[side], 0.0)
            left = squares.sum(axis=0)
            constant = left <= ROUNDING_SHARE * self.total[side]
            squares[:, constant] = 0.0
            sums.append(FeatureSums(self.counts[side], np.zeros(squares.shape), squares))
            spread = plain.moments.sd[features] ** 2 * n
            share = np.full(len(features), np.nan)
            known = spread > 0
            if n > len(sizes):
                left = np.where(constant, 0.0, left)
                share[known] = 1 - (left[known] / (n - len(sizes))) / (spread[known] / (n - 1))
            shares.append(share[of_pair])
        blocks = BlockSums(np.diff(edges), sums[0], sums[1], self.pair_a, self.pair_b, self.product)
        return Within(blocks, shares[0], shares[1], int((sizes == 1).sum()))


def _fires(codes: CsrArrays, taken: Taken) -> Array:
    """(columns,) the rows on which each feature fires."""
    own = slice(codes.indptr[0], codes.indptr[-1])
    column = taken.column[codes.index[own]]
    return np.bincount(column[(column >= 0) & (codes.value[own] != 0)], minlength=taken.columns)


def _ranked(plain: Profile, features: Array) -> Profile:
    """What `PairSums` needs to know of the features: how often they fire."""
    count = plain.moments.count[features]
    moments = Moments(count, plain.moments.mean[features], plain.moments.sd[features])
    order = np.arange(len(features), dtype=np.int32)
    return Profile(moments, order, order, np.zeros(0), np.ones(len(order)), np.zeros(len(order)))
