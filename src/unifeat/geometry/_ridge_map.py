"""How well a linear map with a ridge penalty predicts one side from the other, on held-out pairs.

A fold's residuals follow from the fit to *all* pairs. Let H be the hat matrix of a ridge fit with an intercept and the
fold's λ, G = I − H, and f the held-out pairs. The fit to the training pairs is also the fit to all pairs with y_f
replaced by its prediction ŷ_f: so ŷ_f = (H y)_f + H_ff (ŷ_f − y_f), and

    y_f − ŷ_f = (G_ff)⁻¹ (G y)_f

(for one row the PRESS residual of Allen 1974, Technometrics 16). G depends on one side only, and a shuffle of that side
renames its rows and columns:

* x → y: the map A from y to all residuals is fixed. A shuffle needs Σ ‖A y_π‖² = ⟨AᵀA, (YYᵀ)_ππ⟩, a sum over pairs of
  rows.
* y → x: a shuffle needs one product, G times the rows of x, and one Cholesky factorisation of G_ff a fold.

No fit is done anew. Measured, a shuffle costs as much as one through the normal equations of each fold when a fold
holds as many pairs as y has columns, and preparing costs more. So this is done below two thirds of that.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy import linalg

from unifeat.errors import UserError
from unifeat.geometry import _pairs
from unifeat.geometry._folds import (
    DEFAULT_FOLDS,
    FEWEST_PAIRS,
    Rows,
    fold_groups,
    fold_settings,
    group_setting,
    held_out,
    slim,
)
from unifeat.geometry._input import Matrix, as_pair, as_permutation, centred, constant_flags, unit_scale
from unifeat.geometry._labels import Distinct
from unifeat.geometry._pairs import PairSum, condensed
from unifeat.geometry._ridge_moments import PreparedByMoments, Side
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score

_SMALLEST_ALPHA = 1e-6  # below this, the normal equations lose too many digits


def ridge_map(
    x: Any, y: Any, *, alpha: float = 0.1, folds: int = DEFAULT_FOLDS, seed: int = 0, groups: Any = None
) -> Score:
    """Held-out R² of a ridge regression from x to y and from y to x; the value is the mean of the two.

    For each fold, W = (XᵀX + λ)⁻¹ XᵀY is fitted on the training pairs, about their means. Each pair is predicted by the
    fold that held it out; over all pairs,

        R²(x → y) = 1 − Σ ‖y_i − ŷ_i‖² / Σ ‖y_i − ȳ_train‖²

    Columns are weighted by their variance (scikit-learn's `variance_weighted`), so that a rotation of the target does
    not matter. Predicting the training mean scores 0. (Hoerl & Kennard 1970, Technometrics 12; held-out R² as in
    Hawinkel, Waegeman & Maere 2023, "Out-of-sample R²", Am. Stat.)
    λ = alpha × the mean over columns of the training scatter, alpha × ‖X − X̄‖²_F / d × n_train / n, so that the scale
    of x does not matter. The penalty shrinks W: a perfect map of isotropic rows scores 1 − (alpha / (1 + alpha))².

    The value is not clipped. On unrelated data it is 0 or below, and lower the closer n is to d and the smaller alpha
    is. So its null is not centred on 0, and only a comparison with the null shows whether a map is better than chance.

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64; n ≥ 4.
    alpha: strength of the penalty, at least 1e-6; the same in both directions.
    folds, seed: as in `heldout_cca`.
    groups: labels of the pairs, as in `heldout_cca`.

    details: `r2_a_to_b`, `r2_b_to_a`, `folds_used`.
    flags: `n <= d`, `folds` (too few pairs for that many), `constant x` or `constant y` (value NaN).
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, and for bad settings.
    """
    return prepare_ridge_map(x, y, alpha=alpha, folds=folds, seed=seed, groups=groups).score()


def prepare_ridge_map(
    x: Any, y: Any, *, alpha: float = 0.1, folds: int = DEFAULT_FOLDS, seed: int = 0, groups: Any = None
) -> Prepared:
    """Centre each side and fit the map of x to all pairs. The arguments are those of `ridge_map`."""
    real = isinstance(alpha, int | float | np.number) and not isinstance(alpha, bool)
    if not real or not _SMALLEST_ALPHA <= alpha < float("inf"):
        raise UserError(f"ridge_map alpha={alpha!r}: give a number, {_SMALLEST_ALPHA:g} or more")
    cutting = fold_settings("ridge_map", folds, seed)
    settings = {"alpha": float(alpha)} | cutting
    a, b = as_pair(x, y, at_least=FEWEST_PAIRS, why="a held-out ridge map")
    (n, d_a), d_b = a.shape, b.shape[1]
    together = fold_groups("ridge_map", groups, n)
    settings |= group_setting(together)
    if flags := constant_flags(a, b):
        return Undefined(Score("ridge_map", float("nan"), settings, n, d_a, d_b, flags=flags))
    tests, flags = held_out(n, **cutting, groups=together)
    rows = Distinct.of(a, b)
    if rows.fewest <= max(d_a, d_b):
        few = rows.described(rows.fewest)
        flags += (f"n <= d: {few} in {d_a} and {d_b} dimensions determine the map by its penalty alone",)
    blank = Score("ridge_map", float("nan"), settings, n, d_a, d_b, flags=flags)
    a, b = centred(a), centred(b)
    if n <= _pairs.FLOAT64_UP_TO and 3 * max(map(len, tests)) <= 2 * d_b:
        return PreparedRidgeMap(a, b, tests, blank)
    return PreparedByMoments(Side(a, tests, float(alpha)), Side(b, tests, float(alpha)), blank)


class _Side:
    """The Gram matrix of centred rows, scaled so that their columns have mean square 1, and its fits to all pairs with
    the λ of each fold."""

    def __init__(self, rows: Float64[np.ndarray, "n d"], tests: tuple[Rows, ...], alpha: float) -> None:
        n = len(rows)
        self.scale = rows.size / float(np.vdot(rows, rows))
        self.gram: Matrix = (rows @ rows.T) * self.scale
        self._tests = tests
        # One for each size of fold: two at most, unless groups make the sizes differ.
        self._makers = {size: _residual_maker(self.gram, alpha * (n - size)) for size in set(map(len, tests))}

    @cached_property
    def residual_gram(self) -> Matrix:
        """AᵀA, (n, n), where A maps the other side to its held-out residuals."""
        residuals = np.empty_like(next(iter(self._makers.values())))
        for test in self._tests:
            maker = self._makers[test.size]
            residuals[test] = _solve(maker[np.ix_(test, test)], maker[test])
        gram: Matrix = residuals.T @ residuals
        return gram

    def residuals(self, other: Matrix, order: Rows) -> float:
        """Σ of the squared held-out residuals of `other` (n, k), whose row i goes with row order[i] of this side."""
        by_own = np.empty_like(other)
        by_own[order] = other
        total = 0.0
        for test in self._tests:
            maker, own = self._makers[test.size], order[test]
            left = _solve(maker[np.ix_(own, own)], maker[own] @ by_own)
            total += float(np.vdot(left, left))
        return total


class PreparedRidgeMap:
    """The fits of both sides to all pairs. A shuffle sums products of pairs of rows for x → y, and multiplies the rows
    of x by a fixed matrix for y → x."""

    def __init__(self, a: Matrix, b: Matrix, tests: tuple[Rows, ...], blank: Score) -> None:
        """a, b: centred rows."""
        self.n = blank.n
        alpha = blank.settings["alpha"]
        # With fewer training pairs than columns, rounding errors are divided by the penalty.
        self.tolerance = max(1e-9, 1e-13 / alpha)
        self._rows_a, self._tests, self._blank = unit_scale(a), tests, blank
        self._a = _Side(self._rows_a, tests, alpha)
        self._b = _Side(unit_scale(b), tests, alpha)

    def score(self) -> Score:
        forth, back = (
            _r2(float(np.vdot(one.residual_gram, other.gram)), _about_training_means(other.gram, self._tests))
            for one, other in ((self._a, self._b), (self._b, self._a))
        )
        details = {"r2_a_to_b": forth, "r2_b_to_a": back, "folds_used": len(self._tests)}
        return replace(self._blank, value=(forth + back) / 2, details=details)

    def shuffled(self, permutation: Any) -> float:
        order, tests = as_permutation(permutation, self.n), self._tests
        gram, own = self._b.gram, self._a.residual_gram
        wrong = 2.0 * self._pairs(order) + float(own.diagonal() @ gram.diagonal()[order])
        forth = _r2(wrong, _about_training_means(gram, tuple(order[test] for test in tests)))
        back = _r2(self._b.residuals(self._slim, order), self._whole_back)
        return (forth + back) / 2

    @cached_property
    def _slim(self) -> Matrix:
        """The rows of x in as few columns as they span."""
        return slim(self._rows_a) * np.sqrt(self._a.scale)

    @cached_property
    def _whole_back(self) -> float:
        return _about_training_means(self._a.gram, self._tests)

    @cached_property
    def _pairs(self) -> PairSum:
        def pairs(square: Matrix) -> Matrix:
            return condensed(self.n, lambda start, stop: square[start:stop, start:])

        return PairSum(self.n, pairs(self._a.residual_gram), pairs(self._b.gram))


def _residual_maker(gram: Float64[np.ndarray, "n n"], penalty: float) -> Float64[np.ndarray, "n n"]:
    """G = I − H of a ridge fit with an intercept, from the Gram matrix of centred rows: λ (K + λ I)⁻¹ − 1 1ᵀ / n.

    The inverse has the eigenvector 1. Giving it an eigenvalue of K's size, and not λ, keeps the digits of the others
    when it is taken away.
    """
    n = len(gram)
    level = float(np.trace(gram)) / n
    system = gram + level / n
    system.flat[:: n + 1] += penalty
    # (Transposed, since LAPACK wants columns to be contiguous.)
    factor, failed = linalg.lapack.dpotrf(system.T, lower=1, clean=0, overwrite_a=1)
    assert not failed  # the smallest eigenvalue is the penalty, far above the rounding error of K
    lower, _ = linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse: Matrix = np.tril(lower)
    inverse += np.tril(lower, -1).T
    inverse -= 1.0 / (n * (penalty + level))
    inverse *= penalty
    return inverse


def _solve(own: Matrix, residuals: Matrix) -> Matrix:
    """(G_ff)⁻¹ residuals."""
    factor = linalg.cho_factor(own, lower=True, overwrite_a=True, check_finite=False)
    solved: Matrix = linalg.cho_solve(factor, residuals, check_finite=False)
    return solved


def _about_training_means(gram: Float64[np.ndarray, "n n"], tests: tuple[Rows, ...]) -> float:
    """Σ ‖row − mean of the training rows‖² over all held-out rows, from the Gram matrix of centred rows.

    The rows sum to zero, so the training mean is −ratio × the mean of the held-out rows.
    """
    n, total = len(gram), float(np.trace(gram))
    for test in tests:
        ratio = test.size / (n - test.size)
        total += ratio * (2.0 + ratio) / test.size * float(gram[np.ix_(test, test)].sum())
    return total


def _r2(wrong: float, whole: float) -> float:
    return min(1.0, 1.0 - wrong / whole)
