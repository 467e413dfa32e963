"""Clusters of pairs that are near-copies of each other, as feature splitting makes them, and what they are worth.

Pairs of a cluster are neither independent nor exchangeable: what one says of the geometry, its copies say again. So
they are drawn, and shuffled, as one: `subsample_interval(..., clusters=labels)` and `cluster_test`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta

from unifeat.errors import UserError
from unifeat.geometry._input import as_pair, centred, unit_rows
from unifeat.geometry._labels import in_order
from unifeat.geometry._pairs import ROWS_PER_BLOCK

Labels = NDArray[np.int64]
VERSION = 1  # raised whenever other clusters are found
_ROWS_FOR_CHANCE = 1500  # a million cosines, whose median is known to three digits
_MOST_DIMENSIONS = 1e7


def find_clusters(x: Any, y: Any, *, min_cosine: float = 0.7, links: Sequence[Any] = ()) -> Labels:
    """Which pairs (x_i, y_i) are near-copies of each other: labels (n,) int64, 0 … K − 1 in order of first appearance.

    Two pairs are linked if, on either side, the cosine of their rows about the mean row is at least a threshold in
    absolute value (opposite rows are as little independent as equal ones). Clusters are the connected components.

    The threshold of a side is `min_cosine`, or its chance level if that is higher: the |cosine| that two unrelated
    directions reach with probability 1/n², so that chance alone makes about half a link among all n(n − 1)/2. It is
    that of directions drawn uniformly in as many dimensions as make the median |cosine| what it is on this side;
    cos² is then Beta(1/2, (d − 1)/2). In 500 dimensions `min_cosine` is far above chance; in fewer than about 30, only
    closer copies can be told from chance.

    Links form chains (single linkage): features along a curve, each near the next, are one cluster although its ends
    are far apart. Chance makes too few links for chains, and features of a curve do depend on each other; such a
    cluster makes intervals wide and tests weak, not wrong. Look at the largest one (`numpy.bincount(labels).max()`).

    x: (n, d_a), y: (n, d_b), as for a measure; n ≥ 2.
    min_cosine: in (0, 1].
    links: (n, n) sparse arrays; pairs with an entry other than 0 are linked too. For instance, where the codes of two
        features of one space correlate by more than 0.7.

    Memory: n × 512 cosines at a time. Raises UserError as measures do for x and y, and for a bad setting.
    """
    if isinstance(min_cosine, bool) or not isinstance(min_cosine, int | float | np.number) or not 0 < min_cosine <= 1:
        raise UserError(f"min_cosine={min_cosine!r}: give a number in (0, 1]")
    sides = as_pair(x, y, at_least=2, why="finding clusters")
    n = len(sides[0])
    labels = np.arange(n)
    for link in links:
        if getattr(link, "shape", None) != (n, n) or not sparse.issparse(link):
            raise UserError(f"links: give sparse arrays of shape ({n}, {n}), one row and column for each pair")
        entries = link.tocoo()
        there = entries.data != 0
        labels = _joined(labels, entries.row[there], entries.col[there])
    for side in sides:
        unit, _ = unit_rows(centred(side))
        threshold = max(float(min_cosine), chance_cosine(unit))
        for start in range(0, n, ROWS_PER_BLOCK):
            near = np.abs(unit[start : start + ROWS_PER_BLOCK] @ unit[start:].T) >= threshold
            row, column = np.nonzero(near)
            labels = _joined(labels, row + start, column + start)
    return as_labels(labels, n)


def chance_cosine(unit: Float64[np.ndarray, "n d"]) -> float:
    """The |cosine| that two unrelated unit rows like these (n, d) reach with probability 1/n²; see `find_clusters`."""
    n = len(unit)
    some = unit[np.linspace(0, n - 1, min(n, _ROWS_FOR_CHANCE)).astype(np.intp)]
    cosines = np.abs(some @ some.T)[np.triu_indices(len(some), 1)]
    middle = float(np.median(cosines)) ** 2

    def beyond(log_d: float) -> float:
        return float(beta.ppf(0.5, 0.5, np.expm1(log_d) / 2)) - middle

    low, high = np.log1p(1e-3), np.log(_MOST_DIMENSIONS)
    if beyond(low) <= 0:  # nearly all rows lie on one line
        return 1.0
    dimensions = float(np.exp(high if beyond(high) >= 0 else brentq(beyond, low, high)))
    return float(np.sqrt(beta.isf(1 / n**2, 0.5, (dimensions - 1) / 2)))


def effective_pairs(clusters: Any) -> float:
    """How many independent pairs n pairs in clusters of sizes m_c are worth: (Σ m_c)² / Σ m_c².

    That many independent pairs would leave a mean over pairs as uncertain as it is if the pairs of a cluster all say
    the same (Kish 1965, "Survey sampling", section 8.2). It is K for K clusters of one size, and less than K for
    unequal ones, since a score of all pairs weights a cluster by its size. (`cluster_test` weights them equally and
    has K.) The pairs of real clusters say nearly the same, so this is a lower bound.

    clusters: (n,) integer labels. Raises UserError for anything else.
    """
    labels = as_labels(clusters)
    sizes = np.bincount(labels).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if sizes.size else 0.0


def as_labels(clusters: Any, n: int | None = None) -> Labels:
    """Checked labels, renumbered 0 … K − 1 in order of first appearance. n: how many there must be."""
    given = np.asarray(clusters)
    if given.ndim != 1 or given.dtype.kind not in "iu" or (n is not None and given.size != n):
        count = "one for each pair" if n is None else f"one for each of {n} pairs"
        raise UserError(f"clusters: give whole numbers, {count}, not {given.dtype} of shape {given.shape}")
    return in_order(np.unique(given, return_inverse=True)[1]).astype(np.int64)


def _joined(labels: Labels, a: NDArray[np.integer], b: NDArray[np.integer]) -> Labels:
    """Labels after the clusters of pairs a_k and b_k have become one, for every k."""
    n = len(labels)
    graph = sparse.coo_array((np.ones(a.size, bool), (labels[a], labels[b])), shape=(n, n))
    joined: Labels = connected_components(graph, directed=False)[1].astype(np.int64)[labels]
    return joined
