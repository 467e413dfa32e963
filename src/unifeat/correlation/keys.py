"""Keys of correlations: integers that are ordered as lists of partners are, the larger r first, then the lower id.

r is rounded to multiples of 2⁻⁴⁰, as on the CPU. So r · 2⁴⁰ and the feature id fit into one int64, keys of different
partners differ, and the largest keys are the best partners whatever order a device compares them in.
"""

from __future__ import annotations

import numpy as np

from unifeat.vocabulary.paired_codes import Array

ID_BITS = 22
MOST_FEATURES = 1 << ID_BITS
LAST_ID = MOST_FEATURES - 1  # ids are stored as LAST_ID − id
STEPS = 40  # r is a multiple of 2^−STEPS
NO_KEY = -(1 << 63)  # smaller than every key


def decoded(keys: Array) -> tuple[Array, Array]:
    """(index int32, r float64) of int64 keys; −1 and NaN where there is none."""
    there = keys != NO_KEY
    index = np.where(there, LAST_ID - (keys & LAST_ID), -1).astype(np.int32)
    return index, np.where(there, np.ldexp((keys >> ID_BITS).astype(np.float64), -STEPS), np.nan)
