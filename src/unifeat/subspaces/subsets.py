"""The random-subset null: a category's score compared with random sets of as many pairs that fire as often."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry import Measure, Score
from unifeat.inference._permutation_test import find_measure
from unifeat.inference.permuting import MOST_DRAWS, whole
from unifeat.progress import track
from unifeat.subspaces.strata import BINS, frequency_strata

LARGE_OVERLAP = 0.5  # above this share of common pairs, a flag warns that p can show little

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class SubsetTest:
    """A category's score, compared with the scores of random sets of pairs."""

    measure: str
    """Name of the measure."""
    score: float
    """The score of the chosen pairs."""
    null: NDArray[np.float64]
    """Scores of the random sets, (draws,), in the order of their draws; read-only."""
    p_high: float
    """(b + 1) / (draws + 1), where b random sets score at least as high; NaN for an undefined score."""
    p_low: float
    """The same for sets that score at least as low."""
    n: int
    """Number of pairs in the category, and in each random set."""
    n_all: int
    """Number of pairs that the sets are drawn from."""
    shared: float
    """Expected share of a random set's pairs that are also in the category."""
    seed: int
    """Seed of the draws."""
    settings: dict[str, Any]
    """Settings of the measure."""
    flags: tuple[str, ...]
    """Flags of the score and of the test."""
    observed: Score
    """The score with its details."""

    @property
    def null_mean(self) -> float:
        """Mean of the defined null scores (NaN if there are none)."""
        defined = self.null[~np.isnan(self.null)]
        return float(defined.mean()) if defined.size else math.nan

    @property
    def null_sd(self) -> float:
        """Standard deviation of the defined null scores (ddof 1; NaN for fewer than two)."""
        defined = self.null[~np.isnan(self.null)]
        return float(defined.std(ddof=1)) if defined.size > 1 else math.nan

    def __repr__(self) -> str:
        line = (
            f"{self.measure} {self.score:.4f}  random sets {self.null_mean:.4f} ± {self.null_sd:.4f}  "
            f"p high {self.p_high:.4g}  p low {self.p_low:.4g}  "
            f"({self.n} of {self.n_all} pairs; {self.null.size} sets, seed {self.seed})"
        )
        return "\n".join([line] + [f"  ! {flag}" for flag in self.flags])


def random_subsets(strata: Any, chosen: Any, draws: int, seed: int) -> Iterator[Indices]:
    """Random sets of pairs, each with as many pairs of every stratum as the chosen set.

    They are drawn without replacement from all pairs, including the chosen ones. So the chosen set is one that could
    have been drawn, and p is exact. If a stratum has few other pairs, the sets repeat many of the chosen ones; this is
    valid, but reduces the power of the test.

    Args:
        strata: (n_all,) stratum of each pair, integers (see `frequency_strata`).
        chosen: (n,) different indices of pairs.
        draws: number of sets.
        seed: set number b depends only on the seed, the strata, the numbers of chosen pairs in them, and b.

    Returns:
        Arrays (n,) of ascending indices.

    Raises:
        UserError: indices outside 0 … n_all − 1 or given twice; a bad number of draws or a bad seed.
    """
    strata = np.asarray(strata)
    picked = _indices(chosen, len(strata))
    draws, seed = whole(draws, "draws", least=0, most=MOST_DRAWS), whole(seed, "seed", least=0)
    level = np.unique(strata, return_inverse=True)[1]
    sizes = np.bincount(level)
    wanted = np.bincount(level[picked], minlength=len(sizes))
    # In an order sorted by stratum, the first `wanted` places of each stratum are taken.
    begin = np.cumsum(sizes) - sizes
    take = np.repeat(begin - (np.cumsum(wanted) - wanted), wanted) + np.arange(len(picked))
    return (_subset(level, take, seed, number) for number in range(draws))


