"""Choosing documents of a source: within a budget and, if asked for, without duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

_CHARACTERS_PER_COUNT = 4 << 20  # counted at once: a tokenizer takes about a hundred bytes per character


class SeenDocuments:
    """Digests (16 bytes) of the documents seen so far. `again` counts the documents that repeat an earlier one."""

    def __init__(self) -> None:
        self.again = 0
        self._digests: set[bytes] = set()

    def is_new(self, text: str) -> bool:
        """Record a document; returns whether it is the first of its kind."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._digests:
            self.again += 1
            return False
        self._digests.add(digest)
        return True

    def first_ones(self, texts: Iterator[str]) -> Iterator[str]:
        """The documents that do not repeat an earlier one."""
        return (text for text in texts if self.is_new(text))


def within_budget(
    texts: Iterator[str],
    skip: int,
    documents: int | None,
    tokens: int | None,
    count_tokens: Callable[[str], int],
) -> Iterator[tuple[str, int]]:
    """Documents within the budget, each with its number of tokens (−1 if the budget does not count tokens)."""
    taken = spent = 0
    for number, text in enumerate(texts):
        if number < skip:
            continue
        if (documents is not None and taken >= documents) or (tokens is not None and spent >= tokens):
            return
        cost = _cost(text, count_tokens) if tokens is not None else -1
        taken += 1
        spent += max(cost, 0)
        yield text, cost


def _cost(text: str, count_tokens: Callable[[str], int]) -> int:
    if len(text) <= _CHARACTERS_PER_COUNT:
        return count_tokens(text)
    return sum(
        count_tokens(text[start : start + _CHARACTERS_PER_COUNT])
        for start in range(0, len(text), _CHARACTERS_PER_COUNT)
    )
