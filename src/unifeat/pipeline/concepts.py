"""Concepts of a study's categories of words: where text goes on with one of their words, and which tokens those are.

Of each category, words that occur are dealt out in turn, the most frequent first: one to fit a direction on, one held
out. Words that never occur are held out too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.subspaces.wholewords import fold, word_spans
from unifeat.text.corpus import Corpus
from unifeat.transfer.strings import token_texts
from unifeat.vocabulary.places import Places

Words = list[str | None]
FEWEST_PLACES = 10
FEWEST_TOKENS = 3


@dataclass(frozen=True)
class Concept:
    """One category.

    Attributes:
        words: those that a direction is fitted on.
        places: (tokens,) mask of the sampled tokens after which one of `words` follows, in the documents fitted on.
        heldout: (n,) token ids of held-out words, as the steered model writes them after a space.
    """

    name: str
    words: frozenset[str]
    places: NDArray[np.bool_]
    heldout: NDArray[np.int64]

    @property
    def usable(self) -> bool:
        """Whether there are enough places to fit a direction on, and held-out tokens to judge it by."""
        return int(self.places.sum()) >= FEWEST_PLACES and len(self.heldout) >= FEWEST_TOKENS


def concepts_of(
    categories: Mapping[str, tuple[str, ...]],
    following: Words,
    fitting: NDArray[np.bool_],
    tokenizer: Any,
    vocabulary: int,
) -> list[Concept]:
    """The concepts of all categories.

    Args:
        categories: name → words, folded.
        following: from `next_words`, one for each sampled token.
        fitting: (tokens,) those in documents that are fitted on.
        tokenizer, vocabulary: the steered model's, and how many tokens it gives logits for.
    """
    counts = Counter(word for word, fits in zip(following, fitting, strict=True) if fits and word is not None)
    texts = token_texts(tokenizer, vocabulary)
    single: dict[str, list[int]] = {}
    for token, text in enumerate(texts):
        if text is not None and text.startswith(" "):
            single.setdefault(fold(text[1:]), []).append(token)
    found = []
    for name, listed in categories.items():
        words = list(dict.fromkeys(map(fold, listed)))
        occurring = sorted((word for word in words if counts[word]), key=lambda word: (-counts[word], word))
        fitted = frozenset(occurring[::2])
        places = np.array([word in fitted for word in following], bool) & fitting
        heldout = sorted({token for word in words if word not in fitted for token in single.get(word, [])})
        found.append(Concept(name, fitted, places, np.array(heldout, np.int64)))
    return found


def next_words(corpus: Corpus, places: Places) -> Words:
    """The word that begins after each token, folded; None inside a word, and where none follows but spaces."""
    wanted: dict[int, list[int]] = {}
    for row, document in enumerate(places.document.tolist()):
        wanted.setdefault(document, []).append(row)
    found: Words = [None] * len(places)
    ends = places.char_end
    for part in corpus.parts_of(wanted):
        rows = np.array(wanted[part.document], np.int64)
        rows = rows[(ends[rows] > part.start) & (ends[rows] < part.start + len(part.text))]
        starts, stops = word_spans(part.text)
        for row, end in zip(rows.tolist(), (ends[rows] - part.start).tolist(), strict=True):
            next_word = int(np.searchsorted(starts, end, "left"))
            if next_word < len(starts) and not part.text[end : starts[next_word]].strip(" "):
                found[row] = fold(part.text[starts[next_word] : stops[next_word]])
    return found
