"""What a word is: one definition for category lists, words at tokens, and word counts."""

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
    """A whole word: a maximal run of letters, digits and their combining marks, including apostrophes inside it."""
    # Python's \w lacks combining marks, so it would break words in most Indian scripts and with decomposed accents. A
    # single class of ranges is used, since an alternative for every letter makes the search four times slower.
    inside = np.array([c.isalnum() or category(c).startswith("M") for c in map(chr, range(sys.maxunicode + 1))])
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)).tolist()
    ranges = "".join(f"{chr(a)}-{chr(b - 1)}" for a, b in zip(edges[::2], edges[1::2], strict=True))
    return re.compile(f"[{ranges}]+(?:['’][{ranges}]+)*")


def fold(word: str) -> str:
    """The form in which words are compared: without differences of case, apostrophe or encoding of accents."""
    return normalize("NFC", word.replace("’", "'").casefold())


def word_spans(text: str) -> tuple[Positions, Positions]:
    """Where the words of a text begin and end: two (words,) int64 arrays, in text order."""
    spans = np.array([match.span() for match in word_pattern().finditer(text)], np.int64).reshape(-1, 2)
    return spans[:, 0], spans[:, 1]


def is_whole_word(text: str) -> bool:
    """Whether a text is exactly one word."""
    return word_pattern().fullmatch(text) is not None
