"""Are a category's features matched more often than others that fire as often? A Cochran–Mantel–Haenszel test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unifeat.errors import UserError
from unifeat.subspaces.strata import BINS, frequency_strata

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RateTest:
    """How often features inside a category are matched, compared with those outside."""

    n_inside: int
    """Features of the category."""
    n_outside: int
    """Other features."""
    rate_inside: float
    """Share of the category's features that are matched (NaN without features)."""
    rate_outside: float
    """Share of the others that are matched, at any frequency."""
    expected_inside: float
    """The expected share inside if, at each frequency, belonging to the category made no difference."""
    odds_ratio: float
    """Common odds ratio over the strata (Mantel & Haenszel 1959); 1: no difference, NaN: nothing to compare."""
    ci_low: float
    """Lower end of its interval (Robins, Breslow & Greenland 1986), NaN if the ratio is 0 or infinite."""
    ci_high: float
    """Upper end."""
    chi2: float
    """Mantel–Haenszel χ² with one degree of freedom, without continuity correction."""
    p_chi2: float
    """Its p, an approximation that is good if strata are not sparse."""
    p: float
    """Exact, two-sided: the probability, given all margins, of a total at most as likely as the observed one."""
    least_p: float
    """The least p that any total could have given, with these margins (Tarone 1990, Biometrics 46)."""
    strata: int
    """Strata with features inside and outside, matched and not. The others do not affect the test."""
    flags: tuple[str, ...]
    """Reasons to read the result with care."""


def rate_test(matched: Any, inside: Any, frequency: Any, *, bins: int = BINS, level: float = 0.95) -> RateTest:
    """Compare the odds of being matched inside and outside a category, among features that fire about as often.

    Frequency has to be held fixed, because features that fire often are matched more often whatever they mean, and
    features of common words fire often. In each stratum, the number matched inside is hypergeometric under the null.
    The exact p is that of the sum over strata, whose distribution is their convolution.

    Give only features that could be matched and could belong to the category. Otherwise a filter that drops features
    for their tokens (such as features that fire on full stops) makes every category of words look matched more often.

    Args:
        matched: (n,) bool, for each feature.
        inside: (n,) bool, whether it belongs to the category.
        frequency: (n,) how often it fires.
        bins: number of strata of frequency.
        level: confidence level of the interval.

    Raises:
        UserError: arrays of unequal length, values that are neither true nor false, or a level outside (0, 1).
    """
    is_matched, side = _flag_array(matched, "matched"), _flag_array(inside, "inside")
    if not len(is_matched) == len(side) == len(np.asarray(frequency)):
        raise UserError("matched, inside and frequency have unequal lengths: give one of each for every feature")
    if not 0 < level < 1:
        raise UserError(f"level={level!r}: give a level between 0 and 1")
    stratum = frequency_strata(frequency, bins)
    tables = _tables(is_matched, side, stratum)
    informative = (tables.sum(2) > 0).all(1) & (tables.sum(1) > 0).all(1)
    n_inside = int(side.sum())
    figures = _pooled(tables[informative], level) if informative.any() else _UNDEFINED_FIGURES
    row, column, total = tables[:, 0].sum(1), tables[:, :, 0].sum(1), tables.sum((1, 2))
    return RateTest(
        n_inside=n_inside,
        n_outside=len(side) - n_inside,
        rate_inside=_share(is_matched[side]),
        rate_outside=_share(is_matched[~side]),
        expected_inside=float((row * column / np.maximum(total, 1)).sum() / n_inside) if n_inside else math.nan,
        **figures,
        strata=int(informative.sum()),
        flags=_flags(n_inside, len(side), bool(informative.any())),
    )


_UNDEFINED_FIGURES = dict.fromkeys(("odds_ratio", "ci_low", "ci_high", "chi2", "p_chi2", "p", "least_p"), math.nan)


def _tables(is_matched: NDArray[np.bool_], side: NDArray[np.bool_], stratum: NDArray[np.intp]) -> Array:
    """(strata, 2, 2) counts: inside or outside, by matched or not."""
    count = int(stratum.max(initial=-1)) + 1
    cell = stratum * 4 + 2 * ~side + ~is_matched
    return np.bincount(cell, minlength=4 * count).reshape(count, 2, 2).astype(np.float64)


def _pooled(tables: Array, level: float) -> dict[str, float]:
    a, b, c, d = tables[:, 0, 0], tables[:, 0, 1], tables[:, 1, 0], tables[:, 1, 1]
    n = tables.sum((1, 2))
    r, s = a * d / n, b * c / n
    odds_ratio = r.sum() / s.sum() if s.sum() else math.inf
    expected = (a + b) * (a + c) / n
    variance = (a + b) * (c + d) * (a + c) * (b + d) / (n**2 * np.maximum(n - 1, 1))
    chi2 = float((a.sum() - expected.sum()) ** 2 / variance.sum())
    low = high = math.nan
    if 0 < odds_ratio < math.inf:
        # Variance of the logarithm of the pooled odds ratio, equation (12) of Robins, Breslow & Greenland.
        p, q = (a + d) / n, (b + c) / n
        log_variance = (
            (p * r).sum() / (2 * r.sum() ** 2)
            + (p * s + q * r).sum() / (2 * r.sum() * s.sum())
            + (q * s).sum() / (2 * s.sum() ** 2)
        )
        reach = float(stats.norm.isf((1 - level) / 2)) * math.sqrt(log_variance)
        low, high = float(odds_ratio) * math.exp(-reach), float(odds_ratio) * math.exp(reach)
    return {
        "odds_ratio": float(odds_ratio),
        "ci_low": low,
        "ci_high": high,
        "chi2": chi2,
        "p_chi2": float(stats.chi2.sf(chi2, 1)),
        **dict(zip(("p", "least_p"), _exact(tables), strict=True)),
    }


def _exact(tables: Array) -> tuple[float, float]:
    """Two-sided conditional p of the total of the first cells, as in Fisher's test for a single table; the least p."""
    chances = np.ones(1)
    lowest = 0
    for table in tables.astype(np.int64):
        inside, matched, n = int(table[0].sum()), int(table[:, 0].sum()), int(table.sum())
        low, high = max(0, inside + matched - n), min(inside, matched)
        # All terms are positive, so a direct convolution loses no digits; a Fourier transform would.
        chances = np.convolve(chances, stats.hypergeom.pmf(np.arange(low, high + 1), n, matched, inside))
        lowest += low
    observed = chances[int(tables[:, 0, 0].sum()) - lowest]
    return _as_unlikely(chances, float(observed)), _as_unlikely(chances, float(chances.min()))


def _as_unlikely(chances: Array, chance: float) -> float:
    total = chances[chances <= chance * (1 + 1e-7)].sum()  # equal probabilities may differ by rounding
    # If the probability underflows, p is set to the smallest positive float64 rather than 0.
    return float(min(max(total, np.finfo(np.float64).tiny), 1.0))


def _flags(n_inside: int, n: int, informative: bool) -> tuple[str, ...]:
    if n_inside == 0:
        return ("empty: no feature is in the category",)
    if n_inside == n:
        return ("everything: every feature is in the category",)
    if not informative:
        return ("undefined: no stratum has features inside and outside, matched and not",)
    return ()


def _flag_array(values: Any, name: str) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype != bool:
        raise UserError(f"{name}: give one true or false for each feature")
    return array


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else math.nan
