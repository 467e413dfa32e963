"""`match`: from the result of `correlate` to a table of pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unifeat.matching.filters import Filters
from unifeat.matching.rule import Rule

if TYPE_CHECKING:
    import pandas as pd

    from unifeat.correlation.correlate import Correlation


def match(
    corr: Correlation,
    method: str = "mutual",
    *,
    direction: str = "a_to_b",
    min_correlation: float | None = None,
    min_count: int | None = None,
) -> pd.DataFrame:
    """Match features of two spaces.

    Args:
        corr: the result of `correlate`; the best partners in both directions are the candidates.
        method: `max` (each feature's best partner, many-to-one), `mutual` (each other's best), `one-to-one` (highest
            r first), `assignment` (largest total r over the candidates), `csls` (each other's best, corrected for
            hubs) or `first-seen` (as in arXiv 2410.06981: best partners, claimed by the lowest id).
        direction: for `max` and `first-seen`: whose best partner.
        min_correlation: drop candidates with r at or below this, before matching (for `first-seen`, after matching).
        min_count: drop features that fire on fewer tokens, before matching (for `first-seen`, after matching).

    Returns:
        `feature_a`, `feature_b`, `correlation`, `cofiring`, `csls`, `count_a`, `count_b`, highest r first.

    Raises:
        UserError: unknown method or direction.
    """
    table = corr.candidates()[["feature_a", "feature_b", "correlation", "cofiring", "csls"]]
    table = table.assign(
        count_a=corr.moments_a.count[table["feature_a"]], count_b=corr.moments_b.count[table["feature_b"]]
    )
    least = -np.inf if min_correlation is None else min_correlation
    rule = Rule(Filters(least, min_count or 0), method, direction)
    return table[rule.keep(table)(table)].sort_values(
        ["correlation", "feature_a", "feature_b"], ascending=[False, True, True], ignore_index=True
    )
