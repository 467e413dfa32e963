"""Do paired features do alike? Agreement of their effects, beside that of exchanged partners, and retrieval by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from unifeat.errors import UserError
from unifeat.geometry._labels import codes_of
from unifeat.geometry.score import html_card
from unifeat.inference._permutation_test import WithNull
from unifeat.inference.calibration import calibrate
from unifeat.inference.exchange import Exchange
from unifeat.inference.permuting import MOST_DRAWS, permutations_within, whole
from unifeat.transfer.profiles import TOP, Array, as_rows, blocks, pearson, ranked, standardised, top_overlap
from unifeat.transfer.relation import check_level, mean_interval

VERSION = 1  # raised whenever the results change
_FEWEST_PAIRS = 3
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Rate:
    """A figure of retrieval, beside chance."""

    value: float
    """The figure of the true partners."""
    chance: float
    """Its expected value if partners are exchanged, exact."""
    p: float
    """(b + 1) / (m + 1), where the figure of b exchanges is at least the true one's."""

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"{self.value:.4f} (chance {self.chance:.4f}, p {self.p:.4g})"


@dataclass(frozen=True, eq=False)
class EffectAgreement(WithNull):
    """How alike the effects of paired features are, beside those of exchanged partners."""

    value: float
    """Mean over the pairs of Pearson's r of their profiles."""
    null: NDArray[np.float64]
    """The same with exchanged partners, (draws,); read-only."""
    p: float
    """(b + 1) / (m + 1), where b null values are at least the value."""
    low: float
    """Lower end of the interval of the value over pairs; NaN with fewer than three."""
    high: float
    """Upper end."""
    level: float
    """Nominal coverage of the interval."""
    pearson: NDArray[np.float64]
    """Pearson's r of each pair's profiles, (pairs,), mean over contexts; NaN where undefined."""
    spearman: NDArray[np.float64]
    """Spearman's rank correlation of each pair's profiles, (pairs,)."""
    top_overlap: NDArray[np.float64]
    """The share of the ten most promoted and the ten most suppressed columns that both sides have, (pairs,); NaN where
    there are ten columns or fewer."""
    rank: NDArray[np.float64]
    """Rank of the true partner among all of B by Pearson's r with the feature of A, (pairs,): 1 is the most alike; ties
    share their mean rank."""
    top_1: Rate
    """How often the true partner is the most alike."""
    top_10: Rate
    """How often it is among the ten most alike."""
    mrr: Rate
    """Mean reciprocal rank of the true partner."""
    n: int
    """Number of pairs that are defined."""
    seed: int
    """Seed of exchanges and draws."""
    strata: int | None
    """Number of strata that partners were exchanged within; None: any with any other."""
    flags: tuple[str, ...]
    """Reasons to read the result with care."""

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        line = (
            f"effect agreement {self.value:.4f}  {self.level:.0%} interval {self.low:.4f} to {self.high:.4f}  "
            f"null {self.null_mean:.4f} ± {self.null_sd:.4f}  p {self.p:.4g}  ({self._extent()})"
        )
        found = f"  retrieval: top 1 {self.top_1}, top 10 {self.top_10}, MRR {self.mrr}"
        return "\n".join([line, found] + [f"  ! {flag}" for flag in self.flags])

    def _repr_html_(self) -> str:
        rows = [
            (f"{self.level:.0%} interval", f"{self.low:.4f} to {self.high:.4f}"),
            ("null", f"{self.null_mean:.4f} ± {self.null_sd:.4f}"),
            ("p", f"{self.p:.4g}"),
            ("Spearman", f"{_mean(self.spearman):.4f}"),
            ("top overlap", f"{_mean(self.top_overlap):.4f}"),
            ("top 1", repr(self.top_1)),
            ("top 10", repr(self.top_10)),
            ("MRR", repr(self.mrr)),
            ("pairs", self._extent()),
        ]
        return html_card(f"effect agreement = {self.value:.4f}", rows, self.flags)

    def _extent(self) -> str:
        within = "" if self.strata is None else f" within {self.strata} strata"
        return f"n={self.n}, {self.null.size} exchanges{within}, seed {self.seed}"


