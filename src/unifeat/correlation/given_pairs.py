"""Correlations of given pairs of features, and what of them is left within groups of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unifeat.correlation.pair_sums import correlate_pairs, pair_ids, thread_count
from unifeat.correlation.within import within_groups
from unifeat.vocabulary.grouped_codes import in_groups
from unifeat.vocabulary.paired_codes import as_paired
from unifeat.vocabulary.tables import pairs_table

if TYPE_CHECKING:
    import pandas as pd


def pair_correlation(
    codes_a: Any, codes_b: Any, pairs: Any, groups: Any = None, *, threads: int | None = None
) -> pd.DataFrame:
    """Exact correlations of given pairs: for instance of pairs found on other text, or beyond the token.

    With `groups`, each correlation is divided into what the groups explain and what is left within them. Grouped by
    token, a pair of features that detect the same token has a high `correlation` and a `correlation_within` near 0.

    Args:
        codes_a, codes_b: tokens × features, whose rows are the same tokens: as `correlate` takes them.
        pairs: a table (pandas, polars, Arrow) with columns `feature_a` and `feature_b`; or (pairs, 2) integers, an
            array or a list of pairs.
        groups: (tokens,) integers: rows with equal ones are one group, such as the id of the row's token.
        threads: threads to use; all cores by default. It does not change the result.

    Returns:
        A DataFrame, with the index of `pairs` if they are one: `feature_a`, `feature_b`; `correlation` (Pearson's r)
        and `cofiring` (rows on which both fire). With `groups` also `correlation_within`, r of the deviations from the
        groups' means (pooled within-group correlation), and `share_a`, `share_b`, the share of each feature's variance
        that lies between groups (ε²: corrected for the number of groups, so it can be slightly negative). NaN where a
        feature does not vary. Rows alone in their group say nothing about `correlation_within`.

    Raises:
        UserError: codes that are not (tokens, features) or have different rows, missing columns, features that do not
            exist, or not one integer a row in `groups`.
    """
    pairs = pairs_table(pairs)
    paired, threads = as_paired(codes_a, codes_b), thread_count(threads)
    ids = pair_ids(paired, pairs["feature_a"], pairs["feature_b"])
    r, cofiring = correlate_pairs(paired, *ids, threads=threads)
    found = pairs[["feature_a", "feature_b"]].assign(correlation=r, cofiring=cofiring)
    if groups is None:
        return found
    within = within_groups(in_groups(paired, groups), np.array([0, paired.n_rows]), *ids, threads=threads)
    return found.assign(correlation_within=within.correlation(), share_a=within.share_a, share_b=within.share_b)