def _subset(level: Indices, take: Indices, seed: int, number: int) -> Indices:
    # The raw stream of Philox is the same in all numpy versions; this counter avoids the words that shuffles use.
    key, counter = np.array([seed, number], np.uint64), np.array([0, 0, 1, len(level)], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(len(level))
    return np.sort(np.lexsort((words, level))[take])


def subset_test(
    measure: str | Callable[..., Score] | Measure,
    x_all: Any,
    y_all: Any,
    chosen: Any,
    frequency: Any,
    *,
    draws: int = 200,
    seed: int = 0,
    bins: int = BINS,
    **settings: Any,
) -> SubsetTest:
    """Score the chosen pairs and count how often random sets of as many pairs that fire as often score as high or low.

    The question differs from that of the shuffle null. Pairs keep their partners, so a small p says that the category's
    pairs are more (or less) alike in geometry than other pairs, not that they are alike at all. The test also works
    with measures that do not depend on the pairing. The category's pairs have to be among all pairs; pairs matched
    within a category have to be added to them first.

    Args:
        measure: a public measure (`unifeat.rsa`) or its name.
        x_all: (n_all, d_a), y_all: (n_all, d_b): decoder rows of all pairs.
        chosen: (n,) indices of the category's pairs.
        frequency: (n_all,) how often each pair fires (see `pair_frequency`).
        draws: number of random sets; each costs as much as the score itself.
        seed: seed of the draws.
        bins: number of strata of frequency.
        settings: keywords of the measure; arrays with a row for each pair are of all pairs.

    A random set with an undefined score counts as reaching the score in both directions, and is flagged.

    Raises UserError as the measure does for the chosen pairs, and as `random_subsets` and `frequency_strata` do.
    """
    known = find_measure(measure)
    draws = whole(draws, "draws", least=1, most=MOST_DRAWS)
    x_all, y_all = np.asarray(x_all), np.asarray(y_all)
    if not len(x_all) == len(y_all) == len(np.asarray(frequency)):
        raise UserError(
            f"{len(x_all)} rows of x, {len(y_all)} of y and {len(np.asarray(frequency))} frequencies: give one of each "
            "for every pair"
        )
    picked = np.sort(_indices(chosen, len(x_all)))
    strata = frequency_strata(frequency, bins)
    sets = random_subsets(strata, picked, draws, seed)
    prepared = known.prepare(x_all[picked], y_all[picked], **known.at_rows(settings, picked))
    observed = prepared.score()
    null = np.full(draws, np.nan)
    if not math.isnan(observed.value):
        with track(f"{known.name}, random sets", total=draws, unit="sets") as advance:
            for number, rows in enumerate(sets):
                null[number] = _value(known, x_all[rows], y_all[rows], known.at_rows(settings, rows))
                advance(1)
    null.flags.writeable = False
    undefined = np.isnan(null)
    shared = _shared(strata, picked)
    flags = observed.flags + _flags(shared, int(undefined.sum()) if not math.isnan(observed.value) else 0, draws)
    return SubsetTest(
        measure=known.name,
        score=observed.value,
        null=null,
        p_high=_p(observed.value, undefined | (null >= observed.value - prepared.tolerance)),
        p_low=_p(observed.value, undefined | (null <= observed.value + prepared.tolerance)),
        n=len(picked),
        n_all=len(x_all),
        shared=shared,
        seed=seed,
        settings=observed.settings,
        flags=flags,
        observed=observed,
    )


def _value(measure: Measure, x: Any, y: Any, settings: dict[str, Any]) -> float:
    try:
        return measure.prepare(x, y, **settings).score().value
    except UserError:
        return math.nan


def _p(score: float, reached: NDArray[np.bool_]) -> float:
    return math.nan if math.isnan(score) else (int(reached.sum()) + 1) / (reached.size + 1)


def _shared(strata: Indices, picked: Indices) -> float:
    sizes = np.bincount(strata)
    wanted = np.bincount(strata[picked], minlength=len(sizes))
    return float((wanted**2 / np.maximum(sizes, 1)).sum() / len(picked)) if len(picked) else math.nan


def _flags(shared: float, undefined: int, draws: int) -> tuple[str, ...]:
    flags: tuple[str, ...] = ()
    if shared > LARGE_OVERLAP:
        flags += (f"overlap: {shared:.0%} of a random set's pairs are the category's own, so p can show little",)
    if undefined:
        flags += (f"undefined: {undefined} of {draws} random sets have no score and count as reaching it",)
    return flags


def _indices(chosen: Any, n: int) -> Indices:
    picked = np.asarray(chosen)
    if picked.size == 0:
        return np.zeros(0, np.intp)
    if picked.ndim != 1 or picked.dtype.kind not in "iu" or picked.min() < 0 or picked.max() >= n:
        raise UserError(f"chosen: give indices of pairs, whole numbers from 0 to {n - 1}")
    if len(np.unique(picked)) != len(picked):
        raise UserError("chosen: a pair is given twice")
    return picked.astype(np.intp)