def effect_agreement(
    profiles_a: Any, profiles_b: Any, *, draws: int = 1000, seed: int = 0, strata: Any = None, level: float = 0.95
) -> EffectAgreement:
    """Compare what paired features do, and ask whether partners are more alike in it than others.

    profiles_a, profiles_b: (pairs, n) or (pairs, contexts, n), arrays or tensors: what each feature does to each of the
        same n strings (or, in each of n contexts, how much). Row i of both is pair i. With contexts, profiles are
        compared context by context, and the correlations averaged. NaN in a row: it is undefined, and so is a row that
        does not vary; what is undefined in all contexts is left out.
    draws: exchanges of partners, and draws of pairs for the interval, 1,000,000 at most.
    seed: the same seed gives the same draws.
    strata: (pairs,) labels; partners are exchanged within them, as in `permutation_test`.
    level: nominal coverage of the interval.

    The null hypothesis is that any feature of B (of the same stratum) could be the partner of any feature of A. Pairs
    that are each measured in contexts of their own do not fulfil it if effects depend on the context, whatever the
    feature: then give all pairs the same contexts. All correlations of features of A with features of B are computed
    once; exchanges take from them, but for those of two features without a context in common. The interval is a
    bootstrap over pairs (percentiles expanded for few pairs: Hesterberg 2015, arXiv 1411.5279). Memory: a few matrices
    of pairs × pairs, and of one context's profiles.

    flags: `undefined`, `few pairs`, `few columns`, `strata`.
    Raises UserError for profiles of different shapes, fewer than three defined pairs, and a bad count, seed or level.
    """
    a, b = as_rows(profiles_a, "profiles_a", (2, 3)), as_rows(profiles_b, "profiles_b", (2, 3))
    if a.shape != b.shape:
        raise UserError(f"profiles_a has shape {a.shape}, profiles_b {b.shape}: give a row for each pair, in one order")
    if a.ndim == 2:
        a, b = a[:, None], b[:, None]
    sums = AgreementSums(len(a))
    for context in range(a.shape[1]):
        sums.add(a[:, context], b[:, context])
    return sums.result(draws=draws, seed=seed, strata=strata, level=level)


