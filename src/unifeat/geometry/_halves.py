"""Scoring some of the pairs from what was prepared for all of them.

Inner products between rows do not change when other rows are left out. So the Gram matrices of all rows hold those of
every part of them, which only have to be centred anew.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer
from scipy import linalg

from unifeat.geometry._components import Components, leading_components
from unifeat.geometry._input import Matrix, Precision, centred
from unifeat.geometry._labels import Distinct, EqualRows
from unifeat.geometry._pairs import FLOAT64_UP_TO

# A part that varies so much less than all rows do, or than it is far from their mean, may be constant up to rounding.
_LEAST_VARIATION = 1e-3
# The squared length of the last component kept, as a share of the first: above it, the component is far from the
# rounding of a Gram matrix.
_LEAST_COMPONENT = 1e-6
# An eigendecomposition of the rows' Gram matrix costs less than a singular value decomposition of the rows up to this
# many rows per column (measured).
_ROWS_PER_COLUMN = 1.4

Order = Integer[np.ndarray, " m"]


def part(gram: Float64[np.ndarray, "n n"], rows: Order) -> Float64[np.ndarray, "m m"] | None:
    """The Gram matrix of these rows about their own mean; None if they hardly vary."""
    own: Matrix = gram[np.ix_(rows, rows)]
    before = float(np.trace(own))
    mean = own.mean(axis=0)
    own -= mean
    own -= (mean - mean.mean())[:, None]
    whole = float(np.trace(gram)) * len(rows) / len(gram)
    return own if np.trace(own) > _LEAST_VARIATION * max(before, whole) else None


class Whole:
    """The rows of both sides, and what their parts share, which is made when the first part is scored."""

    def __init__(
        self,
        a: Float64[np.ndarray, "n d_a"],
        b: Float64[np.ndarray, "n d_b"],
        given_a: Precision,
        given_b: Precision,
    ) -> None:
        """given_a, given_b: the precisions of the rows before they became float64."""
        self.x = a
        self._sides = a, b
        self._given = given_a, given_b

    @cached_property
    def equal(self) -> EqualRows:
        """Which rows are the same."""
        return EqualRows.of(*self._sides)

    def distinct(self, rows: Order | None = None) -> Distinct:
        """How many of all rows, or of these, are different."""
        return self.equal.distinct(rows)

    def parts(self, rows: Order) -> tuple[Matrix, Matrix] | None:
        """The Gram matrices of some rows, each about its mean, (m, m); None if preparing them anew is safer."""
        if len(self.x) > FLOAT64_UP_TO:
            return None
        a, b = (part(gram, rows) for gram in self._grams)
        return None if a is None or b is None else (a, b)

    def components(
        self, rows: Order, dims: int | None = None, variance: float = 1.0
    ) -> tuple[Components, Components] | None:
        """`leading_components` of some rows of both sides; None if preparing them anew is as cheap, or safer.

        The rank of a side is only known to be that of the components kept, or more.
        """
        wide = [len(rows) <= _ROWS_PER_COLUMN * side.shape[1] for side in self._sides]
        if not any(wide) or (grams := self.parts(rows)) is None:
            return None
        found = []
        for side, given, noise, gram, by_gram in zip(self._sides, self._given, self._noise, grams, wide, strict=True):
            kept = _leading(gram, side.shape[1], dims, variance, noise) if by_gram else None
            found.append(kept or leading_components(side[rows], dims, variance, given=given))
        return found[0], found[1]

    @cached_property
    def _noise(self) -> list[float]:
        return [given.most_noise(side) for given, side in zip(self._given, self._sides, strict=True)]

    @cached_property
    def _grams(self) -> list[Matrix]:
        rows = [centred(side) for side in self._sides]
        return [side @ side.T for side in rows]


def _leading(gram: Matrix, width: int, dims: int | None, variance: float, noise: float) -> Components | None:
    """The components kept, from the Gram matrix of centred rows; None if one may be due to rounding.

    noise: a singular value that the rounding of the rows as given cannot exceed.
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
        share = np.cumsum(squares) / np.trace(gram)
        keep = int((share < variance - 1e-12).sum()) + 1
    keep = min(keep, most)
    if squares[keep - 1] <= max(_LEAST_COMPONENT * squares[0], noise**2):
        return None
    return Components(
        np.ascontiguousarray(vectors[:, :keep]), np.sqrt(squares[:keep]), keep, np.full(keep, float(noise))
    )
