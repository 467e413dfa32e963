"""The permutation test for pairs in clusters: one pair of each cluster, and whole clusters are shuffled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.geometry import Measure, Score
from unifeat.geometry.measure import Heavy
from unifeat.geometry.score import describe
from unifeat.inference._permutation_test import WithNull, find_measure
from unifeat.inference.calibration import calibrate
from unifeat.inference.clusters import Labels, as_labels, effective_pairs
from unifeat.inference.permuting import MOST_DRAWS, null_scores, permutations, whole
from unifeat.inference.subsampling import rows_of
from unifeat.progress import track

# Choices use random words that neither tests nor halves use: those start at 0 and at 2^40.
_FIRST_CHOICE = 2**41
_CHOICES = 5


@dataclass(frozen=True, eq=False)
class ClusterTest(WithNull):
    """The score of one pair of each cluster, compared with that of shuffled clusters."""

    measure: str
    """Name of the measure."""
    score: float
    """Mean over the choices of one pair of each cluster; NaN where it is undefined for one of them."""
    null: NDArray[np.float64]
    """The same mean for shuffled clusters, (m,); read-only."""
    p: float
    """(b + 1) / (m + 1), where b null scores are at least the score."""
    corrected: float
    """Chance-corrected score; see `calibrate`."""
    n: int
    """Number of pairs."""
    clusters: int
    """Number of clusters, K: pairs in each scored set."""
    effective: float
    """`effective_pairs` of all n."""
    choices: int
    """Choices averaged; 1 if every cluster is one pair."""
    seed: int
    """Seed of choices and permutations."""
    settings: dict[str, Any]
    """Settings of the measure."""
    flags: tuple[str, ...]
    """Flags of the scores and of the test."""
    least_p: float
    """The least p that the test can give: 1 / (m + 1), or 1 / K! if that is more."""

    def __repr__(self) -> str:
        line = (
            f"{self.measure} {self.score:.4f}  null {self.null_mean:.4f} ± {self.null_sd:.4f}  p {self.p:.4g}  "
            f"({describe(self.settings)}; one pair of each of {self.clusters} clusters of {self.n} pairs, "
            f"{self.choices} choices, {self.null.size} permutations, seed {self.seed})"
        )
        return "\n".join([line] + [f"  ! {flag}" for flag in self.flags])


def cluster_test(
    measure: str | Callable[..., Score] | Measure,
    x: Any,
    y: Any,
    clusters: Any,
    *,
    permutations: int = 1000,
    choices: int | None = None,
    seed: int = 0,
    alpha: float = 0.05,
    **settings: Any,
) -> ClusterTest:
    """Is the geometry shared between clusters of pairs, and not only that both spaces have the same clusters?

    Where features split alike in both spaces, `permutation_test` rejects although the clusters' directions have
    nothing to do with each other: near-copies on one side are near-copies on the other. Here one pair of each cluster
    is chosen at random, the K pairs are scored, and shuffles of them give the null. Under the null hypothesis that any
    cluster of y could go with any cluster of x, the K pairs are exchangeable, however unequal the clusters are. (To
    move whole clusters instead, only among those of their own size, would leave the one of a size where it is.)

    Choices differ, so the score is the mean over several, and each permutation shuffles the clusters of all of them
    alike. With one choice the test is exact. With several, scores of the same cluster depend on each other a little
    more in the observed order than in a shuffled one; the measured error rates are those of an exact test
    (`docs/calibration.md`).

    The score is that of K pairs, one a cluster. It is not the score of all n.

    measure, x, y, permutations, alpha, settings: as in `permutation_test`.
    clusters: (n,) integer labels, e.g. of `find_clusters`. If all differ, this is `permutation_test`.
    choices: how many, 1 to 1,000,000; the more, the less the result owes to which pairs were chosen. Time grows with
        choices × permutations, so by default there are five, and one where a shuffle takes long (5 ms or more).

    flags: those of the scores, and `few shuffles` (K! is no more than the permutations).
    Raises UserError as `permutation_test` does, also for too few clusters, and for labels that are none.
    """
    chosen = find_measure(measure)
    m, seed = whole(permutations, "permutations", least=1, most=MOST_DRAWS), whole(seed, "seed", least=0)
    count = _CHOICES if choices is None else whole(choices, "choices", least=1, most=MOST_DRAWS)
    rows_x, rows_y = rows_of(x), rows_of(y)
    labels = as_labels(clusters, len(rows_x))
    size = int(labels.max(initial=-1)) + 1
    if size == labels.size:
        count = 1
    total, null, tolerance = 0.0, np.zeros(m), 0.0
    scores: list[Score] = []
    with track(f"{chosen.name} of clusters", total=count, unit="choices") as advance:
        for pairs in representatives(labels, count, seed):
            if len(scores) == count:
                break
            # (If y has another number of rows, the measure says so.)
            own = chosen.at_rows(settings, pairs)
            prepared = chosen.prepare(rows_x[pairs], rows_y[pairs] if len(rows_y) == len(rows_x) else rows_y, **own)
            if choices is None and isinstance(prepared, Heavy) and prepared.heavy:
                count = 1
            scores.append(prepared.score())
            total += scores[-1].value
            tolerance = max(tolerance, prepared.tolerance)
            null += np.nan if math.isnan(total) else null_scores(prepared, m, seed)
            advance(1)
    score, null = total / count, null / count
    null.flags.writeable = False
    p, corrected, _ = calibrate(score, null, alpha=alpha, tolerance=tolerance)
    flags = tuple(dict.fromkeys(flag for each in scores for flag in each.flags))
    pairings = math.factorial(size)
    if pairings <= m:
        flags += (f"few shuffles: {size} clusters have only {pairings} pairings",)
    return ClusterTest(
        measure=chosen.name,
        score=score,
        null=null,
        p=p,
        corrected=corrected,
        n=labels.size,
        clusters=size,
        effective=effective_pairs(labels),
        choices=count,
        seed=seed,
        settings=scores[0].settings,
        flags=flags,
        least_p=1 / min(m + 1, pairings),
    )


def representatives(labels: Labels, choices: int, seed: int) -> list[NDArray[np.intp]]:
    """For each choice one pair of each cluster, drawn uniformly: (K,) row numbers in the order of the labels."""
    chosen = []
    for order in permutations(labels.size, choices, seed, start=_FIRST_CHOICE):
        _, first = np.unique(labels[order], return_index=True)
        chosen.append(order[first])
    return chosen
