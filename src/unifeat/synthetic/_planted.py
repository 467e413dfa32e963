"""Two spaces with a known set of shared features: their codes, their decoders and the true pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.synthetic._directions import Directions, shared_coordinates
from unifeat.synthetic._firings import (
    Firings,
    as_codes,
    concatenated,
    draw_firings,
    draw_text,
    hub_firings,
    noisy_firings,
    zipf_frequencies,
)
from unifeat.synthetic._settings import check_documents, check_ranges, check_whole

Ids = NDArray[np.int64]


class Recovery(NamedTuple):
    """How many of the true pairs a matching found."""

    precision: float
    """Share of the given pairs that are true; NaN without pairs."""
    recall: float
    """Share of the true pairs that were given; NaN if there are no true pairs."""


@dataclass(frozen=True, eq=False)
class Planted:
    """Two synthetic spaces and their true pairs."""

    codes_a: Any
    """scipy CSR (tokens, features_a), float32: activations of A; all entries are positive."""
    codes_b: Any
    """scipy CSR (tokens, features_b), float32."""
    starts: Ids
    """First token of each document, (documents,) int64, ascending from 0."""
    decoder_a: NDArray[np.float64]
    """(features_a, d_a) unit rows."""
    decoder_b: NDArray[np.float64]
    """(features_b, d_b) unit rows."""
    pairs: Ids
    """True pairs (feature of A, feature of B), (pairs, 2) int64, in ascending order."""
    split: NDArray[np.bool_]
    """(pairs,): whether the feature of A is split into several features of B."""
    hubs_a: Ids
    """Hubs among the features of A, ascending; they have no true partner."""
    hubs_b: Ids
    """Hubs among the features of B, ascending."""
    frequency_a: NDArray[np.float64]
    """Expected share of tokens on which each feature of A fires, (features_a,); NaN for hubs."""
    frequency_b: NDArray[np.float64]
    """The same for B, (features_b,)."""
    settings: dict[str, Any]
    """All settings; `plant(**settings)` gives the same spaces again."""

    def recovery(self, pairs: Any) -> Recovery:
        """Precision and recall of matched pairs: a table with columns feature_a and feature_b, as from `unifeat.match`.

        A feature split into m parts has m true pairs, of which a one-to-one method can find only one.
        """
        width = self.codes_b.shape[1]
        truth = self.pairs[:, 0] * width + self.pairs[:, 1]
        given = np.unique(np.asarray(pairs["feature_a"], np.int64) * width + np.asarray(pairs["feature_b"], np.int64))
        right = int(np.isin(given, truth).sum())
        return Recovery(right / given.size if given.size else np.nan, right / truth.size if truth.size else np.nan)


def plant(
    *,
    n_tokens: int = 20_000,
    documents: int = 200,
    features_a: int = 200,
    features_b: int = 240,
    d_a: int = 48,
    d_b: int = 64,
    shared: float = 0.5,
    split: float = 0.0,
    parts: int = 3,
    hubs_a: int = 0,
    hubs_b: int = 0,
    reach: int = 12,
    noise: float = 0.0,
    dropout: float = 0.0,
    frequency: float = 0.01,
    skew: float = 0.5,
    topics: int = 10,
    topicality: float = 0.5,
    direction_noise: float = 0.0,
    decay: float = 0.0,
    shared_geometry: bool = True,
    seed: int = 0,
) -> Planted:
    """Draw two spaces that share a given fraction of their features, up to a rotation of the decoders.

    A concept fires on some tokens with some strength. A shared concept is one feature of A and one of B (or several,
    see `split`). Each of the other features, except for hubs, stands for a concept of its own. Every part of the draw
    has its own random stream, so that, for example, more noise does not change firings, documents and directions.

    Args:
        n_tokens, documents: the text, cut into documents at random places; each document is about one topic.
        features_a, features_b: widths of the dictionaries.
        d_a, d_b: dimensions of the decoder rows.
        shared: share of A's features, without hubs, that B has too; B must have room for them.
        split: share of the shared features that are split in B into `parts` features, each firing on a random part of
            the concept's tokens.
        hubs_a, hubs_b: number of hubs on each side. A hub fires whenever any of `reach` ordinary features of the other
            side fires, as strongly as they do. It has no true partner.
        noise: standard deviation of the logarithm of a factor on each activation, drawn independently for each side.
        dropout: share of firings that are lost, independently on each side.
        frequency, skew: share of tokens on which a concept fires before dropout: the mean over concepts, and the
            exponent s of rank^−s (Zipf) with which it falls from concept to concept; capped at a half.
        topics, topicality: each concept belongs to a topic. With topicality 0, topics have no effect; with 1, a concept
            fires only in documents of its topic (as far as half of their tokens suffice).
        direction_noise, decay: as `noise` and `decay` in `plant_rows`.
        shared_geometry: if False, the decoders are independent although codes are shared, to test whether a null
            accounts for the selection by matching.
        seed: the same settings and seed give the same spaces.

    Raises:
        UserError: a setting out of its range, or more features than a side has.
    """
    settings = dict(locals())
    _check(settings)
    n_shared = round(shared * (features_a - hubs_a))
    n_split = round(split * n_shared)
    in_b = n_shared + (parts - 1) * n_split
    if in_b + hubs_b > features_b:
        raise UserError(
            f"{in_b} shared features and {hubs_b} hubs do not fit into features_b={features_b}: "
            "raise it, or lower shared, split, parts or hubs_b"
        )
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(11)]
    (text_rng, frequency_rng, firing_rng, part_rng, seen_a, seen_b, hub_rng, id_rng, *direction_rngs) = streams

    own_a, own_b = features_a - hubs_a - n_shared, features_b - hubs_b - in_b
    rates = zipf_frequencies(n_shared + own_a + own_b, frequency, skew, frequency_rng)
    text = draw_text(n_tokens, documents, topics, text_rng)
    fired = draw_firings(text, rates, topics, topicality, firing_rng)

    # Concepts are numbered: shared ones (split ones first), then A's own, then B's own. Before they are permuted, the
    # features of A are in the same order, followed by hubs; those of B are the parts of each split concept, then the
    # rest, then hubs.
    width = np.where(np.arange(n_shared + own_b) < n_split, parts, 1)
    first_b = np.concatenate([[0], np.cumsum(width)])
    of_a, of_b = fired.column < n_shared + own_a, (fired.column < n_shared) | (fired.column >= n_shared + own_a)
    entries_a, entries_b = fired.keep(of_a), fired.keep(of_b)
    concept_b = np.where(entries_b.column < n_shared, entries_b.column, entries_b.column - own_a)
    part = (part_rng.random(concept_b.size) * width[concept_b]).astype(np.int64)
    entries_b = entries_b._replace(column=first_b[concept_b] + part)
    sides = noisy_firings(entries_a, noise, dropout, seen_a), noisy_firings(entries_b, noise, dropout, seen_b)
    extra_a = hub_firings(sides[1], hubs_a, reach, features_a - hubs_a, hub_rng)
    extra_b = hub_firings(sides[0], hubs_b, reach, features_b - hubs_b, hub_rng)

    mixed_a, mixed_b = id_rng.permutation(features_a), id_rng.permutation(features_b)
    concept = np.repeat(np.arange(n_shared), width[:n_shared])
    pairs = np.stack([mixed_a[concept], mixed_b[np.arange(in_b)]], axis=1).astype(np.int64)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    rates_b = np.concatenate([rates[:n_shared], rates[n_shared + own_a :]])
    expected_a = np.concatenate([rates[: n_shared + own_a], np.full(hubs_a, np.nan)]) * (1 - dropout)
    expected_b = np.concatenate([np.repeat(rates_b / width, width), np.full(hubs_b, np.nan)]) * (1 - dropout)
    decoders = _decoders(settings, concept, (features_a, features_b), direction_rngs)
    return Planted(
        codes_a=as_codes(_renamed(concatenated([sides[0], extra_a]), mixed_a), (n_tokens, features_a)),
        codes_b=as_codes(_renamed(concatenated([sides[1], extra_b]), mixed_b), (n_tokens, features_b)),
        starts=text.starts,
        decoder_a=_placed(decoders[0], mixed_a),
        decoder_b=_placed(decoders[1], mixed_b),
        pairs=pairs[order],
        split=(concept < n_split)[order],
        hubs_a=np.sort(mixed_a[features_a - hubs_a :]),
        hubs_b=np.sort(mixed_b[features_b - hubs_b :]),
        frequency_a=_placed(expected_a, mixed_a),
        frequency_b=_placed(expected_b, mixed_b),
        settings=settings,
    )


def _decoders(
    settings: dict[str, Any], concept: Ids, features: tuple[int, int], rngs: list[np.random.Generator]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of both sides in the order before permuting; the parts of a split concept have its direction."""
    decay, n_shared = settings["decay"], int(concept.max(initial=-1)) + 1
    narrow = min(settings["d_a"], settings["d_b"])
    coordinates = shared_coordinates(n_shared, narrow, decay, rngs[0])
    rows = []
    for side, at, count, rng in (
        ("a", np.arange(n_shared), features[0], rngs[1]),
        ("b", concept, features[1], rngs[2]),
    ):
        directions = Directions(settings[f"d_{side}"], decay, rng)
        own = directions.own(count)
        if settings["shared_geometry"]:
            own[: at.size] = directions.of(coordinates[at], settings["direction_noise"])
        rows.append(own)
    return rows[0], rows[1]


