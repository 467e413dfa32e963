"""Strata of firing frequency: features, or pairs of features, that fire about equally often."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError

BINS = 10


def pair_frequency(count_a: Any, count_b: Any) -> NDArray[np.float64]:
    """How often a pair fires: the geometric mean of its features' counts, (pairs,) float64."""
    return np.sqrt(np.asarray(count_a, np.float64)) * np.sqrt(np.asarray(count_b, np.float64))


def frequency_strata(frequency: Any, bins: int = BINS) -> NDArray[np.intp]:
    """The stratum of each item, (n,) intp from 0: quantile bins of the frequency (or, equivalently, of its logarithm).

    Equal frequencies are always in the same stratum, so strata may be uneven, and fewer than `bins` if many items tie.

    Args:
        frequency: (n,) finite numbers.

    Raises:
        UserError: not a list of finite numbers, or fewer than 1 bin.
    """
    values = np.asarray(frequency, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise UserError("frequency: give one finite number for each item")
    if not 1 <= bins <= 1_000_000:
        raise UserError(f"bins={bins}: give a whole number of strata, 1 to 1,000,000")
    if len(values) == 0:
        return np.zeros(0, np.intp)
    edges = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.unique(np.searchsorted(edges, values, "left"), return_inverse=True)[1].astype(np.intp)
