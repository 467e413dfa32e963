"""Orthogonal Procrustes similarity, in-sample and held-out."""

from __future__ import annotations

from typing import Any

import numpy as np

from unifeat.errors import UserError
from unifeat.geometry._components import hiding_noise, lost_flags, singular_values
from unifeat.geometry._folds import (
    DEFAULT_FOLDS,
    FEWEST_PAIRS,
    Rows,
    cut,
    fold_groups,
    fold_settings,
    group_setting,
    held_out,
    slim,
    training_products,
)
from unifeat.geometry._input import (
    EPS,
    Matrix,
    as_pair,
    as_permutation,
    centred,
    constant_flags,
    precision_of,
    unit_scale,
)
from unifeat.geometry._labels import Distinct
from unifeat.geometry._singular import rotated_product
from unifeat.geometry.measure import Prepared, Undefined, heavy
from unifeat.geometry.score import Score


def procrustes(
    x: Any, y: Any, *, heldout: bool = False, folds: int = DEFAULT_FOLDS, seed: int = 0, groups: Any = None
) -> Score:
    """How alike two sides are after the best rotation (or reflection) of one onto the other.

    `heldout=False`: with centred X and Y and ‖·‖_* the sum of singular values,

        similarity = max over orthogonal Q of ⟨X Q, Y⟩ / (‖X‖_F ‖Y‖_F) = ‖XᵀY‖_* / (‖X‖_F ‖Y‖_F), in [0, 1]

    It is the cosine of the angular shape distance of Williams, Kunz, Kornblith & Linderman 2021 ("Generalized
    shape metrics on neural representations", NeurIPS, arXiv 2110.14739), also known as the normalised Bures
    similarity of the Gram matrices (Harvey, Larsen & Williams 2023, arXiv 2311.11436); with sides of norm 1 the
    Procrustes distance of Ding, Denain & Steinhardt 2021 (arXiv 2108.01661) is 2 − 2 × similarity. Sides of
    unequal width are compared as if columns of zeros were added to the narrower one. The score is far above 0 on
    unrelated data unless n is much larger than d: compare it with its null, or use the held-out form.

    `heldout=True`: Q is fitted on the training pairs of each fold. On the held-out pairs, about their means, the cosine
    ⟨X Q, Y⟩ / (‖X‖_F ‖Y‖_F) in [−1, 1] is computed, and the value is the mean over folds. As in `heldout_cca`, its
    expected value under random pairing is exactly 0, for every n and d. Directions that the training pairs do not
    determine are mapped to zero. No scale is fitted, since a cosine does not depend on it.

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64;
    n ≥ 2, and n ≥ 4 when held out.
    folds, seed: as in `heldout_cca`; not used in-sample.
    groups: labels of the pairs, as in `heldout_cca`; not used in-sample.

    details: `angle` (arccos of the similarity, in radians) and `residual` (1 − similarity²: the share of Y's
    variance that remains after the best rotation and scale, the `disparity` of scipy.spatial.procrustes);
    held-out: `folds_used`, `by_fold`.
    flags: `n <= d`; `saturated` (two pairs always fit); `folds` (too few pairs for that many); `rank of x` (held out:
    directions below the rounding of its dtype count as not determined); `constant x` or `constant y` (value NaN).
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, and for bad settings.
    """
    return prepare_procrustes(x, y, heldout=heldout, folds=folds, seed=seed, groups=groups).score()


def prepare_procrustes(
    x: Any, y: Any, *, heldout: bool = False, folds: int = DEFAULT_FOLDS, seed: int = 0, groups: Any = None
) -> Prepared:
    """Centre each side and scale it to norm 1. The arguments are those of `procrustes`."""
    if not isinstance(heldout, bool | np.bool_):
        raise UserError(f"procrustes heldout={heldout!r}: give true or false")
    cutting = fold_settings("procrustes", folds, seed)
    settings = {"heldout": bool(heldout)} | (cutting if heldout else {})
    why = "held-out Procrustes" if heldout else "Procrustes"
    a, b = as_pair(x, y, at_least=FEWEST_PAIRS if heldout else 2, why=why)
    (n, d_a), d_b = a.shape, b.shape[1]
    together = fold_groups("procrustes", groups, n) if heldout else None
    settings |= group_setting(together)
    if flags := constant_flags(a, b):
        return Undefined(Score("procrustes", float("nan"), settings, n, d_a, d_b, flags=flags))
    noise, hidden = _relative_noise(a, b, x, y) if heldout else (0.0, ())
    rows = Distinct.of(a, b)
    fewest = rows.described(rows.fewest)
    a, b = centred(a), centred(b)
    if n < min(d_a, d_b):  # the products of the sides are as small as the narrower side
        a, b = slim(a), slim(b)
    a, b = _unit(a), _unit(b)
    tests: tuple[Rows, ...] = ()
    if heldout:
        tests, flags = held_out(n, **cutting, groups=together)
        flags += hidden
        if rows.fewest <= max(d_a, d_b):
            flags += (f"n <= d: {fewest} in {d_a} and {d_b} dimensions do not determine the rotation",)
    else:
        if rows.fewest <= max(d_a, d_b):
            flags += (f"n <= d: {fewest} in {d_a} and {d_b} dimensions inflate Procrustes; compare it with its null",)
        if rows.pairs == 2:
            flags += (f"saturated: {rows.described(2)} span one direction per side, which always fits",)
    blank = Score("procrustes", float("nan"), settings, n, d_a, d_b, flags=flags)
    return PreparedHeldoutProcrustes(a, b, tests, blank, noise) if heldout else PreparedProcrustes(a, b, blank)


