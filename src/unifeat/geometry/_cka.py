"""Linear centred kernel alignment."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry._device import Product, SquareSum
from unifeat.geometry._halves import Whole
from unifeat.geometry._input import (
    EPS,
    Matrix,
    as_pair,
    as_permutation,
    centred,
    constant_flags,
    precision_of,
    unit_scale,
)
from unifeat.geometry._pairs import FLOAT64_UP_TO, PairSum, condensed
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score

if TYPE_CHECKING:
    import torch

# A shuffle either gathers n²/2 entries of a Gram matrix, or computes a matrix product of n·d_a·d_b multiply-adds.
# Gathering an entry costs about as much as 20 multiply-adds (measured). The Gram matrices take 6 n² bytes.
_ADDS_PER_GATHER = 20
_GRAM_UP_TO_PAIRS = 12_000
# A part of the rows whose HSIC with itself, times n(n − 3), is below this share of ⟨K, K⟩ may be degenerate.
_LEAST_OWN_HSIC = 1e-3


def cka(x: Any, y: Any, *, debiased: bool = False) -> Score:
    """Linear centred kernel alignment.

    With centred columns, K = X Xᵀ and L = Y Yᵀ,

        CKA = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L))

    `debiased=False`: HSIC(K, L) = ⟨K, L⟩ = ‖XᵀY‖²_F, in [0, 1] (Kornblith et al. 2019, "Similarity of neural
    network representations revisited", ICML, arXiv 1905.00414). It is far above 0 on unrelated data unless n is much
    larger than d.
    `debiased=True`: the unbiased HSIC₁ of Song et al. (2012, JMLR 13, eq. 5; 2007, ICML), which is about 0 on
    unrelated data and can be negative (Nguyen, Raghu & Kornblith 2021, arXiv 2010.15327). With K̃, L̃ the
    Gram matrices without their diagonals,
    HSIC₁ = [tr(K̃L̃) + (1ᵀK̃1)(1ᵀL̃1)/((n−1)(n−2)) − 2/(n−2) 1ᵀK̃L̃1] / (n(n−3)).

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64;
    n ≥ 2, and n ≥ 4 when debiased.

    details: `hsic` (numerator; each side scaled by a power of two, so only ratios mean something).
    flags: `n <= d` and `saturated` (two pairs always agree), both biased only; `constant x` or `constant y`, and
    `degenerate x` or `degenerate y` (a debiased HSIC of zero with itself), which make the value NaN.
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, and for bad settings.
    """
    return prepare_cka(x, y, debiased=debiased).score()


def prepare_cka(x: Any, y: Any, *, debiased: bool = False) -> Prepared:
    """Centre each side and compute the denominator, which does not depend on the pairing. Arguments as for `cka`."""
    if not isinstance(debiased, bool | np.bool_):
        raise UserError(f"cka debiased={debiased!r}: give true or false")
    settings = {"debiased": bool(debiased)}
    a, b = as_pair(x, y, at_least=4 if debiased else 2, why="debiased CKA" if debiased else "CKA")
    (n, d_a), d_b = a.shape, b.shape[1]
    if flags := constant_flags(a, b):
        return Undefined(Score("cka", float("nan"), settings, n, d_a, d_b, flags=flags))
    whole = Whole(a, b, precision_of(x), precision_of(y))
    rows = whole.distinct()
    a, b = unit_scale(centred(a)), unit_scale(centred(b))
    sides = [_Side(a), _Side(b)]
    norms = [side.own_hsic(debiased=bool(debiased)) for side in sides]
    for name, side, norm, given in zip("xy", sides, norms, (x, y), strict=True):
        # Where it is zero, it is of second order in the rounding of the rows as given.
        rounding = precision_of(given).eps ** 2 / (n * (n - 3)) if debiased else 0.0
        if norm <= max(64 * EPS, rounding) * side.energy:
            flags += (f"degenerate {name}: its debiased HSIC with itself is zero",)
    if flags:
        return Undefined(Score("cka", float("nan"), settings, n, d_a, d_b, flags=flags))
    if not debiased and rows.fewest <= max(d_a, d_b):
        found = rows.described(rows.fewest)
        flags += (f"n <= d: {found} in {d_a} and {d_b} dimensions inflate CKA; try debiased=True",)
    if rows.pairs == 2:
        flags += (f"saturated: {rows.described(2)} have one distance per side, which always agrees",)
    blank = Score("cka", float("nan"), settings, n, d_a, d_b, flags=flags)
    return PreparedCKA(sides[0], sides[1], float(np.sqrt(norms[0] * norms[1])), blank, whole)


class _Side:
    """A centred matrix X, with the diagonal of K = XXᵀ and ⟨K, K⟩."""

    def __init__(self, rows: Matrix) -> None:
        self.rows = rows
        self.diagonal: Matrix = np.einsum("ij,ij->i", rows, rows)
        slim = rows if rows.shape[0] > rows.shape[1] else rows.T
        self.energy = float(np.sum((slim.T @ slim) ** 2))

    def own_hsic(self, *, debiased: bool) -> float:
        if not debiased:
            return self.energy
        return _unbiased(self.energy - float(self.diagonal @ self.diagonal), self.diagonal, self.diagonal)

    def gram(self) -> Matrix:
        """K without its diagonal, condensed."""
        return condensed(len(self.rows), lambda start, stop: self.rows[start:stop] @ self.rows[start:].T)


class PreparedCKA:
    """Two centred sides. Reordering the rows keeps them centred and does not change the denominator."""

    def __init__(
        self, a: _Side, b: _Side, norm: float, blank: Score, whole: Whole, device: torch.device | None = None
    ) -> None:
        self.n = blank.n
        self._whole, self._device = whole, device
        self._a, self._b, self._norm, self._blank = a, b, norm, blank
        self._debiased = bool(blank.settings["debiased"])
        products = a.rows.shape[1] * b.rows.shape[1]
        self._by_gram = self.n <= min(_GRAM_UP_TO_PAIRS, 2 * products / _ADDS_PER_GATHER)
        self.tolerance = 1e-7 if self._by_gram and self.n > FLOAT64_UP_TO else 1e-10

    def score(self) -> Score:
        blank = self._blank
        a, b = self._a.rows, self._b.rows
        if self.n < a.shape[1] and self.n < b.shape[1]:  # Gram matrices are then the smaller product
            inner = float(np.sum((a @ a.T) * (b @ b.T)))
        else:
            inner = float(np.sum((a.T @ b) ** 2))
        diagonal_b = self._b.diagonal
        hsic = self._hsic(inner - float(self._a.diagonal @ diagonal_b), diagonal_b)
        details = {"hsic": hsic}
        value = self._ratio(hsic)
        return Score("cka", value, blank.settings, blank.n, blank.d_a, blank.d_b, details, blank.flags)

    def subset(self, rows: NDArray[np.intp]) -> Score | None:
        parts = self._whole.parts(rows)
        if parts is None or self._whole.distinct(rows).pairs == 2:
            return None

        def hsic(k: Matrix, l: Matrix) -> float:
            inner = float(np.vdot(k, l))
            if not self._debiased:
                return inner
            diagonals = k.diagonal(), l.diagonal()
            return _unbiased(inner - float(diagonals[0] @ diagonals[1]), *diagonals)

        norms = [hsic(gram, gram) for gram in parts]
        if self._debiased:
            least = _LEAST_OWN_HSIC / (len(rows) * (len(rows) - 3))
            if any(norm <= least * np.vdot(k, k) for norm, k in zip(norms, parts, strict=True)):
                return None
        value = min(1.0, max(-1.0 if self._debiased else 0.0, hsic(*parts) / float(np.sqrt(norms[0] * norms[1]))))
        blank = self._blank
        return Score("cka", value, blank.settings, len(rows), blank.d_a, blank.d_b)

    def on(self, device: torch.device) -> PreparedCKA:
        return PreparedCKA(self._a, self._b, self._norm, self._blank, self._whole, device)

    def shuffled(self, permutation: Any) -> float:
        order = as_permutation(permutation, self.n)
        off_diagonal = self._by_gather(order) if self._by_gram else self._by_product(order)
        return self._ratio(self._hsic(off_diagonal, self._b.diagonal[order]))

    @cached_property
    def _sum(self) -> PairSum | SquareSum:
        pairs = PairSum(self.n, self._a.gram(), self._b.gram())
        return pairs if self._device is None else pairs.on(self._device)

    @cached_property
    def _product(self) -> Product:
        assert self._device is not None
        return Product(self._a.rows, self._b.rows, self._device)

    def _by_gather(self, order: NDArray[np.intp]) -> float:
        """Σ_{i≠j} K_ij L_π(i)π(j), from the Gram matrices."""
        return 2.0 * self._sum(order)

    def _by_product(self, order: NDArray[np.intp]) -> float:
        """The same as ‖XᵀPY‖²_F − Σ_i K_ii L_π(i)π(i)."""
        if self._device is not None:
            energy = self._product(order)
        else:
            product = self._a.rows.T @ self._b.rows.take(order, axis=0)
            energy = float(np.sum(product * product))
        return energy - float(self._a.diagonal @ self._b.diagonal[order])

    def _hsic(self, off_diagonal: float, diagonal_b: Matrix) -> float:
        if self._debiased:
            return _unbiased(off_diagonal, self._a.diagonal, diagonal_b)
        return off_diagonal + float(self._a.diagonal @ diagonal_b)

    def _ratio(self, hsic: float) -> float:
        low = -1.0 if self._debiased else 0.0
        return min(1.0, max(low, hsic / self._norm))


def _unbiased(off_diagonal: float, k: Float64[np.ndarray, " n"], l: Float64[np.ndarray, " n"]) -> float:
    """HSIC₁ from tr(K̃L̃) and the diagonals of K and L.

    Rows of a centred Gram matrix sum to zero, so those of K̃ sum to −K_ii: 1ᵀK̃1 = −tr K and
    1ᵀK̃L̃1 = Σ K_ii L_ii. (HSIC₁ ignores translations, so K̃ may come from centred rows.)
    """
    n = len(k)
    sums = float(k.sum() * l.sum()) / ((n - 1) * (n - 2)) - 2.0 / (n - 2) * float(k @ l)
    return (off_diagonal + sums) / (n * (n - 3))
