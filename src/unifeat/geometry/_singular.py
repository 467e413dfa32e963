"""Singular vectors of one side from the smaller Gram matrix: a third of the time of a singular value decomposition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float64
from scipy import linalg

from unifeat.geometry._components import TIE_TOLERANCE, svd
from unifeat.geometry._input import EPS, Matrix

# The error of an eigenvalue is about ε times the largest. If the smallest is above this share of it, its square root
# (the smallest singular value) is off by less than 1e-11 of the largest.
_ACCURATE_FROM = 1e-9
# A rotated product is a sum over directions, each off by ε times the largest eigenvalue over its own. It is used if
# these errors add to less than this. (The sum itself was then right to 1e-12: most errors cancel.)
_ERROR_UP_TO = 1e-11


def left_vectors(
    product: Float64[np.ndarray, "k_a k_b"],
) -> tuple[Float64[np.ndarray, "k_a m"], Float64[np.ndarray, " m"]]:
    """Left singular vectors (k_a, m) and singular values (m,), descending, m = min(k_a, k_b)."""
    found = _by_gram(product.T if product.shape[0] > product.shape[1] else product)
    if found is None:
        left, values, _ = svd(product)
        return left, values
    vectors, values = found
    return (vectors if len(vectors) == len(product) else product @ vectors / values), values


def singular_vectors(
    product: Float64[np.ndarray, "k_a k_b"],
) -> tuple[Float64[np.ndarray, "k_a m"], Float64[np.ndarray, " m"], Float64[np.ndarray, "k_b m"]]:
    """Left singular vectors (k_a, m), singular values (m,), descending, and right singular vectors (k_b, m)."""
    if product.shape[0] > product.shape[1]:
        right, values, left = singular_vectors(product.T)
        return left, values, right
    found = _by_gram(product)
    if found is None:
        left, values, right_t = svd(product)
        return left, values, right_t.T
    vectors, values = found
    return vectors, values, product.T @ vectors / values


def turn_tied(values: Float64[np.ndarray, " m"], *sides: tuple[Matrix, Matrix]) -> None:
    """Rotate the singular vectors of tied values, in place: any rotation of them would do, and rounding would choose.

    sides: vectors (k, m) and load (any, k), for each side. The vectors are rotated to the principal axes of what they
    explain, the sum over the sides of ‖load v‖² / ‖load‖², largest first.
    """
    starts = np.flatnonzero(-np.diff(values) > TIE_TOLERANCE) + 1
    for first, stop in pairwise([0, *starts.tolist(), values.size]):
        if stop - first < 2:
            continue
        energy = np.zeros((stop - first, stop - first))
        for vectors, load in sides:
            explained = load @ vectors[:, first:stop]
            energy += explained.T @ explained / np.sum(load * load)
        turn = linalg.eigh(energy, driver="evd", overwrite_a=True, check_finite=False)[1][:, ::-1]
        for vectors, _ in sides:
            vectors[:, first:stop] = vectors[:, first:stop] @ turn


def rotated_product(
    product: Float64[np.ndarray, "k_a k_b"],
    x: Float64[np.ndarray, "n k_a"],
    y: Float64[np.ndarray, "n k_b"],
    rank: int,
    smallest: float,
) -> float:
    """⟨x Q, y⟩ for the rotation Q = U Vᵀ nearest to the product U S Vᵀ, which has this rank at most.

    Directions with a singular value of at most `smallest` are mapped to zero. From C Cᵀ = U S² Uᵀ, C the product,
    follows Q = U S⁻¹ Uᵀ C.
    """
    if product.shape[0] > product.shape[1]:
        return rotated_product(product.T, y, x, rank, smallest)
    rank = min(rank, len(product))
    squares, vectors = _eigen(product)
    kept, squares = vectors[:, :rank], squares[:rank]
    if squares[-1] > max(_ERROR_UP_TO * squares[0], smallest**2):
        parts = np.einsum("ij,ij->j", x @ kept, (y @ product.T) @ kept) / np.sqrt(squares)
        error = EPS * squares[0] * float(np.sum(np.abs(parts) / squares))
        if error < _ERROR_UP_TO * np.linalg.norm(x) * np.linalg.norm(y):
            return float(parts.sum())
    left, values, right = svd(product)
    rank = min(int((values > smallest).sum()), rank)
    return float(np.sum((x @ left[:, :rank]) * (y @ right[:rank].T)))


def _by_gram(
    wide: Float64[np.ndarray, "k any"],
) -> tuple[Float64[np.ndarray, "k k"], Float64[np.ndarray, " k"]] | None:
    """Left singular vectors and values of a matrix with at least as many columns as rows; None if not accurate."""
    if not wide.size:
        return None
    squares, vectors = _eigen(wide)
    if not squares[-1] > _ACCURATE_FROM * squares[0]:
        return None
    return np.ascontiguousarray(vectors), np.sqrt(squares)


def _eigen(product: Float64[np.ndarray, "k any"]) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, "k k"]]:
    """Eigenvalues, descending, and eigenvectors of product productᵀ."""
    gram: Matrix = product @ product.T
    squares, vectors = linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    return squares[::-1], vectors[:, ::-1]
