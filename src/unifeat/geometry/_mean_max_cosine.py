"""Mean maximal cosine similarity of two sets of rows in one space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unifeat.errors import UserError
from unifeat.geometry._input import as_pair, as_permutation, constant_flags, precision_of, unit_rows
from unifeat.geometry._pairs import ROWS_PER_BLOCK
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score

_PAIRING_BLIND_FLAG = (
    "pairing-blind: the score does not depend on the pairing, so shuffled pairs score the same and give no p-value"
)


def mean_max_cosine(x: Any, y: Any) -> Score:
    """How near each row of one side comes to some row of the other, in the same coordinates.

        MMCS(x → y) = 1/n Σ_i max_j cos(x_i, y_j);   value = (MMCS(x → y) + MMCS(y → x)) / 2, in [−1, 1]

    (Sharkey, Braun & Millidge 2022, "Taking features out of superposition with sparse autoencoders", Alignment
    Forum, and Cunningham et al. 2023, arXiv 2309.08600, take one direction; here both, `details` has each.)
    Meant for two dictionaries of one residual stream, such as two seeds of an SAE. Rotating one side changes the score;
    rows of unequal width are refused.

    The score does not depend on the pairing. Every shuffle of the pairs scores the same, so for any data the shuffle
    null is a single point, p = 1 and the corrected score is 0. The flag `pairing-blind` says so in every result.

    x: (n, d) and y: (n, d), arrays or tensors of any real dtype, computed in float64; n ≥ 2.

    details: `a_to_b`, `b_to_a`.
    flags: `pairing-blind`, always; `zero rows of x` and `constant x`, which make the value NaN.
    Raises UserError for unequal widths, and for input that is not two finite 2-D arrays with equally many rows.
    """
    return prepare_mean_max_cosine(x, y).score()


def prepare_mean_max_cosine(x: Any, y: Any) -> Prepared:
    """Compute the score, which is the same for every pairing. The arguments are those of `mean_max_cosine`."""
    a, b = as_pair(x, y, at_least=2, why="mean max cosine")
    (n, d_a), d_b = a.shape, b.shape[1]
    if d_a != d_b:
        raise UserError(
            f"x has {d_a} columns and y has {d_b}: mean_max_cosine compares rows of one space; "
            "use procrustes or ridge_map between spaces of unequal width"
        )
    flags = constant_flags(a, b)
    sides = []
    for name, rows, given in (("x", a, x), ("y", b, y)):
        unit, undefined = unit_rows(rows, eps=precision_of(given).eps)
        sides.append(unit)
        if undefined and not flags:
            flags += (f"zero rows of {name}: {undefined} rows are zero, cosine is undefined there",)
    if flags:
        return Undefined(Score("mean_max_cosine", float("nan"), {}, n, d_a, d_b, flags=flags))
    best_a, best_b = np.empty(n), np.full(n, -np.inf)
    for start in range(0, n, ROWS_PER_BLOCK):
        cosines = sides[0][start : start + ROWS_PER_BLOCK] @ sides[1].T
        best_a[start : start + ROWS_PER_BLOCK] = cosines.max(axis=1)
        np.maximum(best_b, cosines.max(axis=0), out=best_b)
    forth, back = (min(1.0, float(np.sort(best).mean())) for best in (best_a, best_b))
    details = {"a_to_b": forth, "b_to_a": back}
    return PreparedMeanMaxCosine(
        Score("mean_max_cosine", (forth + back) / 2, {}, n, d_a, d_b, details, (_PAIRING_BLIND_FLAG,))
    )


@dataclass(frozen=True)
class PreparedMeanMaxCosine:
    """The score, which is the same for every pairing."""

    result: Score
    tolerance: float = 1e-10

    @property
    def n(self) -> int:
        return self.result.n

    def score(self) -> Score:
        return self.result

    def shuffled(self, permutation: Any) -> float:
        as_permutation(permutation, self.n)
        return self.result.value
