"""How well a linear map with a ridge penalty predicts one side from the other, on held-out pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg

from unifeat.errors import UserError
from unifeat.geometry._folds import (
    DEFAULT_FOLDS,
    FEWEST_PAIRS,
    Part,
    Rows,
    cross,
    cut,
    fold_groups,
    fold_settings,
    group_setting,
    held_out,
    slim,
)
from unifeat.geometry._input import Matrix, as_pair, as_permutation, centred, constant_flags
from unifeat.geometry._labels import Distinct
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score

_SMALLEST_ALPHA = 1e-6  # below this, the normal equations lose too many digits
Fit = tuple[Matrix, bool]


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
    """Centre each side and factor the normal equations of x. The arguments are those of `ridge_map`."""
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
    return PreparedRidgeMap(_Side(a, tests, float(alpha)), _Side(b, tests, float(alpha)), blank)


class _Side:
    """Centred rows in as few columns as they span, scaled so that the original columns have mean square 1."""

    def __init__(self, matrix: Matrix, tests: tuple[Rows, ...], alpha: float) -> None:
        n, d = matrix.shape
        rows = slim(centred(matrix))
        rows = rows / np.abs(rows).max()
        self.rows: Matrix = rows * (np.sqrt(n * d) / np.linalg.norm(rows))
        self._total = self.rows.T @ self.rows
        self._tests, self._alpha = tests, alpha

    def fitted(self, order: Rows | None = None) -> tuple[list[Part], list[Fit]]:
        """The parts, and for each the Cholesky factor of its training scatter plus the penalty."""
        rows = self.rows if order is None else self.rows.take(order, axis=0)
        parts, factors = cut(rows, self._tests, self._total), []
        for part in parts:
            assert part.scatter is not None
            penalty = self._alpha * part.n_train  # ‖rows‖² / d = n
            factors.append(linalg.cho_factor(part.scatter + penalty * np.eye(len(self._total)), check_finite=False))
        return parts, factors


class PreparedRidgeMap:
    """Two centred sides, with x factored. A shuffle moves other rows of y into each fold, which changes the scatter of
    y and the products of the two sides; the residuals are computed from these moments."""

    def __init__(self, a: _Side, b: _Side, blank: Score) -> None:
        self.n = blank.n
        # With fewer training pairs than columns, rounding errors are divided by the penalty.
        self.tolerance = max(1e-9, 1e-13 / blank.settings["alpha"])
        self._fitted_a = a.fitted()
        self._b, self._blank = b, blank
        self._folds_used = len(self._fitted_a[0])

    def score(self) -> Score:
        (forth, back), blank = self._r2(), self._blank
        details = {"r2_a_to_b": forth, "r2_b_to_a": back, "folds_used": self._folds_used}
        value = (forth + back) / 2
        return Score("ridge_map", value, blank.settings, blank.n, blank.d_a, blank.d_b, details, blank.flags)

    def shuffled(self, permutation: Any) -> float:
        forth, back = self._r2(as_permutation(permutation, self.n))
        return (forth + back) / 2

    def _r2(self, order: Rows | None = None) -> tuple[float, float]:
        parts_a, factors_a = self._fitted_a
        parts_b, factors_b = self._b.fitted(order)
        wrong, whole = np.zeros(2), np.zeros(2)
        for i, (train, test) in enumerate(cross(parts_a, parts_b)):
            a, b = parts_a[i], parts_b[i]
            test = test + len(a.rows) * np.outer(a.mean - a.train_mean, b.mean - b.train_mean)
            gram_a, gram_b = _about_train_mean(a), _about_train_mean(b)
            forth = _explained(factors_a[i], train, test, gram_a)
            back = _explained(factors_b[i], train.T, test.T, gram_b)
            squares = np.array([np.trace(gram_b), np.trace(gram_a)])
            whole += squares
            wrong += squares - (forth, back)
        r2 = 1.0 - wrong / whole
        return min(1.0, float(r2[0])), min(1.0, float(r2[1]))


def _about_train_mean(part: Part) -> Matrix:
    """Σ over the held-out rows of (row − train_mean)(row − train_mean)ᵀ."""
    assert part.gram is not None
    n = len(part.rows)
    shift = part.mean - part.train_mean
    centred_gram: Matrix = part.gram - n * np.outer(part.mean, part.mean) + n * np.outer(shift, shift)
    return centred_gram


def _explained(factor: Fit, train: Matrix, test: Matrix, gram: Matrix) -> float:
    """‖Y‖² − ‖Y − X W‖² over the held-out pairs, from XᵀY (test) and XᵀX (gram) there."""
    weights = linalg.cho_solve(factor, train, check_finite=False)
    return float(2.0 * np.sum(weights * test) - np.sum(weights * (gram @ weights)))
