"""Counts over a finished store: how many features fire, and on how many tokens."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.store import CodeStore
from unifeat.engine import Unit
from unifeat.store import JSON, Piece

_VERSION = 1  # raised whenever the counts made from the same codes change


def facts_unit(store: CodeStore) -> Unit[dict[str, int]]:
    """`firing` as a unit of work."""
    piece = Piece("code-facts", {"version": _VERSION, "codes": store.identity}, JSON, "the counts of codes")
    return Unit(piece, partial(firing, store))


def firing_counts(store: CodeStore) -> NDArray[np.int64]:
    """(features,) tokens on which each feature fires. Reads one shard at a time."""
    counts = np.zeros(store.features, np.int64)
    for shard in store.shards():
        counts += np.bincount(shard.feature, minlength=store.features)
    return counts


def firing(store: CodeStore) -> dict[str, int]:
    """`alive`: features that fire at all; `nonzeros`: activations of all tokens. Reads one shard at a time."""
    fired = np.zeros(store.features, bool)
    nonzeros = 0
    for shard in store.shards():
        fired[shard.feature] = True
        nonzeros += len(shard.feature)
    return {"alive": int(fired.sum()), "nonzeros": nonzeros}
