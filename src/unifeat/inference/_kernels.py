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


@njit(nogil=True, cache=True)
def insert_units(words, keys, order, bounds):  # type: ignore[no-untyped-def]
    """A uniform permutation of each class of units, made by inserting them one after another (see `Exchange.at`).

    words, keys: (units,) uint64; order: (units,) the units, class by class; bounds: (classes + 1,) where each begins.
    """
    to = np.arange(words.size)
    for c in range(bounds.size - 1):
        for t in range(bounds[c], bounds[c + 1]):
            unit = order[t]
            chosen, least = unit, split_mix(words[unit], keys[unit])
            for s in range(bounds[c], t):
                earlier = order[s]
                mixed = split_mix(words[unit], keys[earlier])
                if mixed < least:
                    chosen, least = earlier, mixed
            if chosen != unit:
                to[unit] = to[chosen]
                to[chosen] = unit
    return to


@njit(nogil=True, cache=True)
def split_mix(state, number):  # type: ignore[no-untyped-def]
    """Output `number` of a SplitMix64 generator in this state (Steele, Lea & Flood 2014, OOPSLA); all uint64."""
    z = state + (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
