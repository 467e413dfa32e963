"""Canonical correlations evaluated on held-out pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from unifeat.errors import UserError
from unifeat.geometry._components import Components, component_settings, found, leading_components, rank_flags
from unifeat.geometry._fold_correlations import Fold, fitted_folds
from unifeat.geometry._fold_sides import Arranged, Side
from unifeat.geometry._folds import (
    DEFAULT_FOLDS,
    FEWEST_PAIRS,
    Rows,
    fewest_left,
    fold_groups,
    fold_settings,
    group_setting,
    held_out,
)
from unifeat.geometry._halves import Whole
from unifeat.geometry._input import Matrix, as_pair, as_permutation, constant_flags, precision_of
from unifeat.geometry._svcca import DEFAULT_VARIANCE
from unifeat.geometry.measure import Prepared, Undefined, heavy
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

    Directions with the same fitted correlation are known as a set only. All r_i of such a set are one number: the
    correlation, over all entries, of the set's part of the narrower side (of its kept components that the training
    pairs determine) with its prediction from the other side; the mean over both sides if they are as wide. So few pairs
    per dimension, which force many correlations to 1, do not leave the value to rounding.

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


class PreparedHeldoutCCA:
    """Component scores of the two sides. A shuffle moves other rows of y into each fold. The training scatter is then
    the total less that of the held-out rows, and each fold takes one eigendecomposition: of the narrower side's size,
    or of the number of directions whose correlations are not forced to 1."""

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
        self.heavy = heavy(self.n, a.scale.size, b.scale.size)
        self._whole, self._groups = whole, groups
        ridge = blank.settings["ridge"]
        self._b = Side(b, tests, ridge)
        self._x = Arranged(Side(a, tests, ridge))
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

    def _folds(self, order: Rows | None = None) -> list[Fold]:
        return fitted_folds(self._x, Arranged(self._b, order))


def _mean(correlations: Matrix) -> float:
    return float(correlations.mean()) if correlations.size else 0.0  # identical training rows predict nothing


def _value(folds: list[Fold]) -> float:
    return float(np.mean([_mean(fold.held_out) for fold in folds]))
