"""Checking the caller's arrays and converting them to two float64 matrices."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Integer
from numpy.typing import NDArray

from unifeat.errors import UserError, did_you_mean

Matrix = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
# Rounding errors, in units of `Precision.noise` for one rounding: half precisions are summed in float32, then rounded
# once (measured: up to 0.26); products of float32 matrices are summed in float32 too (up to 1.5, for 150 terms).
_ROUNDINGS_OF_FLOAT32, _ROUNDINGS_OF_HALF = 4.0, 1.0


class Precision(NamedTuple):
    """What the caller's numbers were before they became float64: values that are equal within `eps` may be one."""

    name: str
    """float64, float32, float16, bfloat16 …"""
    eps: float
    """Distance from 1 to the next number; that of float64 for integers and whatever is finer."""

    def noise(
        self,
        matrix: Float64[np.ndarray, "n d"],
        left: Float64[np.ndarray, "n k"],
        right: Float64[np.ndarray, "k d"],
    ) -> Float64[np.ndarray, " k"]:
        """How large singular values of these directions, u_k vᵀ_k, the rounding of rows (n, d) alone may make; (k,).

        An n × d matrix of independent errors of size b has a spectral norm of about b (√n + √d), and adding it moves
        no singular value further than that (Vershynin 2018, "High-dimensional probability", section 4.4; Weyl). Entry
        ij was rounded by at most eps |x_ij| / 2; what a direction sees of it is weighted by u_ik² v_jk², so that one
        column of large numbers hides nothing in the others. Here b_k is twice that, and more where sums were rounded
        on the way. 0 for float64, whose rounding is that of the computation.
        """
        if self.eps <= EPS:
            return np.zeros(len(right))
        size = np.einsum("ik,ik->k", left**2, _varying(matrix) ** 2 @ right.T**2)
        noise: Matrix = self._one_entry(matrix.shape) * np.sqrt(size)
        return noise

    def most_noise(self, matrix: Float64[np.ndarray, "n d"]) -> float:
        """No direction has more `noise` than this."""
        return self._one_entry(matrix.shape) * float(np.abs(_varying(matrix)).max()) if self.eps > EPS else 0.0

    def _one_entry(self, shape: tuple[int, ...]) -> float:
        roundings = _ROUNDINGS_OF_FLOAT32 if self.eps < 1e-6 else _ROUNDINGS_OF_HALF
        return roundings * self.eps * float(np.sqrt(shape[0]) + np.sqrt(shape[1]))


