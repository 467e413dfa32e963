"""Codes of two spaces on the places they share, so that row i of one and row i of the other are the same token.

With the same tokenizer every token is paired. So it is in shards that two tokenizers cut into identical tokens (Gemma 1
and 2 have one vocabulary in two files). With different tokenizers, two tokens are paired if they end at the same
character of the same document. If a tokenizer cuts one character into several tokens, only the last can be paired.

Shard k of every store over a text holds the same stretch of it, so shards are aligned one by one, and memory does not
grow with the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.shard import Shard
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.vocabulary.paired_codes import CsrArrays
from unifeat.vocabulary.places import Places

# A place in a shard as one integer: document (20 bits, counted from the shard's first), character (31), order (12).
_ORDER_BITS = 12
_DOCUMENT_SHIFT = 31 + _ORDER_BITS


@dataclass(frozen=True)
class AlignedCodes:
    """Two stores on their shared places, read in chunks (see `unifeat.vocabulary.paired_codes.PairedCodes`).

    Attributes:
        a, b: the stores.
        n_rows: aligned rows of the chosen documents.
        documents: (documents of the corpus,) mask of the documents to use, or None for all.
    """

    a: CodeStore
    b: CodeStore
    n_rows: int
    documents: NDArray[np.bool_] | None = None

    @property
    def features_a(self) -> int:
        """Number of features of A."""
        return self.a.features

    @property
    def features_b(self) -> int:
        """Number of features of B."""
        return self.b.features

    def only(self, documents: NDArray[np.bool_]) -> AlignedCodes:
        """The rows of some documents. `documents` is a mask over the documents of the corpus."""
        chosen = replace(self, documents=documents)
        return replace(chosen, n_rows=sum(len(at_a) for _, _, at_a, _ in chosen.aligned_shards()))

    def document_starts(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The documents that the aligned rows come from, and where each begins.

        Returns:
            document: (documents with an aligned row,) their numbers in the corpus, ascending.
            start: the first aligned row of each. A document that continues in the next shard is listed once.
        """
        documents: list[NDArray[np.int32]] = []
        starts: list[NDArray[np.int64]] = []
        done, last = 0, -1
        for shard_a, _, at_a, _ in self.aligned_shards():
            document = np.asarray(shard_a.places.document[at_a])
            begins = np.flatnonzero(np.diff(document, prepend=np.int32(last)))
            documents.append(document[begins])
            starts.append(begins + done)
            done += len(at_a)
            last = int(document[-1]) if len(document) else last
        return np.concatenate(documents).astype(np.int32), np.concatenate(starts).astype(np.int64)

    def chunks(self) -> Iterator[tuple[CsrArrays, CsrArrays]]:
        """Aligned codes, shard by shard; the same each time. Nothing is copied where every row is paired."""
        for shard_a, shard_b, at_a, at_b in self.aligned_shards():
            if len(at_a):
                yield rows_of(shard_a, at_a), rows_of(shard_b, at_b)

    def aligned_shards(self) -> Iterator[tuple[Shard, Shard, NDArray[np.int64], NDArray[np.int64]]]:
        """The shards of both stores, and the aligned rows of each."""
        same_tokenizer = self.a.settings["tokenizer"] == self.b.settings["tokenizer"]
        for shard_a, shard_b in zip(self.a.shards(), self.b.shards(), strict=True):
            alike = same_tokenizer or _same(shard_a.places, shard_b.places)
            at_a, at_b = shared_places(shard_a.places, shard_b.places, same_tokenizer=alike)
            if self.documents is not None:
                keep = self.documents[shard_a.places.document[at_a]]
                at_a, at_b = at_a[keep], at_b[keep]
            yield shard_a, shard_b, at_a, at_b


def align(a: CodeStore, b: CodeStore, names: tuple[str, str] | None = None) -> AlignedCodes:
    """Pair the tokens of two stores.

    Args:
        names: of the spaces, for messages; by default the stores' folders.

    Raises:
        UserError: the stores come from different texts, or share no place.
    """
    called = "{} and {}".format(*(names or (a.folder, b.folder)))
    for what in ("text", "cut"):
        if a.settings[what] != b.settings[what]:
            raise UserError(f"{called} hold codes of different texts, which cannot be compared")
    paired = AlignedCodes(a, b, 0)
    rows = sum(len(at_a) for _, _, at_a, _ in paired.aligned_shards())
    if not rows:
        raise UserError(f"{called} share no token: is every token masked?")
    return replace(paired, n_rows=rows)


def shared_places(a: Places, b: Places, *, same_tokenizer: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the places that two shards share, in text order: two (shared,) arrays.

    Args:
        a, b: places in order of document and character.
        same_tokenizer: pair every token, including those that end inside a character.
    """
    first = min((int(p.document[0]) for p in (a, b) if len(p)), default=0)
    rows_a, keys_a = _keys(a, first, same_tokenizer)
    rows_b, keys_b = _keys(b, first, same_tokenizer)
    # Both are sorted, so a binary search finds the shared keys faster than intersect1d, which sorts them together.
    at_b = np.searchsorted(keys_b, keys_a)
    at_b[at_b == len(keys_b)] = 0
    shared = keys_b[at_b] == keys_a if len(keys_b) else np.zeros(len(keys_a), bool)
    return rows_a[shared], rows_b[at_b[shared]]


def _same(a: Places, b: Places) -> bool:
    """Whether two tokenizers cut a stretch of text into identical tokens, as with one vocabulary in two files."""
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Places))


def _keys(places: Places, first: int, same_tokenizer: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = np.arange(len(places)) if same_tokenizer else np.flatnonzero(places.order == 0)
    # `order` counts down along the text, so it is reversed for keys to ascend. If more than 4,096 tokens end at one
    # character, the rest share one key and only one of them is paired.
    order = np.maximum((1 << _ORDER_BITS) - 1 - places.order[rows].astype(np.int64), 0)
    key = ((places.document[rows].astype(np.int64) - first) << _DOCUMENT_SHIFT) | (
        places.char_end[rows].astype(np.int64) << _ORDER_BITS
    )
    key |= order
    new = np.ones(len(key), bool)
    new[1:] = key[1:] != key[:-1]
    return rows[new], key[new]


def rows_of(shard: Shard, rows: NDArray[np.int64]) -> CsrArrays:
    """Some rows of a shard: a view of the memory map if they are consecutive, else a copy."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return CsrArrays(shard.indptr[rows[0] : rows[-1] + 2], shard.feature, shard.value)
    begin, end = shard.indptr[rows], shard.indptr[rows + 1]
    counts = end - begin
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    flat = np.arange(int(indptr[-1])) + np.repeat(begin - indptr[:-1], counts)
    return CsrArrays(indptr, shard.feature[flat], shard.value[flat])
