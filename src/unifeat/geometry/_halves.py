"""Scoring some of the pairs from what was prepared for all of them.

Inner products between rows do not change when other rows are left out. So the Gram matrices of all rows hold those of
every part of them, which only have to be centred anew. Where a part's rows are so much alike that rounding, of these
products or of the rows as they were given, would be felt, they are prepared anew.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer
from scipy import linalg

from unifeat.geometry._components import Components, leading_components
from unifeat.geometry._input import Matrix, Precision, centred, unit_rows
from unifeat.geometry._labels import Distinct, EqualRows
from unifeat.geometry._pairs import FLOAT64_UP_TO

# The variation of a part, as a share of that of all rows, and of its distance from their mean: above it, rounding takes
# no more than three of a float64's sixteen digits.
_LEAST_VARIATION = 1e-3
_NO_UNDERFLOW = 1e-200  # above it, products of rows do not lose digits to underflow
# 1 − |cosine| of a part's rows with its first row: above it, `unit_rows` does not put them on one line, whatever the
# precision they were given in. (Up to 8 eps² as they are; about their means, 1/8 for the least that have a direction.)
_LEAST_ANGLE = {"cosine": 1e-3, "pearson": 1 / 8}
# The squared length of the last component kept, as a share of the first: above it, the component is far from the
# rounding of a Gram matrix.
_LEAST_COMPONENT = 1e-6
# An eigendecomposition of the rows' Gram matrix costs less than a singular value decomposition of the rows up to this
# many rows per column (measured).
_ROWS_PER_COLUMN = 1.4

Order = Integer[np.ndarray, " m"]


class _Side:
    """All rows of one side, (n, d) as `as_matrix` gives them, and what its parts share."""

    def __init__(self, rows: Float64[np.ndarray, "n d"], given: Precision, inner: str) -> None:
        self.rows, self.given, self._inner = rows, given, inner

    @cached_property
    def noise(self) -> float:
        """A singular value that the rounding of the rows as given cannot exceed, whichever are left out."""
        return self.given.most_noise(self.rows)

    @cached_property
    def gram(self) -> Matrix:
        """The inner products of all rows about their mean, (n, n)."""
        return self._centred @ self._centred.T

    @cached_property
    def _centred(self) -> Matrix:
        return centred(self.rows)

    @cached_property
    def _squares(self) -> Matrix:
        return np.einsum("ij,ij->i", self._centred, self._centred)

    @cached_property
    def _directions(self) -> Matrix:
        return unit_rows(self.rows, centre=self._inner == "pearson", eps=self.given.eps)[0]

    @cached_property
    def _constant_below(self) -> float:
        """A variation, for each row, that rows which `is_constant` takes for the same cannot exceed."""
        steps = 4 * self.given.eps * np.abs(self.rows).max(axis=0)
        return float(steps @ steps)

    def varied(self, rows: Order) -> bool:
        """Whether these rows differ by more than any rounding that could be felt."""
        if self._inner != "euclidean":
            cosines = (self._directions @ self._directions[rows[0]])[rows]
            return bool((1.0 - np.abs(cosines)).max() > _LEAST_ANGLE[self._inner])
        before, whole, m = float(self._squares[rows].sum()), float(self._squares.sum()), len(rows)
        total = np.bincount(rows, minlength=len(self.rows)).astype(np.float64) @ self._centred
        least = max(_LEAST_VARIATION * max(before, whole * m / len(self.rows)), m * self._constant_below, _NO_UNDERFLOW)
        return before - float(total @ total) / m > least

    def part(self, rows: Order) -> Float64[np.ndarray, "m m"]:
        """The Gram matrix of these rows about their own mean."""
        own: Matrix = self.gram[np.ix_(rows, rows)]
        mean = own.mean(axis=0)
        own -= mean
        own -= (mean - mean.mean())[:, None]
        return own

    def components(self, rows: Order, dims: int | None, variance: float) -> Components:
        """`leading_components` of these rows, from their Gram matrix if that is cheaper, and accurate."""
        by_gram = self.wide(rows) and _leading(self.part(rows), self.rows.shape[1], dims, variance, self.noise)
        return by_gram or leading_components(self.rows[rows], dims, variance, given=self.given)

    def wide(self, rows: Order) -> bool:
        return len(rows) <= _ROWS_PER_COLUMN * self.rows.shape[1]


class Whole:
    """The rows of both sides, and what their parts share, which is made when the first part is scored."""

    def __init__(
        self,
        a: Float64[np.ndarray, "n d_a"],
        b: Float64[np.ndarray, "n d_b"],
        given_a: Precision,
        given_b: Precision,
        inner: str = "euclidean",
    ) -> None:
        """
        given_a, given_b: the precisions of the rows before they became float64.
        inner: what the measure makes of rows: `cosine` and `pearson` are of their directions.
        """
        self.x = a
        self._a, self._b = _Side(a, given_a, inner), _Side(b, given_b, inner)

    @cached_property
    def equal(self) -> EqualRows:
        """Which rows are the same."""
        return EqualRows.of(self._a.rows, self._b.rows)

    def distinct(self, rows: Order | None = None) -> Distinct:
        """How many of all rows, or of these, are different."""
        return self.equal.distinct(rows)

    def divisible(self, rows: Order) -> bool:
        """Whether these rows of both sides may be scored from what was made of all rows, (n, n) arrays among it."""
        return len(self.x) <= FLOAT64_UP_TO and self._a.varied(rows) and self._b.varied(rows)

    def parts(self, rows: Order) -> tuple[Matrix, Matrix] | None:
        """The Gram matrices of some rows, each about its mean, (m, m); None if preparing them anew is safer."""
        return (self._a.part(rows), self._b.part(rows)) if self.divisible(rows) else None

    def components(
        self, rows: Order, dims: int | None = None, variance: float = 1.0
    ) -> tuple[Components, Components] | None:
        """`leading_components` of some rows of both sides; None if preparing them anew is as cheap, or safer.

        The rank of a side is only known to be that of the components kept, or more.
        """
        if not (self._a.wide(rows) or self._b.wide(rows)) or not self.divisible(rows):
            return None
        return self._a.components(rows, dims, variance), self._b.components(rows, dims, variance)


def _leading(gram: Matrix, width: int, dims: int | None, variance: float, noise: float) -> Components | None:
    """The components kept, from the Gram matrix of centred rows; None if one may be due to rounding.

    noise: a singular value that the rounding of the rows as given cannot exceed. Directions below it may not count as
    variance.
    """
    n = len(gram)
    most = min(width, n - 1)
    few: dict[str, Any] = {"driver": "evd"}
    if dims is not None and 4 * dims < n:
        few = {"driver": "evr", "subset_by_index": (n - dims, n - 1)}
    squares, vectors = linalg.eigh(gram, check_finite=False, **few)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    if dims is not None:
        keep = dims
    elif variance == 1.0:
        keep = most
    else:
        if squares[most - 1] <= noise**2:
            return None
        share = np.cumsum(squares) / np.trace(gram)
        keep = int((share < variance - 1e-12).sum()) + 1
    keep = min(keep, most)
    if squares[keep - 1] <= max(_LEAST_COMPONENT * squares[0], noise**2):
        return None
    return Components(
        np.ascontiguousarray(vectors[:, :keep]), np.sqrt(squares[:keep]), keep, np.full(keep, float(noise))
    )
