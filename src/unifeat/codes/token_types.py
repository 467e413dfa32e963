"""Aligned codes grouped by token: which rows of two spaces are of the same kind of token.

The type of a row is the pair (token of A, token of B), or these and the pair of tokens before them. Two models' tokens
at one place differ if their tokenizers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.align import AlignedCodes, rows_of
from unifeat.codes.shard import Shard
from unifeat.correlation.rearranged import mixed
from unifeat.vocabulary.paired_codes import ChunkPair, CodesOver

Rows = NDArray[np.int64]
_NONE_BEFORE = -1


@dataclass(frozen=True)
class ByTokenType(CodesOver):
    """Aligned codes, grouped by token type (`unifeat.vocabulary.grouped_codes.GroupedCodes`).

    Attributes:
        codes: the aligned codes.
        tokens: 1: a type is a pair of tokens. 2: it is that pair and the one before it. Memory holds 16 bytes for each
            type, whatever the length of the text.
    """

    codes: AlignedCodes
    tokens: Literal[1, 2] = 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(types,) the rows of each type."""
        return self._types[1]

    def grouped_chunks(self) -> Iterator[tuple[ChunkPair, NDArray[np.int64]]]:
        """The chunks of the aligned codes, each with the types of its rows."""
        for shard_a, shard_b, at_a, at_b, group in self.numbered_shards():
            if len(at_a):
                yield (rows_of(shard_a, at_a), rows_of(shard_b, at_b)), group

    def numbered_shards(self) -> Iterator[tuple[Shard, Shard, Rows, Rows, Rows]]:
        """What `aligned_shards` gives, and the number of each row's type."""
        for shard_a, shard_b, at_a, at_b, key in self.keyed_shards():
            yield shard_a, shard_b, at_a, at_b, np.searchsorted(self._types[0], key)

    @cached_property
    def _types(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The types' keys, ascending, and the rows of each."""
        keys, sizes = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for *_, key in self.keyed_shards():
            own, count = np.unique(key, return_counts=True)
            merged = np.union1d(keys, own)
            total = np.zeros(len(merged), np.int64)
            total[np.searchsorted(merged, keys)] += sizes
            total[np.searchsorted(merged, own)] += count
            keys, sizes = merged, total
        return keys, sizes

    def keyed_shards(self) -> Iterator[tuple[Shard, Shard, Rows, Rows, NDArray[np.uint64]]]:
        """What `aligned_shards` gives, and the key of each row's type."""
        last: list[tuple[int, int]] = [(_NONE_BEFORE, _NONE_BEFORE)] * 2
        for shard_a, shard_b, at_a, at_b in self.codes.aligned_shards():
            sides = ((shard_a, at_a), (shard_b, at_b))
            key = _joined(*(shard.places.token[at] for shard, at in sides))
            if self.tokens == 2:
                before = []
                for side, (shard, at) in enumerate(sides):
                    before.append(_before(shard, last[side])[at])
                    if len(shard.places):
                        last[side] = int(shard.places.document[-1]), int(shard.places.token[-1])
                # 64 bits of a hash: among 10⁷ types, two share a key with a chance of 3 in a million.
                key = mixed(mixed(key) + _joined(*before))
            yield shard_a, shard_b, at_a, at_b, key


def _before(shard: Shard, last: tuple[int, int]) -> NDArray[np.int32]:
    """The token before each row of a shard, −1 at the start of a document.

    Args:
        last: document and token of the row before the shard.
    """
    document, token = np.asarray(shard.places.document), np.asarray(shard.places.token)
    before = np.empty_like(token)
    before[1:] = token[:-1]
    before[:1] = last[1]
    starts = np.empty(len(token), bool)
    starts[1:] = document[1:] != document[:-1]
    starts[:1] = document[:1] != last[0]
    before[starts] = _NONE_BEFORE
    return before


def _joined(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Two ids of 32 bits as one of 64."""
    return (a.astype(np.uint32).astype(np.uint64) << np.uint64(32)) | b.astype(np.uint32).astype(np.uint64)
