"""Compiled loops of permutations. They release the GIL and are serial, so that threads change no result."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def first_return(order, ids, place):  # type: ignore[no-untyped-def]
    """For each of `ids` the first place at or above 0 that following `order` from it comes by.

    order: (size,) a permutation; ids: (n,) where to begin; place: (size,) −1 where the way goes on.
    """
    to = np.empty(ids.size, np.intp)
    for i in range(ids.size):
        at = order[ids[i]]
        while place[at] < 0:
            at = order[at]
        to[i] = place[at]
    return to
