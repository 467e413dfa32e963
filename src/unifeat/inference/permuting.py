"""Reproducible permutations, and null scores in batches that any machine can work off in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry.measure import Prepared

LARGEST_SEED = 2**64 - 1  # a word of Philox' key
MOST_ROWS = 2**31
MOST_DRAWS = 1_000_000  # p as small as that, and arrays that any machine holds


def permutations(n: int, m: int, seed: int = 0, *, start: int = 0) -> Iterator[NDArray[np.intp]]:
    """Permutations number `start` … `start + m − 1` of range(n), each an intp array of shape (n,).

    Permutation b depends on (seed, n, b) alone: batches can be made anywhere, in any order. Drawn by sorting the raw
    words of a Philox generator with key (seed, b), whose stream numpy keeps fixed between versions.

    Raises UserError for a seed outside 0 … 2⁶⁴ − 1, a negative n or count, or one beyond all bounds.
    """
    n = whole(n, "n", least=0, most=MOST_ROWS)
    seed = whole(seed, "seed", least=0)
    start, m = whole(start, "start", least=0, most=2**62), whole(m, "permutations", least=0, most=MOST_DRAWS)
    # Not a generator itself, so that a bad seed is reported at the call and not at the first use.
    return (_permutation(n, seed, number) for number in range(start, start + m))


def _permutation(n: int, seed: int, number: int) -> NDArray[np.intp]:
    key = np.array([seed, number], dtype=np.uint64)
    # n in the counter's last word keeps permutations of different lengths from sharing random words.
    counter = np.array([0, 0, 0, n], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(n)
    return np.argsort(words, kind="stable")


@dataclass(frozen=True)
class SharedRows:
    """Which rows of a larger whole the pairs of one test are, so that tests on different rows share permutations.

    Attributes:
        ids: (n,) the pairs' places in the whole, all different.
        size: how many places the whole has.
    """

    ids: NDArray[np.int64]
    size: int

    def __post_init__(self) -> None:
        ids = self.ids
        whole(self.size, "size", least=0, most=MOST_ROWS)
        if len(np.unique(ids)) != len(ids) or (len(ids) and not 0 <= ids.min() <= ids.max() < self.size):
            raise UserError(f"shared rows: give different whole numbers below {self.size}, one for each pair")


def induced(order: NDArray[np.intp], rows: SharedRows) -> NDArray[np.intp]:
    """The permutation of range(n) that a permutation of the whole induces on n of its places.

    Follow the whole's permutation from a place until it returns to one of the n: that is where the place goes. Of a
    uniform permutation the induced one is uniform too, and sets with most places in common are permuted mostly alike
    (Kerov, Olshanski & Vershik 2004, "Harmonic analysis on the infinite symmetric group", Invent. Math. 158: virtual
    permutations). So the cells of a grid, whose pairs differ, can share one permutation.
    """
    from unifeat.inference._kernels import first_return  # numba, which the table of nulls does without

    place = np.full(rows.size, -1, np.intp)
    place[rows.ids] = np.arange(len(rows.ids))
    return first_return(order, rows.ids.astype(np.intp), place)


def null_scores(
    prepared: Prepared, m: int, seed: int = 0, *, start: int = 0, rows: SharedRows | None = None
) -> NDArray[np.float64]:
    """Values under permutations number `start` … `start + m − 1`, float64 (m,).

    rows: see `SharedRows`; without it the pairs themselves are the whole.
    A pure function of its arguments: run batches in any order, on any machine, and concatenate them.
    """
    if rows is None:
        orders = permutations(prepared.n, m, seed, start=start)
    else:
        orders = (induced(order, rows) for order in permutations(rows.size, m, seed, start=start))
    return np.fromiter((prepared.shuffled(order) for order in orders), dtype=np.float64, count=m)


def whole(value: Any, name: str, *, least: int, most: int = LARGEST_SEED) -> int:
    """`value` as an int, or a UserError that names it and its bounds."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UserError(f"{name}={value!r}: give a whole number, {least} or more")
    if value > most:
        shown = "2**64 − 1" if most == LARGEST_SEED else f"{most:,}"
        raise UserError(f"{name}={value} is too large: give a whole number, {shown} at most")
    return int(value)
