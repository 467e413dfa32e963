"""Is a score no more (and no less) than chance, within a margin? Two one-sided tests."""

from __future__ import annotations

import math

from scipy.stats import t as student

from unifeat.errors import UserError


def equivalence_p(difference: float, sd: float, margin: float, df: float) -> float:
    """The p of two one-sided tests (TOST) that a true difference lies within ±margin.

    Equivalence is the alternative here. The null hypotheses are that the true difference is at most −margin, and that
    it is at least +margin; p is the larger of their p-values, so both are rejected at level α where p ≤ α. That is so
    exactly where the interval of level 1 − 2α lies within ±margin (Schuirmann 1987, "A comparison of the two one-sided
    tests procedure and the power approach for assessing the equivalence of average bioavailability", J. Pharmacokinet.
    Biopharm. 15). With an interval that is too wide, equivalence is claimed too seldom, never too often.

    Args:
        difference: the difference measured.
        sd: its standard error.
        margin: above 0; what counts as no difference.
        df: degrees of freedom of the standard error, for Student's distribution.

    Returns:
        p in [0, 1]; NaN if the difference or its standard error is NaN, or if the latter is 0, which says nothing.

    Raises:
        UserError: a margin or degrees of freedom that are not above 0.
    """
    for name, value in (("margin", margin), ("df", df)):
        if not value > 0:
            raise UserError(f"{name}={value!r}: give a number above 0")
    if not sd > 0 or math.isnan(difference):
        return math.nan
    return float(max(student.sf((difference + margin) / sd, df), student.cdf((difference - margin) / sd, df)))
