"""Aligned codes in memory, a stretch of text at a time, for nulls that rearrange their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from unifeat.codes.align import AlignedCodes, rows_of
from unifeat.codes.token_types import ByTokenType
from unifeat.correlation.rearranged import Stretch
from unifeat.vocabulary.paired_codes import Array, ChunkPair, joined


def stretches(
    codes: AlignedCodes, tokens: Literal[1, 2], most: int, begins: Sequence[int] | None = None
) -> Iterator[Stretch]:
    """The rows in stretches of at most `most` entries of both sides together (or one shard, if that has more).

    Args:
        tokens: whether rows are of one kind if their tokens are, or if the tokens before them are too.
        begins: the numbers of the shards at which stretches begin, wherever that must be the same for many pairs of
            spaces; `most` is then not looked at. A stretch without rows is left out.
    """
    by_type = ByTokenType(codes, tokens)
    grouped = by_type if tokens == 1 else ByTokenType(codes, 1)
    held = _Held()
    both = zip(by_type.keyed_shards(), grouped.numbered_shards(), strict=True)
    for number, ((shard_a, shard_b, at_a, at_b, kind), (*_, group)) in enumerate(both):
        if begins is not None and number in begins and held.rows:
            yield held.stretch()
            held = _Held()
        if not len(at_a):
            continue
        chunk = rows_of(shard_a, at_a), rows_of(shard_b, at_b)
        full = held.entries and held.entries + chunk[0].entries + chunk[1].entries > most
        if begins is None and full:
            yield held.stretch()
            held = _Held()
        document = np.asarray(shard_a.places.document[at_a])
        place = (document.astype(np.uint64) << np.uint64(32)) | shard_a.places.char_end[at_a].astype(np.uint64)
        held.add(chunk, [document, place, kind, group])
    if held.entries or held.rows:
        yield held.stretch()


class _Held:
    """The chunks of a stretch."""

    def __init__(self) -> None:
        self.chunks: list[ChunkPair] = []
        self.columns: list[list[Array]] = []
        self.entries = self.rows = 0

    def add(self, chunk: ChunkPair, columns: list[Array]) -> None:
        self.chunks.append(chunk)
        self.columns.append(columns)
        self.entries += chunk[0].entries + chunk[1].entries
        self.rows += chunk[0].rows

    def stretch(self) -> Stretch:
        sides = [joined([chunk[side] for chunk in self.chunks]) for side in (0, 1)]
        return Stretch(sides[0], sides[1], *(np.concatenate(column) for column in zip(*self.columns, strict=True)))
