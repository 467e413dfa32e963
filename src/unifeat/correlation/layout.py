"""Codes laid out for the kernels, by all threads: rows of B as records, entries of A feature by feature."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from unifeat.correlation import kernels
from unifeat.correlation.kernels import Columns, Records
from unifeat.correlation.moments import Profile
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, ChunkPair, PairedCodes, normal_chunks, row_slice

_MOST_RECORD_LINES = 12  # for longer records, the processor's own prefetching takes over
MOST_WORDS = (1 << 32) - 1  # of records laid out at once: their addresses are 32-bit word numbers
_MOST_ENTRIES = 1 << 30  # of a group; their records then have at most MOST_WORDS


def aligned(shape: int | tuple[int, ...], dtype: Any = np.float64, fill: float | None = None) -> Array:
    """An array that starts on a cache line, where vector instructions run a quarter faster."""
    size, kind = int(np.prod(shape)), np.dtype(dtype)
    buffer = np.empty(size * kind.itemsize + 64, np.uint8)
    skip = -buffer.ctypes.data % 64
    array = buffer[skip : skip + size * kind.itemsize].view(kind).reshape(shape)
    if fill is not None:
        array.fill(fill)
    return array


class _Piece(NamedTuple):
    """Rows first:last of a chunk."""

    chunk: int
    first: int
    last: int


def groups(paired: PairedCodes, dtype: Any, a: Profile, b: Profile, limit: int) -> Iterator[list[ChunkPair]]:
    """Consecutive chunks in groups of at most `limit` entries; a larger chunk is cut into groups of its own."""
    limit = min(limit, _MOST_ENTRIES)
    group: list[ChunkPair] = []
    held = 0
    for pair in normal_chunks(paired, dtype):
        size = sum(codes.entries for codes in pair) + pair[0].rows * (a.dense + b.dense + 1)
        if group and held + size > limit:
            yield group
            group, held = [], 0
        if size <= limit:
            group.append(pair)
            held += size
        else:
            edges = np.linspace(0, pair[0].rows, min(-(-size // limit), pair[0].rows) + 1).astype(int).tolist()
            for low, high in pairwise(edges):
                yield [(row_slice(pair[0], low, high), row_slice(pair[1], low, high))]
    if group:
        yield group


class Outline(NamedTuple):
    """The layout of a group of chunks. It is the same for all panels, so it is computed once."""

    start: Array  # (rows,) uint32, the word at which each row's record starts
    words: int  # words in all
    entries: Array  # (parts, varying features of A) int64, entries that each part of the rows adds to a column


def outline(chunks: list[ChunkPair], a: Profile, b: Profile, dtype: Any, team: Team) -> Outline:
    """Compute the layout of a group of chunks."""
    bounds = _row_bounds(chunks)
    parts = _parts(bounds, team.threads)
    words = np.empty(bounds[-1], np.int64)
    count = np.zeros((len(parts), a.varying), np.int64)
    per_word = _per_word(b, dtype)

    def measure(part: int) -> None:
        for c, first, last in parts[part]:
            codes_a, codes_b = chunks[c]
            out = words[bounds[c] : bounds[c + 1]]
            kernels.record_words(*codes_b, b.rank, b.dense, per_word, first, last, out)
            kernels.count_columns(*codes_a, a.rank, a.dense, first, last, count[part])

    team.each(measure, list(range(len(parts))))
    ends = np.cumsum(words)
    return Outline((ends - words).astype(np.uint32), int(ends[-1]), count)


def records_bound(profile: Profile, n: int, dtype: Any) -> int:
    """The most words that the records of all n rows take: a record's ids are padded to whole words."""
    sparse = profile.entries(n) - profile.dense * n
    return sparse + sparse // _per_word(profile, dtype) + n * (1 + 2 * profile.dense)


