"""The whole words at each feature's strongest activations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.models.tokens import special_ids
from unifeat.progress import track
from unifeat.subspaces.wholewords import fold, word_spans
from unifeat.text.corpus import Corpus, Part
from unifeat.text.windows import tokenize_part

COLUMNS = ["feature", "rank", "word"]


def words_at(tops: pd.DataFrame, corpus: Corpus, tokenizer: Any, *, top_tokens: int, window: int = 0) -> pd.DataFrame:
    """The words at the `top_tokens` strongest activations of each feature.

    A token's word is the whole word that contains the token's last character: for the fragment `day` of `daylight`,
    that is `daylight`. A token that ends on a blank or punctuation has no word, nor has a special token. With a window,
    all words that overlap the tokens up to `window` before and after are included.

    Memory is needed for the result and one group of the text. A long document is divided into the same parts as for the
    model, so a word across a boundary counts as two.

    Args:
        tops: from `codes.top_activations.top_activations`, with at least `top_tokens` activations per feature if it
            fires that often.
        corpus: the text that the codes were made from.
        tokenizer: the tokenizer they were made with.
        window: number of tokens on either side.

    Returns:
        One row for each feature, activation and different word: `feature` (int32), `rank` (int32, from 0) and `word`
        (category; folded), sorted by feature and rank. An activation without a word has no row.

    Raises:
        UserError: fewer than 1 top token, or a negative window.
    """
    if top_tokens < 1:
        raise UserError(f"top_tokens={top_tokens}: give a whole number, 1 or more")
    if window < 0:
        raise UserError(f"window={window}: give a whole number of tokens, 0 or more")
    strongest = tops.loc[tops["rank"] < top_tokens, ["feature", "rank", "document", "char_end", "token"]]
    strongest = strongest[~strongest["token"].isin(special_ids(tokenizer))]
    # Many features share places, so each place is looked up once.
    place = strongest[["document", "char_end", "token"]].drop_duplicates().sort_values(["document", "char_end"])
    found = _Found()
    key = _key(place["document"].to_numpy(), place["char_end"].to_numpy())
    ends, tokens = place["char_end"].to_numpy(np.int64), place["token"].to_numpy(np.int64)
    with track("reading the words under the strongest activations", corpus.groups, unit="groups") as advance:
        for group in range(corpus.groups):
            for part in corpus.parts(group):
                # A token that ends where one part ends and the next begins belongs to the first of the two.
                first, last = np.searchsorted(
                    key, [_key(part.document, part.start), _key(part.document, part.start + len(part.text))], "right"
                )
                if first < last:
                    own = slice(int(first), int(last))
                    _look_up(found, own, part, ends[own] - part.start, tokens[own], tokenizer, window)
            advance(1)
    words = pd.Categorical.from_codes(found.words(), categories=pd.Index(list(found.vocabulary), dtype=object))
    at = pd.DataFrame({"place": found.places(), "word": words}).drop_duplicates()
    numbered = strongest.merge(place.assign(place=np.arange(len(place))), on=["document", "char_end", "token"])
    rows = numbered.merge(at, on="place").sort_values(["feature", "rank"], kind="stable", ignore_index=True)
    return rows[COLUMNS].astype({"feature": "int32", "rank": "int32"})


class _Found:
    """The pairs of place number and word number found so far."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}
        self._places = [np.zeros(0, np.int64)]
        self._words = [np.zeros(0, np.int64)]

    def add(self, places: NDArray[np.int64], words: Iterable[str]) -> None:
        self._places.append(places)
        self._words.append(
            np.array([self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words], np.int64)
        )

    def places(self) -> NDArray[np.int64]:
        return np.concatenate(self._places)

    def words(self) -> NDArray[np.int64]:
        return np.concatenate(self._words)


def _look_up(
    found: _Found,
    own: slice,
    part: Part,
    end: NDArray[np.int64],
    token: NDArray[np.int64],
    tokenizer: Any,
    window: int,
) -> None:
    """Add the words at the places with numbers `own`, which end at characters `end` of a part's text."""
    left, right = end - 1, end
    if window:
        left, right = _widened(part, end, token, tokenizer, window)
    starts, ends = word_spans(part.text)
    first, last = np.searchsorted(ends, left, "right"), np.searchsorted(starts, right, "left")
    size = np.maximum(last - first, 0)
    place = np.repeat(np.arange(own.start, own.stop), size)
    word = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size - first, size)
    found.add(place, (fold(part.text[starts[w] : ends[w]]) for w in word))


def _widened(
    part: Part, end: NDArray[np.int64], token: NDArray[np.int64], tokenizer: Any, window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """From the character before the first token of each window to the end of its last."""
    # The whole part is tokenized, as for the model, since a part of it might give other tokens.
    tokens = tokenize_part(tokenizer, part)
    ends = tokens.char_end.astype(np.int64) - part.start
    at = np.searchsorted(ends, end, "left")
    # Several tokens can end at one character; the first with this id is used.
    for i in range(len(at)):
        run = range(at[i], np.searchsorted(ends, end[i], "right"))
        at[i] = next((j for j in run if tokens.token[j] == token[i]), -1)
    if (at < 0).any():
        where = int(end[at < 0][0]) + part.start
        raise ValueError(f"document {part.document}: no such token ends at character {where}: another tokenizer?")
    before, after = at - window - 1, np.minimum(at + window, len(ends) - 1)
    left = np.where(before >= 0, ends[np.maximum(before, 0)], 0)
    # A token may be part of a character that a later token completes; that character counts too.
    return np.minimum(left, end - 1), ends[after]


def _key(document: Any, character: Any) -> Any:
    return np.asarray(document, np.int64) << 32 | np.asarray(character, np.int64)
