"""Mutual k-nearest neighbours: overlap of neighbourhoods."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry._halves import Whole
from unifeat.geometry._input import (
    Matrix,
    as_pair,
    as_permutation,
    centred,
    constant_flags,
    one_of,
    precision_of,
    unit_rows,
)
from unifeat.geometry._pairs import ROWS_PER_BLOCK, TIE_TOLERANCE
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score

Metric = Literal["cosine", "euclidean"]
METRICS = ("cosine", "euclidean")


def mutual_knn(x: Any, y: Any, *, k: int = 10, metric: Metric = "cosine") -> Score:
    """Mean overlap of the k nearest neighbours of each row on the two sides.

    With N_k(x_i) the k rows of x nearest to row i (itself left out),

        m = 1/n Σ_i |N_k(x_i) ∩ N_k(y_i)| / k, in [0, 1]

    (Huh, Cheung, Wang & Isola 2024, "The platonic representation hypothesis", ICML, arXiv 2405.07987, appendix A.)
    Under random pairing its expected value is k / (n − 1), for every n and d: `details["chance"]`.

    Rows tied at the edge of a neighbourhood share the remaining places equally. If only one side has ties, this gives
    the overlap expected if ties were broken at random. With ties, the overlap of a side with itself is less than 1.

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64; n ≥ 2.
    k: neighbours per row, at most n − 1 (a larger k is reduced, and flagged).
    metric: `cosine` (ignores rotation and each row's length) or `euclidean` (ignores rotation and translation).

    details: `neighbours` (the k used), `chance`, `tied_a`, `tied_b` (rows with a tie at the edge).
    flags: `saturated` (all rows are neighbours, so the overlap is 1), `ties x` (in at least one row in ten),
    `zero rows of x` (cosine) and `constant x`, which make the value NaN.
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, and for bad settings.
    """
    return prepare_mutual_knn(x, y, k=k, metric=metric).score()


def prepare_mutual_knn(x: Any, y: Any, *, k: int = 10, metric: Metric = "cosine") -> Prepared:
    """The neighbours of every row, on each side. The arguments are those of `mutual_knn`."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UserError(f"mutual_knn k={k!r}: give a whole number of neighbours, 1 or more")
    name = one_of(metric, METRICS, "metric of mutual_knn")
    settings = {"k": int(k), "metric": name}
    a, b = as_pair(x, y, at_least=2, why="mutual k-nearest neighbours")
    (n, d_a), d_b = a.shape, b.shape[1]
    flags = constant_flags(a, b)
    sides = []
    for side, rows, given in (("x", a, x), ("y", b, y)):
        if name == "euclidean":
            sides.append(centred(rows))  # distances stay the same, and a common offset would cost digits
            continue
        unit, undefined = unit_rows(rows, eps=precision_of(given).eps)
        sides.append(unit)
        if undefined and not flags:
            flags += (f"zero rows of {side}: {undefined} rows are zero, cosine is undefined there",)
    if flags:
        return Undefined(Score("mutual_knn", float("nan"), settings, n, d_a, d_b, flags=flags))
    used = min(int(k), n - 1)
    near_a, near_b = (_neighbours(_distances(side, name), n, used) for side in sides)
    if used == n - 1:
        flags += (f"saturated: with k={k} every one of {n} pairs is a neighbour of every other; give a smaller k",)
    for side, near in (("x", near_a), ("y", near_b)):
        if near.tied * 10 >= n:
            flags += (f"ties {side}: {near.tied} of {n} rows have several rows at the distance of neighbour {used}",)
    details = {"neighbours": used, "chance": used / (n - 1), "tied_a": near_a.tied, "tied_b": near_b.tied}
    blank = Score("mutual_knn", float("nan"), settings, n, d_a, d_b, details, flags)
    whole = Whole(a, b, precision_of(x), precision_of(y), name)
    return PreparedMutualKNN(near_a, near_b, (sides[0], sides[1]), blank, whole)


Block = Callable[[int, int], tuple[Matrix, Matrix | None]]
"""`block(start, stop)`: distances of these rows to all, a fresh array, and their rounding; None: `TIE_TOLERANCE`."""


class _Neighbours(NamedTuple):
    """The neighbours of row i are columns[start[i]:start[i+1]], ascending; tied ones count with a share below 1."""

    start: NDArray[np.int64]
    columns: NDArray[np.int64]
    share: Matrix
    tied: int


class PreparedMutualKNN:
    """The neighbourhoods of both sides. A shuffle renames the rows of one side and looks n·k up in the other."""

    tolerance = 1e-10

    def __init__(
        self, a: _Neighbours, b: _Neighbours, sides: tuple[Matrix, Matrix], blank: Score, whole: Whole
    ) -> None:
        """sides: the rows of which these are the neighbours."""
        self.n = blank.n
        self._a, self._b, self._sides, self._blank, self._whole = a, b, sides, blank, whole

    def score(self) -> Score:
        blank = self._blank
        value = self.shuffled(np.arange(self.n))
        return Score("mutual_knn", value, blank.settings, blank.n, blank.d_a, blank.d_b, blank.details, blank.flags)

    def shuffled(self, permutation: Any) -> float:
        order = as_permutation(permutation, self.n)
        return _overlap(self._a, self._b, order, self._blank.details["neighbours"])

    def subset(self, rows: NDArray[np.intp]) -> Score | None:
        blank, n = self._blank, len(rows)
        k = blank.settings["k"]
        if k >= n - 1 or not self._whole.divisible(rows):
            return None
        a, b = (_neighbours(_part(square, rows), n, k) for square in self._squares)
        return Score("mutual_knn", _overlap(a, b, np.arange(n), k), blank.settings, n, blank.d_a, blank.d_b)

    @cached_property
    def _squares(self) -> list[tuple[Matrix, Matrix | None]]:
        """All distances of each side, and their rounding."""
        return [_distances(side, self._blank.settings["metric"])(0, self.n) for side in self._sides]


def _overlap(a: _Neighbours, b: _Neighbours, order: NDArray[np.intp], k: int) -> float:
    """Mean overlap of k neighbours when row i of a goes with row order[i] of b."""
    from unifeat.geometry._kernels import shared_neighbours

    return min(1.0, float(shared_neighbours(*a[:3], *b[:3], order)) / (len(order) * k))


def _distances(rows: Matrix, metric: str) -> Block:
    """Distances of a block of rows to all, and their rounding where it is not the same for all."""
    squares = np.einsum("ij,ij->i", rows, rows)

    def block(start: int, stop: int) -> tuple[Matrix, Matrix | None]:
        far: Matrix = rows[start:stop] @ rows.T
        if metric == "cosine":
            return np.subtract(1.0, far, out=far), None
        sums = squares[start:stop, None] + squares[None, :]
        return sums - 2.0 * far, TIE_TOLERANCE * sums

    return block


def _part(square: tuple[Matrix, Matrix | None], rows: NDArray[np.intp]) -> Block:
    """The same for some of the rows, from all distances."""
    far, rounding = square

    def block(start: int, stop: int) -> tuple[Matrix, Matrix | None]:
        places = np.ix_(rows[start:stop], rows)
        return far[places], None if rounding is None else rounding[places]

    return block


def _neighbours(distances: Block, n: int, k: int) -> _Neighbours:
    """The k nearest neighbours of each of n rows, for blocks of rows against all."""
    counts, columns, shares, tied = [], [], [], 0
    for start in range(0, n, ROWS_PER_BLOCK):
        stop = min(start + ROWS_PER_BLOCK, n)
        far, of_each = distances(start, stop)
        # Distances that differ by no more than the rounding of an inner product count as equal.
        rounding = TIE_TOLERANCE if of_each is None else of_each
        far[np.arange(stop - start), np.arange(start, stop)] = np.inf
        edge = np.partition(far, k - 1, axis=1)[:, k - 1 : k]
        local, column = np.nonzero(far <= edge + rounding)
        nearer = (far < edge - rounding)[local, column]
        count = np.bincount(local, minlength=stop - start)
        inside = np.bincount(local[nearer], minlength=stop - start)
        left, at_edge = k - inside, count - inside
        columns.append(column)
        shares.append(np.where(nearer, 1.0, (left / at_edge)[local]))
        counts.append(count)
        tied += int((at_edge > left).sum())
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return _Neighbours(starts, np.concatenate(columns).astype(np.int64), np.concatenate(shares), tied)
