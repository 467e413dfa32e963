"""Singular vectors of one side from the smaller Gram matrix: a third of the time of a singular value decomposition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float64

from unifeat.geometry._components import TIE_TOLERANCE, svd
from unifeat.geometry._input import EPS
from unifeat.geometry._polar import by_resolvents

# The error of an eigenvalue is about ε times the largest. If the smallest is above this share of it, its square root
# (the smallest singular value) is off by less than 1e-11 of the largest.
_ACCURATE_FROM = 1e-9
# A rotated product is a sum over directions, each off by ε times the largest eigenvalue over its own. It is used if
# these errors add to less than this. (The sum itself was then right to 1e-12: most errors cancel.)
_ERROR_UP_TO = 1e-11
# Resolvents are faster from this many directions on, if there are no more rows than directions (measured). Their bound
# of the error is less tight: what it bounds was a hundredth of it, or less.
_RESOLVENTS_FROM = 64
_BOUND_UP_TO = 2e-10


def left_vectors(
    product: Float64[np.ndarray, "k_a k_b"],
) -> tuple[Float64[np.ndarray, "k_a m"], Float64[np.ndarray, " m"]]:
    """Left singular vectors (k_a, m) and singular values (m,), descending, m = min(k_a, k_b)."""
    short = product.T if product.shape[0] > product.shape[1] else product
    found = left_vectors_of_gram(short @ short.T)
    if found is None:
        left, values, _ = svd(product)
        return left, values
    vectors, values = found
    return (vectors if len(vectors) == len(product) else product @ vectors / values), values


def left_vectors_of_gram(
    gram: Float64[np.ndarray, "k k"],
) -> tuple[Float64[np.ndarray, "k k"], Float64[np.ndarray, " k"]] | None:
    """Left singular vectors and values, descending, of a matrix C from C Cᵀ; None if not accurate."""
    if not gram.size:
        return None
    squares, vectors = _eigen(gram)
    if not squares[-1] > _ACCURATE_FROM * squares[0]:
        return None
    return np.ascontiguousarray(vectors), np.sqrt(squares)


def turn_tied(
    values: Float64[np.ndarray, " m"], vectors: Float64[np.ndarray, "k m"], load: Float64[np.ndarray, "any k"]
) -> None:
    """Rotate the singular vectors of tied values, in place: any rotation of them would do, and rounding would choose.

    They are rotated to the principal axes of what they explain, ‖load v‖², largest first.
    """
    starts = np.flatnonzero(-np.diff(values) > TIE_TOLERANCE) + 1
    for first, stop in pairwise([0, *starts.tolist(), values.size]):
        if stop - first < 2:
            continue
        explained = load @ vectors[:, first:stop]
        turn = np.linalg.eigh(explained.T @ explained)[1][:, ::-1]
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
    if len(x) <= len(product) <= rank and len(product) >= _RESOLVENTS_FROM:
        found = by_resolvents(product, x, y, smallest, _BOUND_UP_TO)
        if found is not None:
            return found
    rank = min(rank, len(product))
    squares, vectors = _eigen(product @ product.T)
    kept, squares = vectors[:, :rank], squares[:rank]
    if squares[-1] > max(_ERROR_UP_TO * squares[0], smallest**2):
        parts = np.einsum("ij,ij->j", x @ kept, (y @ product.T) @ kept) / np.sqrt(squares)
        error = EPS * squares[0] * float(np.sum(np.abs(parts) / squares))
        if error < _ERROR_UP_TO * np.linalg.norm(x) * np.linalg.norm(y):
            return float(parts.sum())
    left, values, right = svd(product)
    rank = min(int((values > smallest).sum()), rank)
    return float(np.sum((x @ left[:, :rank]) * (y @ right[:rank].T)))


def _eigen(gram: Float64[np.ndarray, "k k"]) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, "k k"]]:
    """Eigenvalues, descending, and eigenvectors of a symmetric matrix. (NumPy's routine lets other threads run.)"""
    squares, vectors = np.linalg.eigh(gram)
    return squares[::-1], vectors[:, ::-1]
