"""How alike two profiles are: rows of numbers, one for each string or context, of what two features do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.transfer.given import numbers

Array = NDArray[np.float64]

TOP = 10  # strings most promoted, and as many most suppressed
_BLOCK_CELLS = 1 << 24  # of profiles that are worked on at once: an eighth of a gigabyte in float64
_ROUNDING = 1e-12  # below this share of its norm, a row's spread is a rounding error


def as_rows(values: Any, name: str, dims: tuple[int, ...] = (2,)) -> NDArray[Any]:
    """Profiles as an array of floating point numbers, in their own precision.

    Args:
        values: an array or a torch tensor.
        name: what they are, for messages.
        dims: how many dimensions they may have.

    Raises:
        UserError: not numbers of so many dimensions, or Inf among them. (NaN marks what is undefined.)
    """
    rows = numbers(values, name, dims)
    if np.isinf(rows).any():
        raise UserError(f"{name}: an effect is infinite; leave such rows out, or set them to NaN")
    return rows


def blocks(rows: int, columns: int) -> list[slice]:
    """Rows of profiles in blocks that are worked on at once."""
    step = max(1, _BLOCK_CELLS // max(columns, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def standardised(rows: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
    """Rows with mean 0 and norm 1, so that their products are Pearson's r.

    Args:
        rows: (rows, n).

    Returns:
        (rows, n) float64, zeros where undefined, and (rows,) whether a row is defined: it has no NaN, and varies.
    """
    wide = rows.astype(np.float64)
    total = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    wide -= wide.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    defined = norm > _ROUNDING * total  # false for NaN
    wide[~defined] = 0
    wide /= np.where(defined, norm, 1)[:, None]
    return wide, defined


def ranked(rows: NDArray[Any]) -> Array:
    """Ranks within each row, ties averaged; rows with NaN are NaN. (rows, n) float64."""
    from unifeat.transfer._kernels import ranks_of  # imported here, since numba is slow to import

    ranks: Array = ranks_of(rows, np.argsort(rows, axis=1))
    ranks[np.isnan(rows).any(axis=1)] = np.nan
    return ranks


def pearson(a: NDArray[Any], b: NDArray[Any]) -> Array:
    """Pearson's r of each row of a with the same row of b, (rows,) float64; NaN where one is undefined."""
    (one, defined_a), (other, defined_b) = standardised(a), standardised(b)
    r = np.clip(np.einsum("ij,ij->i", one, other), -1, 1)
    return np.where(defined_a & defined_b, r, np.nan)


def spearman(a: NDArray[Any], b: NDArray[Any]) -> Array:
    """Spearman's rank correlation of each row of a with the same row of b, (rows,) float64; NaN where undefined."""
    return pearson(ranked(a), ranked(b))


def extremes(rows: NDArray[Any], top: int = TOP) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The columns with the `top` largest values of each row, largest first, and with the smallest, smallest first.

    Returns:
        Two (rows, top) int64 arrays; fewer columns if there are fewer.
    """
    n = rows.shape[1]
    top = min(top, n)
    parted = np.argpartition(rows, [top - 1, n - top], axis=1)
    low, high = parted[:, :top], parted[:, n - top :]
    up, down = (
        np.take_along_axis(chosen, np.argsort(sign * np.take_along_axis(rows, chosen, axis=1), axis=1), axis=1)
        for chosen, sign in ((high, -1), (low, 1))
    )
    return up.astype(np.int64), down.astype(np.int64)


def top_overlap(a: NDArray[Any], b: NDArray[Any], top: int = TOP) -> Array:
    """The share of a row's `top` most promoted columns, and as many most suppressed ones, that both sides have.

    Returns:
        (rows,) float64 from 0 to 1; by chance about top / n. NaN where one side is undefined, and where there are no
        more than `top` columns, which all are then.
    """
    if a.shape[1] <= top:
        return np.full(len(a), np.nan)
    undefined = np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1)
    shared = np.zeros(len(a))
    for ours, theirs in zip(extremes(a, top), extremes(b, top), strict=True):
        both = np.sort(np.concatenate([ours, theirs], axis=1), axis=1)
        shared += (both[:, 1:] == both[:, :-1]).sum(axis=1) / (2 * ours.shape[1])
    return np.where(undefined, np.nan, shared)


def effective_number(changes: NDArray[Any]) -> Array:
    """How many of the columns a row's changes are spread over: (Σ|c|)² / Σc², (rows,) float64; NaN for zeros.

    It is 1 if one column changes, and n if n change alike (the participation ratio).

    Args:
        changes: (rows, columns).
    """
    size = np.abs(np.asarray(changes, np.float64))
    total, squares = size.sum(axis=1), np.einsum("ij,ij->i", size, size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total**2 / squares)
