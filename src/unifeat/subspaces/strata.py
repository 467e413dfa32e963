"""Strata of firing frequency: features, or pairs of features, that fire about equally often."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.inference.strata import pair_frequency, quantile_bins

__all__ = ["BINS", "frequency_strata", "pair_frequency"]
BINS = 10


def frequency_strata(frequency: Any, bins: int = BINS) -> NDArray[np.intp]:
    """The stratum of each item, (n,) intp from 0: see `quantile_bins`.

    Args:
        frequency: (n,) finite numbers.

    Raises:
        UserError: not a list of finite numbers, or fewer than 1 bin.
    """
    return quantile_bins(frequency, bins, name="frequency")
