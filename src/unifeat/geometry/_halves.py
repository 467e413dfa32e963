"""Scoring some of the pairs from what was prepared for all of them.

Inner products between rows do not change when other rows are left out. So the Gram matrices of all rows hold those of
every part of them, which only have to be centred anew. Where a part's rows are so much alike that rounding, of these
products or of the rows as they were given, would be felt, they are prepared anew.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Float64

from unifeat.geometry._components import Components, components_of_gram, leading_components
from unifeat.geometry._folds import Rows
from unifeat.geometry._input import Matrix, Precision, centred, unit_rows
from unifeat.geometry._labels import Distinct, EqualRows
from unifeat.geometry._pairs import FLOAT64_UP_TO

# The variation of a part, as a share of that of all rows, and of its distance from their mean: above it, rounding takes
# no more than three of a float64's sixteen digits.
_LEAST_VARIATION = 1e-3
_NO_UNDERFLOW = 1e-200  # above it, products of rows do not lose digits to underflow
# 1 − |cosine| of a part's rows with its first row: above it, `unit_rows` does not put them on one line, whatever the
# precision they were given in. (It does up to 8 eps²; about their means up to 1/8, for rows that barely have a
# direction.)
_LEAST_ANGLE = {"cosine": 1e-3, "pearson": 1 / 4}
# An eigendecomposition of the rows' Gram matrix costs less than a singular value decomposition of the rows up to this
# many rows per column (measured).
_ROWS_PER_COLUMN = 1.4


class _Side:
    """All rows of one side, (n, d) as `as_matrix` gives them, and what its parts share."""

    def __init__(self, rows: Float64[np.ndarray, "n d"], given: Precision, inner: str) -> None:
        self.rows, self.given, self._inner = rows, given, inner

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

    def varied(self, rows: Rows) -> bool:
        """Whether these rows differ by more than any rounding that could be felt."""
        if self._inner != "euclidean":
            cosines = (self._directions @ self._directions[rows[0]])[rows]
            return bool((1.0 - np.abs(cosines)).max() > _LEAST_ANGLE[self._inner])
        before, whole, m = float(self._squares[rows].sum()), float(self._squares.sum()), len(rows)
        total = np.bincount(rows, minlength=len(self.rows)).astype(np.float64) @ self._centred
        least = max(_LEAST_VARIATION * max(before, whole * m / len(self.rows)), m * self._constant_below, _NO_UNDERFLOW)
        return before - float(total @ total) / m > least

    def part(self, rows: Rows) -> Float64[np.ndarray, "m m"]:
        """The Gram matrix of these rows about their own mean."""
        own: Matrix = self.gram[np.ix_(rows, rows)]
        mean = own.mean(axis=0)
        own -= mean
        own -= (mean - mean.mean())[:, None]
        return own

    def components(self, rows: Rows, dims: int | None, variance: float) -> Components:
        """`leading_components` of these rows, from their Gram matrix if that is cheaper, and accurate."""
        own, found = self.rows[rows], None
        if self.wide(rows):
            most, noise = min(own.shape[1], len(rows) - 1), self.given.most_noise(own)
            found = components_of_gram(self.part(rows), most, dims, variance, noise=noise)
        return found or leading_components(own, dims, variance, given=self.given)

    def wide(self, rows: Rows) -> bool:
        """Whether there are so few of these rows that their Gram matrix is the cheaper way."""
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
        """given_a, given_b: the precisions of the rows before they became float64.

        inner: what the measure compares: places (`euclidean`), or directions, from the origin (`cosine`) or from each
        row's mean (`pearson`).
        """
        self.equal = EqualRows.of(a, b)
        # Squares of more rows would take too much memory: parts of them share nothing, and the rows can be let go.
        small = len(a) <= FLOAT64_UP_TO
        self._sides = [_Side(a, given_a, inner), _Side(b, given_b, inner)] if small else []

    @property
    def x(self) -> Matrix:
        """The rows of x, if there are not too many."""
        return self._sides[0].rows

    def distinct(self, rows: Rows | None = None) -> Distinct:
        """How many of all rows, or of these, are different."""
        return self.equal.distinct(rows)

    def divisible(self, rows: Rows) -> bool:
        """Whether what was made of all rows, (n, n) arrays among it, also says how these rows of both sides compare."""
        return bool(self._sides) and all(side.varied(rows) for side in self._sides)

    def parts(self, rows: Rows) -> tuple[Matrix, Matrix] | None:
        """The Gram matrices of some rows, each about its mean, (m, m); None if preparing them anew is safer."""
        if not self.divisible(rows):
            return None
        a, b = (side.part(rows) for side in self._sides)
        return a, b

    def components(
        self, rows: Rows, dims: int | None = None, variance: float = 1.0
    ) -> tuple[Components, Components] | None:
        """`leading_components` of some rows of both sides; None if preparing them anew is as cheap, or safer.

        The rank of a side is only known to be that of the components kept, or more.
        """
        if not any(side.wide(rows) for side in self._sides) or not self.divisible(rows):
            return None
        a, b = (side.components(rows, dims, variance) for side in self._sides)
        return a, b
