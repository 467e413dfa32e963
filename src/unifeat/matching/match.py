"""Who is matched with whom: methods that choose pairs from a table of candidates.

Every method is a function from arrays (feature_a, feature_b, correlation), one entry a candidate pair, to a mask of
the pairs chosen; CSLS reads `csls` in the place of the correlation. Equal values are decided by the lower feature ids,
so the order of rows does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from unifeat.matching.correlation import Correlation

Ids = NDArray[np.int64]
Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Direction = Literal["a_to_b", "b_to_a"]


def best_of(one: Ids, other: Ids, r: Values) -> Mask:
    """The best partner of each `one`: highest r, ties to the lower `other`. At most one True for each `one`."""
    order = np.lexsort((other, -r, one))
    first = np.ones(len(order), bool)
    first[1:] = one[order][1:] != one[order][:-1]
    chosen = np.zeros(len(order), bool)
    chosen[order[first]] = True
    return chosen


def mutual(a: Ids, b: Ids, r: Values) -> Mask:
    """Pairs that are each other's best partner."""
    return best_of(a, b, r) & best_of(b, a, r)


def one_to_one(a: Ids, b: Ids, r: Values) -> Mask:
    """Highest r first, each feature once: the greedy matching."""
    chosen = np.zeros(len(r), bool)
    used_a, used_b = set(), set()
    for row in np.lexsort((b, a, -r)).tolist():
        if a[row] not in used_a and b[row] not in used_b:
            chosen[row] = True
            used_a.add(a[row])
            used_b.add(b[row])
    return chosen


