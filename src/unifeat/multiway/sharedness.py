"""Known measures of how much of one space, or of one model, others share: pure functions on arrays.

All start from the best partner of every feature in another space, ρ_max: the first column of
`Correlation.a_to_b.value`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from unifeat.errors import UserError

Best = Float[np.ndarray, " features"]
Total = Float[np.ndarray, " features"]


def mppc(best: Best) -> float:
    """Mean pairwise maximum Pearson correlation of A to B: (1/F) Σ_i max_j ρ(i, j).

    "MPPC" of Wang et al. 2024, "Towards Universality", arXiv 2410.06672. It is not symmetric.

    Args:
        best: (F,) float64, each feature's r with its best partner; NaN for features that never vary: they are left
            out.

    Returns:
        NaN if no feature varies.
    """
    known = np.asarray(best, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else float("nan")


def wmppc(best: Best, total: Total) -> float:
    """Weighted MPPC of A to B: Σ_i ρ_max(i) S_i / Σ_i S_i, so that features count as much as they are active.

    Cornet et al. 2025, arXiv 2507.18512.

    Args:
        best: (F,) as for `mppc`.
        total: (F,) float64, S_i: the sum of feature i's activations over the text, not negative. A feature that never
            varies does not count.

    Returns:
        NaN if nothing is active.

    Raises:
        UserError: different lengths, or a total below 0 or not finite.
    """
    best, total = np.asarray(best, np.float64), _totals(total, len(best))
    known = ~np.isnan(best)
    weight = total[known].sum()
    return float((best[known] * total[known]).sum() / weight) if weight > 0 else float("nan")


def wmppc_over_layers(best: Sequence[Best], total: Sequence[Total]) -> float:
    """Weighted MPPC of a model to another: the mean over its layers, weighted by the width of each layer's dictionary.

    Cornet et al. 2025, arXiv 2507.18512. Layers without any activity do not count.

    Args:
        best: for each layer (F_l,), each feature's r with its best partner in any layer of the other model.
        total: for each layer (F_l,), as for `wmppc`.
    """
    if len(best) != len(total):
        raise UserError(
            f"wMPPC: {len(best)} layers have best partners, and {len(total)} totals; give both of each layer"
        )
    values = np.array([wmppc(own, weights) for own, weights in zip(best, total, strict=True)])
    widths = np.array([len(own) for own in best], np.float64)
    known = ~np.isnan(values)
    return float((values[known] * widths[known]).sum() / widths[known].sum()) if known.any() else float("nan")


def comparative_sharedness(
    total: Total,
    group: Float[np.ndarray, "models features"],
    other: Float[np.ndarray, "others features"],
) -> Float[np.ndarray, " features"]:
    """Comparative Sharedness of each feature: S (min over models of G of ρ² − max over models of H of ρ²).

    Above 0, the feature is shared by all models of the group G and less by every one of H. Cornet et al. 2025, arXiv
    2507.18512. (Their published code starts the running minimum at 0, so that the first term never leaves 0; here it is
    the minimum.)

    Args:
        total: (F,) float64, S: the sum of the feature's activations over the text.
        group: (models of G, F) float64, its r with the best partner in each of them, the feature's own model left out.
        other: (models of H, F) float64, the same.

    Returns:
        (F,) float64; NaN where any r is NaN.

    Raises:
        UserError: a group without a model, or different numbers of features.
    """
    total = _totals(total, len(total))
    sides = [np.atleast_2d(np.asarray(side, np.float64)) for side in (group, other)]
    for side, name in zip(sides, ("group", "other"), strict=True):
        if not side.size or side.shape[1] != len(total):
            raise UserError(
                f"comparative sharedness: {name} has shape {side.shape}; give a row for one model or more, and "
                f"{len(total)} features"
            )
    result = total * ((sides[0] ** 2).min(axis=0) - (sides[1] ** 2).max(axis=0))
    result[np.isnan(sides[0]).any(axis=0) | np.isnan(sides[1]).any(axis=0)] = np.nan
    return result


def cycle_matches(partners: Sequence[Integer[np.ndarray, " features"]]) -> Integer[np.ndarray, "matches spaces"]:
    """Features for which following best partners around a circle of spaces leads home.

    With two spaces these are mutual best partners. With more, they are what Rosetta Neurons ask of units of several
    networks (Dravid et al. 2023, arXiv 2306.09346), in one direction around the circle.

    Args:
        partners: for each space in turn (F,) int, each feature's best partner in the next space, the last one's in the
            first; −1 where it has none.

    Returns:
        (matches, spaces) int64: the feature of each space, ascending by the first.

    Raises:
        UserError: fewer than two spaces, or a partner that the next space does not have.
    """
    if len(partners) < 2:
        raise UserError("cycle matches need the partners of two or more spaces")
    steps = [np.asarray(own, np.int64) for own in partners]
    for place, own in enumerate(steps):
        width = len(steps[(place + 1) % len(steps)])
        if own.size and not (own.min() >= -1 and own.max() < width):
            raise UserError(f"cycle matches: partners[{place}] names a feature that the next space, of {width}, lacks")
    way = [np.arange(len(steps[0]))]
    for own in steps:
        here = way[-1]
        there = np.full(len(here), -1)
        there[here >= 0] = own[here[here >= 0]]
        way.append(there)
    home = way[-1] == way[0]
    return np.stack(way[:-1], axis=1)[home]


def _totals(total: Total, features: int) -> Total:
    values = np.asarray(total, np.float64)
    if values.shape != (features,):
        raise UserError(f"total activations have shape {values.shape}, not one number for each of {features} features")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise UserError("total activations must be finite and not negative: give the sum of each feature's activations")
    return values
