"""All codes laid out in memory: B's records once, and A's columns, all at once or a range of them at a time.

Codes are read group by group, so that those that come from a store on disk are never in memory as a whole beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from unifeat.correlation.kernels import Columns, Records
from unifeat.correlation.layout import (
    MOST_WORDS,
    cursors,
    empty_columns,
    empty_records,
    fill_columns,
    fill_records,
    groups,
    outline,
    records_bound,
)
from unifeat.correlation.moments import Profile
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, PairedCodes

_FEWEST_FOR_COLUMNS = 0.25  # of the memory: with less, there would be many passes over the codes


class LaidOut:
    """The codes of two spaces, laid out for `kernels.multiply`.

    Attributes:
        records: the rows of B.
    """

    records: Records

    def __init__(self, paired: PairedCodes, a: Profile, b: Profile, dtype: Any, limit: int, team: Team) -> None:
        """Make room for B's records; the first call of `columns` fills them.

        Args:
            limit: entries of a group of chunks, in memory at once beside what is laid out.
        """
        self._paired, self._a, self._b, self._dtype, self._limit, self._team = paired, a, b, dtype, limit, team
        self.records = empty_records(records_bound(b, paired.n_rows, dtype), paired.n_rows, b, dtype)
        self._start = np.empty(paired.n_rows, np.uint32)  # the word at which each row's record starts
        self._with_records = False

    @staticmethod
    def fits(b: Profile, n: int, dtype: Any, memory: float) -> bool:
        """Whether B's records fit into `memory` bytes, with room for some of A's columns."""
        words = records_bound(b, n, dtype)
        return words <= MOST_WORDS and words * np.dtype(dtype).itemsize <= (1 - _FEWEST_FOR_COLUMNS) * memory

    def column_ranges(self, memory: float) -> Iterator[tuple[int, int]]:
        """Ranges of A's ranks whose columns fit into the rest of `memory` bytes."""
        left = max(memory - self.records.values.nbytes, _FEWEST_FOR_COLUMNS * memory)
        most = max(left / (4 + np.dtype(self._dtype).itemsize), 1)
        ends = np.cumsum(self._entries())
        low = 0
        while low < self._a.varying:
            before = ends[low - 1] if low else 0
            high = max(int(np.searchsorted(ends, before + most, side="right")), low + 1)
            yield low, high
            low = high

    def columns(self, low: int, high: int) -> Columns:
        """The columns of A's ranks low:high. Reads all codes once, the first time for B's records too."""
        dense = int(np.clip(self._a.dense - low, 0, high - low))
        into = empty_columns(self._entries()[low:high], dense, self._dtype)
        at, row, word = into.start[:-1].copy(), 0, 0
        for chunks in groups(self._paired, self._dtype, self._a, self._b, self._limit):
            plan = outline(chunks, self._a, self._b, self._dtype, self._team)
            start = self._start[row : row + len(plan.start)]
            if not self._with_records:
                np.add(plan.start, np.uint32(word), out=start)
                fill_records(chunks, start, self._b, self.records, self._team)
            entries = plan.entries[:, low:high]
            fill_columns(chunks, start, cursors(entries, at), self._a, low, into, self._team)
            at += entries.sum(axis=0)
            row, word = row + len(plan.start), word + plan.words
        self._with_records = True
        return into

    def _entries(self) -> Array:
        """(varying features of A,) the entries of each column."""
        counts = self._a.moments.count[self._a.order].astype(np.int64)
        counts[: self._a.dense] = self._paired.n_rows
        return counts
