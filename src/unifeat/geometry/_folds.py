"""Folds: which rows each fold holds out, and the moments used to fit a map and to evaluate it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry._components import svd
from unifeat.geometry._input import Matrix
from unifeat.geometry._labels import codes_of

Rows = NDArray[np.intp]
DEFAULT_FOLDS = 5
FEWEST_PAIRS = 4  # two pairs to fit on and two to evaluate on


def fold_settings(measure: str, folds: Any, seed: Any) -> dict[str, Any]:
    """The two settings that every held-out measure has, checked; a UserError names a bad one."""
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or folds < 2:
        raise UserError(f"{measure} folds={folds!r}: give a whole number of folds, 2 or more")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise UserError(f"{measure} seed={seed!r}: give a whole number from 0 to 2**64 − 1")
    return {"folds": int(folds), "seed": int(seed)}


def held_out(n: int, folds: int, seed: int, groups: Rows | None = None) -> tuple[tuple[Rows, ...], tuple[str, ...]]:
    """The rows each fold holds out, ascending, and a flag where n is too small for that many folds.

    The folds divide range(n) into parts of at least two rows whose sizes differ by at most one. They depend only on
    (n, folds, seed, groups), so that a shuffle of y leaves the rows of x in their folds.

    groups: (n,) whole numbers from 0 in the order in which they appear. Rows of one group are held out together, and
    the folds have equally many groups, up to one.
    """
    what, count = ("pairs", n) if groups is None else ("groups", int(groups.max()) + 1)
    used = min(folds, count // 2)
    flags = (
        (f"folds: {count} {what} are too few for {folds} folds of two or more, {used} used",) if used < folds else ()
    )
    # The raw stream of Philox is the same in all numpy versions. The permutations never use this key.
    key = np.array([seed, 2**64 - 1], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=np.array([0, 0, 0, count], dtype=np.uint64)).random_raw(count)
    parts = np.array_split(np.argsort(words, kind="stable"), used)
    if groups is not None:
        return tuple(np.flatnonzero(np.isin(groups, part)) for part in parts), flags
    return tuple(np.sort(part) for part in parts), flags


def fold_groups(measure: str, groups: Any, n: int) -> Rows | None:
    """The setting `groups` as whole numbers; a UserError if there is not one for each pair, or there are too few."""
    if groups is None:
        return None
    codes = codes_of(groups, n, f"{measure} groups")
    if codes.max(initial=-1) + 1 < FEWEST_PAIRS:
        raise UserError(f"{measure} groups: {codes.max(initial=-1) + 1} are too few: give at least {FEWEST_PAIRS}")
    return codes


def group_setting(groups: Rows | None) -> dict[str, Any]:
    """What a score's settings say of groups: how many there are, if there are any."""
    return {} if groups is None else {"groups": int(groups.max()) + 1}


def fewest_left(pairs: Rows, tests: tuple[Rows, ...]) -> int:
    """The least number of different pairs that a fold leaves to fit on. pairs: (n,) the same number for equal pairs."""
    return min(len(np.unique(np.delete(pairs, test))) for test in tests)


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
    """The parts of centred rows (n, k), one per fold.

    total: rowsᵀ rows, which is the same for any order of the rows. If given, the scatter of the training rows is
    computed from it by subtracting the held-out rows.
    """
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
    """For each fold, two (k_a, k_b) matrices: the cross-scatter of the training pairs about their means, and that of
    the held-out pairs about theirs."""
    products = [left.rows.T @ right.rows for left, right in zip(a, b, strict=True)]
    total = np.sum(products, axis=0)
    pairs = []
    for product, left, right in zip(products, a, b, strict=True):
        train = total - product - left.n_train * np.outer(left.train_mean, right.train_mean)
        pairs.append((train, product - len(left.rows) * np.outer(left.mean, right.mean)))
    return pairs


def training_products(a: list[Part], b: list[Part]) -> Iterator[Matrix]:
    """The first matrix of each pair of `cross`, with less work: (k_a, k_b) for each fold."""
    # One more row holds the product of the means.
    means_a, means_b = (np.array([part.train_mean * np.sqrt(part.n_train) for part in side]) for side in (a, b))
    products = [
        np.vstack([left.rows, mean_a]).T @ np.vstack([right.rows, mean_b])
        for left, right, mean_a, mean_b in zip(a, b, means_a, means_b, strict=True)
    ]
    total = np.sum(products, axis=0) - means_a.T @ means_b
    for product in products:
        yield np.subtract(total, product, out=product)


def slim(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
    """Centred rows; if there are more columns than rows, rotated into as few columns as the rows span.

    The rotation keeps every inner product between rows.
    """
    if rows.shape[1] <= rows.shape[0]:
        return rows
    left, scale, _ = svd(rows)
    return np.ascontiguousarray(left * scale)
