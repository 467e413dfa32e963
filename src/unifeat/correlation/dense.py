"""Products of dense codes, such as pre-activations: blocks of features written out in full and multiplied by BLAS.

A few rows at a time are written out as float64, a block of A's features beside a block of B's, and
totals += rows_aᵀ rows_b. What is written out is what the sparse kernels see (`Profile`: features that fire on more than
half the rows less a shift near their mean), so the sums mean the same, and no correlation loses digits.

Rows are grouped by their number in the whole, not by chunk, and blocks are multiples of `TILE` wide. Then OpenBLAS (as
measured with 0.3.30 on its SkylakeX, Haswell and Zen kernels) forms every sum by the same kernel in the same order,
wherever a block begins and however many threads share it. At other widths the last columns go through other kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.linalg.blas import dgemm

from unifeat.correlation.kernels import TILE
from unifeat.correlation.layout import aligned
from unifeat.correlation.moments import Profile
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, PairedCodes, normal_chunks

# Rows multiplied at once: enough that reading and writing the totals does not count (98 % of BLAS's best).
_ROWS = 256


class Block(NamedTuple):
    """Ranks of A against ranks of B; all but the last ends are multiples of TILE."""

    low_a: int
    high_a: int
    low_b: int
    high_b: int


def blocks(varying_a: int, width_b: int, memory_gb: float) -> list[Block]:
    """All ranks of A against all of B (padded: `width_b` is a multiple of TILE), in blocks of `memory_gb` of float64.

    Every block is a pass over the codes, so few blocks: B whole where it may be. No side is so long that its rows
    written out take more than a quarter of `memory_gb` (below 8 MB: more than those of a square block).
    """
    cells = memory_gb * 1e9 / 8
    longest = max(cells / (4 * _ROWS), np.sqrt(cells))
    wide_b = width_b if width_b <= longest else _tiles(np.sqrt(cells))
    wide_a = _tiles(min(cells / wide_b, longest))
    return [
        Block(low_a, min(low_a + wide_a, varying_a), low_b, min(low_b + wide_b, width_b))
        for low_a in range(0, varying_a, wide_a)
        for low_b in range(0, width_b, wide_b)
    ]


def _tiles(wish: float) -> int:
    """The multiple of TILE at or below `wish`, at least one."""
    return max(int(wish) // TILE, 1) * TILE


class Room(NamedTuple):
    """Memory that all blocks share."""

    totals: Array  # flat float64, zero between blocks
    rows_a: Array
    rows_b: Array

    @classmethod
    def of(cls, plan: list[Block]) -> Room:
        """Room for the largest block, which is the first."""
        wide_a, wide_b = _padded_a(plan[0]), plan[0].high_b - plan[0].low_b
        return cls(aligned(wide_a * wide_b, fill=0.0), aligned(_ROWS * wide_a), aligned(_ROWS * wide_b))

    def block(self, block: Block) -> Array:
        """The totals of a block, (ranks of A and padding, ranks of B)."""
        wide_a, wide_b = _padded_a(block), block.high_b - block.low_b
        return self.totals[: wide_a * wide_b].reshape(wide_a, wide_b)


def _padded_a(block: Block) -> int:
    width = block.high_a - block.low_a
    return width + -width % TILE


def multiply(paired: PairedCodes, a: Profile, b: Profile, block: Block, room: Room, team: Team) -> Iterator[int]:
    """Add Σab over all rows to the totals of the block; yields how many rows each step did."""
    totals = room.block(block)
    sides = (
        _Side(a, block.low_a, totals.shape[0], room.rows_a),
        _Side(b, block.low_b, totals.shape[1], room.rows_b),
    )
    held = 0
    for chunk in normal_chunks(paired):
        done = 0
        while done < chunk[0].rows:
            step = min(_ROWS - held, chunk[0].rows - done)
            edges = np.linspace(done, done + step, min(team.threads, step) + 1).astype(int).tolist()
            jobs = [
                (codes, side, first, last)
                for codes, side in zip(chunk, sides, strict=True)
                for first, last in pairwise(edges)
            ]
            offset = held - done
            team.each(
                lambda job, offset=offset: _write_out(
                    *job[0], job[1].rank, job[1].low, job[1].base, job[2], job[3], offset, job[1].rows
                ),
                jobs,
            )
            done, held = done + step, held + step
            if held == _ROWS:
                _add_product(sides[0].rows, sides[1].rows, totals)
                yield held
                held = 0
    if held:
        _add_product(sides[0].rows[:held], sides[1].rows[:held], totals)
        yield held


class _Side:
    """One side of a block: where its ranks begin, what a silent row is less, and the rows written out."""

    def __init__(self, profile: Profile, low: int, width: int, room: Array) -> None:
        self.rank, self.low = profile.rank, low
        self.base = np.zeros(width)
        shift = profile.shift[low : low + width]
        self.base[: len(shift)] = shift
        self.rows = room[: _ROWS * width].reshape(_ROWS, width)


def _add_product(rows_a: Array, rows_b: Array, totals: Array) -> None:
    """totals += rows_aᵀ rows_b in place. To Fortran's eyes, arrays in C order are their transposes."""
    dgemm(1.0, rows_b.T, rows_a.T, beta=1.0, c=totals.T, trans_b=True, overwrite_c=True)


@njit(nogil=True, cache=True)
def _write_out(indptr, index, value, rank, low, base, first, last, offset, out):  # type: ignore[no-untyped-def]
    """Rows first:last of a chunk into rows first + offset … of `out`: the value, or zero, less `base`."""
    width = np.uint32(base.shape[0])
    for row in range(first, last):
        line = out[row + offset]
        for i in range(width):
            line[i] = 0.0 - base[i]
        for q in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            # Ranks below `low`, and the −1 of features that never vary, wrap around and are too large.
            column = np.uint32(rank[np.uint32(index[q])] - low)
            if column < width:
                line[column] = value[q] - base[column]
