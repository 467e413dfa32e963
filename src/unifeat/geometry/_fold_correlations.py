"""Canonical directions fitted on the training pairs of each fold, and read on the held-out ones.

Directions with the same fitted correlation are known as a set only: any rotation of them fits as well. So they are read
together: the set's part of a side, in the side's own columns, is correlated with its prediction from the other side,
over all entries, which no rotation changes. The side is the narrower one; if both are as wide, the mean over both is
taken. Where pairs are so few that many correlations are forced to 1, all these directions are one such set, and only
the others have to be computed.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy.linalg import lapack

from unifeat.geometry._components import TIE_TOLERANCE, svd
from unifeat.geometry._fold_sides import LEAST_LEFT, Arranged, cholesky
from unifeat.geometry._folds import training_products
from unifeat.geometry._input import EPS, Matrix
from unifeat.geometry._lapack import solve_lower
from unifeat.geometry._singular import left_vectors_of_gram

# 1 − ρ² and ρ² of a fitted correlation ρ: above this, its direction can be told from those with ρ = 1 and ρ = 0.
_LEAST_APART, _LEAST_SQUARE = 1e-9, 1e-11
# Up to so many dimensions that the wider side does not reach, per direction, it is faster to compute fits from what it
# leaves out (measured).
_BEYOND_PER_DIRECTION = 0.8
_Scores = tuple[Matrix, float]  # of the held-out rows, (n_test, m), and `Fit.still`


class Fold(NamedTuple):
    """Correlations of each pair of directions on the training and on the held-out pairs, (m,); fitted ones fall."""

    fitted: Matrix
    held_out: Matrix


def fitted_folds(a: Arranged, b: Arranged) -> list[Fold]:
    """The correlations of every fold."""
    pairing = _Pairing(a, b) if a.rows.shape[1] <= b.rows.shape[1] else _Pairing(b, a)
    return [pairing.fold(number) for number in range(len(a.parts))]


class _Pairing:
    """Two sides, the narrower one first, and what their folds share."""

    def __init__(self, narrow: Arranged, wide: Arranged) -> None:
        self._narrow, self._wide = narrow, wide
        self._k, self._wider = narrow.rows.shape[1], wide.rows.shape[1]
        self._plain = wide.side.ridge(1) == 0.0  # no ridge

    def fold(self, number: int) -> Fold:
        """The correlations of a fold, in the first of three ways that is accurate and no waste."""
        part = self._wide.parts[number]
        # Dimensions of the training pairs that the wider side does not reach. If there are none, it fits anything.
        beyond = part.n_train - 1 - self._wider
        few = self._plain and 0 <= beyond < _BEYOND_PER_DIRECTION * self._k
        if few and self._k < self._wider and (found := self._by_complement(number)):
            return found
        product = self._narrow.fit(number).whitener(self._products[number])
        if len(part.rows) < self._wider and (found := self._with_few_held_out(number, product)):
            return found
        return self._with_both_whitened(number, product)

    @cached_property
    def _products(self) -> list[Matrix]:
        return list(training_products(self._narrow.parts, self._wide.parts))

    @cached_property
    def _unexplained(self) -> tuple[Matrix, Matrix]:
        """`Side.beyond` of the wider side, and its product with the rows of the narrower one, (n − 1 − k, k)."""
        beyond = self._wide.beyond()
        return beyond, beyond.T @ self._narrow.rows

    def _by_complement(self, number: int) -> Fold | None:
        """For a fold with so few training pairs that the wider side reaches most of their dimensions.

        1 − ρ² is what the wider side leaves unexplained of a direction on the training pairs. These residuals lie in
        what is orthogonal to the wider side there: the part of `beyond` that vanishes on the held-out pairs. All
        directions without a residual are tied at ρ = 1. The prediction of a held-out row is the row less its residual,
        which follows from the residuals of the fit to all pairs: with N the held-out rows of `beyond`, it is
        (N Nᵀ)⁻¹ N beyondᵀ rows (Allen 1974, Technometrics 16; `_ridge_map` uses it too).
        """
        fit, part, test = self._narrow.fit(number), self._narrow.parts[number], self._narrow.side.tests[number]
        beyond, unexplained = self._unexplained
        factor, tau, _, _ = lapack.dgeqrf(beyond[test].T, lwork=64 * test.size)
        if fit.whitener.inverse is not None or not (factor.diagonal() ** 2 > LEAST_LEFT).all():
            return None
        turned, _, _ = lapack.dormqr("L", "T", factor, tau, unexplained, lwork=64 * self._k)
        triangle = np.ascontiguousarray(factor[: test.size].T)
        residual = solve_lower(triangle, turned[: test.size], transposed=True)
        actual, predicted = part.rows - part.mean, part.rows - residual
        predicted -= predicted.mean(axis=0)
        white = fit.whitener(np.vstack([predicted, turned[test.size :]]).T)
        left_out = white[:, test.size :]
        squares, vectors = np.linalg.eigh(left_out.T @ left_out)
        if squares.size and not _LEAST_APART < squares[0] <= squares[-1] < 1.0 - _LEAST_SQUARE:
            return None
        directions = left_out @ vectors / np.sqrt(squares)
        apart = fit.held_out @ directions, white[:, : test.size].T @ directions
        still = fit.still, fit.still + 64 * EPS * float(np.linalg.norm(residual)) * fit.whitener.longest
        image = (fit.whitener.load @ directions).T
        together = _cosine(*(whole - own @ image for whole, own in zip((actual, predicted), apart, strict=True)))
        tied = self._k - squares.size
        return Fold(
            np.concatenate([np.ones(tied), np.sqrt(1.0 - squares)]),
            np.concatenate([np.full(tied, together), _each(*zip(apart, still, strict=True))]),
        )

    def _with_few_held_out(self, number: int, product: Matrix) -> Fold | None:
        """For a fold that holds out fewer rows than the wider side has components.

        product: of the training pairs, whitened on the narrower side, (r, k).

        Let the wider side be scaled so that its scatter and ridge over all pairs is 1. Over the training pairs it is
        then 1 − Wᵀ W, with W the held-out rows, moved from their mean to make up for that of the training rows; its
        inverse is 1 + Wᵀ (1 − W Wᵀ)⁻¹ W (Woodbury); and what it predicts of the narrower side, (1 − W Wᵀ)⁻¹ W productᵀ.
        So nothing of the size of the wider side is factored.
        """
        narrow, part, side = self._narrow.fit(number), self._wide.parts[number], self._wide.side
        scale = np.sqrt(side.squares + side.ridge(part.n_train))
        held_out = (part.rows + (np.sqrt(1 + len(part.rows) / part.n_train) - 1) * part.mean) / scale
        left = held_out @ held_out.T
        np.negative(left, out=left)
        left.flat[:: len(left) + 1] += 1.0
        load = cholesky(left, 1.0)
        if load is None:
            return None
        scaled = product / scale
        half = solve_lower(load, held_out @ scaled.T)
        predicted = solve_lower(load, half, transposed=True)
        predicted -= predicted.mean(axis=0)
        still = 64 * EPS * float(np.linalg.norm(held_out)) / float(load.diagonal().min()) ** 2
        maps = [narrow.whitener.load, product.T][: 1 + (product.shape[0] == product.shape[1])]
        if self._plain and part.n_train - 1 == self._wider:
            return _forced((narrow.held_out, narrow.still), (predicted, still), maps)
        gram = scaled @ scaled.T
        gram += half.T @ half
        found = left_vectors_of_gram(gram)
        if found is None:
            return None
        vectors, values = found
        scores = (narrow.held_out @ vectors, narrow.still), (predicted @ vectors, still)
        return _read(values, *scores, [(each, vectors) for each in maps])

    def _with_both_whitened(self, number: int, product: Matrix) -> Fold:
        """For any fold: from the singular vectors of the product whitened on both sides. product: as above."""
        narrow, wide = self._narrow.fit(number), self._wide.fit(number)
        white = wide.whitener(product.T).T
        if len(white) > white.shape[1]:
            narrow, wide, white = wide, narrow, white.T
        equal = len(white) == white.shape[1]
        if self._plain and white.shape[1] == self._wide.parts[number].n_train - 1:
            maps = [narrow.whitener.load, *([wide.whitener.load @ white.T] if equal else [])]
            return _forced((narrow.held_out, narrow.still), (wide.held_out @ white.T, wide.still), maps)
        found = left_vectors_of_gram(white @ white.T)
        if found is None:
            vectors, values, other = svd(white)
            right, scores = other.T, wide.held_out @ other.T
        else:
            vectors, values = found
            scores = (wide.held_out @ white.T) @ vectors / values
            right = None
        maps = [(narrow.whitener.load, vectors)]
        if equal:
            maps.append((wide.whitener.load, white.T @ vectors / values if right is None else right))
        return _read(values, (narrow.held_out @ vectors, narrow.still), (scores, wide.still), maps)


def _forced(u: _Scores, v: _Scores, maps: list[Matrix]) -> Fold:
    """A fold whose fitted correlations are all 1. maps: from scores to the columns of a side."""
    values = np.ones(u[0].shape[1])
    return _read(values, u, v, [(each, np.eye(values.size)) for each in maps])


def _read(values: Float64[np.ndarray, " m"], u: _Scores, v: _Scores, maps: list[tuple[Matrix, Matrix]]) -> Fold:
    """A fold with these fitted correlations.

    maps: (any, k) and (k, m); their product takes scores to the columns of a side. It is computed for tied ones.
    """
    read = _each(u, v)
    starts = np.flatnonzero(-np.diff(values) > TIE_TOLERANCE) + 1
    for first, stop in pairwise([0, *starts.tolist(), values.size]):
        if stop - first > 1:
            images = [(load @ vectors[:, first:stop]).T for load, vectors in maps]
            read[first:stop] = np.mean([_cosine(u[0][:, first:stop] @ i, v[0][:, first:stop] @ i) for i in images])
    # Where the fitted correlation is zero, the direction is arbitrary and predicts nothing.
    return Fold(values, np.where(values > TIE_TOLERANCE, read, 0.0))


def _each(*sides: _Scores) -> Float64[np.ndarray, " m"]:
    """Pearson correlation of each pair of directions; 0 where one does not vary."""
    scores = []
    for values, still in sides:
        length = np.linalg.norm(values, axis=0)
        scores.append(np.where(length <= still, 0.0, values) / np.where(length <= still, 1.0, length))
    return np.clip(np.einsum("ij,ij->j", *scores), -1.0, 1.0)


def _cosine(u: Matrix, v: Matrix) -> float:
    """Of all entries; 0 if there are none but zeros."""
    length = float(np.linalg.norm(u)) * float(np.linalg.norm(v))
    return max(-1.0, min(1.0, float(np.vdot(u, v)) / length)) if length > 0 else 0.0
