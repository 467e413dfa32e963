"""Does one number of pairs go with another, such as r with the agreement of effects? And intervals over pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from unifeat.errors import UserError
from unifeat.geometry._labels import codes_of
from unifeat.inference.calibration import calibrate
from unifeat.inference.exchange import Exchange
from unifeat.inference.permuting import MOST_DRAWS, permutations_within, whole
from unifeat.matching.bootstrap import percentiles
from unifeat.transfer.profiles import Array, as_rows, ranked, spearman, standardised

_FEWEST_PAIRS = 3
_ROUNDING = 1e-12
_RNG_STREAM = 7  # separates these draws from others made with the study's seed
_BATCH_CELLS = 4_000_000


@dataclass(frozen=True)
class Relation:
    """A rank correlation over pairs, with an interval."""

    value: float
    """Spearman's rank correlation; NaN if one side does not vary."""
    low: float
    """Lower end of the interval over pairs."""
    high: float
    """Upper end."""
    p: float
    """(b + 1) / (m + 1), where b exchanges are at least as far from 0, on either side."""
    level: float
    """Nominal coverage."""
    n: int
    """Number of pairs."""

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        interval = f"{self.level:.0%} interval {self.low:.4f} to {self.high:.4f}"
        return f"Spearman {self.value:.4f}  {interval}  p {self.p:.4g}  (n={self.n})"


def relation(x: Any, y: Any, *, units: Any = None, draws: int = 1000, seed: int = 0, level: float = 0.95) -> Relation:
    """Spearman's rank correlation of two numbers of each pair, such as r and the agreement of effects.

    Args:
        x, y: (pairs,) numbers; pairs with a NaN on either side are left out.
        units: (pairs,) labels of pairs that are drawn together, such as the feature that they share; None: each by
            itself. Exchanges move them together too, among units of as many pairs.
        draws: bootstrap draws and exchanges.
        seed: of both.
        level: nominal coverage of the interval: percentiles of the bootstrap over units, expanded for few of them
            (Hesterberg 2015, arXiv 1411.5279).

    Raises:
        UserError: not one number on each side for each pair, or fewer than three pairs.
    """
    draws, seed = whole(draws, "draws", least=2, most=MOST_DRAWS), whole(seed, "seed", least=0)
    check_level(level)
    one, other = (as_rows(values, name, (1,)).astype(np.float64) for values, name in ((x, "x"), (y, "y")))
    if len(one) != len(other):
        raise UserError(f"{len(one)} values of x and {len(other)} of y: give one of each for every pair")
    known = ~(np.isnan(one) | np.isnan(other))
    if known.sum() < _FEWEST_PAIRS:
        raise UserError(f"only {known.sum()} pairs have both numbers: give at least {_FEWEST_PAIRS}")
    label = np.arange(len(one)) if units is None else codes_of(units, len(one), "units")
    one, other = one[known], other[known]
    label = np.unique(label[known], return_inverse=True)[1].reshape(-1)
    value = spearman(one[None], other[None])[0]
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    rng = np.random.default_rng([_RNG_STREAM, seed])
    parts = []
    step = 1 if units is not None else max(1, _BATCH_CELLS // len(one))  # units of different sizes fill no array
    for start in range(0, draws, step):
        drawn = rng.integers(len(members), size=(min(step, draws - start), len(members)))
        rows = drawn if units is None else np.concatenate([members[unit] for unit in drawn[0]])[None]
        parts.append(spearman(one[rows], other[rows]))
    low, high = percentiles(np.concatenate(parts)[:, None], level, len(members))
    exchange = Exchange.of(len(one), None, None if units is None else label)
    ranks = [standardised(ranked(values[None]))[0][0] for values in (one, other)]
    null = np.array([ranks[0] @ ranks[1][moved] for moved in permutations_within(exchange, draws, seed)])
    p = math.nan if math.isnan(value) else calibrate(abs(value), np.abs(null), tolerance=_ROUNDING).p
    return Relation(float(value), float(low[0]), float(high[0]), p, float(level), len(one))


def mean_interval(values: Array, *, draws: int, seed: int, level: float) -> tuple[float, float]:
    """Both ends of a bootstrap interval of the mean of values, (n,)."""
    rng = np.random.default_rng([_RNG_STREAM, seed])
    means = []
    step = max(1, _BATCH_CELLS // len(values))
    for start in range(0, draws, step):
        drawn = rng.integers(len(values), size=(min(step, draws - start), len(values)))
        means.append(values[drawn].mean(axis=1))
    low, high = percentiles(np.concatenate(means)[:, None], level, len(values))
    return float(low[0]), float(high[0])


def check_level(level: Any) -> None:
    """Raise a UserError if a level is none."""
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0.0 < level < 1.0:
        raise UserError(f"level={level!r}: give a level between 0 and 1")
