"""Features of one space that fire alike: near-copies of each other, as feature splitting makes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from unifeat.codes.align import align
from unifeat.codes.store import CodeStore
from unifeat.correlation.correlate import correlate
from unifeat.engine import Unit
from unifeat.store import TABLE, Piece

VERSION = 1  # raised whenever the results change
_NEIGHBOURS = 8  # of each feature, itself among them; near-copies of more than these are joined through each other


@dataclass(frozen=True)
class NearCopies:
    """Pairs of features of one space whose codes correlate by at least a threshold, over all tokens of the text.

    Each feature is compared with all others, and its seven nearest are listed.

    Attributes:
        store: the space's codes.
        min_correlation: the threshold.
        device: where codes are correlated.
    """

    store: CodeStore
    min_correlation: float
    device: str = "cpu"

    @property
    def identity(self) -> list[Any]:
        """Everything that determines them, as JSON data."""
        return [VERSION, self.store.identity, self.min_correlation]

    @property
    def unit(self) -> Unit[pd.DataFrame]:
        """The unit of work that finds them: `feature`, `copy` (int32, feature < copy) and `correlation`."""
        piece = Piece("near-copies", {"near_copies": self.identity}, TABLE, "near-copies of features")
        work = partial(near_copies, self.store, self.min_correlation, self.device)
        return Unit(piece, work, fills_machine=True, gpu=self.device == "cuda")

    def links(self, features: NDArray[np.integer]) -> sparse.coo_array:
        """Which of some features (n,) are near-copies of each other: (n, n), one entry for each pair.

        A feature may be there several times; its first place stands for it.
        """
        found = self.unit.result()
        ids, place = np.unique(features, return_index=True)
        sides = []
        for name in ("feature", "copy"):
            at = np.searchsorted(ids, found[name].to_numpy())
            at[at == len(ids)] = 0
            sides.append(np.where(ids[at] == found[name], place[at], -1) if len(ids) else np.full(len(found), -1))
        both = (sides[0] >= 0) & (sides[1] >= 0)
        n = len(features)
        return sparse.coo_array((np.ones(int(both.sum()), bool), (sides[0][both], sides[1][both])), shape=(n, n))


def near_copies(store: CodeStore, min_correlation: float, device: str = "cpu") -> pd.DataFrame:
    """The pairs of features of a store that `NearCopies` describes."""
    found = correlate(align(store, store), top=_NEIGHBOURS, device=device).a_to_b
    feature, rank = np.nonzero(found.value >= min_correlation)  # (NaN is not)
    copy, r = found.index[feature, rank], found.value[feature, rank]
    pairs = pd.DataFrame(
        {
            "feature": np.minimum(feature, copy).astype(np.int32),
            "copy": np.maximum(feature, copy).astype(np.int32),
            "correlation": r,
        }
    )
    return pairs[pairs["feature"] < pairs["copy"]].drop_duplicates(["feature", "copy"]).reset_index(drop=True)
