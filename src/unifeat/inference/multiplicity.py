"""Corrections for asking many questions at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def false_discovery_rate(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini–Hochberg q-values of (m,) p-values; NaN stays NaN and is not counted as a test."""
    from scipy.stats import false_discovery_control

    q = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q
