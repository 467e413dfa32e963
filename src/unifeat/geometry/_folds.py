"""Pairs held out: which rows each fold leaves aside, and the moments a map is fitted and read with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry._components import svd
from unifeat.geometry._input import Matrix

Rows = NDArray[np.intp]
DEFAULT_FOLDS = 5
FEWEST_PAIRS = 4  # two pairs to fit on and two to read on


def fold_settings(measure: str, folds: Any, seed: Any) -> dict[str, Any]:
    """The two settings every held-out measure has, or a UserError that names the bad one."""
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or folds < 2:
        raise UserError(f"{measure} folds={folds!r}: give a whole number of folds, 2 or more")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise UserError(f"{measure} seed={seed!r}: give a whole number from 0 to 2**64 − 1")
    return {"folds": int(folds), "seed": int(seed)}


def held_out(n: int, folds: int, seed: int) -> tuple[tuple[Rows, ...], tuple[str, ...]]:
    """The rows each fold holds out, ascending, and a flag where n is too small for that many folds.

    The folds cut range(n) into parts whose sizes differ by at most one, two rows or more in each. They depend
    on (n, folds, seed) alone: position decides, so that a shuffle of y leaves the rows of x in their folds.
    """
    used = min(folds, n // 2)
    flags = (f"folds: {n} pairs are too few for {folds} folds of two or more, {used} used",) if used < folds else ()
    # The raw stream of Philox is fixed between numpy versions; this key is none of the permutations' keys.
    key = np.array([seed, 2**64 - 1], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=np.array([0, 0, 0, n], dtype=np.uint64)).random_raw(n)
    order = np.argsort(words, kind="stable")
    return tuple(np.sort(part) for part in np.array_split(order, used)), flags


@dataclass(frozen=True)
class Part:
    """One side of one fold, from rows whose overall mean is zero."""

    rows: Float64[np.ndarray, "n_test k"]
    """The held-out rows, (n_test, k)."""
    mean: Float64[np.ndarray, " k"]
    """Mean of the held-out rows, (k,)."""
    train_mean: Float64[np.ndarray, " k"]
    """Mean of the training rows, (k,)."""
    n_train: int
    gram: Float64[np.ndarray, "k k"] | None
    """Held-out rowsᵀ rows, (k, k)."""
    scatter: Float64[np.ndarray, "k k"] | None
    """Σ over the training rows of (row − train_mean)(row − train_mean)ᵀ, (k, k)."""


def cut(
    rows: Float64[np.ndarray, "n k"], tests: tuple[Rows, ...], total: Float64[np.ndarray, "k k"] | None = None
) -> list[Part]:
    """The parts of centred rows (n, k). total = rowsᵀ rows, which no order of the rows changes: with it, the
    scatter of the training rows follows by taking the held-out ones away."""
    parts = []
    for test in tests:
        chosen = rows[test]
        n_train = len(rows) - test.size
        mean = chosen.mean(axis=0)
        train_mean = mean * (-test.size / n_train)
        gram = scatter = None
        if total is not None:
            gram = chosen.T @ chosen
            scatter = total - gram - n_train * np.outer(train_mean, train_mean)
        parts.append(Part(chosen, mean, train_mean, n_train, gram, scatter))
    return parts


def cross(a: list[Part], b: list[Part]) -> list[tuple[Matrix, Matrix]]:
    """For each fold, (k_a, k_b): cross-scatter of the training pairs about their means, and of the held-out
    pairs about theirs."""
    products = [left.rows.T @ right.rows for left, right in zip(a, b, strict=True)]
    total = np.sum(products, axis=0)
    pairs = []
    for product, left, right in zip(products, a, b, strict=True):
        train = total - product - left.n_train * np.outer(left.train_mean, right.train_mean)
        pairs.append((train, product - len(left.rows) * np.outer(left.mean, right.mean)))
    return pairs


def slim(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
    """Centred rows, turned into as few columns as they span where there are more columns than rows.

    A rotation: every inner product between rows stays.
    """
    if rows.shape[1] <= rows.shape[0]:
        return rows
    left, scale, _ = svd(rows)
    return np.ascontiguousarray(left * scale)
