"""A score as a share of its ceiling: of what two SAEs of one model's activations reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t as student


class Estimate(NamedTuple):
    """A score and its standard error."""

    score: float
    sd: float


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
