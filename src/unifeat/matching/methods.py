"""Matching methods: they choose pairs from a table of candidates.

Every method is a function from arrays (feature_a, feature_b, correlation), one entry per candidate pair, to a mask of
the chosen pairs. CSLS uses `csls` in place of the correlation. Ties go to the lower feature ids, so the order of rows
does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Integer

from unifeat.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Ids = Integer[np.ndarray, " pairs"]
Values = Float[np.ndarray, " pairs"]
Mask = Bool[np.ndarray, " pairs"]


def best_of(one: Ids, other: Ids, r: Values) -> Mask:
    """The best partner of each feature in `one`: highest r, ties to the lower `other`. At most one True per feature."""
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
    """Greedy matching: pairs in order of r, highest first, each feature used once."""
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

    SciPy's sparse solver (LAPJVsp, Jonker & Volgenant 1987) needs a full matching, which the candidates may not allow.
    So each feature of A also gets a dummy partner that stands for "unmatched" and adds nothing.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    chosen = np.zeros(len(r), bool)
    usable = np.flatnonzero(r > 0)
    if not len(usable):
        return chosen
    ids_a, row = np.unique(a[usable], return_inverse=True)
    ids_b, column = np.unique(b[usable], return_inverse=True)
    # The solver treats an explicit 0 as "no edge", so all costs are shifted by a constant. This does not change the
    # best matching, since all full matchings have the same number of edges.
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
    """One-to-one matching as in arXiv 2410.06981: of all features with the same best partner, the lowest id gets it.

    It is not the one with the highest r, and the others get no second choice. Meant only for reproducing the paper.

    Args:
        allowed: (pairs,) mask of the pairs that pass the token filters. A feature whose best partner does not pass
            claims no other.
    """
    best = best_of(one, other, r)
    claims = np.flatnonzero(best if allowed is None else best & allowed)
    claims = claims[np.argsort(one[claims], kind="stable")]
    _, first = np.unique(other[claims], return_index=True)
    chosen = np.zeros(len(r), bool)
    chosen[claims[first]] = True
    return chosen


@dataclass(frozen=True)
class Method:
    """An entry of the table of matching methods.

    Attributes:
        choose: from (feature_a, feature_b, correlation or, for csls, csls), one entry per candidate pair, to a mask.
        version: raised whenever `choose` gives different pairs; part of the keys of stored results.
        directed: whether it depends on `direction`.
        before_filters: whether it finds best partners among all candidates, before any filter, as published.
    """

    choose: Callable[..., Mask]
    version: int = 1
    directed: bool = False
    before_filters: bool = False


METHODS: dict[str, Method] = {
    "max": Method(best_of, directed=True),
    "mutual": Method(mutual),
    "one-to-one": Method(one_to_one),
    "assignment": Method(assignment),
    "csls": Method(mutual),
    "first-seen": Method(first_seen, directed=True, before_filters=True),
}


def find_method(name: str) -> Method:
    """The table's entry.

    Raises:
        UserError: no such method.
    """
    if name not in METHODS:
        raise UserError(f"unknown matching method {name!r}{did_you_mean(name, METHODS)}: {', '.join(METHODS)}")
    return METHODS[name]


def select(candidates: pd.DataFrame, method: str = "mutual", direction: str = "a_to_b") -> Mask:
    """Which rows of a table of candidate pairs a matching method chooses.

    Args:
        candidates: columns `feature_a`, `feature_b`, `correlation`; each pair at most once. For `csls` also `csls`;
            if missing, it is computed from the given rows. For `first-seen` optionally `allowed`, a mask of the rows
            that pass the token filters.
        method: `max`, `mutual`, `one-to-one`, `assignment`, `csls` or `first-seen`.
        direction: for `max` and `first-seen`: `a_to_b` gives each A feature its best B feature, `b_to_a` the reverse.

    Returns:
        (rows,) mask.

    Raises:
        UserError: unknown method or direction.
    """
    chosen = find_method(method)
    if direction not in ("a_to_b", "b_to_a"):
        raise UserError(f"direction {direction!r} must be a_to_b or b_to_a")
    a = candidates["feature_a"].to_numpy(np.int64)
    b = candidates["feature_b"].to_numpy(np.int64)
    r = candidates["correlation"].to_numpy(np.float64)
    if method == "csls":
        r = _csls(candidates, a, b, r)
    if chosen.directed and direction == "b_to_a":
        a, b = b, a
    if method == "first-seen" and "allowed" in candidates:
        return first_seen(a, b, r, candidates["allowed"].to_numpy(bool))
    return chosen.choose(a, b, r)


def _csls(candidates: pd.DataFrame, a: Ids, b: Ids, r: Values) -> Values:
    if "csls" in candidates:
        return candidates["csls"].to_numpy(np.float64)
    from unifeat.correlation.csls import csls

    return csls(a, b, r)


def mutual_over(candidates: pd.DataFrame, least: float) -> int:
    """How many pairs of a table are each other's best partners and have r above `least`, before any filter."""
    return int((select(candidates, "mutual") & (candidates["correlation"] > least)).sum())
