"""When synthetic concepts fire, and the codes of the features that fire with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Ids = NDArray[np.int64]
Values = NDArray[np.float64]
_LARGEST_FREQUENCY = 0.5  # of the tokens of a topic, no feature fires on a larger share


class Firings(NamedTuple):
    """Nonzero activations of concepts or features, in coordinate form."""

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
    """Documents of random length, at least one token; the numbers of documents per topic differ by at most one."""
    cuts = np.sort(rng.choice(n_tokens - 1, documents - 1, replace=False)) + 1
    starts = np.concatenate([[0], cuts]).astype(np.int64)
    lengths = np.diff(np.append(starts, n_tokens))
    of_document = rng.permutation(np.arange(documents) % topics)
    return Text(starts, np.repeat(of_document, lengths).astype(np.int64))


def zipf_frequencies(count: int, mean: float, skew: float, rng: np.random.Generator) -> Values:
    """Shares of tokens that fall as rank^−skew, with the given mean, in random order; none above a half."""
    shape = np.arange(1, count + 1, dtype=np.float64) ** -skew
    scale = mean / shape.mean()
    for _ in range(200):  # rescale until the mean is right in spite of the cap
        frequency = np.minimum(scale * shape, _LARGEST_FREQUENCY)
        if abs(frequency.mean() - mean) <= 1e-12:
            break
        scale *= mean / frequency.mean()
    return rng.permutation(frequency)


def draw_firings(text: Text, frequency: Values, topics: int, topicality: float, rng: np.random.Generator) -> Firings:
    """Activations of concepts, distributed as gamma(2)/2 (mean 1) on the tokens where they fire.

    Each concept belongs to one topic. It fires on a share f (1 − t) of the tokens of other topics, t = topicality, and
    on so many tokens of its own topic that its overall share is f. The share within its own topic is capped at a half;
    the share outside is then raised to compensate.
    """
    tokens = np.arange(text.topic.size)
    of_topic = [(tokens[text.topic == t], tokens[text.topic != t]) for t in range(topics)]
    home = rng.integers(topics, size=frequency.size)
    rows, counts = [], []
    for f, t in zip(frequency, home, strict=True):
        within, without = of_topic[t]
        rate_within = min(
            f * (1 - topicality + topicality * tokens.size / max(within.size, 1)), max(_LARGEST_FREQUENCY, f)
        )
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


def noisy_firings(firings: Firings, noise: float, dropout: float, rng: np.random.Generator) -> Firings:
    """The firings as one model represents them: some are lost, the others are multiplied by exp(noise · normal)."""
    # Always drawn, so that changing one setting does not change other draws.
    lost, factor = rng.random(firings.row.size) < dropout, np.exp(noise * rng.standard_normal(firings.row.size))
    return firings._replace(value=firings.value * factor).keep(~lost)


def hub_firings(firings: Firings, hubs: int, reach: int, first: int, rng: np.random.Generator) -> Firings:
    """Hubs of the other side, with ids from `first` on: each is the sum of `reach` of these features."""
    features = np.unique(firings.column)
    pieces = []
    for hub in range(hubs):
        members = rng.choice(features, min(reach, features.size), replace=False)
        its = firings.keep(np.isin(firings.column, members))
        pieces.append(its._replace(column=np.full(its.row.size, first + hub)))
    return concatenated(pieces)


def concatenated(pieces: list[Firings]) -> Firings:
    """The entries of several firings together."""
    if not pieces:
        return Firings(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    row, column, value = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Firings(row, column, value)


def as_codes(firings: Firings, shape: tuple[int, int]) -> Any:
    """float32 CSR (tokens, features); duplicate entries are summed."""
    codes = sparse.coo_array((firings.value, (firings.row, firings.column)), shape=shape).tocsr()
    codes.sum_duplicates()
    return codes.astype(np.float32)
