"""Documents: the half that is fitted on, the half that is judged, and intervals over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError

FEWEST_FOR_INTERVAL = 5
_STRETCH = 128  # tokens that count as a document where none are given
_BOOTSTRAPS = 2000
_RNG_STREAM = 12  # separates these draws from others made with the same seed


def halves(documents: Any, fit: Any, n: int, seed: int, what: str) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
    """The document of each token, (n,), and a mask of the tokens to fit on, (n,).

    Args:
        documents: (n,) whole numbers; None for stretches of 128 tokens.
        fit: (n,) mask; None for the tokens of half of the documents, drawn at random.
        seed: of that draw.
        what: what is done, for messages.

    Raises:
        UserError: not one label for each token, or fewer than two documents on either side.
    """
    document = np.arange(n) // _STRETCH if documents is None else np.asarray(documents)
    if document.shape != (n,) or document.dtype.kind not in "iu":
        raise UserError(f"documents: give one whole number for each of {n} tokens")
    if fit is None:
        ids = np.unique(document)
        drawn = np.random.default_rng([seed, len(ids)]).permutation(ids)[: (len(ids) + 1) // 2]
        fitting = np.isin(document, drawn)
    else:
        fitting = np.asarray(fit)
        if fitting.shape != (n,) or fitting.dtype != bool:
            raise UserError(f"fit: give one true or false for each of {n} tokens")
    for part, side in ((fitting, "fitted on"), (~fitting, "judged")):
        if len(np.unique(document[part])) < 2:
            raise UserError(f"{what}: fewer than two documents are {side}; give more text")
    return document, fitting


def ratio_interval(
    above: NDArray[np.float64], below: NDArray[np.float64], level: float, seed: int
) -> tuple[float, float]:
    """The bootstrap interval of Σ above / Σ below over documents, (documents,) each; NaN for fewer than five.

    It is NaN, too, where more than one draw in a hundred has nothing below.
    """
    if len(above) < FEWEST_FOR_INTERVAL:
        return float("nan"), float("nan")
    rng = np.random.default_rng([seed, _RNG_STREAM])
    weights = rng.multinomial(len(above), np.full(len(above), 1 / len(above)), size=_BOOTSTRAPS)
    drawn_below = weights @ below
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(drawn_below > 0, weights @ above / drawn_below, np.nan)
    if np.isnan(ratios).mean() > 0.01:
        return float("nan"), float("nan")
    low, high = np.nanquantile(ratios, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
