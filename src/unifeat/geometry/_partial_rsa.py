"""Partial RSA: the similarity structures of other arrays taken out of both sides."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from unifeat.errors import UserError
from unifeat.geometry._components import svd
from unifeat.geometry._dissimilarities import standardised
from unifeat.geometry._input import EPS, Matrix, as_matrix, as_permutation, centred, is_constant, precision_of
from unifeat.geometry.score import Score

# A dissimilarity vector is explained if the part of it that is left is shorter than this; the whole has length 1.
_NOTHING_LEFT = 1e-7
# Penalties that are tried, as shares of the largest squared singular value.
_PENALTIES = np.logspace(-8, 1, 37)


class Given(NamedTuple):
    """What is taken out of both sides.

    Attributes:
        basis: (k, pairs) orthonormal vectors that span the standardised dissimilarities of the given arrays.
        rows: (n, d) the given arrays side by side, each centred and of the same total variance.
        flags: about arrays that were left out.
    """

    basis: Float64[np.ndarray, "k pairs"]
    rows: Float64[np.ndarray, "n d"]
    flags: tuple[str, ...]

    def left(self, values: Float64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " pairs"]:
        """What is left of a vector when the basis is taken out."""
        rest = values - self.basis.T @ (self.basis @ values)
        remainder: Matrix = rest - self.basis.T @ (self.basis @ rest)  # twice, against rounding
        return remainder


def as_given(given: Any, n: int) -> list[tuple[Matrix, float]]:
    """The given arrays, checked: each (n, d_z), and its relative precision.

    Raises:
        UserError: not a list of finite 2-D arrays with n rows.
    """
    several = list(given) if isinstance(given, list | tuple) else [given]
    arrays = []
    for number, values in enumerate(several, start=1):
        matrix = as_matrix(values, f"given {number}")
        if len(matrix) != n:
            raise UserError(f"given {number} has {len(matrix)} rows and x has {n}: row i must belong to pair i")
        arrays.append((matrix, precision_of(values).eps))
    return arrays


def take_out(arrays: list[tuple[Matrix, float]], n: int, inner: str, outer: str) -> tuple[Given, tuple[str, ...]]:
    """The dissimilarities of the given arrays, made orthonormal; and flags that make the score undefined."""
    basis, rows = np.empty((0, n * (n - 1) // 2)), []
    found: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    for number, (matrix, eps) in enumerate(arrays, start=1):
        name = f"given {number}"
        if is_constant(matrix):
            found += (f"constant {name}: all rows are the same, so there is nothing to take out",)
            continue
        spread = centred(matrix)
        rows.append(spread / np.linalg.norm(spread))
        values, undefined = standardised(matrix, name, inner, outer, eps)
        if undefined and undefined[0].startswith("equidistant"):
            found += (f"{undefined[0]}, so there is nothing to take out",)
            continue
        if undefined:
            wrong += undefined
            continue
        rest = Given(basis, matrix, ()).left(values)
        length = float(np.linalg.norm(rest))
        if length < _NOTHING_LEFT:
            found += (f"collinear {name}: its dissimilarities follow from those of the arrays before it",)
            continue
        basis = np.vstack([basis, rest / length])
    return Given(basis, np.hstack(rows) if rows else np.zeros((n, 1)), found), wrong


class PreparedPartialRSA:
    """What is left of the dissimilarities of x; and y as a part that the given rows predict, and a rest.

    A shuffle moves the rest, adds it to the predicted part, and ranks the dissimilarities of the sum.
    """

    def __init__(self, left_x: Matrix, y: Matrix, given: Given, result: Score) -> None:
        """left_x: (pairs,) of length 1, orthogonal to the basis; y: (n, d_b) as given."""
        self.n = result.n
        self.tolerance = 1e-9
        self._left_x, self._y, self._given, self._result = left_x, y, given, result

    def score(self) -> Score:
        return self._result

    def shuffled(self, permutation: Any) -> float:
        """The value when the part of y that the given rows do not predict is moved: that of row `permutation[i]` is
        added to the predicted part of row i."""
        order = as_permutation(permutation, self.n)
        predicted, rest = self._predicted
        settings = self._result.settings
        values, flags = standardised(predicted + rest.take(order, axis=0), "y", settings["inner"], settings["outer"])
        return float("nan") if flags else partial_correlation(self._left_x, values, self._given)

    @cached_property
    def _predicted(self) -> tuple[Matrix, Matrix]:
        return predicted_part(self._given.rows, self._y)


def partial_correlation(
    left_x: Float64[np.ndarray, " pairs"], values: Float64[np.ndarray, " pairs"], given: Given
) -> float:
    """Correlation of what is left of x with what is left of standardised values; NaN if nothing is."""
    within = given.basis @ values
    length = 1.0 - float(within @ within)
    if length <= _NOTHING_LEFT**2:
        return float("nan")
    return min(1.0, max(-1.0, float(left_x @ values) / float(np.sqrt(length))))


def predicted_part(
    z: Float64[np.ndarray, "n d_z"], y: Float64[np.ndarray, "n d"]
) -> tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, "n d"]]:
    """y = predicted + rest, where the first is y's ridge regression on z.

    One penalty serves all columns: the one with the least generalised cross-validation error (Golub, Heath & Wahba
    1979, Technometrics 21), ‖y − ŷ‖² / (n − tr H)², of a fixed grid.
    """
    n, mean = len(y), y.mean(axis=0)
    left, scale, _ = svd(z)
    kept = scale > max(z.shape) * EPS * max(float(scale[0]), np.finfo(np.float64).tiny)
    left, squares = left[:, kept], scale[kept] ** 2
    if not squares.size:
        return np.broadcast_to(mean, y.shape).copy(), y - mean
    centre = centred(y)
    coordinates = left.T @ centre
    energy = np.einsum("ij,ij->i", coordinates, coordinates)
    total = float(np.sum(centre * centre))
    shrink = squares / (squares + squares[0] * _PENALTIES[:, None])
    freedom = n - 1 - shrink.sum(axis=1)
    error = np.where(freedom >= 1, (total - (2 * shrink - shrink**2) @ energy) / np.maximum(freedom, 1) ** 2, np.inf)
    predicted = mean + left @ (shrink[int(np.argmin(error))][:, None] * coordinates)
    return predicted, y - predicted
