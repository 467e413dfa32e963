"""How often features fire, and in how many documents, in one pass over the rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from unifeat.vocabulary.paired_codes import Array, PairedCodes, normal_chunks


class Firings(NamedTuple):
    """Of each feature of one space."""

    rows: Array  # (features,) int64, rows on which it fires (its code is not zero)
    documents: Array  # (features,) int64, documents in which it does


def firings(codes: PairedCodes, starts: Array) -> tuple[Firings, Firings]:
    """The firings of both sides.

    Args:
        starts: (documents,) the first row of each document, ascending from 0.
    """
    sides = [np.zeros((3, size), np.int64) for size in (codes.features_a, codes.features_b)]
    for side in sides:
        side[2] = -1
    done = 0
    for chunk in normal_chunks(codes):
        rows = np.arange(done, done + chunk[0].rows)
        document = np.searchsorted(starts, rows, side="right") - 1
        for codes_of, (count, documents, last) in zip(chunk, sides, strict=True):
            _count(*codes_of, document, count, documents, last)
        done += chunk[0].rows
    a, b = (Firings(side[0], side[1]) for side in sides)
    return a, b


@njit(nogil=True, cache=True)
def _count(indptr, index, value, document, count, documents, last):  # type: ignore[no-untyped-def]
    for row in range(len(indptr) - 1):
        for q in range(indptr[row], indptr[row + 1]):
            feature = index[q]
            if value[q] != 0:
                count[feature] += 1
                if last[feature] != document[row]:  # the last document in which it fired so far
                    last[feature] = document[row]
                    documents[feature] += 1
