"""The tokens around the strongest activations of features, with the feature's value at each: what dashboards show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.shard import Shard
from unifeat.codes.store import CodeStore

BINS = 40


class Passage(NamedTuple):
    """Tokens around a strong activation of a feature.

    Attributes:
        tokens: (n,) token ids, in the order of the text.
        values: (n,) float32 the feature's activations there.
        at: the place of the strong one among them.
    """

    tokens: NDArray[np.int32]
    values: NDArray[np.float32]
    at: int


@dataclass(frozen=True)
class Strongest:
    """What a dashboard shows of each feature.

    Attributes:
        passages: by feature, the strongest first.
        fires: (features,) tokens on which each fires.
        histogram: (features, BINS) of its activations, in equal bins from 0 to the greatest.
        greatest: (features,) float32; 0 for features that never fire.
        rows: tokens altogether.
    """

    passages: dict[int, list[Passage]]
    fires: NDArray[np.int64]
    histogram: NDArray[np.int64]
    greatest: NDArray[np.float32]
    rows: int


def strongest(store: CodeStore, tops: pd.DataFrame, *, passages: int, around: int) -> Strongest:
    """Read the passages and histograms of all features, one shard at a time.

    Tokens that are masked (special ones, the first, sinks) are in no store, so passages leave them out.

    Args:
        tops: of `codes.top_activations.top_activations`.
        passages: how many of each feature, at most as many as `tops` has.
        around: tokens before and after the strong one; fewer where a shard or a document ends.
    """
    wanted = tops[tops["rank"] < passages]
    greatest = np.zeros(store.features, np.float32)
    first = tops[tops["rank"] == 0]
    greatest[first["feature"].to_numpy()] = first["activation"].to_numpy(np.float32)
    fires, histogram = np.zeros(store.features, np.int64), np.zeros((store.features, BINS), np.int64)
    found: dict[tuple[int, int], Passage] = {}
    rows = 0
    for shard in store.shards():
        feature, value = np.asarray(shard.feature, np.int64), np.asarray(shard.value, np.float32)
        fires += np.bincount(feature, minlength=store.features)
        share = np.divide(value, greatest[feature], out=np.zeros_like(value), where=greatest[feature] > 0)
        bins = np.clip((share * BINS).astype(np.int64), 0, BINS - 1)
        np.add.at(histogram, (feature, bins), 1)
        found |= dict(_passages(shard, wanted, around))
        rows += shard.rows
    ordered: dict[int, list[Passage]] = {}
    for key in sorted(found):
        ordered.setdefault(key[0], []).append(found[key])
    return Strongest(ordered, fires, histogram, greatest, rows)


def _passages(shard: Shard, wanted: pd.DataFrame, around: int) -> Iterator[tuple[tuple[int, int], Passage]]:
    """((feature, rank), passage) of the strong activations in one shard."""
    document, char_end = np.asarray(shard.places.document), np.asarray(shard.places.char_end)
    token = np.asarray(shard.places.token)
    indptr, feature = np.asarray(shard.indptr), np.asarray(shard.feature)
    key = document.astype(np.int64) << 32 | char_end
    asked = wanted["document"].to_numpy(np.int64) << 32 | wanted["char_end"].to_numpy(np.int64)
    for number in np.flatnonzero(np.isin(asked, key)).tolist():
        one = wanted.iloc[number]
        # Several tokens may end at one character: the one with this id.
        low, high = np.searchsorted(key, [asked[number], asked[number] + 1])
        same = low + np.flatnonzero(token[low:high] == int(one["token"]))
        row = next((r for r in same.tolist() if int(one["feature"]) in feature[indptr[r] : indptr[r + 1]]), None)
        if row is None:
            continue
        begin, end = max(row - around, 0), min(row + around + 1, shard.rows)
        own = begin + np.flatnonzero(document[begin:end] == document[row])
        at = indptr[own[0]] + np.flatnonzero(feature[indptr[own[0]] : indptr[own[-1] + 1]] == int(one["feature"]))
        values = np.zeros(len(own), np.float32)
        values[np.searchsorted(indptr, at, side="right") - 1 - own[0]] = shard.value[at]
        yield (int(one["feature"]), int(one["rank"])), Passage(token[own].astype(np.int32), values, row - int(own[0]))