class PreparedProcrustes:
    """Two centred sides of norm 1. The similarity of any pairing is the nuclear norm of one product."""

    tolerance = 1e-10

    def __init__(self, a: Matrix, b: Matrix, blank: Score) -> None:
        self.n = blank.n
        self._a, self._b, self._blank = a, b, blank

    def score(self) -> Score:
        value, blank = self._similarity(self._b), self._blank
        details = {"angle": float(np.arccos(value)), "residual": 1.0 - value**2}
        return Score("procrustes", value, blank.settings, blank.n, blank.d_a, blank.d_b, details, blank.flags)

    def shuffled(self, permutation: Any) -> float:
        return self._similarity(self._b.take(as_permutation(permutation, self.n), axis=0))

    def _similarity(self, b: Matrix) -> float:
        return min(1.0, float(singular_values(self._a.T @ b).sum()))


class PreparedHeldoutProcrustes:
    """Two centred sides, with x divided into folds. A shuffle computes the product of each fold; the product over a
    fold's training pairs is the sum of all of them less its own. Each then takes a tridiagonal form (see `_polar`)."""

    tolerance = 1e-9

    def __init__(self, a: Matrix, b: Matrix, tests: tuple[Rows, ...], blank: Score, noise: float = 0.0) -> None:
        self.n = blank.n
        self._noise = noise
        self.heavy = heavy(self.n, a.shape[1], b.shape[1])
        self._parts_a, self._b, self._tests, self._blank = cut(a, tests), b, tests, blank

    def score(self) -> Score:
        cosines, blank = self._cosines(self._b), self._blank
        details = {"folds_used": len(cosines), "by_fold": tuple(cosines)}
        value = float(np.mean(cosines))
        return Score("procrustes", value, blank.settings, blank.n, blank.d_a, blank.d_b, details, blank.flags)

    def shuffled(self, permutation: Any) -> float:
        return float(np.mean(self._cosines(self._b.take(as_permutation(permutation, self.n), axis=0))))

    def _cosines(self, b: Matrix) -> list[float]:
        parts_b = cut(b, self._tests)
        cosines = []
        for left, right, train in zip(self._parts_a, parts_b, training_products(self._parts_a, parts_b), strict=True):
            x, y = left.rows - left.mean, right.rows - right.mean
            norm = float(np.linalg.norm(x) * np.linalg.norm(y))
            # Both sides have norm 1, so the first is the rounding error of the product.
            limit = max(max(train.shape) * EPS, self._noise)
            aligned = rotated_product(train, x, y, left.n_train - 1, limit)
            cosines.append(max(-1.0, min(1.0, aligned / norm)) if norm > EPS**2 else 0.0)
        return cosines


def _relative_noise(a: Matrix, b: Matrix, x: Any, y: Any) -> tuple[float, tuple[str, ...]]:
    """How large singular values of XᵀY, both of norm 1, the rounding of x and y as given can make, and flags; 0 if
    neither side has directions that are due to it."""
    (noise_a, lost_a), (noise_b, lost_b) = hiding_noise(a, precision_of(x)), hiding_noise(b, precision_of(y))
    if not (noise_a or noise_b):
        return 0.0, ()
    (long_a, norm_a), (long_b, norm_b) = ((np.linalg.norm(c, 2), np.linalg.norm(c)) for c in (centred(a), centred(b)))
    return float((noise_a * long_b + noise_b * long_a) / (norm_a * norm_b)), lost_flags(lost_a, lost_b)


def _unit(rows: Matrix) -> Matrix:
    """Scaled to norm 1."""
    rows = unit_scale(rows)
    unit: Matrix = rows / np.linalg.norm(rows)
    return unit
