"""Confidence intervals of geometry scores: how much a score would vary with other pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from unifeat.errors import UserError
from unifeat.geometry import Measure, Score
from unifeat.geometry.score import describe
from unifeat.inference._permutation_test import find_measure
from unifeat.inference.clusters import as_labels
from unifeat.inference.permuting import MOST_DRAWS, permutations, whole
from unifeat.progress import track

VERSION = 3  # raised whenever what is kept of an interval changes (in 3, its standard error)
_FEWEST_PAIRS = 8  # halves of four pairs, which every measure here can score
_ROUGH_BELOW_PAIRS = 40  # below this many pairs, halves are so small that the interval is rough
# Halves use random words that no permutation test uses: those permutations start at number 0.
_FIRST_PERMUTATION = 2**40


@dataclass(frozen=True, eq=False)
class Interval:
    """A confidence interval of a score, over the choice of pairs."""

    measure: str
    """Name of the measure."""
    low: float
    """Lower end; NaN if the halves do not determine it (a flag says why)."""
    high: float
    """Upper end."""
    sd: float
    """Standard error of the score: the standard deviation of the halves' scores."""
    level: float
    """Nominal coverage."""
    score: float
    """The score of all pairs: the middle of the interval, before it is clipped to the measure's range."""
    mean_half: float
    """Mean score of the halves. It differs from `score` if the measure depends on n, as SVCCA does."""
    halves: NDArray[np.float64]
    """Scores of the halves, (subsamples,), NaN where undefined; read-only."""
    n: int
    """Number of pairs."""
    seed: int
    """Seed of the halves."""
    settings: dict[str, Any]
    """Settings of the measure."""
    flags: tuple[str, ...]
    """Flags of the score and of the interval."""
    clusters: int
    """Number of clusters of which halves were drawn; n if none were given."""

    def __iter__(self) -> Iterator[float]:
        """`low, high = interval`."""
        return iter((self.low, self.high))

    def __repr__(self) -> str:
        line = (
            f"{self.measure} {self.score:.4f}  {self.level:.0%} interval {self.low:.4f} to {self.high:.4f}  "
            f"({describe(self.settings)}; n={self.n}, {self.halves.size} halves, seed {self.seed})"
        )
        return "\n".join([line] + [f"  ! {flag}" for flag in self.flags])


