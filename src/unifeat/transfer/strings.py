"""The strings that two tokenizers share, and which token of each is which string.

Two models' next tokens can only be compared as text. A string is shared if a token of each model is that text, as it
stands in running text: with its leading space, if it has one. Not compared are special tokens, tokens that are a single
byte of a character (byte fallback), and tokens that are no whole characters by themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.tokens import special_ids

Indices = NDArray[np.int64]
NONE = -1  # in a map: the token belongs to no shared string

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_BROKEN = "\ufffd"  # what a tokenizer writes for bytes that are no character
# Tokens are decoded behind another, since decoders drop the space at the beginning of a text.
_ANCHORS = ("a", "e", "o", "the", "1", ".")
_BATCH = 1 << 15


@dataclass(frozen=True)
class SharedStrings:
    """Strings that are a token of both models, and two maps of each model's tokens to them.

    Maps are (vocabulary,) int64, from a token's id to a string's number; −1: none.

    Attributes:
        strings: in the order of their code points, so that it does not matter which model is A.
        exact_a, exact_b: the token is the string. Where several tokens are the same text, it is the one with the
            smallest id: each string has one token of each model. For logits and unembeddings.
        first_a, first_b: the longest shared string with which the token begins. For probabilities: of a text that goes
            on with " tomorrow", a model whose token that is and one that first writes " tom" say the same, so both give
            their probability to " tom" (unless " tomorrow" is a token of both). Which string a token begins with does
            not depend on how the other tokenizer would go on cutting.
    """

    strings: tuple[str, ...]
    exact_a: Indices
    exact_b: Indices
    first_a: Indices
    first_b: Indices

    def __len__(self) -> int:
        return len(self.strings)


def shared_strings(
    tokenizer_a: Any, tokenizer_b: Any, *, vocabulary_a: int | None = None, vocabulary_b: int | None = None
) -> SharedStrings:
    """The strings that are a token of both models.

    Args:
        tokenizer_a, tokenizer_b: fast tokenizers.
        vocabulary_a, vocabulary_b: how many tokens the models give logits for (rows of the unembedding, which may be
            more or fewer than the tokenizer has); None: as many as the tokenizer has.

    Raises:
        UserError: no string is shared.
    """
    texts_a, texts_b = token_texts(tokenizer_a, vocabulary_a), token_texts(tokenizer_b, vocabulary_b)
    shared = sorted({text for text in texts_a if text is not None} & set(texts_b))
    if not shared:
        raise UserError(
            "the two models' tokenizers share no string, so what their features do to the next token cannot be compared"
        )
    number = {text: i for i, text in enumerate(shared)}
    exact_a, exact_b = _exact(texts_a, number), _exact(texts_b, number)
    return SharedStrings(tuple(shared), exact_a, exact_b, _first(texts_a, number), _first(texts_b, number))


def token_texts(tokenizer: Any, vocabulary: int | None = None) -> list[str | None]:
    """The text of each token id behind other text; None for a token that is left out, and for an id without a token.

    Args:
        tokenizer: fast.
        vocabulary: how many ids; None: up to the largest.

    Raises:
        UserError: none of a few short words is a token that another can be decoded behind.
    """
    backend = tokenizer.backend_tokenizer
    written = {i: token for token, i in backend.get_vocab(with_added_tokens=True).items()}
    size = max(written, default=-1) + 1 if vocabulary is None else vocabulary
    left_out = special_ids(tokenizer)
    bytes_ = {i for i, token in written.items() if _BYTE.fullmatch(token)}
    left_out |= bytes_ if len(bytes_) == 256 else set()
    ids = [i for i in range(size) if i in written and i not in left_out]
    anchor, before = _anchor(tokenizer)
    texts: list[str | None] = [None] * size
    for start in range(0, len(ids), _BATCH):
        some = ids[start : start + _BATCH]
        decoded = backend.decode_batch([[anchor, i] for i in some], skip_special_tokens=False)
        for i, both in zip(some, decoded, strict=True):
            if both.startswith(before) and len(both) > len(before) and _BROKEN not in both:
                texts[i] = both[len(before) :]
    return texts


def _anchor(tokenizer: Any) -> tuple[int, str]:
    """A token to decode others behind, and its text."""
    for word in _ANCHORS:
        ids = tokenizer.backend_tokenizer.encode(word, add_special_tokens=False).ids
        text = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
        if len(ids) == 1 and text.strip() == word:
            return ids[0], text
    raise UserError(
        "the tokenizer has none of the tokens a, e, o, the, 1 and ., so the texts of its tokens are unknown"
    )


def _exact(texts: list[str | None], number: dict[str, int]) -> Indices:
    found, taken = np.full(len(texts), NONE, np.int64), set[int]()
    for i, text in enumerate(texts):
        string = number.get(text, NONE) if text is not None else NONE
        if string != NONE and string not in taken:
            found[i] = string
            taken.add(string)
    return found


def _first(texts: list[str | None], number: dict[str, int]) -> Indices:
    longest = max(map(len, number))
    found = np.full(len(texts), NONE, np.int64)
    for i, text in enumerate(texts):
        for end in range(min(len(text or ""), longest), 0, -1):
            string = number.get(text[:end])  # type: ignore[index]
            if string is not None:
                found[i] = string
                break
    return found


def sum_to_strings(values: Tensor, to_string: Indices, n: int) -> Tensor:
    """Sum probabilities of tokens to those of strings.

    Args:
        values: (batch, vocabulary).
        to_string: (vocabulary,) int64, a map of `SharedStrings`.
        n: the number of strings.

    Returns:
        (batch, n), in float32 or the wider dtype of the values. A row's total is what its tokens with a string have.

    Raises:
        ValueError: a map of another length than the vocabulary.
    """
    if values.shape[-1] != len(to_string):
        raise ValueError(f"{values.shape[-1]} values to a row, but a map of {len(to_string)} tokens")
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    # Tokens without a string are summed to one more, which is dropped.
    to = torch.from_numpy(np.where(to_string == NONE, n, to_string)).to(wide.device)
    return wide.new_zeros((len(wide), n + 1)).index_add_(1, to, wide)[:, :n]