def assignment(a: Ids, b: Ids, r: Values) -> Mask:
    """The one-to-one matching with the largest total r over the candidates; pairs with r ≤ 0 are never used.

    SciPy's sparse solver (LAPJVsp, Jonker & Volgenant 1987) wants a full matching, which the candidates may not have.
    So each feature of A also gets a partner of its own that stands for "unmatched" and is worth nothing.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    chosen = np.zeros(len(r), bool)
    usable = np.flatnonzero(r > 0)
    if not len(usable):
        return chosen
    ids_a, row = np.unique(a[usable], return_inverse=True)
    ids_b, column = np.unique(b[usable], return_inverse=True)
    # The solver reads an explicit 0 as "no edge": shift all costs by a constant, which every full matching pays alike.
    unmatched = np.arange(len(ids_a))
    cost = np.concatenate([2.0 - r[usable], np.full(len(ids_a), 2.0)])
    rows = np.concatenate([row, unmatched])
    columns = np.concatenate([column, len(ids_b) + unmatched])
    graph = csr_array((cost, (rows, columns)), shape=(len(ids_a), len(ids_b) + len(ids_a)))
    matched_rows, matched_columns = min_weight_full_bipartite_matching(graph)
    partner = np.full(len(ids_a), -1)
    partner[matched_rows] = matched_columns
    chosen[usable] = partner[row] == column
    return chosen


def first_seen(one: Ids, other: Ids, r: Values, allowed: Mask | None = None) -> Mask:
    """One to one as published in arXiv 2410.06981: of all `one` with the same best partner the lowest id keeps it.

    Not the one with the highest r, and the others get no second choice: it is there to reproduce the paper.

    Args:
        allowed: (pairs,) pairs that the token filters let pass; a best partner that they do not is lost, not claimed.
    """
    best = best_of(one, other, r)
    claims = np.flatnonzero(best if allowed is None else best & allowed)
    claims = claims[np.argsort(one[claims], kind="stable")]
    _, first = np.unique(other[claims], return_index=True)
    chosen = np.zeros(len(r), bool)
    chosen[claims[first]] = True
    return chosen


# Name -> function of (feature_a, feature_b, correlation or, for csls, csls).
METHODS: dict[str, Callable[[Ids, Ids, Values], Mask]] = {
    "max": best_of,
    "mutual": mutual,
    "one-to-one": one_to_one,
    "assignment": assignment,
    "csls": mutual,
    "first-seen": first_seen,
}
DIRECTED = ("max", "first-seen")
# Methods that find best partners among all candidates, before any filter: as published.
BEFORE_FILTERS = ("first-seen",)


def csls(a: Ids, b: Ids, r: Values, top: int | None = None) -> Values:
    """Cross-domain similarity local scaling (Lample et al. 2018, arXiv 1710.04087): r less what either side's
    neighbourhood gives to anyone, so that hubs lose their head start.

        2 r − mean r of a's best partners − mean r of b's best partners

    Args:
        a, b: (pairs,) feature ids; each pair at most once.
        r: (pairs,) correlations, NaN where there is none.
        top: partners in a neighbourhood: the best so many of the pairs given; all of them if None. For candidates of
            `correlate`, before any filter, its `top` best are just the ones it listed.

    Returns:
        (pairs,) float64, rounded to 1e-12 as r is, so that what is equal on paper ties.
    """
    return np.round(2 * r - _neighbourhood(a, r, top) - _neighbourhood(b, r, top), 12)


def _neighbourhood(one: Ids, r: Values, top: int | None) -> Values:
    """For each pair the mean of the `top` largest r that its `one` has."""
    order = np.lexsort((-r, one))  # NaN last
    ids, first, row = np.unique(one[order], return_index=True, return_inverse=True)
    rank = np.arange(len(order)) - first[row]
    near = ~np.isnan(r[order]) & (rank < (len(order) if top is None else top))
    total = np.bincount(row[near], weights=r[order][near], minlength=len(ids))
    number = np.bincount(row[near], minlength=len(ids))
    mean = np.full(len(ids), np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    back = np.empty(len(r))
    back[order] = mean[row]
    return back


def select(candidates: pd.DataFrame, method: str = "mutual", direction: str = "a_to_b") -> Mask:
    """Which rows of a table of candidate pairs a matching method chooses.

    Args:
        candidates: columns `feature_a`, `feature_b`, `correlation`; each pair at most once. For `csls` also `csls`,
            which is computed over the rows given if it is not there. For `first-seen` perhaps `allowed`, the rows
            whose tokens may be paired.
        method: `max`, `mutual`, `one-to-one`, `assignment`, `csls` or `first-seen`.
        direction: for `max` and `first-seen`: `a_to_b` gives each A feature its best B feature, `b_to_a` the other way
            round.

    Returns:
        (rows,) mask.

    Raises:
        UserError: unknown method or direction.
    """
    if method not in METHODS:
        raise UserError(f"unknown matching method {method!r}{did_you_mean(method, METHODS)}: {', '.join(METHODS)}")
    if direction not in ("a_to_b", "b_to_a"):
        raise UserError(f"direction {direction!r} must be a_to_b or b_to_a")
    a = candidates["feature_a"].to_numpy(np.int64)
    b = candidates["feature_b"].to_numpy(np.int64)
    r = candidates["correlation"].to_numpy(np.float64)
    if method == "csls":
        r = candidates["csls"].to_numpy(np.float64) if "csls" in candidates else csls(a, b, r)
    if method in DIRECTED and direction == "b_to_a":
        a, b = b, a
    if method == "first-seen" and "allowed" in candidates:
        return first_seen(a, b, r, candidates["allowed"].to_numpy(bool))
    return METHODS[method](a, b, r)


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
        corr: what `correlate` found; its best partners, both ways, are the candidates.
        method: `max` (each feature's best partner, many-to-one), `mutual` (each other's best), `one-to-one` (highest
            r first), `assignment` (largest total r over the candidates), `csls` (each other's best once hubs are
            corrected for) or `first-seen` (as in arXiv 2410.06981: best partners, claimed by the lowest id).
        direction: for `max` and `first-seen`: whose best partner.
        min_correlation: leave out candidates with r at or below it, before matching (`first-seen`: after it).
        min_count: leave out features that fire on fewer tokens, before matching (`first-seen`: after it).

    Returns:
        `feature_a`, `feature_b`, `correlation`, `cofiring`, `csls`, `count_a`, `count_b`, highest r first.

    Raises:
        UserError: unknown method or direction.
    """
    table = corr.candidates()[["feature_a", "feature_b", "correlation", "cofiring", "csls"]]
    if method in BEFORE_FILTERS:
        table = table[select(table, method, direction)]
    table = table.assign(
        count_a=corr.moments_a.count[table["feature_a"]], count_b=corr.moments_b.count[table["feature_b"]]
    )
    if min_correlation is not None:
        table = table[table["correlation"] > min_correlation]
    if min_count is not None:
        table = table[table[["count_a", "count_b"]].min(axis=1) >= min_count]
    chosen = table[select(table, method, direction)]
    return chosen.sort_values(
        ["correlation", "feature_a", "feature_b"], ascending=[False, True, True], ignore_index=True
    )
