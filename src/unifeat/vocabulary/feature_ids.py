"""Ids of features as users give them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError

_MOST = 2**31  # features of a space


def feature_ids(given: Any, what: str, features: int | None = None) -> NDArray[np.int64]:
    """Ids of features, (n,) int64. Whole numbers may be floating point: a column that lacked some has such.

    Args:
        what: what they are, for messages.
        features: how many features there are, if that is known.

    Raises:
        UserError: not whole numbers, or one of no feature.
    """
    ids = np.asarray(given).ravel()
    if len(ids) and ids.dtype.kind not in "iuf":
        raise UserError(f"{what}: give feature ids, whole numbers, not {ids.dtype}")
    wrong = ids[~((ids >= 0) & (ids < (features or _MOST)) & (ids == np.floor(ids)))]
    if len(wrong):
        of = "a feature's id, a whole number from 0" if features is None else f"one of {features:,} features, from 0"
        raise UserError(f"{what}: {wrong[0]} is not {of}")
    return ids.astype(np.int64)
