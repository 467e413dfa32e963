"""Paired codes whose rows belong to groups, such as rows of the same token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from unifeat.errors import UserError
from unifeat.vocabulary.paired_codes import Array, ChunkPair, CodesOver, PairedCodes


@runtime_checkable
class GroupedCodes(PairedCodes, Protocol):
    """Paired codes, with the group of each row."""

    @property
    def sizes(self) -> Array:
        """(groups,) int64, the rows of each group."""
        ...

    def grouped_chunks(self) -> Iterator[tuple[ChunkPair, Array]]:
        """The chunks, each with the groups of its rows: (rows,) int64, from 0."""
        ...


@dataclass(frozen=True)
class InGroups(CodesOver):
    """Paired codes with an array of groups.

    Attributes:
        group: (n_rows,) int64, the group of each row: 0, 1, 2 … without gaps.
    """

    group: Array

    @cached_property
    def sizes(self) -> Array:
        """(groups,) int64, the rows of each group."""
        return np.bincount(self.group)

    def grouped_chunks(self) -> Iterator[tuple[ChunkPair, Array]]:
        """The chunks, each with the groups of its rows."""
        done = 0
        for chunk in self.codes.chunks():
            rows = chunk[0].rows
            yield chunk, self.group[done : done + rows]
            done += rows


def in_groups(codes: PairedCodes, groups: Any) -> InGroups:
    """Paired codes with a label for each row.

    Args:
        groups: (n_rows,) integers; equal ones are one group.

    Raises:
        UserError: not one integer a row.
    """
    labels = np.asarray(groups)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"groups must be one integer a row, not {labels.ndim}-D {labels.dtype}")
    if len(labels) != codes.n_rows:
        raise UserError(f"there are {len(labels)} groups for {codes.n_rows} rows of codes: give one integer a row")
    return InGroups(codes, np.unique(labels, return_inverse=True)[1].astype(np.int64))
