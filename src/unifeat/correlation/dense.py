"""Products of dense codes, such as pre-activations: panels of features written out in full and multiplied by BLAS.

A few rows at a time are written out as float64, a range of A's features and a range of B's, and
totals += rows_aᵀ rows_b. The values written out are those that the sparse kernels see (`Profile`: features that fire on
more than half the rows less a shift near their mean). So the sums mean the same, and no correlation loses digits.

Rows are grouped by their number in the whole text, not by chunk, and panels are multiples of `TILE` wide. Then OpenBLAS
(measured with 0.3.30 on its SkylakeX, Haswell and Zen kernels) forms every sum by the same kernel in the same order,
wherever a panel begins and however many threads share it. At other widths, the last columns use other kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.linalg.blas import dgemm

from unifeat.correlation.kernels import TILE
from unifeat.correlation.layout import aligned
from unifeat.correlation.moments import Profile
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, CsrArrays, PairedCodes, normal_chunks

# Rows multiplied at once: enough that reading and writing the totals hardly matters (98 % of BLAS's top speed).
_ROWS_PER_PRODUCT = 256


class Panel(NamedTuple):
    """A range of A's ranks and a range of B's. All bounds but the last are multiples of TILE."""

    low_a: int
    high_a: int
    low_b: int
    high_b: int


def panels(varying_a: int, width_b: int, memory_gb: float) -> list[Panel]:
    """All ranks of A against all ranks of B, in panels that take `memory_gb` of float64.

    Every panel takes one pass over the codes, so there should be few: B is not divided if possible. A side is at most
    so wide that its written-out rows take a quarter of `memory_gb` (or, below 8 MB, as wide as a square panel).

    Args:
        width_b: B's ranks, padded to a multiple of TILE.
    """
    cells = memory_gb * 1e9 / 8
    widest = max(cells / (4 * _ROWS_PER_PRODUCT), np.sqrt(cells))
    step_b = width_b if width_b <= widest else _tiles(np.sqrt(cells))
    step_a = _tiles(min(cells / step_b, widest))
    return [
        Panel(low_a, min(low_a + step_a, varying_a), low_b, min(low_b + step_b, width_b))
        for low_a in range(0, varying_a, step_a)
        for low_b in range(0, width_b, step_b)
    ]


def _tiles(width: float) -> int:
    """The largest multiple of TILE that is at most `width`, but at least one TILE."""
    return max(int(width) // TILE, 1) * TILE


class Buffers(NamedTuple):
    """Memory that all panels share."""

    totals: Array  # flat float64, zero between panels
    rows_a: Array
    rows_b: Array

    @classmethod
    def of(cls, plan: list[Panel]) -> Buffers:
        """Buffers for the largest panel, which is the first."""
        width_a, width_b = _padded_a(plan[0]), plan[0].high_b - plan[0].low_b
        return cls(
            aligned(width_a * width_b, fill=0.0),
            aligned(_ROWS_PER_PRODUCT * width_a),
            aligned(_ROWS_PER_PRODUCT * width_b),
        )

    def totals_of(self, panel: Panel) -> Array:
        """The totals of a panel, (ranks of A, padded, ranks of B)."""
        width_a, width_b = _padded_a(panel), panel.high_b - panel.low_b
        return self.totals[: width_a * width_b].reshape(width_a, width_b)


def _padded_a(panel: Panel) -> int:
    width = panel.high_a - panel.low_a
    return width + -width % TILE


def multiply(paired: PairedCodes, a: Profile, b: Profile, panel: Panel, buffers: Buffers, team: Team) -> Iterator[int]:
    """Add Σab over all rows to the totals of a panel; yields the number of rows of each step."""
    totals = buffers.totals_of(panel)
    sides = (
        _Side(a, panel.low_a, totals.shape[0], buffers.rows_a),
        _Side(b, panel.low_b, totals.shape[1], buffers.rows_b),
    )
    filled = 0  # rows of the buffers
    for chunk in normal_chunks(paired):
        done = 0  # rows of the chunk
        while done < chunk[0].rows:
            step = min(_ROWS_PER_PRODUCT - filled, chunk[0].rows - done)
            edges = np.linspace(done, done + step, min(team.threads, step) + 1).astype(int).tolist()
            jobs = [
                _WriteJob(codes, side, first, last, filled - done)
                for codes, side in zip(chunk, sides, strict=True)
                for first, last in pairwise(edges)
            ]
            team.each(_run, jobs)
            done, filled = done + step, filled + step
            if filled == _ROWS_PER_PRODUCT:
                _add_product(sides[0].rows, sides[1].rows, totals)
                yield filled
                filled = 0
    if filled:
        _add_product(sides[0].rows[:filled], sides[1].rows[:filled], totals)
        yield filled


class _Side:
    """One side of a panel: its first rank, the shift to subtract from each column, and the rows written out."""

    def __init__(self, profile: Profile, low: int, width: int, buffer: Array) -> None:
        self.rank, self.low = profile.rank, low
        self.base = np.zeros(width)
        shift = profile.shift[low : low + width]
        self.base[: len(shift)] = shift
        self.rows = buffer[: _ROWS_PER_PRODUCT * width].reshape(_ROWS_PER_PRODUCT, width)


class _WriteJob(NamedTuple):
    """Rows first:last of a chunk to write out, into rows first + offset … of the side's buffer."""

    codes: CsrArrays
    side: _Side
    first: int
    last: int
    offset: int


def _run(job: _WriteJob) -> Any:
    side = job.side
    return _write_out(*job.codes, side.rank, side.low, side.base, job.first, job.last, job.offset, side.rows)


def _add_product(rows_a: Array, rows_b: Array, totals: Array) -> None:
    """totals += rows_aᵀ rows_b in place. (Fortran reads arrays in C order as their transposes.)"""
    dgemm(1.0, rows_b.T, rows_a.T, beta=1.0, c=totals.T, trans_b=True, overwrite_c=True)


@njit(nogil=True, cache=True)
def _write_out(indptr, index, value, rank, low, base, first, last, offset, out):  # type: ignore[no-untyped-def]
    """Write rows first:last of a chunk into rows first + offset … of `out`: the value, or zero, less `base`."""
    width = np.uint32(base.shape[0])
    for row in range(first, last):
        line = out[row + offset]
        for i in range(width):
            line[i] = 0.0 - base[i]
        for q in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            # Ranks below `low`, and the −1 of features that never vary, wrap around to large values.
            column = np.uint32(rank[np.uint32(index[q])] - low)
            if column < width:
                line[column] = value[q] - base[column]
