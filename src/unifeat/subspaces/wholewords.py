"""What a word is: one definition for the lists, for the places of tokens and for the counts in the text."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


@cache
def word_pattern() -> re.Pattern[str]:
    """A whole word: a longest run of letters, digits and the marks on them, apostrophes inside it included."""
    # Python's \w lacks combining marks, without which most Indian scripts and decomposed accents fall to pieces.
    marks = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c).startswith("M"))
    letter = rf"(?:[^\W_]|[{marks}])"
    return re.compile(rf"{letter}+(?:['’]{letter}+)*")


def fold(word: str) -> str:
    """The form in which words are compared, whatever their case, their apostrophe and the encoding of their accents."""
    return unicodedata.normalize("NFC", word.replace("’", "'").casefold())


def word_spans(text: str) -> tuple[Positions, Positions]:
    """Where the words of a text begin and where they end: two (words,) int64 arrays, in text order."""
    spans = np.array([match.span() for match in word_pattern().finditer(text)], np.int64).reshape(-1, 2)
    return spans[:, 0], spans[:, 1]


def is_whole_word(text: str) -> bool:
    """Whether a text is one word and nothing else, so that a word of a text can equal it."""
    return word_pattern().fullmatch(text) is not None
