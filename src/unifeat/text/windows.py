"""From text to windows of tokens, each token with its place in its document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.text.corpus import Part


@dataclass(frozen=True)
class TokenizedPart:
    """The tokens of one part of a document; all arrays have shape (tokens,).

    Attributes:
        document: the document's number.
        token: token ids, int32.
        char_end: the character of the document at which each token ends, int32.
        order: int32; 0 for the last token ending at a character, 1 for the one before it, and so on. Byte-level
            tokenizers cut one character into several tokens; only the last of them completes it.
    """

    document: int
    token: NDArray[np.int32]
    char_end: NDArray[np.int32]
    order: NDArray[np.int32]


def tokenize_part(tokenizer: Any, part: Part) -> TokenizedPart:
    """Tokenize a part with a fast transformers tokenizer, adding no special tokens."""
    encoded = tokenizer(part.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    token = np.asarray(encoded["input_ids"], np.int32)
    ends = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)[:, 1]
    # Ends never go back: a tokenizer that trims spaces off a token reports an earlier end for it.
    char_end = (np.maximum.accumulate(ends) + part.start).astype(np.int32) if len(ends) else ends.astype(np.int32)
    return TokenizedPart(part.document, token, char_end, _order_from_the_end(char_end))


def windows(part: TokenizedPart, body: int) -> list[slice]:
    """Consecutive windows of at most `body` tokens that cover the part."""
    return [slice(start, min(start + body, len(part.token))) for start in range(0, len(part.token), body)]


def _order_from_the_end(char_end: NDArray[np.int32]) -> NDArray[np.int32]:
    n = len(char_end)
    if n == 0:
        return np.zeros(0, np.int32)
    last_of_run = np.r_[char_end[1:] != char_end[:-1], True]
    # The index of the run's last token, for every token: filled in from the right.
    run_end = np.minimum.accumulate(np.where(last_of_run, np.arange(n), n)[::-1])[::-1]
    return (run_end - np.arange(n)).astype(np.int32)
