"""A p-value and a chance-corrected score from a score and its null."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from unifeat.errors import UserError

S_MAX = 1.0  # the largest value of every measure here


class Calibration(NamedTuple):
    p: float
    """(b + 1) / (m + 1), where b of the m null scores are at least the score."""
    corrected: float
    """(score − τ₀) / (s_max − τ₀), clipped to [0, 1], with τ₀ = max(τ, 0)."""
    threshold: float
    """τ, the critical value at level alpha."""


def calibrate(score: float, null: Any, *, alpha: float = 0.05, tolerance: float = 0.0) -> Calibration:
    """The p-value and chance-corrected score of arXiv 2602.14486 (Gröger, Wen & Brbić 2026, Algorithm 1).

    With m null scores, τ is number ⌈(1 − alpha)(m + 1)⌉, in ascending order, of the m + 1 values {score} ∪ null
    (the observed score is one of them); corrected = (score − τ₀) / (s_max − τ₀) clipped to [0, 1], s_max = 1,
    and p = (1 + #{null ≥ score}) / (m + 1). So `corrected` is 0 for any score that chance reaches at level
    alpha, and 1 for a perfect score. It is always 0 if m + 1 < 1 / alpha.

    The paper has τ₀ = τ, for measures that are never negative; the package `calibrated-similarity` 0.1.1 computes it
    (in float32). Here τ₀ = max(τ, 0). Otherwise a map with R² = −0.25, worse than no map, whose shuffles score −0.4,
    would be a tenth of the way from chance to perfection. So `corrected` is never more than max(score, 0), and the same
    as in the paper wherever chance reaches 0.

    null: (m,) array. tolerance: null scores below the score by at most this count as reaching it, so that
    rounding cannot make a tie look significant. If any input is NaN, all three results are NaN.
    Raises UserError for an empty null or an alpha outside (0, 1).
    """
    values = np.asarray(null, dtype=np.float64)
    m = values.size
    if m == 0:
        raise UserError("an empty null has no p-value: ask for at least 1 permutation")
    if not 0.0 < alpha < 1.0:
        raise UserError(f"alpha={alpha!r}: give a level between 0 and 1")
    if math.isnan(score) or np.isnan(values).any():
        return Calibration(math.nan, math.nan, math.nan)
    reached = int((values >= score - tolerance).sum())
    place = min(max(math.ceil((1.0 - alpha) * (m + 1)), 1), m + 1)
    threshold = float(np.partition(np.append(values, score), place - 1)[place - 1])
    above = score - threshold
    # calibrated-similarity divides by at least 1e-12. A score within rounding of τ counts as equal to τ.
    floor = max(threshold, 0.0)
    reached_by_chance = above <= tolerance or score <= 0.0
    corrected = 0.0 if reached_by_chance else min(1.0, (score - floor) / max(S_MAX - floor, 1e-12))
    return Calibration((reached + 1) / (m + 1), corrected, threshold)
