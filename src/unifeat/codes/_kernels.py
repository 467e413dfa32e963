"""Compiled loops over the places where features fire."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def pick(feature: Any, place: Any, n: int, apart: int) -> Any:  # pragma: no cover - compiled
    """Which entries to keep: of each feature the first `n` that are at least `apart` characters from those kept.

    Args:
        feature: (m,) int64, entries of one feature stand together, the strongest first.
        place: (m,) int64, document · 2³² + character.
    """
    keep = np.zeros(len(feature), np.bool_)
    kept = np.zeros(n, np.int64)
    have = 0
    for i in range(len(feature)):
        if i == 0 or feature[i] != feature[i - 1]:
            have = 0
        if have == n:
            continue
        near = False
        for j in range(have):
            if abs(kept[j] - place[i]) < apart:
                near = True
                break
        if not near:
            kept[have] = place[i]
            keep[i] = True
            have += 1
    return keep
