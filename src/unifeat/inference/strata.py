"""Strata: items that are alike in something that a test should not mistake for what it looks for, such as frequency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError

SIZE = 10  # about so many items in a stratum: see `strata_of`


def pair_frequency(count_a: Any, count_b: Any) -> NDArray[np.float64]:
    """How often a pair fires: the geometric mean of its features' counts, (pairs,) float64."""
    return np.sqrt(np.asarray(count_a, np.float64)) * np.sqrt(np.asarray(count_b, np.float64))


def quantile_bins(values: Any, bins: int, *, name: str = "values") -> NDArray[np.intp]:
    """The quantile bin of each item, (n,) intp from 0, the smallest values first.

    Bins have about equally many items. Equal values are always in the same bin, so bins may be uneven, and fewer than
    `bins` if many items tie. Any increasing function of the values gives the same bins.

    Args:
        values: (n,) finite numbers.
        name: what the values are, for messages.

    Raises:
        UserError: not a list of finite numbers, or fewer than 1 bin.
    """
    numbers = _finite(values, name)
    if not 1 <= bins <= 1_000_000:
        raise UserError(f"bins={bins}: give a whole number of strata, 1 to 1,000,000")
    if len(numbers) == 0:
        return np.zeros(0, np.intp)
    edges = np.quantile(numbers, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.unique(np.searchsorted(edges, numbers, "left"), return_inverse=True)[1].astype(np.intp)


def strata_of(*variables: Any, size: int = SIZE) -> NDArray[np.intp]:
    """Strata of about `size` items that are alike in every variable: (n,) intp from 0.

    The items are cut into quantile bins of the first variable, each bin into quantile bins of the second, and so on, so
    that all strata are about equally large however the variables depend on each other. With k variables and n items,
    each cut makes about (n / size)^(1/k) bins.

    What varies within a stratum is not taken out, so strata should be small. But an item meets its own partner again in
    one shuffle of `size`, which raises the null's mean. `docs/confounds.md` measures false positives and power.

    Args:
        variables: one or more lists of n finite numbers.
        size: items in a stratum, 2 or more. Ties make larger strata.

    Raises:
        UserError: no variable, not equally many finite numbers in each, or a bad size.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 2:
        raise UserError(f"size={size!r}: give a whole number of items in a stratum, 2 or more")
    columns = [_finite(values, f"variable {number}") for number, values in enumerate(variables, start=1)]
    if not columns:
        raise UserError("strata_of: give at least one variable")
    if len({len(column) for column in columns}) > 1:
        raise UserError(f"strata_of: the variables have {', '.join(str(len(column)) for column in columns)} items")
    strata = np.zeros(len(columns[0]), np.intp)
    for left, column in zip(range(len(columns), 0, -1), columns, strict=True):
        finer = np.zeros_like(strata)
        for number in range(int(strata.max(initial=-1)) + 1):
            inside = np.flatnonzero(strata == number)
            bins = max(1, round((len(inside) / size) ** (1 / left)))
            finer[inside] = finer.max(initial=0) + 1 + quantile_bins(column[inside], bins)
        strata = np.unique(finer, return_inverse=True)[1].astype(np.intp)
    return strata


def frequency_strata(count_a: Any, count_b: Any, *, size: int = SIZE) -> NDArray[np.intp]:
    """Strata of about `size` pairs that fire about equally often, (n,) intp from 0: quantile bins of `pair_frequency`.

    Args:
        count_a, count_b: (n,) on how many tokens the feature of A, and that of B, fires.

    Raises:
        UserError: as `strata_of`.
    """
    a, b = _finite(count_a, "count_a"), _finite(count_b, "count_b")
    if len(a) != len(b):
        raise UserError(f"{len(a)} counts of A and {len(b)} of B: give one of each for every pair")
    if (a < 0).any() or (b < 0).any():
        raise UserError("count_a, count_b: a count is 0 or more")
    return strata_of(pair_frequency(a, b), size=size)


def _finite(values: Any, name: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise UserError(f"{name}: give one finite number for each item")
    return numbers
