"""The ridge map of many pairs in few dimensions: the normal equations of every fold, from moments."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import linalg

from unifeat.geometry._folds import Part, Rows, cross, cut, slim
from unifeat.geometry._input import Matrix, as_permutation, unit_scale
from unifeat.geometry.score import Score

Fit = tuple[Matrix, bool]


class Side:
    """Centred rows in as few columns as they span, scaled so that the original columns have mean square 1."""

    def __init__(self, matrix: Matrix, tests: tuple[Rows, ...], alpha: float) -> None:
        """matrix: centred rows, (n, d)."""
        n, d = matrix.shape
        rows = unit_scale(slim(matrix))
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


class PreparedByMoments:
    """Two centred sides, with x factored. A shuffle moves other rows of y into each fold, which changes the scatter of
    y and the products of the two sides; the residuals are computed from these moments."""

    def __init__(self, a: Side, b: Side, blank: Score) -> None:
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
