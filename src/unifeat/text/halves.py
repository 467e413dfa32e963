"""The two halves of the documents: pairs are found on one, and the other is held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError


def fitting_documents(documents: int, seed: int) -> NDArray[np.bool_]:
    """(documents,) mask of the half that pairs are found on; the other half is held out."""
    if documents < 2:
        raise UserError("one document cannot be split into two halves: give more, or set matching.heldout to false")
    fit = np.zeros(documents, bool)
    fit[np.random.default_rng([seed, documents]).permutation(documents)[: (documents + 1) // 2]] = True
    return fit
