"""The text that tokens make, one after another, where codes come with tokens and no place in another text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError


def ends_of(tokens: Sequence[str], documents: NDArray[np.int32]) -> NDArray[np.int32]:
    """(rows,) the character of its document at which each token ends, if tokens follow each other."""
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    ends = np.cumsum(lengths)
    begins = np.flatnonzero(np.diff(documents, prepend=-1))
    before = np.repeat(ends[begins] - lengths[begins], np.diff(np.r_[begins, len(documents)]))
    return (ends - before).astype(np.int32)


class Vocabulary:
    """Texts of tokens, numbered in the order in which they first appear."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def ids(self, tokens: Sequence[str] | None, rows: int) -> NDArray[np.int32]:
        """The numbers of some tokens; all 0 if they are not known."""
        if tokens is None:
            return np.zeros(rows, np.int32)
        numbers = self._numbers
        return np.fromiter((numbers.setdefault(token, len(numbers)) for token in tokens), np.int32, rows)

    @property
    def texts(self) -> list[str]:
        """The texts, by their numbers."""
        return list(self._numbers)


class OwnText:
    """Writes documents made of tokens, a line of JSON each, as blocks of tokens come.

    A document may go on in the next block. Documents must have the numbers 0, 1, 2 …: readers of the file count them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = -1
        self._parts: list[str] = []

    def add(self, documents: NDArray[np.int32], tokens: Sequence[str]) -> None:
        """Add a block of tokens.

        Raises:
            UserError: a document is left out, or the one before is blank.
        """
        begins = np.flatnonzero(np.diff(documents, prepend=-1))
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(documents)], strict=True):
            number = int(documents[begin])
            if number != self._number:
                self._end_document()
                if number != self._number + 1:
                    raise UserError(
                        f"documents: number {self._number + 1} has no rows; without `ends` in a text, number them "
                        "0, 1, 2 … without gaps"
                    )
                self._number = number
            self._parts += tokens[begin:end]

    def _end_document(self) -> None:
        if self._number < 0:
            return
        text, self._parts = "".join(self._parts), []
        if not text.strip():
            raise UserError(f"documents: the tokens of number {self._number} are all blank: leave the document out")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": text}) + "\n")

    def close(self) -> None:
        """Write the last document."""
        self._end_document()
