"""Singular vectors of one side from the smaller Gram matrix: a third of the time of a singular value decomposition."""

from __future__ import annotations

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
    tall = product.shape[0] > product.shape[1]
    squares, vectors = _eigen(product.T if tall else product)
    if not squares[-1] > _ACCURATE_FROM * squares[0]:
        left, values, _ = svd(product)
        return left, values
    values = np.sqrt(squares)
    return (product @ vectors / values if tall else np.ascontiguousarray(vectors)), values


def turn_tied(
    vectors: Float64[np.ndarray, "k m"], values: Float64[np.ndarray, " m"], load: Float64[np.ndarray, "any k"]
) -> None:
    """Rotate vectors of tied values in place to the principal axes of what they explain, largest first.

    As `canonical_directions` does: any rotation of such vectors would do, and rounding would choose one.
    """
    starts = np.flatnonzero(-np.diff(values) > TIE_TOLERANCE) + 1
    for tied in np.split(np.arange(values.size), starts):
        if tied.size < 2:
            continue
        explained = load @ vectors[:, tied]
        vectors[:, tied] = vectors[:, tied] @ linalg.eigh(explained.T @ explained, driver="evd")[1][:, ::-1]


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


def _eigen(product: Float64[np.ndarray, "k any"]) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, "k k"]]:
    """Eigenvalues, descending, and eigenvectors of product productᵀ."""
    gram: Matrix = product @ product.T
    squares, vectors = linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    return squares[::-1], vectors[:, ::-1]