def _renamed(firings: Firings, ids: Ids) -> Firings:
    return firings._replace(column=ids[firings.column])


def _placed(values: NDArray[np.float64], ids: Ids) -> NDArray[np.float64]:
    out = np.empty_like(values)
    out[ids] = values
    return out


# Settings that are whole numbers, with their smallest values; and other numbers, with their ranges.
_SMALLEST_VALUES = {"n_tokens": 2, "documents": 1, "features_a": 1, "features_b": 1, "d_a": 1, "d_b": 1, "parts": 2,
          "hubs_a": 0, "hubs_b": 0, "reach": 1, "topics": 1, "seed": 0}  # fmt: skip
_RANGES = {"shared": (0, 1), "split": (0, 1), "noise": (0, 10), "dropout": (0, 1), "frequency": (0, 0.5),
           "skew": (0, 5), "topicality": (0, 1), "direction_noise": (0, 1e6), "decay": (0, 10)}  # fmt: skip


def _check(settings: dict[str, Any]) -> None:
    check_whole(settings, _SMALLEST_VALUES)
    check_ranges(settings, _RANGES)
    check_documents(settings)
    if settings["hubs_a"] >= settings["features_a"]:
        raise UserError(f"hubs_a={settings['hubs_a']} leave no other of the {settings['features_a']} features of A")
