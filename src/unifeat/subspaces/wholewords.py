"""What a word is: one definition for the lists, for the places of tokens and for the counts in the text."""

from __future__ import annotations

import re
import sys
from functools import cache
from unicodedata import category, normalize

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


@cache
def word_pattern() -> re.Pattern[str]:
    """A whole word: a longest run of letters, digits and the marks on them, apostrophes inside it included."""
    # Python's \w lacks combining marks, without which most Indian scripts and decomposed accents fall to pieces. All
    # in one class of ranges, since an alternative for every letter makes the search four times slower.
    inside = np.array([c.isalnum() or category(c).startswith("M") for c in map(chr, range(sys.maxunicode + 1))])
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)).tolist()
    ranges = "".join(f"{chr(a)}-{chr(b - 1)}" for a, b in zip(edges[::2], edges[1::2], strict=True))
    return re.compile(f"[{ranges}]+(?:['’][{ranges}]+)*")


def fold(word: str) -> str:
    """The form in which words are compared, whatever their case, their apostrophe and the encoding of their accents."""
    return normalize("NFC", word.replace("’", "'").casefold())


def word_spans(text: str) -> tuple[Positions, Positions]:
    """Where the words of a text begin and where they end: two (words,) int64 arrays, in text order."""
    spans = np.array([match.span() for match in word_pattern().finditer(text)], np.int64).reshape(-1, 2)
    return spans[:, 0], spans[:, 1]


def is_whole_word(text: str) -> bool:
    """Whether a text is one word and nothing else, so that a word of a text can equal it."""
    return word_pattern().fullmatch(text) is not None
