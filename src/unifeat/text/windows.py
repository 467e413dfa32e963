"""Tokens of the text and their windows, each token with its place in its document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.text.corpus import Corpus, Part
from unifeat.text.ends import ends_in, untrimmed


@dataclass(frozen=True)
class TokenizedPart:
    """The tokens of one part of a document; all arrays have shape (tokens,).

    Attributes:
        document: the document's number.
        token: token ids, int32.
        char_end: the character of the original document at which each token ends, int32.
        order: int32; 0 for the last token ending at a character, 1 for the one before it, and so on. Byte-level
            tokenizers can divide one character into several tokens; only the last of them completes it.
    """

    document: int
    token: NDArray[np.int32]
    char_end: NDArray[np.int32]
    order: NDArray[np.int32]


def tokenize_part(tokenizer: Any, part: Part) -> TokenizedPart:
    """Tokenize a part with a fast transformers tokenizer, adding no special tokens."""
    encoded = untrimmed(tokenizer)(part.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    token = np.asarray(encoded["input_ids"], np.int32)
    spans = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
    char_end = (ends_in(part.text, spans, tokenizer) + part.start).astype(np.int32)
    return TokenizedPart(part.document, token, char_end, _order_from_the_end(char_end))


def first_parts(corpus: Corpus, tokenizer: Any, tokens: int, first_document: int = 0) -> list[Part]:
    """Parts from a document on that hold at most `tokens` tokens; the last part is cut to fit."""
    parts: list[Part] = []
    for group in range(corpus.groups):
        if corpus.group_documents[group][1] < first_document:
            continue
        for part in corpus.parts(group):
            if part.document < first_document:
                continue
            tokenized = tokenize_part(tokenizer, part)
            if len(tokenized.token) > tokens:
                end = int(tokenized.char_end[tokens - 1]) - part.start if tokens else 0
                return [*parts, Part(part.document, part.start, part.text[:end])] if end else parts
            parts.append(part)
            tokens -= len(tokenized.token)
    return parts


def windows(part: TokenizedPart, body: int) -> list[slice]:
    """Consecutive windows of at most `body` tokens that cover the part."""
    return [slice(start, min(start + body, len(part.token))) for start in range(0, len(part.token), body)]


@dataclass(frozen=True)
class Window:
    """What a model reads at once, and the places of those positions that give rows.

    Attributes:
        document: the document's number.
        ids: (positions,) int32, the tokens: opening, text, padding.
        lead: number of positions at the start that give no row.
        token, char_end, order: (rows,) int32, as in `TokenizedPart`. An opening ends where its window begins. Padding
            ends at the character where the text ends, after its last token.
        is_opening, is_pad: (rows,) bool.
    """

    document: int
    ids: NDArray[np.int32]
    lead: int
    char_end: NDArray[np.int32]
    order: NDArray[np.int32]
    is_opening: NDArray[np.bool_]
    is_pad: NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """Positions that give a row."""
        return len(self.ids) - self.lead

    @property
    def token(self) -> NDArray[np.int32]:
        """The tokens of the rows."""
        return self.ids[self.lead :]


def cut_windows(
    part: TokenizedPart,
    opening: list[int],
    context: int,
    *,
    at_start: bool,
    limit: int | None = None,
    with_opening: bool = False,
    pad: int | None = None,
) -> list[Window]:
    """The windows of a part of a document.

    Args:
        opening: tokens that begin each window.
        context: positions in a window, including the opening.
        at_start: whether the part begins its document.
        limit: at most this many windows per document (from its first part, if it has several).
        with_opening: whether the opening of the first window gives rows.
        pad: token that pads windows to `context`, each pad giving a row; None for no padding.
    """
    if limit is not None and not at_start:
        return []
    cut: list[Window] = []
    chosen = windows(part, context - len(opening))[:limit]
    if not chosen:
        return cut
    # Padding ends where the last token does. Earlier tokens may end there too, even in the window before.
    fill = context - len(opening) - (chosen[-1].stop - chosen[-1].start) if pad is not None else 0
    orders = part.order + fill * (part.char_end == part.char_end[chosen[-1].stop - 1])
    # A token trimmed to nothing can end at character 0, where an opening ends too.
    before = int((part.char_end == 0).sum())
    for window in chosen:
        shown = len(opening) if with_opening and at_start and window.start == 0 else 0
        body = window.stop - window.start
        pads = context - len(opening) - body if pad is not None else 0
        ids = np.concatenate([opening, part.token[window], [pad] * pads]).astype(np.int32)
        char_end, order = part.char_end[window], orders[window]
        cut.append(
            Window(
                part.document,
                ids,
                len(opening) - shown,
                np.concatenate([np.zeros(shown), char_end, np.full(pads, char_end[-1])]).astype(np.int32),
                np.concatenate([np.arange(shown)[::-1] + before, order, np.arange(pads)[::-1]]).astype(np.int32),
                np.repeat([True, False, False], [shown, body, pads]),
                np.repeat([False, False, True], [shown, body, pads]),
            )
        )
    return cut


def _order_from_the_end(char_end: NDArray[np.int32]) -> NDArray[np.int32]:
    n = len(char_end)
    if n == 0:
        return np.zeros(0, np.int32)
    last_of_run = np.r_[char_end[1:] != char_end[:-1], True]
    # For every token, the index of the last token of its run, filled in from the right.
    run_end = np.minimum.accumulate(np.where(last_of_run, np.arange(n), n)[::-1])[::-1]
    return (run_end - np.arange(n)).astype(np.int32)
