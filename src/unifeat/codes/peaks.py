"""Where features fire: the strongest places of each feature, and what fires around a place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.shard import Shard
from unifeat.codes.store import CodeStore

Array = NDArray[Any]
_DOCUMENT = 1 << 32


class Peaks(NamedTuple):
    """Places in the text, one for each context of a feature.

    Attributes:
        feature: (n,) int32, ascending.
        shard: (n,) int32, the shard of codes with that place, which is also the group of the corpus.
        document, char_end: (n,) int32, the token that fires.
        value: (n,) float32, its activation; the strongest context of a feature comes first.
    """

    feature: Array
    shard: Array
    document: Array
    char_end: Array
    value: Array

    def reach(self, around: int, part: int) -> tuple[Array, Array]:
        """First and last character of the windows, (n,) int64 each, within the part of the document that they lie in.

        Args:
            around: characters before and after a place.
            part: characters of a part of a long document (see `text.corpus.Cut`): a shard holds whole parts.
        """
        at = self.char_end.astype(np.int64)
        start = np.maximum(at - 1, 0) // part * part
        return np.maximum(at - around, start), np.minimum(at + around, start + part)


class Columns(NamedTuple):
    """A shard's codes by feature instead of by row.

    Attributes:
        feature, row: (nnz,) ascending by feature, then by row.
        value: (nnz,) float32.
    """

    feature: Array
    row: Array
    value: Array


def columns(shard: Shard) -> Columns:
    """The entries of a shard, sorted by feature."""
    order = np.argsort(shard.feature, kind="stable")
    row = np.repeat(np.arange(shard.rows, dtype=np.int64), np.diff(shard.indptr))
    return Columns(
        shard.feature[order].astype(np.int64), row[order], np.asarray(shard.value, np.float32)[order].astype(np.float32)
    )


def strongest(store: CodeStore, n: int, apart: int) -> Peaks:
    """Up to `n` places of each feature where it fires most, at least `apart` characters from each other.

    Places are chosen greedily, from the strongest; of equal ones, the earlier. So that a feature that fires on every
    word of one sentence does not show that sentence n times. Needs memory for the result and one shard.
    """
    from unifeat.codes._kernels import pick  # imported here, since numba is slow to import

    best = {
        "value": np.full((store.features, n), -np.inf, np.float32),
        "shard": np.zeros((store.features, n), np.int32),
        "document": np.zeros((store.features, n), np.int32),
        "char_end": np.zeros((store.features, n), np.int32),
    }
    for number, shard in enumerate(store.shards()):
        by = columns(shard)
        strong = np.lexsort((by.row, -by.value, by.feature))
        feature, row = by.feature[strong], by.row[strong]
        place = _place(shard)[row]
        kept = pick(feature, place, n, apart)
        feature, place, value = feature[kept], place[kept], by.value[strong][kept]
        first = np.searchsorted(feature, feature, side="left")
        new_rank = np.arange(len(feature)) - first
        new = {
            "value": np.full((store.features, n), -np.inf, np.float32),
            "shard": np.full((store.features, n), number, np.int32),
            "document": np.zeros((store.features, n), np.int32),
            "char_end": np.zeros((store.features, n), np.int32),
        }
        new["value"][feature, new_rank] = value
        new["document"][feature, new_rank] = place // _DOCUMENT
        new["char_end"][feature, new_rank] = place % _DOCUMENT
        both = {name: np.concatenate([best[name], new[name]], axis=1) for name in best}
        order = np.argsort(-both["value"], axis=1, kind="stable")[:, :n]  # (of equal ones, the earlier shard's)
        best = {name: np.take_along_axis(array, order, axis=1) for name, array in both.items()}
    feature, rank = np.nonzero(np.isfinite(best["value"]))
    found = {name: array[feature, rank] for name, array in best.items()}
    return Peaks(feature.astype(np.int32), found["shard"], found["document"], found["char_end"], found["value"])


@dataclass(frozen=True)
class Fired:
    """Which tokens around each place fire a feature.

    Attributes:
        count: (n,) int32, how many tokens of each window.
        token: (sum of count,) int32, which: 0 is the first token that ends after the window's first character.
        value: (sum of count,) float32, activations.
    """

    count: Array
    token: Array
    value: Array


def fired(store: CodeStore, feature: Array, peaks: Peaks, around: int) -> Fired:
    """What fires in the windows of some places.

    Args:
        store: the codes to look in; of the same text as the places, if perhaps of another model.
        feature: (n,) the feature of `store` to look for around each place; negative for none.
        peaks: the n places.
        around: characters before and after each.
    """
    low, high = peaks.reach(around, int(store.settings["cut"][1]))
    document = peaks.document.astype(np.int64) * _DOCUMENT
    count = np.zeros(len(feature), np.int32)
    found: list[tuple[Array, Array, Array]] = []
    for number in np.unique(peaks.shard[feature >= 0]):
        shard = store.shard(int(number))
        by, place = columns(shard), _place(shard)
        own = np.flatnonzero((peaks.shard == number) & (feature >= 0))
        # Tokens that end after the first character of the window, up to its last one.
        start = np.searchsorted(place, document[own] + low[own], side="right")
        end = np.searchsorted(place, document[own] + high[own], side="right")
        keys, base = by.feature * (shard.rows + 1) + by.row, feature[own].astype(np.int64) * (shard.rows + 1)
        first, last = np.searchsorted(keys, base + start), np.searchsorted(keys, base + end)
        count[own] = last - first
        at = np.repeat(first, last - first) + _within(last - first)
        found.append((np.repeat(own, last - first), by.row[at] - np.repeat(start, last - first), by.value[at]))
    if not found:
        return Fired(count, np.zeros(0, np.int32), np.zeros(0, np.float32))
    which, token, value = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    order = np.argsort(which, kind="stable")
    return Fired(count, token[order].astype(np.int32), value[order])


class Passage(NamedTuple):
    """Tokens around a place where a feature fires.

    Attributes:
        token: (n,) int32 token ids, in the order of the text.
        value: (n,) float32 the feature's activations there.
        at: which of them is the place.
    """

    token: Array
    value: Array
    at: int


def passages(store: CodeStore, peaks: Peaks, around: int) -> list[Passage]:
    """The tokens around each place, fewer where a shard or a document ends.

    Tokens that are masked (special ones, the first, sinks) are in no store, so passages leave them out.

    Args:
        store: the codes in which the places were found.
        around: tokens before and after each.
    """
    found: dict[int, Passage] = {}
    for number in np.unique(peaks.shard):
        shard = store.shard(int(number))
        by, place = columns(shard), _place(shard)
        for one in np.flatnonzero(peaks.shard == number).tolist():
            low, high = np.searchsorted(by.feature, [peaks.feature[one], peaks.feature[one] + 1])
            rows, values = by.row[low:high], by.value[low:high]
            # Several tokens may end at one character: the place is the one that fires most.
            same = np.flatnonzero(place[rows] == int(peaks.document[one]) * _DOCUMENT + int(peaks.char_end[one]))
            row = int(rows[same[np.argmax(values[same])]])
            near = np.arange(max(row - around, 0), min(row + around + 1, shard.rows))
            near = near[place[near] // _DOCUMENT == peaks.document[one]]
            value = np.zeros(len(near), np.float32)
            inside = (rows >= near[0]) & (rows <= near[-1])
            value[rows[inside] - near[0]] = values[inside]
            token = np.asarray(shard.places.token)[near].astype(np.int32)
            found[one] = Passage(token, value, row - int(near[0]))
    return [found[one] for one in range(len(peaks.feature))]


def places(store: CodeStore) -> Iterator[tuple[Array, Array]]:
    """Of each shard, the place of every row as one number (document · 2³² + last character), and its token."""
    for shard in store.shards():
        yield _place(shard), np.asarray(shard.places.token)


def _place(shard: Shard) -> Array:
    return shard.places.document.astype(np.int64) * _DOCUMENT + shard.places.char_end


def _within(counts: Array) -> Array:
    """0, 1, … for each count: [2, 3] gives 0 1 0 1 2."""
    starts = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - np.repeat(starts, counts)
