"""What the CCA measures share: the leading principal components of a side, and its singular values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy import linalg

from unifeat.errors import UserError
from unifeat.geometry._input import DOUBLE, EPS, Matrix, Precision, centred
from unifeat.geometry._labels import Distinct

# Singular values this close count as tied: they are equal in exact arithmetic, as correlations forced to 1 are.
TIE_TOLERANCE = 1e-10
# The squared length of the last component kept, as a share of the first: above it, the component is far from the
# rounding of a Gram matrix.
_LEAST_COMPONENT = 1e-6


class Components(NamedTuple):
    """Components kept: centred rows ≈ basis · diag(scale) · (directions)ᵀ."""

    basis: Float64[np.ndarray, "n k"]
    """Left singular vectors, (n, k), orthonormal columns."""
    scale: Float64[np.ndarray, " k"]
    """Singular values, (k,), descending."""
    rank: int
    """Numerical rank of the centred rows, k or more: the singular values above the rounding of the computation (the
    rule of numpy's matrix_rank) and above the noise of the precision the rows were given in (`Precision.noise`)."""
    noise: Float64[np.ndarray, " k"]
    """That noise, (k,), in units of `scale`; an upper bound of it where `scale` is above that too."""
    lost: str = ""
    """Where it changed what is kept: `5 of 50 directions are above the rounding of float32`."""


def component_settings(measure: str, dims: Any, variance: Any, *, default: float) -> dict[str, Any]:
    """The setting to use, `dims` or `variance` (`default` if neither is given); a UserError names a bad one."""
    if dims is not None and variance is not None:
        raise UserError(f"{measure} takes dims or variance, not both: drop one")
    if dims is not None:
        if isinstance(dims, bool) or not isinstance(dims, int | np.integer) or dims < 1:
            raise UserError(f"{measure} dims={dims!r}: give a whole number of components, 1 or more")
        return {"dims": int(dims)}
    share = default if variance is None else variance
    if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share <= 1:
        raise UserError(f"{measure} variance={share!r}: give a share of the variance in (0, 1]")
    return {"variance": float(share)}


def leading_components(
    matrix: Float64[np.ndarray, "n d"],
    dims: int | None = None,
    variance: float = 1.0,
    *,
    given: Precision = DOUBLE,
) -> Components:
    """`dims` components, or the fewest that reach this share of the variance; at most the rank, at least 1.

    given: the precision of the rows before they became float64.
    """
    if dims is not None and (few := _few_of_full_rank(centred(matrix), dims, given.most_noise(matrix))):
        return few
    left, scale, right = svd(centred(matrix))
    nonzero = max(1, int((scale > scale[0] * max(matrix.shape) * EPS).sum()))
    most = given.most_noise(matrix)
    noise = np.full(scale.size, most)
    if most and (doubtful := np.flatnonzero(scale <= most)).size:
        noise[doubtful] = given.noise(matrix, left[:, doubtful], right[doubtful])
    above = np.flatnonzero(scale[:nonzero] > noise[:nonzero])
    rank = max(1, above.size)
    if above.size < nonzero:
        above = above if above.size else np.zeros(1, np.intp)
        left, scale, noise = left[:, above], scale[above], noise[above]
    if dims is not None:
        wanted = dims
    elif variance == 1.0:
        wanted = nonzero
    else:
        share = np.cumsum(scale**2) / np.sum(scale**2)
        wanted = int((share < variance - 1e-12).sum()) + 1
    keep = min(wanted, rank)
    hidden = keep < min(wanted, nonzero) or above[keep - 1] > keep - 1
    lost = _lost(rank, nonzero, given) if hidden else ""
    return Components(np.ascontiguousarray(left[:, :keep]), scale[:keep], rank, noise[:keep], lost)


def _few_of_full_rank(rows: Float64[np.ndarray, "n d"], dims: int, noise: float) -> Components | None:
    """`dims` components of centred rows from the smaller Gram matrix, several times as fast as from a singular value
    decomposition; None if one of them may be due to rounding, or the rank is not certainly full.

    noise: `Precision.most_noise`.
    """
    n, d = rows.shape
    most = min(n - 1, d)
    if dims > most:
        return None
    gram = rows.T @ rows if d < n else rows @ rows.T
    if not _full_rank(gram, rows, noise):
        return None
    kept = components_of_gram(gram, most, dims, noise=noise)
    if kept is None:
        return None
    return kept._replace(basis=kept.basis if d >= n else rows @ kept.basis / kept.scale, rank=most)


def _full_rank(gram: Float64[np.ndarray, "m m"], rows: Float64[np.ndarray, "n d"], noise: float) -> bool:
    """Whether all singular values of centred rows are far above their `Precision.most_noise` and rounding.

    gram: the smaller Gram matrix of the rows.
    """
    # (If there are fewer rows than columns, the vector of ones, which centring leaves out, is put back.)
    whole = gram if rows.shape[1] < rows.shape[0] else gram + np.mean(rows**2)
    least = max(2 * noise**2, 1e-12 * float(np.trace(whole)))
    try:  # a Cholesky factorisation shows it sooner than singular values
        np.linalg.cholesky(whole - least * np.eye(len(whole)))
    except np.linalg.LinAlgError:
        return False
    return True


def components_of_gram(
    gram: Float64[np.ndarray, "m m"], most: int, dims: int | None = None, variance: float = 1.0, *, noise: float = 0.0
) -> Components | None:
    """`leading_components` from the Gram matrix of centred rows; None if one of them may be due to rounding.

    Or from that of their columns; the basis then holds right singular vectors. `rank` is a lower bound: what is kept.

    most: the most components that there can be.
    noise: `Precision.most_noise` of the rows. Directions below it may not count as variance.
    """
    size = len(gram)
    few: dict[str, Any] = {"driver": "evd"}
    if dims is not None and 4 * dims < size:
        few = {"driver": "evr", "subset_by_index": (size - dims, size - 1)}
    squares, vectors = linalg.eigh(gram, check_finite=False, **few)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    keep = most if dims is None else min(dims, most)
    if dims is None and variance < 1.0:
        if squares[most - 1] <= noise**2:
            return None
        share = np.cumsum(squares) / np.trace(gram)
        keep = min(int((share < variance - 1e-12).sum()) + 1, most)
    if squares[keep - 1] <= max(_LEAST_COMPONENT * squares[0], noise**2):
        return None
    basis = np.ascontiguousarray(vectors[:, :keep])
    return Components(basis, np.sqrt(squares[:keep]), keep, np.full(keep, noise))


def hiding_noise(matrix: Float64[np.ndarray, "n d"], given: Precision) -> tuple[float, str]:
    """The largest `Precision.noise` that hides a direction of rows (n, d), and `lost` as in `Components`; 0 and "" if
    none is hidden."""
    most = given.most_noise(matrix)
    if most == 0.0:
        return 0.0, ""
    rows = centred(matrix)
    gram = rows.T @ rows if rows.shape[1] < rows.shape[0] else rows @ rows.T
    if not _full_rank(gram, rows, most):  # most matrices have it
        left, scale, right = svd(rows)
        nonzero = int((scale > scale[0] * max(matrix.shape) * EPS).sum())
        noise = given.noise(matrix, left, right)[:nonzero]
        hidden = scale[:nonzero] <= noise
        if hidden.any():
            return float(noise[hidden].max()), _lost(int((~hidden).sum()), nonzero, given)
    return 0.0, ""


def _lost(rank: int, nonzero: int, given: Precision) -> str:
    return f"{rank} of {nonzero} directions are above the rounding of {given.name}"


def lost_flags(lost_x: str, lost_y: str) -> tuple[str, ...]:
    """A flag for each side whose precision hides directions."""
    return tuple(f"rank of {name}: {lost}" for name, lost in (("x", lost_x), ("y", lost_y)) if lost)


def component_flags(
    measure: str, rows: Distinct, widths: tuple[int, int], a: Components, b: Components
) -> tuple[str, ...]:
    """Flags for too few different pairs, given the dimensions or components."""
    flags: tuple[str, ...] = ()
    if rows.fewest <= max(widths):
        flags += (f"n <= d: {rows.described(rows.fewest)} in {widths[0]} and {widths[1]} dimensions inflate {measure}; "
                  "compare it with its null",)  # fmt: skip
    ka, kb = a.scale.size, b.scale.size
    # n different centred pairs span at most n − 1 dimensions, in which two large subspaces must intersect.
    forced = min(ka + kb - (rows.pairs - 1), ka, kb)
    if forced > 0:
        pairs = rows.described(rows.pairs)
        flags += (f"saturated: {pairs} force {forced} of {min(ka, kb)} correlations to 1; keep fewer dims",)
    return flags


def rank_flags(dims: int | None, a: Components, b: Components) -> tuple[str, ...]:
    """Flags if a side has fewer components than were asked for, and if its precision is why."""
    flags: tuple[str, ...] = ()
    if dims is not None and min(a.scale.size, b.scale.size) < dims:
        flags += (f"rank: {dims} components asked for, x has {a.rank} and y {b.rank}",)
    return flags + lost_flags(a.lost, b.lost)


def found(a: Components, b: Components) -> dict[str, Any]:
    """The details that all measures based on components report."""
    return {"dims_a": a.scale.size, "dims_b": b.scale.size, "rank_a": a.rank, "rank_b": b.rank}


def svd(
    matrix: Float64[np.ndarray, "n d"],
) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, " k"], Float64[np.ndarray, "k d"]]:
    """The thin singular value decomposition: U, s, Vᵀ."""
    try:
        left, scale, right = linalg.svd(matrix, full_matrices=False, check_finite=False)
    except linalg.LinAlgError:  # divide and conquer rarely fails; QR iteration is slower and more robust
        left, scale, right = linalg.svd(matrix, full_matrices=False, check_finite=False, lapack_driver="gesvd")
    return left, scale, right


def singular_values(product: Float64[np.ndarray, "k_a k_b"]) -> Float64[np.ndarray, " k"]:
    """Singular values, in no particular order: from the eigenvalues of the smaller Gram matrix if accurate enough."""
    short = product if product.shape[0] <= product.shape[1] else product.T
    if short.shape[0] > 32:
        squares = np.linalg.eigvalsh(short @ short.T)
        # √λ loses digits for λ near 0 (error ε·λ_max / 2√λ). Above this bound the error stays below 1e-10.
        if squares[0] > 1e-9 * squares[-1]:
            return np.sqrt(squares)
    values: Matrix = linalg.svdvals(short, check_finite=False)
    return values