def empty_records(words: int, rows: int, profile: Profile, dtype: Any) -> Records:
    """Room for the records of some rows."""
    per_word = _per_word(profile, dtype)
    values = aligned(words, dtype)
    ids = values.view(f"u{values.itemsize // per_word}")
    lines = min(values.nbytes // (64 * max(rows, 1)) + 1, _MOST_RECORD_LINES)
    return Records(values, ids, (0,) * per_word, profile.dense, lines)


def fill_records(chunks: list[ChunkPair], start: Array, profile: Profile, into: Records, team: Team) -> None:
    """Write the rows of B as records that start at the words `start`, (rows,) uint32."""
    bounds = _row_bounds(chunks)

    def fill(pieces: list[_Piece]) -> None:
        for c, first, last in pieces:
            own = start[bounds[c] : bounds[c + 1]]
            kernels.fill_records(
                *chunks[c][1], profile.rank, profile.shift, own, first, last, into.values, into.ids
            )  # fmt: skip

    team.each(fill, _parts(bounds, team.threads))


def empty_columns(entries: Array, dense: int, dtype: Any) -> Columns:
    """Room for columns.

    Args:
        entries: (columns,) the entries of each.
        dense: how many of them, the first ones, are dense.
    """
    start = np.zeros(len(entries) + 1, np.int64)
    np.cumsum(entries, out=start[1:])
    total = int(start[-1])
    return Columns(start, np.empty(total, np.uint32), np.empty(total, dtype), np.empty(int(start[dense]), dtype))


def fill_columns(
    chunks: list[ChunkPair], start: Array, cursor: Array, profile: Profile, low: int, into: Columns, team: Team
) -> None:
    """Write the entries of A at the ranks of `into`, which begin at `low`, with the addresses of their rows' records.

    Args:
        start: (rows,) uint32, these addresses.
        cursor: (parts of the rows, columns) int64, where each part's entries of a column begin. It is changed.
    """
    bounds = _row_bounds(chunks)
    parts = _parts(bounds, team.threads)
    high = low + len(into.start) - 1

    def fill(part: int) -> None:
        for c, first, last in parts[part]:
            own = start[bounds[c] : bounds[c + 1]]
            kernels.fill_columns(
                *chunks[c][0], profile.rank, profile.shift, own, low, high, first, last, cursor[part],
                into.word, into.value, into.low,
            )  # fmt: skip

    team.each(fill, list(range(len(parts))))


def cursors(entries: Array, at: Array) -> Array:
    """Where each part of the rows writes into each column.

    Each part writes behind the parts before it, so every column is in row order whichever thread wrote it.

    Args:
        entries: (parts, columns) entries of each part.
        at: (columns,) where the first part begins.
    """
    return at + np.cumsum(entries, axis=0) - entries


def _per_word(profile: Profile, dtype: Any) -> int:
    """Ids per word. Ids have half the width of a value if ranks and record lengths fit: less memory to fetch."""
    return 2 if dtype == np.float64 or profile.varying < 1 << 16 else 1


def even_ranges(work: Array, parts: int) -> list[tuple[int, int]]:
    """Consecutive, non-empty ranges of about equal work."""
    total = np.cumsum(work, dtype=np.float64)
    edges = np.searchsorted(total, np.linspace(0, total[-1], parts + 1)[1:-1], side="left") + 1
    edges = np.unique(np.concatenate([[0], np.minimum(edges, len(work)), [len(work)]])).tolist()
    return list(pairwise(edges))


def _row_bounds(chunks: list[ChunkPair]) -> list[int]:
    return [0, *np.cumsum([a.rows for a, _ in chunks]).tolist()]


def _parts(bounds: list[int], parts: int) -> list[list[_Piece]]:
    """The rows of all chunks, divided into consecutive parts of equal length."""
    edges = np.linspace(0, bounds[-1], parts + 1).astype(int).tolist()
    divided = []
    for low, high in pairwise(edges):
        pieces = [
            _Piece(c, max(low, bounds[c]) - bounds[c], min(high, bounds[c + 1]) - bounds[c])
            for c in range(len(bounds) - 1)
            if low < bounds[c + 1] and high > bounds[c]
        ]
        if pieces:
            divided.append(pieces)
    return divided
