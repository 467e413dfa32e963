"""Plain labels from contexts: what the contexts of a feature have in common more often than chance.

A trait (see `contexts.Trait`) is a label's if at least half of the feature's contexts have it, and if so many would
hardly have it by chance: the binomial tail at the trait's share among the contexts of all *other* features, times the
number of traits that were looked at (Bonferroni), is at most 0.01. Nothing is random, and no model is asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unifeat.labels.contexts import Context, Trait, traits, written
from unifeat.labels.lines import MARK

VERSION = 2  # raised whenever the labels made from the same contexts change
LEVEL = 0.01
_FEWEST = 3  # contexts with a trait
_HALF = 0.5
# In the order in which a label names them. Of each line at most one trait is named: the least likely by chance.
_PARTS = (
    (("word", "piece", "what"), {"word": "“{}”", "piece": "“{}” in a word", "what": "{}"}),
    (("before", "what before", "where"), {"before": "after “{}”", "what before": "after {}", "where": "{}"}),
    (("near",), {"near": "near “{}”"}),
)
_MOST_PARTS = 2


class _Found(NamedTuple):
    trait: Trait
    contexts: int
    chance: float  # corrected tail probability


class Automatic(NamedTuple):
    """Automatic labels.

    Attributes:
        labels: by feature, in order; each begins with `auto: `.
        by_chance: the share of features that have one if all contexts are dealt to the features at random.
    """

    labels: dict[int, str]
    by_chance: float


def automatic_labels(contexts: Mapping[int, Sequence[Context]], seed: int = 0) -> Automatic:
    """A label for each feature whose contexts have something in common.

    Features with fewer than three contexts, or whose contexts have nothing in common, have none.

    Args:
        contexts: by feature, its strongest contexts, the strongest first.
        seed: of the contexts dealt at random.
    """
    everything = [context for own in contexts.values() for context in own]
    one_of_each: dict[Trait, Trait] = {}  # a wide dictionary has millions of contexts, which share their traits
    found = [tuple(one_of_each.setdefault(t, t) for t in traits(context)) for context in everything]
    bounds = np.concatenate([[0], np.cumsum([len(own) for own in contexts.values()])])

    def common(order: Sequence[int]) -> dict[int, tuple[list[_Found], list[Context]]]:
        overall = Counter(trait for one in found for trait in one)
        parts = {}
        for feature, low, high in zip(contexts, bounds[:-1], bounds[1:], strict=True):
            own = [everything[i] for i in order[low:high]]
            documents = [context.document for context in own]
            parts[feature] = _common([found[i] for i in order[low:high]], documents, overall, len(found)), own
        return parts

    named = common(range(len(found)))
    labels = {
        feature: MARK + ", ".join(_words(one.trait, own) for one in parts)
        for feature, (parts, own) in sorted(named.items())
        if parts
    }
    dealt = common(np.random.default_rng(seed).permutation(len(found)).tolist())
    by_chance = sum(bool(parts) for parts, _ in dealt.values()) / len(contexts) if contexts else 0.0
    return Automatic(labels, by_chance)


def _common(own: list[tuple[Trait, ...]], documents: list[int], overall: Counter[Trait], total: int) -> list[_Found]:
    """What a feature's contexts have in common, at most one trait of each part of a label."""
    counts = Counter(trait for one in own for trait in one)
    # Contexts of one document share its subject: words nearby are counted once a document.
    spread = {
        trait: len({document for one, document in zip(own, documents, strict=True) if trait in one})
        for trait in counts
        if trait.kind == "near" and counts[trait] >= _FEWEST
    }
    m, in_documents = len(own), len(set(documents))
    looked_at = max(len(counts), 1)
    parts: list[_Found] = []
    for kinds, _ in _PARTS:
        best: _Found | None = None
        for trait, count in counts.items():
            if trait.kind not in kinds or count < max(_FEWEST, _HALF * m):
                continue
            if any(trait.value == one.trait.value for one in parts):  # the word before is nearby, too
                continue
            seen, of = (spread[trait], in_documents) if trait.kind == "near" else (count, m)
            if seen < max(_FEWEST, _HALF * of):
                continue
            share = (overall[trait] - count + 1) / (total - m + 2)  # among the contexts of other features
            share = 1 - (1 - share) ** (m / of)  # of a document, if it has several contexts
            chance = _tail(seen, of, share) * looked_at
            one = _Found(trait, count, chance)
            if chance <= LEVEL and (best is None or _rank(one) < _rank(best)):
                best = one
        if best is not None:
            parts.append(best)
    return parts[:_MOST_PARTS]


def _tail(least: int, n: int, share: float) -> float:
    """The probability that at least so many of n contexts have a trait that each has with this probability."""
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(least, n + 1))


def _rank(found: _Found) -> tuple[float, int, int, str]:
    """The least likely by chance comes first; of equals the most specific, as `_PARTS` has them."""
    kind = next(kinds.index(found.trait.kind) for kinds, _ in _PARTS if found.trait.kind in kinds)
    return found.chance, -found.contexts, kind, found.trait.value


def _words(trait: Trait, contexts: Sequence[Context]) -> str:
    """A trait in words, written as the contexts write it most often; of equals, as the strongest does."""
    value = trait.value
    if trait.kind in ("word", "before", "near"):
        forms = Counter(form for context in contexts for form in written(value, context))
        value = forms.most_common(1)[0][0] if forms else value
    return next(forms[trait.kind] for kinds, forms in _PARTS if trait.kind in kinds).format(value)
