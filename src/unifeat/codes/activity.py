"""What each feature of a space does on the text: how often and how strongly it fires, and where most."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.peaks import Fired, Peaks, fired, strongest
from unifeat.codes.store import CodeStore
from unifeat.engine import Unit
from unifeat.progress import track
from unifeat.store import Form, Piece

VERSION = 1  # raised whenever the same codes give other results
BINS = 24
AROUND = 70  # characters shown on either side
Array = NDArray[Any]


@dataclass(frozen=True)
class Activity:
    """Of each feature of a space; arrays of (features,) unless it says otherwise.

    Attributes:
        count: int64, tokens on which it fires.
        mean: float32, its mean activation where it fires; NaN if it never does.
        low, high: float32, its least and largest activation; 0 if it never fires.
        histogram: (features, BINS) int64, its activations in equal bins from min(low, 0) to max(high, 0).
        feature, shard, document, char_end, value: (contexts,) where it fires most (see `Peaks`).
        fires: (contexts,) int32, how many tokens of each context fire it.
        token, activation: (sum of fires,) which tokens, and how strongly (see `Fired`).
    """

    count: Array
    mean: Array
    low: Array
    high: Array
    histogram: Array
    feature: Array
    shard: Array
    document: Array
    char_end: Array
    value: Array
    fires: Array
    token: Array
    activation: Array

    @property
    def peaks(self) -> Peaks:
        """The places of the contexts."""
        return Peaks(self.feature, self.shard, self.document, self.char_end, self.value)

    @property
    def fired(self) -> Fired:
        """What fires in the contexts."""
        return Fired(self.fires, self.token, self.activation)


def _write(found: Any, folder: Path) -> None:
    for field in fields(found):
        np.save(folder / f"{field.name}.npy", getattr(found, field.name))


def _read(value: Any, folder: Path) -> Activity:
    return Activity(*(np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(Activity)))


_FORM: Form[Activity] = Form(_write, _read)
_FIRED: Form[Fired] = Form(
    _write, lambda value, folder: Fired(*(np.load(folder / f"{field.name}.npy") for field in fields(Fired)))
)


def activity_unit(store: CodeStore, contexts: int) -> Unit[Activity]:
    """`activity` as a unit of work."""
    made_from = {"version": VERSION, "codes": store.identity, "contexts": contexts, "around": AROUND, "bins": BINS}
    piece = Piece("activity", made_from, _FORM, "what features do")
    return Unit(piece, partial(activity, store, contexts), fills_machine=True)


def activity(store: CodeStore, contexts: int) -> Activity:
    """What each feature of a store does, with up to `contexts` places where it fires most."""
    features = store.features
    count, total = np.zeros(features, np.int64), np.zeros(features, np.float64)
    low, high = np.full(features, np.inf, np.float32), np.full(features, -np.inf, np.float32)
    with track("counting activations", 2 * store.n_shards, unit="shards") as advance:
        for shard in store.shards():
            value, index = np.asarray(shard.value, np.float32), np.asarray(shard.feature, np.int64)
            count += np.bincount(index, minlength=features)
            total += np.bincount(index, weights=value, minlength=features)
            np.minimum.at(low, index, value)
            np.maximum.at(high, index, value)
            advance(1)
        low, high = np.where(count > 0, low, 0).astype(np.float32), np.where(count > 0, high, 0).astype(np.float32)
        histogram = np.zeros(features * BINS, np.int64)
        start = np.minimum(low, 0)
        width = np.maximum(np.maximum(high, 0) - start, np.finfo(np.float32).tiny)
        for shard in store.shards():
            value, index = np.asarray(shard.value, np.float32), np.asarray(shard.feature, np.int64)
            bins = np.minimum((value - start[index]) / width[index] * BINS, BINS - 1).astype(np.int64)
            histogram += np.bincount(index * BINS + bins, minlength=features * BINS)
            advance(1)
    peaks = strongest(store, contexts, AROUND)
    around = fired(store, peaks.feature, peaks, AROUND)
    with np.errstate(invalid="ignore"):
        mean = (total / count).astype(np.float32)
    facts = (count, mean, low, high, histogram.reshape(features, BINS))
    return Activity(*facts, *peaks, around.count, around.token, around.value)


def partner_unit(
    store: CodeStore, other: CodeStore, partner: Array, contexts: int, told: dict[str, Any]
) -> Unit[Fired]:
    """How each feature's partner fires in the feature's own contexts, as a unit of work.

    Args:
        store, other: codes of the two spaces.
        partner: (features of `store`,) the partner in `other`; negative for none.
        contexts: of each feature.
        told: what the partners were made from, as JSON data.
    """
    made_from = {
        "version": VERSION,
        "codes": [store.identity, other.identity],
        "contexts": contexts,
        "around": AROUND,
        "partners": told,
    }
    piece = Piece("partner-activity", made_from, _FIRED, "what partners do")
    return Unit(piece, partial(_partners, store, other, partner, contexts))


def _partners(store: CodeStore, other: CodeStore, partner: Array, contexts: int) -> Fired:
    peaks = activity_unit(store, contexts).result().peaks
    return fired(other, partner[peaks.feature], peaks, AROUND)
