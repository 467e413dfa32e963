"""Codes laid out on disk, group by group, for texts whose records do not fit in memory.

Every panel of A's features passes over all tokens, and laying the codes out again for each would take most of the time.
The file is an unnamed one in the folder for temporary files (TMPDIR), so that nothing is left of it after a kill.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from unifeat.correlation.kernels import Columns, Records
from unifeat.correlation.layout import (
    cursors,
    empty_columns,
    empty_records,
    fill_columns,
    fill_records,
    groups,
    outline,
)
from unifeat.correlation.moments import Profile
from unifeat.errors import UserError
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, PairedCodes

_READ_AT_ONCE = 1 << 24


class _Group(NamedTuple):
    """Where a group is in the file, in bytes."""

    rows: int
    words: int
    records: int
    start: Array  # (varying features of A + 1,) int64, the first entry of each column
    word: int
    value: int
    low: int


class Spill:
    """Codes laid out in a temporary file."""

    def __init__(self, paired: PairedCodes, a: Profile, b: Profile, dtype: Any, limit: int, team: Team) -> None:
        """Lay the codes out.

        Args:
            limit: entries of a group, in memory at once.

        Raises:
            UserError: no space on the disk.
            OSError: another error of the machine.
        """
        self._a, self._b, self._dtype, self._team = a, b, np.dtype(dtype), team
        self._file = tempfile.TemporaryFile(prefix="unifeat-")  # noqa: SIM115 (closed by __exit__)
        try:
            self._groups = [self._write(chunks) for chunks in groups(paired, dtype, a, b, limit)]
            self._file.flush()
        except BaseException as error:
            self._file.close()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"disk full while laying out codes in {tempfile.gettempdir()}: free some space there, or set "
                    "TMPDIR to another folder"
                ) from error
            raise

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def groups(self, low: int, high: int) -> Iterator[tuple[Records, Columns]]:
        """The records of each group, and A's columns at ranks low:high. They are valid until the next ones."""
        most = max(group.words for group in self._groups)
        room = empty_records(most, self._groups[0].rows, self._b, self._dtype)
        for group in self._groups:
            self._read(group.records, room.values[: group.words])
            first, last = group.start[low], group.start[high]
            start = group.start[low : high + 1] - first
            dense = int(np.clip(self._a.dense - low, 0, high - low))
            word, value = np.empty(last - first, np.uint32), np.empty(last - first, self._dtype)
            low_part = np.empty(start[dense], self._dtype)
            self._read(group.word + first * word.itemsize, word)
            self._read(group.value + first * value.itemsize, value)
            self._read(group.low + first * value.itemsize, low_part)
            yield room, Columns(start, word, value, low_part)

    def _write(self, chunks: list[Any]) -> _Group:
        plan = outline(chunks, self._a, self._b, self._dtype, self._team)
        records = empty_records(plan.words, len(plan.start), self._b, self._dtype)
        fill_records(chunks, plan.start, self._b, records, self._team)
        columns = empty_columns(plan.entries.sum(axis=0), self._a.dense, self._dtype)
        fill_columns(chunks, plan.start, cursors(plan.entries, columns.start[:-1]), self._a, 0, columns, self._team)
        places = [self._append(array) for array in (records.values, columns.word, columns.value, columns.low)]
        return _Group(len(plan.start), plan.words, places[0], columns.start, *places[1:])

    def _append(self, array: Array) -> int:
        place = self._file.tell()
        self._file.write(array.data)
        return place

    def _read(self, place: int, into: Array) -> None:
        """Fill an array from the file, by all threads: copying from the page cache is limited by one core."""
        view = memoryview(into.view(np.uint8).data)

        def read(at: int) -> None:
            part = view[at : at + _READ_AT_ONCE]
            while part:
                got = os.preadv(self._file.fileno(), [part], place + at)
                if not got:
                    raise OSError(errno.EIO, "the temporary file of codes is shorter than it was")
                part, at = part[got:], at + got

        self._team.each(read, list(range(0, len(view), _READ_AT_ONCE)))
