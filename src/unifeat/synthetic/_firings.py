"""When planted concepts fire, and the codes of features that fire with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Ids = NDArray[np.int64]
Values = NDArray[np.float64]
_MOST = 0.5  # no feature fires on more than this share of the tokens of a topic


class Firings(NamedTuple):
    """Entries of concepts' or features' activations over the tokens."""

    row: Ids
    """Token."""
    column: Ids
    """Concept or feature."""
    value: Values
    """Activation, above 0."""

    def keep(self, mask: NDArray[np.bool_]) -> Firings:
        return Firings(self.row[mask], self.column[mask], self.value[mask])


class Text(NamedTuple):
    """Tokens cut into documents, each about one topic."""

    starts: Ids
    """First token of each document, (documents,)."""
    topic: Ids
    """Topic of each token, (tokens,)."""


def draw_text(n_tokens: int, documents: int, topics: int, rng: np.random.Generator) -> Text:
    """Documents of random length, one token or more; equally many (up to one) about each topic."""
    cuts = np.sort(rng.choice(n_tokens - 1, documents - 1, replace=False)) + 1
    starts = np.concatenate([[0], cuts]).astype(np.int64)
    lengths = np.diff(np.append(starts, n_tokens))
    of_document = rng.permutation(np.arange(documents) % topics)
    return Text(starts, np.repeat(of_document, lengths).astype(np.int64))


def zipf_frequencies(count: int, mean: float, skew: float, rng: np.random.Generator) -> Values:
    """Shares of tokens, falling as rank^−skew with the mean asked for, in random order; none above a half."""
    shape = np.arange(1, count + 1, dtype=np.float64) ** -skew
    scale = mean / shape.mean()
    for _ in range(200):  # what the cap takes from the frequent ones goes to the others
        frequency = np.minimum(scale * shape, _MOST)
        if abs(frequency.mean() - mean) <= 1e-12:
            break
        scale *= mean / frequency.mean()
    return rng.permutation(frequency)


def draw_firings(text: Text, frequency: Values, topics: int, topicality: float, rng: np.random.Generator) -> Firings:
    """Activations of concepts, gamma(2)/2 distributed (mean 1) on the tokens where they fire.

    Each concept belongs to one topic. It fires on a share f (1 − t) of the tokens of other topics, t = topicality, and
    of those of its own on as many as make a share f of all; the second share is cut at a half, and the first then
    raised to make up for it.
    """
    tokens = np.arange(text.topic.size)
    of_topic = [(tokens[text.topic == t], tokens[text.topic != t]) for t in range(topics)]
    home = rng.integers(topics, size=frequency.size)
    rows, counts = [], []
    for f, t in zip(frequency, home, strict=True):
        within, without = of_topic[t]
        rate_within = min(f * (1 - topicality + topicality * tokens.size / max(within.size, 1)), max(_MOST, f))
        rest = (f * tokens.size - rate_within * within.size) / max(without.size, 1)
        fired = [
            rng.choice(group, rng.binomial(group.size, min(max(rate, 0.0), 1.0)), replace=False)
            for group, rate in ((within, rate_within), (without, rest))
        ]
        rows.extend(fired)
        counts.append(sum(map(len, fired)))
    row = np.concatenate(rows).astype(np.int64)
    column = np.repeat(np.arange(frequency.size), counts)
    return Firings(row, column, rng.gamma(2.0, 0.5, row.size))


def seen(firings: Firings, noise: float, dropout: float, rng: np.random.Generator) -> Firings:
    """The same firings as one model sees them: some lost, each of the others times exp(noise · normal)."""
    # Drawn whatever the settings, so that more noise changes no other draw.
    lost, factor = rng.random(firings.row.size) < dropout, np.exp(noise * rng.standard_normal(firings.row.size))
    return firings._replace(value=firings.value * factor).keep(~lost)


def hub_firings(firings: Firings, hubs: int, reach: int, first: int, rng: np.random.Generator) -> Firings:
    """Hubs of the other side, ids `first` …: each fires with `reach` of these features, as strongly as all together."""
    features = np.unique(firings.column)
    pieces = []
    for hub in range(hubs):
        members = rng.choice(features, min(reach, features.size), replace=False)
        its = firings.keep(np.isin(firings.column, members))
        pieces.append(its._replace(column=np.full(its.row.size, first + hub)))
    return joined(pieces)


def joined(pieces: list[Firings]) -> Firings:
    """All entries of several."""
    if not pieces:
        return Firings(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    row, column, value = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Firings(row, column, value)


def as_codes(firings: Firings, shape: tuple[int, int]) -> Any:
    """float32 CSR (tokens, features); entries of one cell are added."""
    codes = sparse.coo_array((firings.value, (firings.row, firings.column)), shape=shape).tocsr()
    codes.sum_duplicates()
    return codes.astype(np.float32)
