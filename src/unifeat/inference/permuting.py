"""Reproducible permutations, and null scores in batches that can be computed anywhere and in any order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry.measure import Heavy, Prepared
from unifeat.inference.exchange import Exchange
from unifeat.threads import in_threads, one_blas_thread

LARGEST_SEED = 2**64 - 1  # a word of Philox's key
MOST_ROWS = 2**31
MOST_DRAWS = 1_000_000  # permutations, subsamples; enough for any p-value, and the arrays fit in memory
_AT_A_TIME = 200  # permutations that wait for a thread


def permutations(n: int, m: int, seed: int = 0, *, start: int = 0) -> Iterator[NDArray[np.intp]]:
    """Permutations number `start` … `start + m − 1` of range(n), each an intp array of shape (n,).

    Permutation b depends only on (seed, n, b), so batches can be computed anywhere and in any order. It is drawn by
    sorting the raw words of a Philox generator with key (seed, b), whose stream is the same in all numpy versions.

    Raises UserError for a seed outside 0 … 2⁶⁴ − 1, or an n or count that is negative or too large.
    """
    n = whole(n, "n", least=0, most=MOST_ROWS)
    seed = whole(seed, "seed", least=0)
    start, m = whole(start, "start", least=0, most=2**62), whole(m, "permutations", least=0, most=MOST_DRAWS)
    # This function is not itself a generator, so that a bad seed is reported at the call and not at first use.
    return (_permutation(n, seed, number) for number in range(start, start + m))


def _permutation(n: int, seed: int, number: int) -> NDArray[np.intp]:
    return np.argsort(_words(n, seed, number), kind="stable")


def _words(n: int, seed: int, number: int) -> NDArray[np.uint64]:
    key = np.array([seed, number], dtype=np.uint64)
    # n is in the counter's last word, so that permutations of different lengths do not share random words.
    counter = np.array([0, 0, 0, n], dtype=np.uint64)
    words: NDArray[np.uint64] = np.random.Philox(key=key, counter=counter).random_raw(n)
    return words


@dataclass(frozen=True)
class SharedRows:
    """Which rows of a larger set the pairs of one test are, so that tests on different rows can share permutations.

    Attributes:
        ids: (n,) the pairs' places in the set, all different.
        size: number of places in the set.
    """

    ids: NDArray[np.int64]
    size: int

    def __post_init__(self) -> None:
        ids = self.ids
        whole(self.size, "size", least=0, most=MOST_ROWS)
        if len(np.unique(ids)) != len(ids) or (len(ids) and not 0 <= ids.min() <= ids.max() < self.size):
            raise UserError(f"shared rows: give different whole numbers below {self.size}, one for each pair")


def induced(order: NDArray[np.intp], rows: SharedRows) -> NDArray[np.intp]:
    """The permutation of range(n) that a permutation of a larger set induces on n of its places.

    From each of the n places, follow the larger permutation until it reaches one of the n places again. If the larger
    permutation is uniform, so is the induced one, and subsets with most places in common are permuted mostly alike
    (Kerov, Olshanski & Vershik 2004, "Harmonic analysis on the infinite symmetric group", Invent. Math. 158: virtual
    permutations). So the cells of a grid can share one permutation although their pairs differ.
    """
    from unifeat.inference._kernels import first_return  # imported here, since numba is slow to import

    place = np.full(rows.size, -1, np.intp)
    place[rows.ids] = np.arange(len(rows.ids))
    return first_return(order, rows.ids.astype(np.intp), place)


def permutations_within(
    exchange: Exchange, m: int, seed: int = 0, *, start: int = 0, rows: SharedRows | None = None
) -> Iterator[NDArray[np.intp]]:
    """Permutations number `start` … `start + m − 1` of n rows that exchange only what `exchange` allows.

    Each is an intp array of shape (n,), uniform among those allowed.

    rows: the rows' places in a larger set; by default they are the whole set. Permutation b depends only on the seed,
    b, the size of the set, the places, and which rows may be exchanged; not on what the labels are called. Each row's
    random word is that of its place, so two sets of rows are permuted alike as far as they have places and strata in
    common.

    Raises UserError as `permutations` does, and where `rows` are not as many as those of `exchange`.
    """
    n = len(exchange.members)
    rows = SharedRows(np.arange(n), n) if rows is None else rows
    if len(rows.ids) != n:
        raise UserError(f"shared rows: give one place for each of {n} pairs, not {len(rows.ids)}")
    seed = whole(seed, "seed", least=0)
    start, m = whole(start, "start", least=0, most=2**62), whole(m, "permutations", least=0, most=MOST_DRAWS)
    ids, size = rows.ids, rows.size
    permutation = exchange.at(ids)
    return (permutation(_words(size, seed, number)[ids]) for number in range(start, start + m))


def null_scores(
    prepared: Prepared,
    m: int,
    seed: int = 0,
    *,
    start: int = 0,
    rows: SharedRows | None = None,
    exchange: Exchange | None = None,
) -> NDArray[np.float64]:
    """Values under permutations number `start` … `start + m − 1`, float64 (m,).

    rows: see `SharedRows`; by default the pairs themselves are the whole set.
    exchange: which rows may take each other's place; by default all.
    A pure function of its arguments: batches can run in any order, on any machine, and be concatenated. Shuffles that
    take long run in threads; their values do not depend on how many.
    """
    if exchange is not None:
        orders = permutations_within(exchange, m, seed, start=start, rows=rows)
    elif rows is None:
        orders = permutations(prepared.n, m, seed, start=start)
    else:
        orders = (induced(order, rows) for order in permutations(rows.size, m, seed, start=start))
    if not (isinstance(prepared, Heavy) and prepared.heavy):
        return np.fromiter((prepared.shuffled(order) for order in orders), dtype=np.float64, count=m)
    # (A thread that is not the main one is one of many already: an engine keeps all cores busy.)
    alone = threading.current_thread() is threading.main_thread()
    with one_blas_thread():
        batches = [in_threads(prepared.shuffled, batch, worth_while=alone) for batch in _batches(orders)]
    return np.array([score for batch in batches for score in batch], dtype=np.float64)


def _batches(orders: Iterator[NDArray[np.intp]]) -> Iterator[list[NDArray[np.intp]]]:
    while batch := list(islice(orders, _AT_A_TIME)):
        yield batch


def whole(value: Any, name: str, *, least: int, most: int = LARGEST_SEED) -> int:
    """`value` as an int, or a UserError that names it and its bounds."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UserError(f"{name}={value!r}: give a whole number, {least} or more")
    if value > most:
        shown = "2**64 − 1" if most == LARGEST_SEED else f"{most:,}"
        raise UserError(f"{name}={value} is too large: give a whole number, {shown} at most")
    return int(value)
