"""Compiled loops over permutations. They release the GIL and are serial, so results do not depend on threads."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def first_return(order, ids, place):  # type: ignore[no-untyped-def]
    """From each of `ids`, follow `order` until `place` is not negative; returns those places.

    order: (size,) a permutation; ids: (n,) starting points; place: (size,), −1 where to go on.
    """
    to = np.empty(ids.size, np.intp)
    for i in range(ids.size):
        at = order[ids[i]]
        while place[at] < 0:
            at = order[at]
        to[i] = place[at]
    return to
