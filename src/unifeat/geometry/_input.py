"""Checking the caller's arrays and converting them to two float64 matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Integer
from numpy.typing import NDArray

from unifeat.errors import UserError, did_you_mean

Matrix = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)


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
    """
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
    return matrix


def centred(matrix: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    """The matrix less its column means (a copy).

    Done twice: the rounding error of the first mean is proportional to the mean, so a huge common offset would leave
    something behind.
    """
    out: Matrix = matrix - matrix.mean(axis=0)
    out -= out.mean(axis=0)
    return out


def unit_rows(matrix: Float64[np.ndarray, "n d"], *, centre: bool = False) -> tuple[Float64[np.ndarray, "n d"], int]:
    """Rows of length 1, and how many rows have no direction."""
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    rows = matrix / np.where(largest > 0, largest, 1.0)  # so that the squares of tiny rows do not underflow
    if centre:
        rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    undefined = length <= (8 * EPS * np.sqrt(matrix.shape[1]) if centre else 0.0)
    return rows / np.where(undefined, 1.0, length), int(undefined.sum())


def is_constant(matrix: Float64[np.ndarray, "n d"]) -> bool:
    """Whether all rows are the same, up to the last bits of each column."""
    spread = np.ptp(matrix, axis=0)
    return bool((spread <= 4 * EPS * np.abs(matrix).max(axis=0)).all())


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
