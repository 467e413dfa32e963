"""A score as a share of its ceiling: of what two SAEs of one model's activations reach on as many pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from unifeat.errors import UserError
from unifeat.geometry import Measure, Score
from unifeat.inference._permutation_test import find_measure, with_settings
from unifeat.inference.exchange import Exchange
from unifeat.inference.permuting import null_scores, permutations
from unifeat.inference.subsampling import subsample_interval

VERSION = 1  # raised whenever scores at a number of pairs change
DRAWS = 20
_FIRST_DRAW = 2**41  # number of the first draw: no permutation test and no half has its random words


class Estimate(NamedTuple):
    """A score and its standard error."""

    score: float
    sd: float


class AtNumber(NamedTuple):
    """The score that a cell has at a number of pairs."""

    score: float
    """Mean over draws of so many of the pairs; of all pairs, the score itself."""
    sd: float
    """Its standard error; NaN without halves, or where they do not determine it."""
    chance: float
    """Mean score of so many pairs shuffled; NaN if it was not asked for."""
    flags: tuple[str, ...]
    """Why there is no standard error."""


def score_at(
    measure: str | Callable[..., Score] | Measure,
    x: Any,
    y: Any,
    n: int,
    *,
    subsamples: int = 60,
    seed: int = 0,
    units: Any = None,
    chance: bool = False,
    **settings: Any,
) -> AtNumber:
    """The score that n of the pairs (x_i, y_i) have, to be compared with the score of n other pairs.

    Most measures depend on the number of pairs. The mean over random draws of n pairs is, for all N pairs, what the
    score of n pairs is expected to be. Its standard error is that of one draw of n (from halves of the first draw, see
    `subsample_interval`), times √(n / N): to first order, a mean over all subsets varies by so much (a U-statistic:
    Hoeffding 1948, "A class of statistics with asymptotically normal distribution", Ann. Math. Stat. 19). With m draws
    instead of all subsets, n / N becomes n / N + (1 − n / N) / m.

    measure, settings: as in `permutation_test`.
    x: (N, d_a), y: (N, d_b) arrays. n: at most N; with n = N the score is that of all.
    subsamples: halves for the standard error; 0: none.
    units: (N,) labels of pairs that are shuffled together, and drawn together into halves.
    chance: also score shuffled pairs.

    Raises UserError as the measure does, and for n above N.
    """
    chosen, total = find_measure(measure), len(x)
    if not 0 <= n <= total:
        raise UserError(f"n={n!r}: give a number of pairs, at most {total}")
    drawn = [np.arange(total)]
    if n < total:
        drawn = [np.sort(order[:n]) for order in permutations(total, DRAWS, seed, start=_FIRST_DRAW)]
    first = drawn[0]
    of_first, labels = chosen.at_rows(settings, first), None if units is None else np.asarray(units)[first]
    score = float(np.mean(_scores(chosen, x, y, drawn, settings)))
    shuffled = math.nan
    if chance and chosen.sees_pairing:
        exchange = None if labels is None else Exchange.of(n, None, labels)
        ready = chosen.prepare(x[first], y[first], **of_first)
        shuffled = float(null_scores(ready, DRAWS, seed, start=_FIRST_DRAW, exchange=exchange).mean())
    if not subsamples:
        return AtNumber(score, math.nan, shuffled, ())
    plain = {name: value for name, value in settings.items() if name not in chosen.row_settings}
    by_row = {name: value for name, value in of_first.items() if name in chosen.row_settings}
    try:
        interval = subsample_interval(
            with_settings(chosen, plain),
            x[first],
            y[first],
            subsamples=subsamples,
            seed=seed,
            clusters=labels,
            **by_row,
        )
    except UserError as error:
        return AtNumber(score, math.nan, shuffled, (f"no standard error: {error}",))
    share = n / total
    sd = interval.sd * math.sqrt(share + (1 - share) / len(drawn))
    flags = tuple(flag for flag in interval.flags if flag.startswith(("saturated halves", "undefined")))
    return AtNumber(score, sd, shuffled, flags)


def _scores(
    measure: Measure, x: Any, y: Any, drawn: Sequence[NDArray[np.intp]], settings: dict[str, Any]
) -> list[float]:
    """The score of each set of rows."""
    prepared = measure.prepare(x, y, **settings)
    if len(drawn) == 1:
        return [prepared.score().value]
    return [measure.score_rows(prepared, x, y, rows, settings).value for rows in drawn]


class Share(NamedTuple):
    """A score as a share of its ceiling."""

    ceiling: float
    """√(s_AA′ · s_BB′), or the ceiling of one side."""
    share: float
    """score / ceiling; NaN unless the ceiling is above 0."""
    low: float
    """Lower end of its interval; NaN without standard errors, or if the ceiling's interval reaches 0."""
    high: float
    """Upper end."""


def share_of_ceiling(score: Estimate, sides: Sequence[Sequence[Estimate]], *, level: float, df: float) -> Share:
    """A score s_AB divided by what two SAEs of A's own activations reach, and two of B's.

    s_AB / √(s_AA′ · s_BB′), as a correlation is divided by the root of both reliabilities to correct it for attenuation
    (Spearman 1904, "The proof and measurement of association between two things", Am. J. Psychol. 15), and a score of
    representations by its noise ceiling (Nili et al. 2014, "A toolbox for representational similarity analysis", PLoS
    Comput. Biol. 10). With a ceiling of one side only, s_AB is divided by that one: as if the other had no noise.

    The interval is Fieller's for the ratio of two independent estimates (Fieller 1954, "Some problems in interval
    estimation", J. R. Stat. Soc. B 16), with the ceiling's standard error by the delta method: its square, over the
    squared ceiling, is a quarter of the sum of the same for s_AA′ and s_BB′. Scores of cells that share a space tend to
    be off in the same direction, which cancels in the ratio, so it is rather too wide.

    Args:
        score: s_AB and its standard error.
        sides: one or two sides, each with one or more ceilings, of which the mean is taken.
        level: nominal coverage, in (0, 1).
        df: degrees of freedom of the standard errors.
    """
    means = [_mean(side) for side in sides]
    if any(not mean.score > 0 for mean in means):
        ceiling = means[0].score if len(means) == 1 else math.nan
        return Share(ceiling, math.nan, math.nan, math.nan)
    ceiling = math.prod(mean.score for mean in means) ** (1 / len(means))
    share = score.score / ceiling
    reach = float(student.ppf(0.5 + level / 2, df))
    # Squared standard errors as shares of the squared ceiling.
    of_ceiling = sum((mean.sd / mean.score) ** 2 for mean in means) / len(means) ** 2
    of_score = (score.sd / ceiling) ** 2
    unsure = reach**2 * of_ceiling
    if not unsure < 1 or math.isnan(of_score):
        return Share(ceiling, share, math.nan, math.nan)
    middle = share / (1 - unsure)
    half = reach * math.sqrt(of_score * (1 - unsure) + share**2 * of_ceiling) / (1 - unsure)
    return Share(ceiling, share, middle - half, middle + half)


def _mean(several: Sequence[Estimate]) -> Estimate:
    count = len(several)
    return Estimate(sum(one.score for one in several) / count, math.sqrt(sum(one.sd**2 for one in several)) / count)