def _varying(matrix: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Without constant columns, whose error goes with their mean."""
    return np.where(np.ptp(matrix, axis=0) > 0, matrix, 0.0)


DOUBLE = Precision("float64", EPS)


def precision_of(values: Any) -> Precision:
    """The precision of an array or tensor as the caller gave it."""
    if hasattr(values, "detach"):
        import torch  # loaded already, since this is one of its tensors

        if not values.dtype.is_floating_point:
            return DOUBLE
        name, eps = str(values.dtype).removeprefix("torch."), float(torch.finfo(values.dtype).eps)
    else:
        dtype = np.asarray(values).dtype
        if dtype.kind != "f":
            return DOUBLE
        name, eps = dtype.name, float(np.finfo(dtype).eps)
    return Precision(name, eps) if eps > EPS else DOUBLE


def as_pair(
    x: Any, y: Any, *, at_least: int, why: str
) -> tuple[Float64[np.ndarray, "n d_a"], Float64[np.ndarray, "n d_b"]]:
    """Two checked matrices with equally many rows, at least `at_least`. `why` says in the message what needs them."""
    a, b = as_matrix(x, "x"), as_matrix(y, "y")
    if len(a) != len(b):
        raise UserError(f"x has {len(a)} rows and y has {len(b)}: row i of x must be paired with row i of y")
    if len(a) < at_least:
        raise UserError(f"{len(a)} pairs are too few: {why} needs at least {at_least}")
    return a, b


def as_matrix(values: Any, name: str) -> Float64[np.ndarray, "n d"]:
    """A fresh C-ordered float64 copy, scaled by a power of two so that its largest entry lies in [0.5, 1).

    Every measure here ignores an isotropic scale, and this scaling is exact. It keeps the squares of very large or very
    small entries from overflowing or underflowing.

    Rows that are the same up to the last bits of the precision they were given in are made the same, as they would be
    without rounding (see `is_constant`).
    """
    precision = precision_of(values)
    if hasattr(values, "detach"):  # a torch tensor, detected without importing torch; numpy has no bfloat16
        values = values.detach().cpu().double().numpy()
    raw = np.asarray(values)
    if raw.dtype.kind not in "fiub":
        raise UserError(f"{name} has dtype {raw.dtype}: give a dense 2-D array of real numbers")
    if raw.ndim != 2:
        raise UserError(f"{name} has shape {raw.shape}: give a 2-D array, one row per pair")
    if raw.shape[1] == 0:
        raise UserError(f"{name} has no columns (shape {raw.shape})")
    matrix = np.array(raw, dtype=np.float64, order="C")
    finite = np.isfinite(matrix)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise UserError(f"{name} holds NaN or infinity (first at row {row}, column {column}): drop such pairs first")
    if matrix.size:
        _, exponent = np.frexp(np.abs(matrix).max())
        np.ldexp(matrix, -exponent, out=matrix)
        if precision.eps > EPS and is_constant(matrix, precision.eps):
            matrix[:] = matrix[0]
    return matrix


def centred(matrix: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """The matrix less its column means (a copy).

    Done twice: the rounding error of the first mean is proportional to the mean, so a huge common offset would leave
    something behind.
    """
    out: Matrix = matrix - matrix.mean(axis=0)
    out -= out.mean(axis=0)
    return out


def unit_scale(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """Scaled by a power of two so that the largest entry lies in [0.5, 1): powers of tiny rows do not underflow."""
    _, exponent = np.frexp(np.abs(rows).max())
    return np.ldexp(rows, -exponent)


def unit_rows(
    matrix: Float64[np.ndarray, "n d"], *, centre: bool = False, eps: float = EPS
) -> tuple[Float64[np.ndarray, "n d"], int]:
    """Rows of length 1, and how many rows have no direction.

    eps: of the `Precision` the rows were given in. If all rows lie on one line up to its rounding, they are put on it:
    all cosines are then 1 or −1, and rounding would decide which row is nearer.
    """
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    rows = matrix / np.where(largest > 0, largest, 1.0)  # so that the squares of tiny rows do not underflow
    given = np.linalg.norm(rows, axis=1, keepdims=True)
    if centre:
        rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    undefined = length <= (8 * eps * np.sqrt(matrix.shape[1]) if centre else 0.0)
    unit: Matrix = rows / np.where(undefined, 1.0, length)
    if eps > EPS and not undefined.any():
        cosine = unit @ unit[:1].T
        angle = 2 * eps * given / length  # four roundings of half a step
        if (1.0 - np.abs(cosine) <= (angle + angle[0]) ** 2 / 2).all():
            unit = np.sign(cosine) * unit[0]
    return unit, int(undefined.sum())


def is_constant(matrix: Float64[np.ndarray, "n d"], eps: float = EPS) -> bool:
    """Whether all rows are the same, up to the last bits of each column."""
    spread = np.ptp(matrix, axis=0)
    return bool((spread <= 4 * eps * np.abs(matrix).max(axis=0)).all())


def constant_flags(a: Float64[np.ndarray, "n d_a"], b: Float64[np.ndarray, "n d_b"]) -> tuple[str, ...]:
    """One flag for each side whose rows are all the same: nothing can be compared there."""
    sides = (("x", a), ("y", b))
    return tuple(f"constant {name}: all rows are the same" for name, side in sides if is_constant(side))


def as_permutation(permutation: Any, n: int) -> Integer[np.ndarray, " {n}"]:
    """A checked permutation of range(n). The check matters: compiled code indexes memory with it."""
    order = np.asarray(permutation)
    if order.shape != (n,) or order.dtype.kind not in "iu":
        raise UserError(
            f"a permutation of {n} pairs is an integer array of shape ({n},), not {order.dtype} of shape {order.shape}"
        )
    order = order.astype(np.intp, copy=False)
    if n and (order.min() < 0 or order.max() >= n or (np.bincount(order, minlength=n) != 1).any()):
        raise UserError(f"not a permutation of 0 … {n - 1}: some row is missing or named twice")
    return order


def one_of(value: Any, known: tuple[str, ...], setting: str) -> str:
    """`value`, or a UserError if it is not one of the known values."""
    if value not in known:
        hint = did_you_mean(str(value), known)
        raise UserError(f"unknown {setting} {value!r}{hint}: choose one of {', '.join(known)}")
    return str(value)
