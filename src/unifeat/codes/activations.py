"""A sample of a model's activations at one hook point, stored as codes are: those of an SAE that changes nothing.

Two models are sampled at the same places of the text, whatever their tokenizers, so that the samples can be aligned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.shard import Shard, narrow_ids
from unifeat.models.activations import GroupActivations
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.places import Places

VERSION = "unifeat-activations/1"
_CHARACTERS_A_TOKEN = 4.0
_STRETCH = 12  # bits of a character's number: stretches of 4,096, about a thousand tokens
_ONLY_OF_SAES = ("sae", "d_sae", "codes", "values")


def sample_share(corpus: Corpus, rows: int) -> float:
    """The share of all places that gives about so many rows, in text of four characters a token."""
    return float(min(1.0, rows * _CHARACTERS_A_TOKEN / max(corpus.characters, 1)))


def sampled(places: Places, share: float) -> NDArray[np.bool_]:
    """Which rows are in the sample, (rows,): a place is, or is not, by a hash of its stretch of the document.

    Stretches of 4,096 characters are sampled whole, so that most of a sampled token's context is sampled too.
    (SplitMix64's finaliser: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".)
    """
    if share >= 1.0:
        return np.ones(len(places), bool)
    stretch = places.char_end.astype(np.uint64) >> np.uint64(_STRETCH)
    key = places.document.astype(np.uint64) << np.uint64(32) | stretch
    key += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        key = (key ^ (key >> np.uint64(shift))) * np.uint64(factor)
    key ^= key >> np.uint64(31)
    return np.asarray(key < np.uint64(int(share * 2.0**64)))


def activation_settings(
    codes: dict[str, Any], point: HookPoint, target: HookPoint, width: int, share: float
) -> dict[str, Any]:
    """Everything that determines a sample.

    Args:
        codes: the settings of codes of the same rows, of any SAE that reads at `point`.
        target: where the activations are read; rows are those that are kept at `point`.
        width: values at `target`.
        share: of the places.
    """
    shared = {name: value for name, value in codes.items() if name not in _ONLY_OF_SAES}
    return shared | {
        "activations": VERSION,
        "hook": list(point),
        "target": list(target),
        "d_sae": width,
        "share": share,
    }


def activation_shard(activations: GroupActivations, point: HookPoint, target: HookPoint, share: float) -> Shard:
    """The sampled activations of one group of text, (rows, width) float32, as dense codes."""
    _, places, masked = activations.without_sinks(point)
    kept = sampled(places, share)
    values = activations.beside(point, target).cpu().numpy()[kept]
    rows, width = values.shape
    ids = np.tile(np.arange(width, dtype=narrow_ids(width)), rows)
    return Shard(np.arange(rows + 1, dtype=np.int64) * width, ids, values.ravel(), places[kept], {"read": masked.read})
