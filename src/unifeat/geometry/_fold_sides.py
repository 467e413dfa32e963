"""The sides of held-out CCA: each fold's whitened rows."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy import linalg

from unifeat.geometry._components import Components, svd
from unifeat.geometry._folds import Rows, cut
from unifeat.geometry._input import EPS, Matrix, centred
from unifeat.geometry._lapack import solve_lower

# What remains of a column's square without the held-out rows and the columns before it, as a share of it: above this,
# a Cholesky factor of what remains is accurate.
LEAST_LEFT = 1e-4


class Whitener(NamedTuple):
    """Factors of the training scatter C plus the ridge: C ≈ load loadᵀ and inverseᵀ C inverse = 1; both (k, r)."""

    load: Matrix
    inverse: Matrix | None
    """None if `load` is a lower triangle, whose inverse is applied by substitution."""
    longest: float
    """About the length of the longest column that an inverse can have."""

    def __call__(self, columns: Float64[np.ndarray, "k m"]) -> Float64[np.ndarray, "r m"]:
        """inverseᵀ columns."""
        return solve_lower(self.load, columns) if self.inverse is None else self.inverse.T @ columns


class Fit(NamedTuple):
    """One side of one fold."""

    whitener: Whitener
    held_out: Matrix
    """The whitened held-out rows about their mean, (n_test, r)."""
    still: float
    """Scores of a direction whose length is not above this are due to rounding."""


class Side:
    """Principal component scores, centred: rows @ diag(1/scale) is orthonormal."""

    def __init__(self, kept: Components, tests: tuple[Rows, ...], ridge: float) -> None:
        self.rows: Matrix = kept.basis * kept.scale
        self.tests = tests
        self.squares = kept.scale**2
        self.noise = kept.noise
        self._basis = kept.basis
        self._ridge = ridge * float(np.mean(self.squares)) / len(self.rows)

    def ridge(self, n_train: int) -> float:
        """What is added to the diagonal of the training scatter of so many pairs."""
        return self._ridge * n_train

    @cached_property
    def beyond(self) -> Matrix:
        """An orthonormal basis of what is orthogonal to the rows' columns and to a constant, (n, n − 1 − k)."""
        n, k = self.rows.shape
        known = np.column_stack([np.full(n, n**-0.5), self._basis])
        whole: Matrix = linalg.qr(known, overwrite_a=True, check_finite=False)[0]
        return np.ascontiguousarray(whole[:, k + 1 :])


class Arranged:
    """A side with its rows in some order, cut into folds. Each fold is fitted when this is first asked for."""

    def __init__(self, side: Side, order: Rows | None = None) -> None:
        self.side = side
        self._order = order
        self.rows = self._in_order(side.rows)
        self.parts = cut(self.rows, side.tests)
        self._fits: list[Fit | None] = [None] * len(self.parts)

    def beyond(self) -> Matrix:
        """`Side.beyond` in this order."""
        return self._in_order(self.side.beyond)

    def _in_order(self, rows: Matrix) -> Matrix:
        return rows if self._order is None else rows.take(self._order, axis=0)

    def fit(self, fold: int) -> Fit:
        """The fit of one fold."""
        found = self._fits[fold]
        if found is None:
            part, whitener = self.parts[fold], self._whitener(fold)
            held_out = whitener((part.rows - part.mean).T).T
            still = 64 * EPS * float(np.linalg.norm(part.rows)) * whitener.longest
            found = self._fits[fold] = Fit(whitener, held_out, still)
        return found

    def _whitener(self, fold: int) -> Whitener:
        side, part = self.side, self.parts[fold]
        ridge = side.ridge(part.n_train)
        if part.n_train > side.squares.size:
            # The training scatter is that of all rows, which is diagonal, less what the held-out rows have of it.
            taken = np.vstack([part.rows, part.train_mean * np.sqrt(part.n_train)])
            scatter = taken.T @ taken
            np.negative(scatter, out=scatter)
            scatter.flat[:: len(scatter) + 1] += side.squares + ridge
            load = cholesky(scatter, side.squares + ridge)
            if load is not None:
                return Whitener(load, None, float(np.linalg.norm(1.0 / load.diagonal())))
        training = centred(np.delete(self.rows, side.tests[fold], axis=0))
        _, scale, axes = svd(training)
        limit = max(training.shape) * EPS * float(np.sqrt(side.squares.sum()))
        seen = scale > np.maximum(limit, np.linalg.norm(axes * side.noise, axis=1))  # and above the input's rounding
        scale, axes = scale[seen], axes[seen]
        rank = min(scale.size, part.n_train - 1)
        scale, axes = np.sqrt(scale[:rank] ** 2 + ridge), axes[:rank].T
        return Whitener(axes * scale, axes / scale, float(1.0 / scale[-1]) if rank else 0.0)


def cholesky(scatter: Float64[np.ndarray, "k k"], whole: Matrix | float) -> Float64[np.ndarray, "k k"] | None:
    """The lower Cholesky factor; None if a column keeps too little of its square in `whole`."""
    try:
        load = np.linalg.cholesky(scatter)
    except np.linalg.LinAlgError:
        return None
    return load if (load.diagonal() ** 2 > LEAST_LEFT * whole).all() else None