class AgreementSums:
    """`effect_agreement` of profiles that come context by context, so that those of all are never held.

    Args:
        pairs: how many.
    """

    def __init__(self, pairs: int) -> None:
        self.pairs, self._columns = pairs, 0
        self._products, self._counts = np.zeros((pairs, pairs)), np.zeros((pairs, pairs))
        self._spearman, self._overlap, self._defined = np.zeros(pairs), np.zeros(pairs), np.zeros(pairs)

    def add(self, profiles_a: NDArray[Any], profiles_b: NDArray[Any]) -> None:
        """Add one context: (pairs, n) each, in memory or on disk; rows with NaN are undefined there."""
        self._columns = max(self._columns, profiles_a.shape[1])
        defined = np.zeros(self.pairs, bool)
        for one in blocks(self.pairs, profiles_a.shape[1]):
            a, defined_a = standardised(profiles_a[one])
            for other in blocks(self.pairs, profiles_a.shape[1]):
                b, defined_b = standardised(profiles_b[other])
                self._products[one, other] += a @ b.T
                self._counts[one, other] += np.outer(defined_a, defined_b)
                if one == other:
                    defined[one] = defined_a & defined_b
            both = np.flatnonzero(defined[one]) + one.start
            if len(both):
                ours, theirs = profiles_a[both], profiles_b[both]
                self._defined[both] += 1
                self._spearman[both] += pearson(ranked(ours), ranked(theirs))
                self._overlap[both] += top_overlap(ours, theirs, TOP)

    @property
    def matrix(self) -> Array:
        """Mean Pearson's r of each feature of A with each of B over the contexts where both are defined, else NaN.

        (pairs, pairs) float64; the diagonal is the true pairs'.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.clip(self._products / self._counts, -1, 1)

    def result(self, *, draws: int = 1000, seed: int = 0, strata: Any = None, level: float = 0.95) -> EffectAgreement:
        """See `effect_agreement`."""
        draws, seed = whole(draws, "draws", least=1, most=MOST_DRAWS), whole(seed, "seed", least=0)
        check_level(level)
        defined = np.flatnonzero(self._defined > 0)
        n = len(defined)
        if n < _FEWEST_PAIRS:
            raise UserError(f"{n} of {self.pairs} pairs have effects on both sides: give at least {_FEWEST_PAIRS}")
        labels = None if strata is None else codes_of(strata, self.pairs, "strata")[defined]
        exchange = Exchange.of(n, labels)
        r = self.matrix[np.ix_(defined, defined)]
        own = np.arange(n)
        # Two features without a context in common have no r: it is no candidate, neither a good nor a bad one.
        ranks = np.asarray(rankdata(np.where(np.isnan(r), np.inf, -r), axis=1), np.float64)
        ranks[np.isnan(r)] = np.nan
        hit_1, hit_10 = (np.where(np.isnan(ranks), np.nan, ranks <= most) for most in (1, 10))
        figures = {"top_1": hit_1, "top_10": hit_10, "mrr": 1 / ranks}
        null, null_of = np.empty(draws), {name: np.empty(draws) for name in figures}
        for draw, order in enumerate(permutations_within(exchange, draws, seed)):
            null[draw] = _mean(r[own, order])
            for name, figure in figures.items():
                null_of[name][draw] = _mean(figure[own, order])
        value = float(r[own, own].mean())
        null.flags.writeable = False
        low, high = mean_interval(r[own, own], draws=draws, seed=seed, level=level)

        def rate(name: str) -> Rate:
            found = float(figures[name][own, own].mean())
            p = calibrate(found, null_of[name], tolerance=_ROUNDING).p
            return Rate(found, _chance(figures[name], labels), p)

        def of_all(values: Array) -> Array:
            all_pairs = np.full(self.pairs, np.nan)
            all_pairs[defined] = values
            all_pairs.flags.writeable = False
            return all_pairs

        return EffectAgreement(
            value=value,
            null=null,
            p=calibrate(value, null, tolerance=_ROUNDING).p,
            low=low,
            high=high,
            level=float(level),
            pearson=of_all(r[own, own]),
            spearman=of_all(self._spearman[defined] / self._defined[defined]),
            top_overlap=of_all(self._overlap[defined] / self._defined[defined]),
            rank=of_all(ranks[own, own]),
            top_1=rate("top_1"),
            top_10=rate("top_10"),
            mrr=rate("mrr"),
            n=n,
            seed=seed,
            strata=exchange.strata,
            flags=self._flags(exchange, draws, bool(np.isnan(r).any()), bool(np.isnan(null).any())),
        )

    def _flags(self, exchange: Exchange, draws: int, apart: bool, no_null: bool) -> tuple[str, ...]:
        flags: tuple[str, ...] = ()
        n = len(exchange.members)
        if n < self.pairs:
            flags += (f"undefined: {self.pairs - n} of {self.pairs} pairs have no effect on one side and are left out",)
        if apart:
            flags += ("undefined: some features have no context in common; their exchange counts for nothing",)
        if no_null:
            flags += ("undefined: some exchanges have no context in common at all, so there is no p",)
        if self._columns <= TOP:
            flags += (f"few columns: {self._columns} are no more than {TOP}, so the overlap of the top is undefined",)
        if exchange.fixed:
            flags += (f"strata: {exchange.fixed} of {n} pairs are alone in their stratum and keep their partner",)
        if exchange.log_arrangements <= math.log(draws) + 1e-9:
            flags += (f"few pairs: there are only {round(math.exp(exchange.log_arrangements))} exchanges",)
        return flags


def _chance(figure: NDArray[Any], strata: NDArray[np.intp] | None) -> float:
    """The mean of (pairs, pairs) over all partners that each may be given."""
    if strata is None:
        return _mean(figure)
    total = 0.0
    for label in np.unique(strata):
        own = np.flatnonzero(strata == label)
        total += _mean(figure[np.ix_(own, own)]) * len(own)
    return total / len(figure)


def _mean(values: Array) -> float:
    """Of those that are not NaN; NaN without any."""
    known = ~np.isnan(values)
    return float(values[known].mean()) if known.any() else math.nan
