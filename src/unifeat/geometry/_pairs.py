"""Values for pairs of rows, n(n−1)/2 in condensed order, computed and summed in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Integer, Shaped
from numpy.typing import NDArray

from unifeat.geometry._device import SquareSum
from unifeat.geometry._input import Matrix
from unifeat.threads import in_threads

if TYPE_CHECKING:
    import torch

ROWS_PER_BLOCK = 512
_CHUNKS = 16
_FEWEST_PAIRS_FOR_THREADS = 2_000_000  # row pairs
# Up to this many rows, shuffles run in float64 (134 MB for the square). Above, they run in float32 with float64 sums:
# half the memory and twice the speed. The rounding errors of single pairs average out to 1e-9 in the sum.
FLOAT64_UP_TO = 4096
# Distances that differ by less than the rounding of one inner product count as equal. Otherwise ties would be broken by
# noise, and reordering the rows would change the ranks.
TIE_TOLERANCE = 32 * float(np.finfo(np.float64).eps)


def condensed(n: int, block: Callable[[int, int], Matrix]) -> Float64[np.ndarray, " {n*(n-1)//2}"]:
    """Condensed values from `block(start, stop)`, which gives rows start:stop of columns start:n."""
    out = np.empty(n * (n - 1) // 2)
    at = 0
    for start in range(0, n, ROWS_PER_BLOCK):
        stop = min(start + ROWS_PER_BLOCK, n)
        rows = block(start, stop)
        for i in range(stop - start):
            right = rows[i, i + 1 :]
            out[at : at + right.size] = right
            at += right.size
    return out


def square(values: Shaped[np.ndarray, " {n*(n-1)//2}"], n: int, dtype: Any) -> Shaped[np.ndarray, "{n} {n}"]:
    """The symmetric (n, n) matrix of condensed values, with a zero diagonal."""
    out = np.zeros((n, n), dtype=dtype)
    at = 0
    for i in range(n - 1):
        out[i, i + 1 :] = values[at : at + n - 1 - i]
        at += n - 1 - i
    for start in range(0, n, ROWS_PER_BLOCK):
        stop = min(start + ROWS_PER_BLOCK, n)
        out[start:stop, :start] = out[:start, start:stop].T
        corner = out[start:stop, start:stop]
        corner += np.triu(corner).T
    return out


def ranks_in_place(values: Float64[np.ndarray, " pairs"], scale: float) -> None:
    """Replace non-negative values by their ranks, averaged over ties. `scale` sets what counts as a tie.

    For 50 million values, sorting them and looking each one up in a table takes less time and memory than an argsort.
    """
    from unifeat.geometry._kernels import bin_starts, replace_by_rank, tied_ranks

    ordered = np.sort(values)
    ranks = tied_ranks(ordered, scale, TIE_TOLERANCE)
    bins = int(np.clip(values.size // 3, 1, 2**24))
    spread = ordered[-1] - ordered[0]
    per_unit = bins / spread if spread > 0 else 0.0
    starts = bin_starts(ordered, per_unit, bins).astype(np.uint32)  # half the cache misses of 64 bits
    edges = np.linspace(0, values.size, _CHUNKS + 1).astype(np.int64)
    parts = [values[a:b] for a, b in pairwise(edges)]
    in_threads(
        lambda part: replace_by_rank(part, ordered, ranks, starts, per_unit),
        parts,
        worth_while=values.size >= _FEWEST_PAIRS_FOR_THREADS,
    )


def centred_ranks(values: Integer[np.ndarray, " pairs"]) -> Float64[np.ndarray, " pairs"]:
    """Ranks of whole numbers, 0 or more, averaged over ties, less their mean. Counting is faster than sorting."""
    counts = np.bincount(values)
    ranks: Matrix = (np.cumsum(counts) - 0.5 * (counts - 1))[values]
    return ranks - ranks.mean()


class PairSum:
    """Σ_{i<j} a_ij · b_π(i)π(j) for any permutation π, in one pass over the pairs and without copies."""

    def __init__(self, n: int, a: Matrix, b: Matrix) -> None:
        """a, b: condensed, (n(n−1)/2,)."""
        self.n = n
        dtype = np.float64 if n <= FLOAT64_UP_TO else np.float32
        self.exact = dtype is np.float64
        self._a = a.astype(dtype, copy=False)
        self._b = b.astype(dtype, copy=False)
        # Equal shares of the triangle above the diagonal. The shares depend only on n, and their sums are added in
        # order, so the result is the same bit for bit for any number of threads.
        share = np.arange(_CHUNKS + 1) / _CHUNKS
        self._edges = np.round(n * (1 - np.sqrt(1 - share))).astype(np.int64)

    @property
    def sides(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """a and b, condensed."""
        return self._a, self._b

    def on(self, device: torch.device) -> SquareSum:
        """The same sum on a torch device, which takes two (n, n) matrices there."""
        return SquareSum(square(self._a, self.n, self._a.dtype), self._square, device)

    @cached_property
    def _square(self) -> NDArray[Any]:
        return square(self._b, self.n, self._a.dtype)

    def __call__(self, order: Integer[np.ndarray, " n"]) -> float:
        from unifeat.geometry._kernels import gather_dot

        moved, index = self._square, order.astype(np.uint32)
        spans = list(pairwise(self._edges))
        parts = in_threads(
            lambda span: gather_dot(self._a, moved, index, *span),
            spans,
            worth_while=self._a.size >= _FEWEST_PAIRS_FOR_THREADS,
        )
        return float(sum(parts))
