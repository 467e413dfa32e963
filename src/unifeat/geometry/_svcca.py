"""Singular-vector canonical correlation analysis."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from unifeat.errors import UserError
from unifeat.geometry._input import EPS, Matrix, as_pair, as_permutation, centred, constant_flags
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score

DEFAULT_VARIANCE = 0.99
# A shuffle is one matrix product of n·ka·kb multiply-adds. Beyond this many it runs in float32, twice as
# fast; the shuffled value then moves by 1e-8 or so, far below the spread of any null.
_FLOAT32_ABOVE = 1_000_000_000


def svcca(x: Any, y: Any, *, dims: int | None = None, variance: float | None = None) -> Score:
    """Mean canonical correlation between the leading principal components of two sides.

    With centred columns X = U_a S_a V_aᵀ and Y = U_b S_b V_bᵀ, and k_a, k_b leading components kept, the
    canonical correlations ρ are the singular values of U_a[:, :k_a]ᵀ U_b[:, :k_b], and
    SVCCA = Σ ρ_i / min(k_a, k_b). (Raghu et al. 2017, "SVCCA", NeurIPS, arXiv 1706.05806; the form with
    singular vectors after Björck & Golub 1973.)

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64; n ≥ 2.
    dims: components kept on each side, at most its numerical rank; `details` reports how many were used.
    variance: instead, the fewest components whose Σs² reaches this share of the whole, in (0, 1]; 1 keeps
        every component, which is plain CCA. Without either, variance=0.99.

    `dims=1` is abs(corr(PC1 of x, PC1 of y)), which is what arXiv 2410.06981 published as SVCCA: only for
    reproducing it. An honest SVCCA is far from 0 on unrelated data (.35 for 512 × 768 dims and n = 5,000) and
    exactly 1 once n − 1 ≤ k: read it beside its null (`unifeat.permutation_test`).

    details: `dims_a`, `dims_b` (components used), `rank_a`, `rank_b`, `correlations` (descending).
    flags: `n <= d`, `rank` (fewer components than asked for), `saturated` (n forces correlations of 1),
    `constant x` or `constant y` (value NaN).
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, and for bad settings.
    """
    return prepare_svcca(x, y, dims=dims, variance=variance).score()


def prepare_svcca(x: Any, y: Any, *, dims: int | None = None, variance: float | None = None) -> Prepared:
    """One SVD a side; the arguments are those of `svcca`."""
    settings = _settings(dims, variance)
    a, b = as_pair(x, y, at_least=2, why="SVCCA")
    (n, d_a), d_b = a.shape, b.shape[1]
    if flags := constant_flags(a, b):
        return Undefined(Score("svcca", float("nan"), settings, n, d_a, d_b, flags=flags))
    basis_a, rank_a = _leading_components(a, **settings)
    basis_b, rank_b = _leading_components(b, **settings)
    ka, kb = basis_a.shape[1], basis_b.shape[1]
    flags = _size_flags(n, d_a, d_b, ka, kb)
    if dims is not None and min(ka, kb) < dims:
        flags += (f"rank: {dims} components asked for, x has {rank_a} and y {rank_b}",)
    found = {"dims_a": ka, "dims_b": kb, "rank_a": rank_a, "rank_b": rank_b}
    return PreparedSVCCA(basis_a, basis_b, Score("svcca", float("nan"), settings, n, d_a, d_b, found, flags))


class PreparedSVCCA:
    """Orthonormal bases of the two sides. Shuffling rows permutes a basis and leaves it orthonormal."""

    def __init__(self, basis_a: Matrix, basis_b: Matrix, blank: Score) -> None:
        self.n = blank.n
        self._bases = basis_a, basis_b
        self._blank = blank
        self._narrow = blank.n * basis_a.shape[1] * basis_b.shape[1] > _FLOAT32_ABOVE
        self.tolerance = 1e-6 if self._narrow else 1e-10

    def score(self) -> Score:
        basis_a, basis_b = self._bases
        correlations = np.clip(_singular_values(basis_a.T @ basis_b), 0.0, 1.0)
        blank = self._blank
        details = blank.details | {"correlations": tuple(correlations.tolist())}
        value = float(correlations.mean())
        return Score("svcca", value, blank.settings, blank.n, blank.d_a, blank.d_b, details, blank.flags)

    def shuffled(self, permutation: Any) -> float:
        order = as_permutation(permutation, self.n)
        left, right = self._shuffle_bases
        if left.shape[1] < right.shape[1]:  # gather the slimmer side: U_aᵀ U_b[π] = U_a[π⁻¹]ᵀ U_b
            product = left.take(np.argsort(order), axis=0).T @ right
        else:
            product = left.T @ right.take(order, axis=0)
        return _mean_correlation(product.astype(np.float64, copy=False))

    @cached_property
    def _shuffle_bases(self) -> tuple[NDArray[Any], NDArray[Any]]:
        if not self._narrow:
            return self._bases
        return self._bases[0].astype(np.float32), self._bases[1].astype(np.float32)


def _settings(dims: Any, variance: Any) -> dict[str, Any]:
    if dims is not None and variance is not None:
        raise UserError("svcca takes dims or variance, not both: drop one")
    if dims is not None:
        if isinstance(dims, bool) or not isinstance(dims, int | np.integer) or dims < 1:
            raise UserError(f"svcca dims={dims!r}: give a whole number of components, 1 or more")
        return {"dims": int(dims)}
    share = DEFAULT_VARIANCE if variance is None else variance
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share <= 1:
        raise UserError(f"svcca variance={share!r}: give a share of the variance in (0, 1]")
    return {"variance": float(share)}


def _leading_components(matrix: Matrix, dims: int | None = None, variance: float = 1.0) -> tuple[Matrix, int]:
    """Left singular vectors kept, shape (n, k), and the numerical rank (the rule of numpy's matrix_rank)."""
    try:
        left, scale, _ = linalg.svd(centred(matrix), full_matrices=False, check_finite=False)
    except linalg.LinAlgError:  # divide and conquer gave up, rarely; QR iteration is slower and surer
        left, scale, _ = linalg.svd(centred(matrix), full_matrices=False, check_finite=False, lapack_driver="gesvd")
    rank = max(1, int((scale > scale[0] * max(matrix.shape) * EPS).sum()))
    if dims is not None:
        keep = dims
    elif variance == 1.0:
        keep = rank
    else:
        share = np.cumsum(scale**2) / np.sum(scale**2)
        keep = int((share < variance - 1e-12).sum()) + 1
    return np.ascontiguousarray(left[:, : min(keep, rank)]), rank


def _size_flags(n: int, d_a: int, d_b: int, ka: int, kb: int) -> tuple[str, ...]:
    flags: tuple[str, ...] = ()
    if n <= max(d_a, d_b):
        flags += (f"n <= d: {n} pairs in {d_a} and {d_b} dimensions inflate SVCCA; compare it with its null",)
    # Centred rows live in n − 1 dimensions; subspaces too large for them must intersect.
    forced = min(ka + kb - (n - 1), ka, kb)
    if forced > 0:
        flags += (f"saturated: {n} pairs force {forced} of {min(ka, kb)} correlations to 1; keep fewer dims",)
    return flags


def _singular_values(product: Matrix) -> Matrix:
    values: Matrix = linalg.svdvals(product, check_finite=False)
    return values


def _mean_correlation(product: Matrix) -> float:
    """Mean singular value: by the eigenvalues of the smaller Gram matrix where that is exact enough."""
    short = product if product.shape[0] <= product.shape[1] else product.T
    if short.shape[0] > 32:
        squares = np.linalg.eigvalsh(short @ short.T)
        # √λ loses digits for λ near 0 (error ε·λ_max / 2√λ): from here up it stays below 1e-10.
        if squares[0] > 1e-9 * squares[-1]:
            return float(np.minimum(np.sqrt(squares), 1.0).mean())
    return float(np.clip(_singular_values(short), 0.0, 1.0).mean())
