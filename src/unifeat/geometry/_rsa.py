"""Representational similarity analysis."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

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
from unifeat.geometry._pairs import TIE_TOLERANCE, PairSum, centred_ranks, condensed, ranks_in_place, square
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score

if TYPE_CHECKING:
    import torch

Inner = Literal["cosine", "euclidean", "pearson"]
Outer = Literal["spearman", "pearson"]
INNER = ("cosine", "euclidean", "pearson")
OUTER = ("spearman", "pearson")
_FEWEST_PAIRS = 5  # pairs
_LEAST_SPREAD = 1e-6  # of some dissimilarities, as a share of that of all: below it, differences may be rounding


def rsa(x: Any, y: Any, *, inner: Inner = "cosine", outer: Outer = "spearman") -> Score:
    """Correlation between the pairwise dissimilarities of two sides.

    With D_ij the dissimilarity of rows i and j, RSA = corr over i < j of (D_ij(x), D_ij(y)).
    (Kriegeskorte, Mur & Bandettini 2008, "Representational similarity analysis", Front. Syst. Neurosci. 2:4.)

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64; n ≥ 3.
    inner: the dissimilarity.
        `cosine`     1 − x_i·x_j / (|x_i| |x_j|), rows as they are; ignores rotation and each row's length.
        `euclidean`  |x_i − x_j|; ignores rotation and translation.
        `pearson`    1 − corr of x_i and x_j over their coordinates. NOT rotation invariant: the score depends
                     on the model's basis, which is arbitrary. Only for reproducing arXiv 2410.06981.
    outer: `spearman` (average ranks over ties; distances equal up to rounding count as tied) or `pearson`.

    Memory: about 1.6 GB at n = 10,000 (50 million row pairs), growing with n².

    details: `pairs`, the number n(n−1)/2 of dissimilarities per side.
    flags: `constant x` (all rows the same), `equidistant x` (all dissimilarities equal), `zero rows of x`
    (the inner measure is undefined there); each makes the value NaN. `few pairs`: fewer than five pairs, whose
    dissimilarities can agree by chance, even perfectly, and which have fewer than 120 shuffles to compare with.
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, and for bad settings.
    """
    return prepare_rsa(x, y, inner=inner, outer=outer).score()


def prepare_rsa(x: Any, y: Any, *, inner: Inner = "cosine", outer: Outer = "spearman") -> Prepared:
    """Standardised dissimilarities, or their ranks, of each side. The arguments are those of `rsa`."""
    inner_name = one_of(inner, INNER, "inner measure of rsa")
    outer_name = one_of(outer, OUTER, "outer measure of rsa")
    settings = {"inner": inner_name, "outer": outer_name}
    a, b = as_pair(x, y, at_least=3, why="RSA")
    (n, d_a), d_b = a.shape, b.shape[1]
    details = {"pairs": n * (n - 1) // 2}
    flags = constant_flags(a, b)
    sides = []
    if not flags:
        for name, matrix, given in (("x", a, x), ("y", b, y)):
            side, flag = _standardised(matrix, name, inner_name, outer_name, precision_of(given).eps)
            sides.append(side)
            flags += flag
    if flags:
        return Undefined(Score("rsa", float("nan"), settings, n, d_a, d_b, details, flags))
    if n < _FEWEST_PAIRS:
        flags = (f"few pairs: {n} pairs have {details['pairs']} dissimilarities per side, which can agree by chance",)
    value = float(np.clip(sides[0] @ sides[1], -1.0, 1.0))
    return PreparedRSA(PairSum(n, *sides), Score("rsa", value, settings, n, d_a, d_b, details, flags))


class PreparedRSA:
    """Two condensed vectors of mean 0 and length 1. The correlation of any pairing is an inner product."""

    def __init__(self, pairs: PairSum, result: Score, device: torch.device | None = None) -> None:
        self.n = result.n
        self.tolerance = 1e-10 if pairs.exact else 1e-7
        self._pairs, self._result = pairs, result
        self._sum = pairs if device is None else pairs.on(device)

    def on(self, device: torch.device) -> PreparedRSA:
        return PreparedRSA(self._pairs, self._result, device)

    def score(self) -> Score:
        return self._result

    def shuffled(self, permutation: Any) -> float:
        value = self._sum(as_permutation(permutation, self.n))
        return min(1.0, max(-1.0, value))

    def subset(self, rows: NDArray[np.intp]) -> Score | None:
        if len(rows) < _FEWEST_PAIRS or not self._pairs.exact:
            return None
        spearman = self._result.settings["outer"] == "spearman"
        sides = []
        for whole in self._squares:
            values = whole[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)]
            # A part of ranked values has the order, and the ties, of their ranks.
            own = centred_ranks(values) if spearman else values - values.mean()
            length = float(np.linalg.norm(own))
            if np.ptp(values) == 0 or length <= _LEAST_SPREAD * np.sqrt(own.size / self._pairs.sides[0].size):
                return None
            sides.append(own / length)
        value = min(1.0, max(-1.0, float(sides[0] @ sides[1])))
        blank = self._result
        return Score("rsa", value, blank.settings, len(rows), blank.d_a, blank.d_b)

    @cached_property
    def _squares(self) -> list[NDArray[Any]]:
        """The values of all pairs of rows, (n, n); whole numbers in their order if only the order matters."""
        sides = self._pairs.sides
        if self._result.settings["outer"] == "spearman":
            ordered = [np.unique(values, return_inverse=True)[1] for values in sides]
            return [square(places, self.n, np.int32) for places in ordered]
        return [square(values, self.n, np.float64) for values in sides]


def _standardised(matrix: Matrix, name: str, inner: str, outer: str, eps: float) -> tuple[Matrix, tuple[str, ...]]:
    """Condensed dissimilarities (or their ranks) of mean 0 and length 1; or a flag that says why they are undefined."""
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
