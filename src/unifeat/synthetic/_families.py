"""Many spaces with a known set of families: codes of each space, and which concept every feature stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.synthetic._firings import as_codes, draw_firings, draw_text, noisy_firings, zipf_frequencies
from unifeat.synthetic._settings import check_documents, check_ranges, check_whole

Ids = NDArray[np.int64]
PRIVATE = -1


class FoundFamilies(Protocol):
    """Families as `unifeat.families` gives them."""

    @property
    def spaces(self) -> tuple[str, ...]: ...
    @property
    def table(self) -> Any: ...


class FamilyRecovery(NamedTuple):
    """How well families were found, counted in pairs of members."""

    precision: float
    """Of the pairs of members of the given families, the share that stand for one concept; NaN without families."""
    recall: float
    """Of the concepts and pairs of spaces that both have it, the share with a member of each in one family."""
    whole: float
    """Of the concepts, the share with a family that has a member in just the spaces that have it."""


@dataclass(frozen=True, eq=False)
class PlantedFamilies:
    """Synthetic spaces and their true families."""

    codes: dict[str, Any]
    """By space (`s0`, `s1` …), scipy CSR (tokens, features), float32: activations; all entries are positive."""
    starts: Ids
    """First token of each document, (documents,) int64, ascending from 0."""
    concept: dict[str, Ids]
    """By space, (features,) int64: the family that each feature stands for, −1 if it is the space's own."""
    has: NDArray[np.bool_]
    """(families, spaces): which spaces have which family."""
    split: NDArray[np.bool_]
    """(families, spaces): where the concept is split into several features."""
    settings: dict[str, Any]
    """All settings; `plant_families(**settings)` gives the same spaces again."""

    def recovery(self, found: FoundFamilies) -> FamilyRecovery:
        """Compare families with the true ones. Where a concept is split, any of its parts will do."""
        table, names = found.table, list(self.codes)
        of = np.full((len(table), len(names)), -2, np.int64)  # −2: no member
        for place, name in enumerate(names):
            if name in found.spaces:
                features = table[name].to_numpy(np.float64, na_value=np.nan)
                known = ~np.isnan(features)
                of[known, place] = self.concept[name][features[known].astype(np.int64)]
        right = given = 0
        together = np.zeros((len(self.has), len(names), len(names)), bool)
        for i, j in combinations(range(len(names)), 2):
            both = (of[:, i] > -2) & (of[:, j] > -2)
            same = both & (of[:, i] == of[:, j]) & (of[:, i] >= 0)
            given, right = given + int(both.sum()), right + int(same.sum())
            together[of[same, i], i, j] = True
        true = sum(int((self.has[:, i] & self.has[:, j]).sum()) for i, j in combinations(range(len(names)), 2))
        whole = set()
        for row in of:
            kinds = set(row[row > -2].tolist())
            if len(kinds) == 1 and (concept := kinds.pop()) >= 0 and ((row > -2) == self.has[concept]).all():
                whole.add(concept)
        return FamilyRecovery(
            right / given if given else np.nan,
            int(together.sum()) / true if true else np.nan,
            len(whole) / len(self.has) if len(self.has) else np.nan,
        )


def plant_families(
    *,
    spaces: int = 4,
    n_tokens: int = 20_000,
    documents: int = 200,
    features: int = 200,
    families: int = 100,
    presence: float = 0.8,
    split: float = 0.0,
    parts: int = 2,
    noise: float = 0.0,
    dropout: float = 0.0,
    frequency: float = 0.01,
    skew: float = 0.5,
    topics: int = 10,
    topicality: float = 0.5,
    seed: int = 0,
) -> PlantedFamilies:
    """Draw several spaces that share concepts, each with features of its own beside them.

    A concept fires on some tokens with some strength. Each space that has it represents it by a feature (or by several,
    see `split`). Each space's other features stand for concepts of its own. Every part of the draw has its own random
    stream.

    Args:
        spaces: how many.
        n_tokens, documents: the text, cut into documents at random places; each document is about one topic.
        features: width of every dictionary.
        families: concepts that at least two spaces have.
        presence: share of the spaces that have a concept; drawn independently for each, two at least.
        split: share of the concepts that a space splits into `parts` features, each firing on a random part of its
            tokens; drawn independently for each space.
        noise, dropout: of each space's activations, as in `plant`.
        frequency, skew, topics, topicality: of all concepts, as in `plant`.
        seed: the same settings and seed give the same spaces.

    Raises:
        UserError: a setting out of its range, or more features than a space has room for.
    """
    settings = dict(locals())
    _check(settings)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5 + spaces)]
    text_rng, frequency_rng, firing_rng, presence_rng, split_rng, *own_rngs = streams
    order = np.argsort(presence_rng.random((families, spaces)), axis=1)
    has = presence_rng.random((families, spaces)) < presence
    np.put_along_axis(has, order[:, :2], True, axis=1)
    is_split = has & (split_rng.random((families, spaces)) < split)
    width = np.where(has, np.where(is_split, parts, 1), 0)
    used = width.sum(axis=0)
    if used.max(initial=0) > features:
        raise UserError(
            f"{used.max()} features of families do not fit into features={features}: raise it, or lower families, "
            "presence, split or parts"
        )
    private = features - used
    rates = zipf_frequencies(families + int(private.sum()), frequency, skew, frequency_rng)
    text = draw_text(n_tokens, documents, topics, text_rng)
    fired = draw_firings(text, rates, topics, topicality, firing_rng)
    first_private = families + np.concatenate([[0], np.cumsum(private)])
    codes, concept = {}, {}
    for space, rng in enumerate(own_rngs):
        # Concepts of the space in order: families that it has, then its own.
        own = np.concatenate([np.flatnonzero(has[:, space]), np.arange(*first_private[space : space + 2])])
        many = np.concatenate([width[has[:, space], space], np.ones(private[space], np.int64)])
        first = np.full(len(rates), -1, np.int64)
        first[own] = np.concatenate([[0], np.cumsum(many)])[:-1]
        how_many = np.zeros(len(rates), np.int64)
        how_many[own] = many
        entries = fired.keep(first[fired.column] >= 0)
        part = (rng.random(entries.column.size) * how_many[entries.column]).astype(np.int64)
        ids = rng.permutation(features)
        entries = entries._replace(column=ids[first[entries.column] + part])
        name = f"s{space}"
        codes[name] = as_codes(noisy_firings(entries, noise, dropout, rng), (n_tokens, features))
        concept[name] = np.empty(features, np.int64)
        concept[name][ids] = np.repeat(np.where(own < families, own, PRIVATE), many)
    return PlantedFamilies(codes, text.starts, concept, has, is_split, settings)


_SMALLEST = {
    "spaces": 2,
    "n_tokens": 2,
    "documents": 1,
    "features": 1,
    "families": 0,
    "parts": 2,
    "topics": 1,
    "seed": 0,
}
_RANGES = {"presence": (0, 1), "split": (0, 1), "noise": (0, 10), "dropout": (0, 1), "frequency": (0, 0.5),
           "skew": (0, 5), "topicality": (0, 1)}  # fmt: skip


def _check(settings: Mapping[str, Any]) -> None:
    check_whole(settings, _SMALLEST)
    check_ranges(settings, _RANGES)
    check_documents(settings)