def subsample_interval(
    measure: str | Callable[..., Score] | Measure,
    x: Any,
    y: Any,
    *,
    subsamples: int = 60,
    level: float = 0.95,
    seed: int = 0,
    clusters: Any = None,
    **settings: Any,
) -> Interval:
    """A confidence interval for the score of the pairs (x_i, y_i), from the scores of random halves.

    The interval is for the expected score of n pairs drawn at random from the population that these n come from. It
    shows how the score would vary with other pairs, not whether chance reaches it; for that see `permutation_test`.

    The bootstrap draws some pairs more than once. Two equal rows are at distance zero on both sides, which every
    measure here counts as similarity. So random halves are drawn without replacement instead, and each half is scored
    (subsampling: Politis & Romano 1994, "Large sample confidence regions based on subsamples under minimal
    assumptions", Ann. Stat. 22; as an estimate of variance, the delete-d jackknife: Shao & Wu 1989, "A general theory
    for jackknife variance estimation", Ann. Stat. 17). From subsamples of size b, the variance of the full score is
    estimated as b / (n − b) × the variance of their scores. At b = n / 2 that factor is 1; for odd n it is
    (n − 1) / (n + 1). The interval is score ± t × sd, clipped to the measure's range, where t is the quantile of
    Student's distribution with subsamples − 1 degrees of freedom.

    Limits: the part of the variance that falls as 1/n² is overestimated up to three times. Where nothing is shared,
    that is all of the variance, and the interval is too wide. Many measures depend on n, so only the spread of the
    halves is used, not their mean. Where that spread shrinks with n, as for in-sample SVCCA, PWCCA and Procrustes with
    n not far above d, the interval is slightly too short (measured coverage: `docs/calibration.md`). If halves are
    saturated, the interval is NaN, with a flag. For held-out measures, each half is divided into its own folds.

    measure, settings: as in `permutation_test`.
    x: (n, d_a), y: (n, d_b); n ≥ 8.
    subsamples: halves drawn, 2 to 1,000,000. level: nominal coverage, in (0, 1).
    seed: the same seed and n give the same halves, for every measure.
    clusters: (n,) integer labels of pairs that are drawn together, e.g. of `find_clusters`. Halves are then halves of
        the K clusters, and K stands for n in the formula. Without it, the interval of pairs with near-copies among them
        can be far too short, since halves hold most directions of the whole (RSA: `docs/calibration.md`).

    flags: those of the score, and `few pairs` or `few clusters` (fewer than 40: rough), `halves` (some had no score and
    were left out), `saturated halves` and `undefined` (the interval is NaN).
    Raises UserError as the measure does, and for fewer than 8 pairs or clusters or a bad count, level, seed or labels.
    """
    chosen = find_measure(measure)
    count, seed = whole(subsamples, "subsamples", least=2, most=MOST_DRAWS), whole(seed, "seed", least=0)
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0.0 < level < 1.0:
        raise UserError(f"level={level!r}: give a level between 0 and 1")
    prepared = chosen.prepare(x, y, **settings)
    observed = prepared.score()
    n = observed.n
    labels = np.arange(n) if clusters is None else as_labels(clusters, n)
    # What is drawn: pairs, or clusters of them.
    units, unit = int(labels.max()) + 1, "pairs" if clusters is None else "clusters"
    if units < _FEWEST_PAIRS:
        raise UserError(f"{units} {unit} are too few for an interval: halves need at least {_FEWEST_PAIRS}")
    rows_x, rows_y = rows_of(x), rows_of(y)
    halves, saturated = np.full(count, np.nan), 0
    if not math.isnan(observed.value):
        with track(f"{chosen.name} interval", total=count, unit="halves") as advance:
            for i, order in enumerate(permutations(units, count, seed, start=_FIRST_PERMUTATION)):
                half = np.flatnonzero(np.isin(labels, order[: units // 2]))
                score = chosen.score_rows(prepared, rows_x, rows_y, half, settings)
                halves[i] = score.value
                saturated += any(flag.startswith("saturated") for flag in score.flags)
                advance(1)
    halves.flags.writeable = False
    known = halves[~np.isnan(halves)]
    flags = observed.flags
    if units < _ROUGH_BELOW_PAIRS:
        flags += (f"few {unit}: halves of {units // 2} make a rough interval",)
    low = high = sd = math.nan
    if known.size < max(2, count / 2):
        flags += (f"undefined: only {known.size} of {count} halves have a score",)
    elif saturated and "folds" not in observed.settings:  # held-out scores are not forced to any value
        flags += (f"saturated halves: {saturated} of {count}; their spread says nothing about all {n} pairs; "
                  "keep fewer dims",)  # fmt: skip
    else:
        if known.size < count:
            flags += (f"halves: {count - known.size} of {count} have no score and are left out",)
        sd = float(known.std(ddof=1)) * math.sqrt((units // 2) / (units - units // 2))
        reach = float(student.ppf(0.5 + level / 2, known.size - 1)) * sd
        low = max(_lowest(observed), observed.value - reach)
        high = min(1.0, observed.value + reach)
    return Interval(
        measure=chosen.name,
        low=low,
        high=high,
        sd=sd,
        level=float(level),
        score=observed.value,
        mean_half=float(known.mean()) if known.size else math.nan,
        halves=halves,
        n=n,
        seed=seed,
        settings=observed.settings,
        flags=flags,
        clusters=units,
    )


def _lowest(score: Score) -> float:
    """The smallest value of the measure with these settings; the largest is 1 for all measures."""
    if score.measure == "ridge_map":
        return -math.inf
    signed = (
        score.measure in ("rsa", "heldout_cca", "mean_max_cosine")
        or score.settings.get("debiased", False)
        or score.settings.get("heldout", False)
    )
    return -1.0 if signed else 0.0


def rows_of(values: Any) -> Any:
    """The values as something that an integer array can index, in the precision they were given in. The measure has
    already checked them."""
    return values.detach().cpu() if hasattr(values, "detach") else np.asarray(values)
