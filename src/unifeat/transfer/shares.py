"""The share that a variant carries: its interval over documents, and its p against exchanges."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from unifeat.inference.calibration import calibrate
from unifeat.inference.exchange import Exchange
from unifeat.transfer.documents import ratio_interval
from unifeat.transfer.sums import FROM_A, MATCHED, MEAN, OWN, VARIANTS, ZERO


def share_carried(
    losses: Mapping[str, NDArray[np.float64]], name: str, level: float, seed: int
) -> tuple[float, float, float]:
    """The share that a variant carries, and its interval over documents; NaN for variants that are no share of another.

    Of variants in which unmatched features keep their own codes, it is the share of the way from the zero line to the
    SAE's own reconstruction. Where unmatched features are at their mean, it is that from the mean of all codes to B's
    own codes of the matched features.

    Args:
        losses: by variant, what is lost in each document, (documents,).
    """
    if name not in VARIANTS:
        return float("nan"), float("nan"), float("nan")
    worst, best = (MEAN, MATCHED) if name in (MEAN, MATCHED, FROM_A) else (ZERO, OWN)
    gained, span = losses[worst] - losses[name], losses[worst] - losses[best]
    value = float(gained.sum() / span.sum()) if span.sum() > 0 else float("nan")
    return (value, *ratio_interval(gained, span, level, seed))


def p_of(value: float, null: NDArray[np.float64], rounding: float) -> float:
    """p of a share or another figure, (b + 1) / (draws + 1), where b draws are at least the value; NaN if undefined.

    Args:
        null: (draws,).
        rounding: what a figure of about 1 is known up to; a draw that is lower by less counts as reaching the value.
    """
    return calibrate(value, null, tolerance=rounding * (1 + abs(value))).p


def few_orders(exchange: Exchange, draws: int, what: str, orders: str) -> tuple[str, ...]:
    """A flag, if there are no more orders than draws: then it is they that bound p.

    Args:
        what, orders: what is exchanged, and what its orders are called.
    """
    count = exchange.log_arrangements
    if count > math.log(draws) + 1e-9:
        return ()
    number = round(math.exp(count))
    if number == 1:
        return (f"few {what}: none can be exchanged, so p is 1",)
    return (f"few {what}: there are only {number} {orders}, so p is hardly below {1 / number:.3g}",)
