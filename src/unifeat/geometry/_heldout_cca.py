"""Canonical correlations evaluated on held-out pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy import linalg

from unifeat.errors import UserError
from unifeat.geometry._components import (
    TIE_TOLERANCE,
    Components,
    component_settings,
    found,
    leading_components,
    rank_flags,
    svd,
)
from unifeat.geometry._folds import (
    DEFAULT_FOLDS,
    FEWEST_PAIRS,
    Part,
    Rows,
    cut,
    fewest_left,
    fold_groups,
    fold_settings,
    group_setting,
    held_out,
    training_products,
)
from unifeat.geometry._halves import Whole
from unifeat.geometry._input import EPS, Matrix, as_pair, as_permutation, centred, constant_flags, precision_of
from unifeat.geometry._singular import singular_vectors, turn_tied
from unifeat.geometry._svcca import DEFAULT_VARIANCE
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score


def heldout_cca(
    x: Any,
    y: Any,
    *,
    dims: int | None = None,
    variance: float | None = None,
    folds: int = DEFAULT_FOLDS,
    seed: int = 0,
    ridge: float = 0.0,
    groups: Any = None,
) -> Score:
    """Cross-validated SVCCA: canonical directions fitted on some pairs, correlations evaluated on the others.

    1. Each side is reduced to its leading principal components, as in `svcca`. They are computed on all rows of each
       side alone, so they do not depend on the pairing.
    2. For each fold, canonical directions (a_i, b_i), i = 1 … m, are fitted on the pairs outside it. (The ridge is
       added to the diagonals: Vinod 1976, "Canonical ridge", J. Econometrics 4.)
    3. On the pairs of the fold, r_i is the Pearson correlation of X a_i and Y b_i, with its sign.
    4. The value is the mean of r_i over i, then over folds.

    Under the shuffle null, all pairings of the held-out rows are equally likely given the training pairs. So the
    expected value is exactly 0, for every n, d and settings. Nothing is clipped: a value below 0 is due to chance.
    (Cross-validated CCA as in Bilenko & Gallant 2016, "Pyrcca", Front. Neuroinform. 10:49.) Poorly fitted directions
    count too, so a value below that of `svcca` does not mean that the sides differ: with few pairs per dimension, the
    directions cannot be found even if they exist.

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64; n ≥ 4.
    dims, variance: components kept on each side, as in `svcca` (variance=0.99 if neither is given).
    folds, seed: number of folds, each of at least two pairs, and the assignment of rows to folds. The assignment goes
        by position: reordering the rows of both sides in the same way changes it, and the value slightly.
    ridge: added to each variance, as a share of the mean variance of the kept components; 0 or more.
    groups: labels of the pairs, (n,), such as the features of the side that repeats its rows. Pairs with the same label
        are held out by the same fold, so that no row is evaluated on that a fit has seen. They belong to the pairs: a
        shuffle of y leaves them. In a score's settings, `groups` is how many there are.

    details: `dims_a`, `dims_b`, `rank_a`, `rank_b`, `folds_used`, `fitted` (the mean correlation on the training
    pairs), `correlations` (held-out, in the order of the fitted ones), `by_fold`.
    flags: `folds` (too few pairs for that many), `rank` and `rank of x` as in `svcca`, `saturated` (the training pairs
    force correlations of 1, so that the fitted directions are arbitrary), `constant x` or `constant y` (value NaN).
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, and for bad settings.
    """
    return prepare_heldout_cca(
        x, y, dims=dims, variance=variance, folds=folds, seed=seed, ridge=ridge, groups=groups
    ).score()


def prepare_heldout_cca(
    x: Any,
    y: Any,
    *,
    dims: int | None = None,
    variance: float | None = None,
    folds: int = DEFAULT_FOLDS,
    seed: int = 0,
    ridge: float = 0.0,
    groups: Any = None,
) -> Prepared:
    """One SVD per side, and the fits of x for all folds. The arguments are those of `heldout_cca`."""
    components = component_settings("heldout_cca", dims, variance, default=DEFAULT_VARIANCE)
    real = isinstance(ridge, int | float | np.number) and not isinstance(ridge, bool)
    if not real or not 0 <= ridge < float("inf"):
        raise UserError(f"heldout_cca ridge={ridge!r}: give a number, 0 or more")
    settings = components | fold_settings("heldout_cca", folds, seed) | {"ridge": float(ridge)}
    a, b = as_pair(x, y, at_least=FEWEST_PAIRS, why="held-out CCA")
    (n, d_a), d_b = a.shape, b.shape[1]
    together = fold_groups("heldout_cca", groups, n)
    settings |= group_setting(together)
    if flags := constant_flags(a, b):
        return Undefined(Score("heldout_cca", float("nan"), settings, n, d_a, d_b, flags=flags))
    whole = Whole(a, b, precision_of(x), precision_of(y))
    kept_a = leading_components(a, **components, given=precision_of(x))
    kept_b = leading_components(b, **components, given=precision_of(y))
    tests, flags = held_out(n, settings["folds"], settings["seed"], together)
    flags += rank_flags(dims, kept_a, kept_b)
    flags += _saturated(fewest_left(whole.equal.pairs, tests), kept_a, kept_b, ridge)
    details = found(kept_a, kept_b) | {"folds_used": len(tests)}
    blank = Score("heldout_cca", float("nan"), settings, n, d_a, d_b, details, flags)
    return PreparedHeldoutCCA(kept_a, kept_b, tests, blank, whole, together)


def _saturated(n_train: int, a: Components, b: Components, ridge: float) -> tuple[str, ...]:
    small = min(a.scale.size, b.scale.size)
    forced = min(a.scale.size + b.scale.size - (n_train - 1), small)
    if forced <= 0 or ridge > 0:
        return ()
    return (f"saturated: {n_train} training pairs force {forced} of {small} fitted correlations to 1, "
            "so the directions are arbitrary; keep fewer dims or give a ridge",)  # fmt: skip


class _Whitener(NamedTuple):
    """Factors of the training scatter C plus the ridge: C ≈ load loadᵀ and inverseᵀ C inverse = 1; both (k, r)."""

    load: Matrix
    inverse: Matrix | None
    """None if `load` is a lower triangle, whose inverse is applied by substitution."""
    longest: float
    """About the length of the longest column that an inverse can have."""

    def __call__(self, columns: Float64[np.ndarray, "k m"]) -> Float64[np.ndarray, "r m"]:
        """inverseᵀ columns."""
        if self.inverse is not None:
            return self.inverse.T @ columns
        white: Matrix = linalg.solve_triangular(self.load, columns, lower=True, check_finite=False)
        return white


class _Fitted(NamedTuple):
    """One side of one fold."""

    part: Part
    whitener: _Whitener
    held_out: Matrix
    """The whitened held-out rows about their mean, (n_test, r)."""


class _Fold(NamedTuple):
    fitted: Matrix
    held_out: Matrix


class _Side:
    """Principal component scores, centred, with their scatter: rows @ diag(1/scale) is orthonormal."""

    def __init__(self, kept: Components, tests: tuple[Rows, ...], ridge: float) -> None:
        self.rows: Matrix = kept.basis * kept.scale
        self._total = np.diag(kept.scale**2)
        self._tests = tests
        self._noise = kept.noise
        self._ridge = ridge * float(np.mean(kept.scale**2)) / len(self.rows)

    def fitted(self, order: Rows | None = None) -> list[_Fitted]:
        rows = self.rows if order is None else self.rows.take(order, axis=0)
        folds = []
        for test, part in zip(self._tests, cut(rows, self._tests, self._total), strict=True):
            whitener = self._whitener(rows, test, part)
            folds.append(_Fitted(part, whitener, whitener((part.rows - part.mean).T).T))
        return folds

    def _whitener(self, rows: Matrix, test: Rows, part: Part) -> _Whitener:
        scatter, extra = part.scatter, self._ridge * part.n_train
        assert scatter is not None
        if part.n_train > len(scatter):
            try:
                load = linalg.cholesky(scatter + extra * np.eye(len(scatter)), lower=True, check_finite=False)
            except linalg.LinAlgError:
                load = np.zeros_like(scatter)
            # The squared diagonal is what remains of each column without the held-out rows and the columns before it.
            # If enough remains, the factor is accurate.
            if (load.diagonal() ** 2 > 1e-4 * (self._total.diagonal() + extra)).all():
                return _Whitener(load, None, float(np.linalg.norm(1.0 / load.diagonal())))
        training = centred(np.delete(rows, test, axis=0))
        _, scale, axes = svd(training)
        limit = max(training.shape) * EPS * float(np.sqrt(np.trace(self._total)))
        seen = scale > np.maximum(limit, np.linalg.norm(axes * self._noise, axis=1))  # and above the input's rounding
        scale, axes = scale[seen], axes[seen]
        rank = min(scale.size, part.n_train - 1)
        scale, axes = np.sqrt(scale[:rank] ** 2 + extra), axes[:rank].T
        return _Whitener(axes * scale, axes / scale, float(1.0 / scale[-1]) if rank else 0.0)


class PreparedHeldoutCCA:
    """Component scores of the two sides. A shuffle moves other rows of y into each fold. The training scatter is then
    the total less that of the held-out rows, and each fold takes one Cholesky factorisation and one eigendecomposition
    of the narrower side's size."""

    tolerance = 1e-9

    def __init__(
        self,
        a: Components,
        b: Components,
        tests: tuple[Rows, ...],
        blank: Score,
        whole: Whole | None = None,
        groups: Rows | None = None,
    ) -> None:
        """whole: None for parts of it. groups: (n,) numbers of the pairs that are held out together."""
        self.n = blank.n
        self._whole, self._groups = whole, groups
        ridge = blank.settings["ridge"]
        self._b = _Side(b, tests, ridge)
        self._fitted_a = _Side(a, tests, ridge).fitted()
        self._blank = blank

    def score(self) -> Score:
        folds = self._folds()
        blank = self._blank
        correlations = np.full((len(folds), max(fold.held_out.size for fold in folds)), np.nan)
        for row, fold in zip(correlations, folds, strict=True):
            row[: fold.held_out.size] = fold.held_out
        details = blank.details | {
            "fitted": float(np.mean([_mean(np.clip(fold.fitted, 0.0, 1.0)) for fold in folds])),
            "correlations": tuple(np.nanmean(correlations, axis=0).tolist()),
            "by_fold": tuple(_mean(fold.held_out) for fold in folds),
        }
        value = _value(folds)
        return Score("heldout_cca", value, blank.settings, blank.n, blank.d_a, blank.d_b, details, blank.flags)

    def shuffled(self, permutation: Any) -> float:
        return _value(self._folds(as_permutation(permutation, self.n)))

    def subset(self, rows: Rows) -> Score | None:
        settings, whole = self._blank.settings, self._whole
        components = {key: settings[key] for key in ("dims", "variance") if key in settings}
        groups = None if self._groups is None else fold_groups("heldout_cca", self._groups[rows], len(rows))
        kept = None if whole is None else whole.components(rows, **components)
        if whole is None or kept is None:
            return None
        tests, _ = held_out(len(rows), settings["folds"], settings["seed"], groups)
        flags = _saturated(fewest_left(whole.equal.pairs[rows], tests), *kept, settings["ridge"])
        blank = replace(self._blank, n=len(rows), settings=settings | group_setting(groups), details={}, flags=flags)
        return PreparedHeldoutCCA(*kept, tests, blank).score()

    def _folds(self, order: Rows | None = None) -> list[_Fold]:
        fitted_a, fitted_b = self._fitted_a, self._b.fitted(order)
        products = training_products([a.part for a in fitted_a], [b.part for b in fitted_b])
        folds = []
        for a, b, train in zip(fitted_a, fitted_b, products, strict=True):
            left, values, right = singular_vectors(b.whitener(a.whitener(train).T).T)
            turn_tied(values, (left, a.whitener.load), (right, b.whitener.load))
            read = _correlations((a, left), (b, right))
            # Where the fitted correlation is zero, the direction is arbitrary and predicts nothing.
            folds.append(_Fold(values, np.where(values > TIE_TOLERANCE, read, 0.0)))
        return folds


def _correlations(*sides: tuple[_Fitted, Matrix]) -> Matrix:
    """Pearson correlation of each pair of directions over the held-out pairs; 0 where one does not vary."""
    scores = []
    for side, directions in sides:
        values = side.held_out @ directions
        length = np.linalg.norm(values, axis=0)
        still = length <= 64 * EPS * np.linalg.norm(side.part.rows) * side.whitener.longest
        scores.append(np.where(still, 0.0, values) / np.where(still, 1.0, length))
    return np.clip(np.einsum("ij,ij->j", *scores), -1.0, 1.0)


def _mean(correlations: Matrix) -> float:
    return float(correlations.mean()) if correlations.size else 0.0  # identical training rows predict nothing


def _value(folds: list[_Fold]) -> float:
    return float(np.mean([_mean(fold.held_out) for fold in folds]))
