"""What the rotation nearest to a matrix does to other rows, without its singular vectors.

For a matrix C with independent rows, the rotation is Q = (C Cᵀ)^(−1/2) C, and

    ⟨X Q, Y⟩ = tr[(C Cᵀ)^(−1/2) C Yᵀ X]

With C Cᵀ = Z T Zᵀ, T tridiagonal, this is the product of T^(−1/2) with Zᵀ (C Yᵀ X) Z. The inverse root is a sum of a
few resolvents (T + s)⁻¹ (Hale, Higham & Trefethen 2008, "Computing A^α, log(A), and related matrix functions by contour
integrals", SIAM J. Numer. Anal. 46, method 3), and multiplying by the inverse of a tridiagonal matrix is cheap. An
eigendecomposition spends most of its time on the eigenvectors, which are not needed here.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64
from scipy import linalg, special
from scipy.linalg import lapack

from unifeat.geometry._input import EPS, Matrix
from unifeat.geometry._lapack import tridiagonal

# The relative error of the sum of resolvents; their number grows with its logarithm.
_RESOLVENTS_TO = 1e-15
_REFLECTIONS_PER_BLOCK = 64
# The least eigenvalue as a share of the largest: above this, rounding changes it by no more than a hundred thousandth.
_LEAST_EIGENVALUE = 1e-11


def by_resolvents(
    product: Float64[np.ndarray, "k_a k_b"],
    x: Float64[np.ndarray, "n k_a"],
    y: Float64[np.ndarray, "n k_b"],
    smallest: float,
    error: float,
) -> float | None:
    """⟨x Q, y⟩ for the rotation Q nearest to the product C, which has two rows or more and at least as many columns.

    smallest: singular values of C up to this one are none.
    error: the share of ‖x‖ ‖y‖ by which rounding of C Cᵀ may change the result.

    None if C has such a singular value, or if its least one is so small that rounding may change more.
    """
    k, n = len(product), len(x)
    diagonal, beside, reflections, factors = tridiagonal(product @ product.T)
    low, high = _ends(diagonal, beside)
    if not low > max(_LEAST_EIGENVALUE * high, smallest**2):
        return None
    # Both factors of the matrix, as rows: y Cᵀ and x, times Z.
    thin = np.empty((2 * n, k))
    np.matmul(y, product.T, out=thin[:n])
    thin[n:] = x
    turned, _, _ = lapack.dormqr("L", "T", reflections, factors, thin.T[1:], lwork=2 * n * _REFLECTIONS_PER_BLOCK)
    thin[:, 1:] = turned.T
    left, right = thin[:n], thin[n:]
    if EPS * high * _sensitivity(diagonal, beside, left, right) > error * np.linalg.norm(x) * np.linalg.norm(y):
        return None
    both = left.T @ right
    both = both + both.T
    both.flat[:: k + 1] /= 2
    return _inverse_root_product(diagonal, beside, both, low, high)


def _ends(diagonal: Matrix, beside: Matrix) -> tuple[float, float]:
    """The least and the largest eigenvalue of a tridiagonal matrix."""
    last = len(diagonal) - 1
    low, high = (
        linalg.eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(i, i), check_finite=False)[0]
        for i in (0, last)
    )
    return float(low), float(high)


def _sensitivity(diagonal: Matrix, beside: Matrix, left: Matrix, right: Matrix) -> float:
    """By how much an error of the eigenvalues may change the result, per unit, if all of it adds up.

    The sum over eigenvectors v of |⟨v, right⟩ ⟨v, left⟩| / λ^(3/2), or more (Cauchy–Schwarz).
    """
    from unifeat.geometry._kernels import inverse_squares  # imported here, since numba is slow to import

    inner, outer = inverse_squares(diagonal, beside, right, False), inverse_squares(diagonal, beside, left, True)
    return math.sqrt(inner * outer)


def _inverse_root_product(diagonal: Matrix, beside: Matrix, upper: Matrix, low: float, high: float) -> float:
    """Σ over i ≤ k of T^(−1/2)[i, k] · upper[i, k], T's eigenvalues between low and high."""
    from unifeat.geometry._kernels import resolvent_products  # imported here, since numba is slow to import

    ratio = low / high
    count = math.ceil(math.log(4 / _RESOLVENTS_TO) * math.log(16 / ratio) / (2 * math.pi**2))
    quarter = special.ellipkm1(ratio)
    at = (np.arange(count) + 0.5) * quarter / count
    sn, cn, dn, _ = special.ellipj(at, 1.0 - ratio)
    shifts, weights = low * (sn / cn) ** 2, dn / cn**2
    parts = resolvent_products(diagonal, beside, shifts, upper)
    return float(2 * quarter * math.sqrt(low) / (math.pi * count) * (weights @ parts))
