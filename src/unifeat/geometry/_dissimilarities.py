"""Dissimilarities of all pairs of rows, as they are or as ranks: what RSA compares."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float64

from unifeat.geometry._input import EPS, Matrix, centred, unit_rows
from unifeat.geometry._pairs import TIE_TOLERANCE, condensed, ranks_in_place

Inner = Literal["cosine", "euclidean", "pearson"]
Outer = Literal["spearman", "pearson"]
INNER = ("cosine", "euclidean", "pearson")
OUTER = ("spearman", "pearson")


def standardised(matrix: Matrix, name: str, inner: str, outer: str, eps: float = EPS) -> tuple[Matrix, tuple[str, ...]]:
    """Condensed dissimilarities (or their ranks) of mean 0 and length 1; or a flag that says why they are undefined.

    Args:
        matrix: (n, d) float64.
        name: the side's name, for the flag.
        eps: relative precision of the rows before they became float64.
    """
    if inner == "euclidean":
        values, scale = _squared_distances(matrix)
    else:
        unit, undefined = unit_rows(matrix, centre=inner == "pearson", eps=eps)
        if undefined:
            what = "zero" if inner == "cosine" else "constant over their coordinates"
            flag = f"zero rows of {name}: {undefined} rows are {what}, {inner} dissimilarity is undefined there"
            return matrix, (flag,)
        values, scale = _one_minus_cosine(unit), 1.0
    if np.ptp(values) <= TIE_TOLERANCE * max(scale, float(values.max())):
        return matrix, (f"equidistant {name}: all pairs of rows are equally dissimilar",)
    if outer == "spearman":
        ranks_in_place(values, scale)
    elif inner == "euclidean":
        np.sqrt(values, out=values)  # not for ranks: they do not change, and near 0 the root magnifies rounding
    values -= values.mean()
    values /= np.linalg.norm(values)
    return values, ()


def _one_minus_cosine(unit: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " pairs"]:
    def block(start: int, stop: int) -> Matrix:
        values: Matrix = 1.0 - unit[start:stop] @ unit[start:].T
        values[values < TIE_TOLERANCE] = 0.0
        return values

    return condensed(len(unit), block)


def _squared_distances(matrix: Float64[np.ndarray, "n d"]) -> tuple[Float64[np.ndarray, " pairs"], float]:
    """|x_i − x_j|², and the size of a typical one, to which rounding errors are proportional."""
    rows = centred(matrix)  # distances stay the same, and a common offset would cost digits
    squares = np.einsum("ij,ij->i", rows, rows)

    def block(start: int, stop: int) -> Matrix:
        sums = squares[start:stop, None] + squares[None, start:]
        values: Matrix = sums - 2.0 * (rows[start:stop] @ rows[start:].T)
        values[values < TIE_TOLERANCE * sums] = 0.0
        return values

    return condensed(len(rows), block), float(np.median(squares))
