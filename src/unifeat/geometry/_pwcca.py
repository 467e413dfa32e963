"""Projection-weighted canonical correlation analysis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.geometry._components import (
    Components,
    component_flags,
    component_settings,
    found,
    leading_components,
    rank_flags,
)
from unifeat.geometry._halves import Whole
from unifeat.geometry._input import Matrix, as_pair, as_permutation, centred, constant_flags, precision_of
from unifeat.geometry._singular import left_vectors, turn_tied
from unifeat.geometry.measure import Prepared, Undefined, heavy
from unifeat.geometry.score import Score


def pwcca(x: Any, y: Any, *, dims: int | None = None, variance: float | None = None) -> Score:
    """Mean canonical correlation, weighted by how much of x each direction accounts for.

    With ρ_i the canonical correlations of the centred sides and h_i the canonical variates of x (orthonormal
    vectors over the n pairs),

        PWCCA = Σ α_i ρ_i / Σ α_i,   α_i = Σ_j |⟨h_i, x_j⟩|, x_j the columns of x

    (Morcos, Raghu & Bengio 2018, "Insights on representational similarity in neural networks with canonical
    correlation", NeurIPS, arXiv 1806.05759.) The weights always come from x, the first side, so pwcca(x, y) and
    pwcca(y, x) differ. Google's code (`svcca/pwcca.py`) takes them from the side with fewer dimensions; to follow it,
    give that side first. It does not centre the columns; here they are centred, so that a translation does not matter.
    The sum of absolute values depends on the basis of x: PWCCA changes with a rotation of x, and ignores every
    invertible linear map of y.

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64; n ≥ 2.
    dims, variance: leading principal components kept on each side, as in `svcca`. The default, without either, keeps
        all, as in the paper.

    The score is far above 0 on unrelated data unless n is much larger than d, and 1 once n − 1 ≤ d: compare it with its
    null. Where n forces several correlations to 1, their directions are the principal axes of x in their common span.

    details: `dims_a`, `dims_b` (components used), `rank_a`, `rank_b`, `correlations` (descending) and their
    `weights` (sum 1).
    flags: `n <= d`, `rank` (fewer components than asked for), `rank of x` (directions below the rounding of its dtype
    do not count), `saturated` (n forces correlations of 1), `constant x` or `constant y` (value NaN).
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, and for bad settings.
    """
    return prepare_pwcca(x, y, dims=dims, variance=variance).score()


def prepare_pwcca(x: Any, y: Any, *, dims: int | None = None, variance: float | None = None) -> Prepared:
    """One SVD per side, and the columns of x in its components. The arguments are those of `pwcca`."""
    settings = component_settings("pwcca", dims, variance, default=1.0)
    a, b = as_pair(x, y, at_least=2, why="PWCCA")
    (n, d_a), d_b = a.shape, b.shape[1]
    if flags := constant_flags(a, b):
        return Undefined(Score("pwcca", float("nan"), settings, n, d_a, d_b, flags=flags))
    whole = Whole(a, b, precision_of(x), precision_of(y))
    kept_a = leading_components(a, **settings, given=precision_of(x))
    kept_b = leading_components(b, **settings, given=precision_of(y))
    flags = component_flags("PWCCA", whole.distinct(), (d_a, d_b), kept_a, kept_b) + rank_flags(dims, kept_a, kept_b)
    blank = Score("pwcca", float("nan"), settings, n, d_a, d_b, found(kept_a, kept_b), flags)
    return PreparedPWCCA(kept_a, kept_b, centred(a).T @ kept_a.basis, blank, whole)


class PreparedPWCCA:
    """Orthonormal bases of the two sides. A shuffle takes one product, its left singular vectors, and one
    product for the weights."""

    tolerance = 1e-9  # directions of nearly equal correlations, and so the weights, are less exact than correlations

    def __init__(self, a: Components, b: Components, columns: Matrix, blank: Score, whole: Whole | None = None) -> None:
        """columns: the columns of centred x in the components of x, (d_a, k_a). whole: None for parts of it."""
        self.n = blank.n
        self.heavy = heavy(self.n, a.scale.size, b.scale.size)
        self._whole = whole
        self._basis_a, self._basis_b = a.basis, b.basis
        self._columns = columns
        self._blank = blank

    def score(self) -> Score:
        value, correlations, weights = self._weighted(self._basis_b)
        blank = self._blank
        details = blank.details | {"correlations": tuple(correlations.tolist()), "weights": tuple(weights.tolist())}
        return Score("pwcca", value, blank.settings, blank.n, blank.d_a, blank.d_b, details, blank.flags)

    def shuffled(self, permutation: Any) -> float:
        return self._weighted(self._basis_b.take(as_permutation(permutation, self.n), axis=0))[0]

    def subset(self, rows: NDArray[np.intp]) -> Score | None:
        blank, whole = self._blank, self._whole
        kept = None if whole is None else whole.components(rows, **blank.settings)
        if whole is None or kept is None:
            return None
        flags = component_flags("PWCCA", whole.distinct(rows), (blank.d_a, blank.d_b), *kept)
        columns = centred(whole.x[rows]).T @ kept[0].basis
        return PreparedPWCCA(*kept, columns, replace(blank, n=len(rows), details={}, flags=flags)).score()

    def _weighted(self, basis_b: Matrix) -> tuple[float, Matrix, Matrix]:
        left, values = left_vectors(self._basis_a.T @ basis_b)
        turn_tied(values, left, self._columns)
        correlations = np.clip(values, 0.0, 1.0)
        weights = np.abs(self._columns @ left).sum(axis=0)
        weights /= weights.sum()
        return min(1.0, float(weights @ correlations)), correlations, weights
