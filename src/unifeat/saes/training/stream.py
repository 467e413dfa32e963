"""An endless stream of shuffled batches of activations, with memory that does not grow with the text.

The text is read in buffers: as many activations as `train.buffer` allows, from groups of text in random order. Each
buffer is shuffled and given out in batches before the next one is read. At its end, the text starts again. All choices
depend only on the seed and the buffer's number, so that a training can be resumed from a few numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.training.activations import ActivationSource, Rows
from unifeat.vocabulary.hook_points import HookPoint

Batch = dict[HookPoint, Tensor]


@dataclass
class Position:
    """Where a buffer begins, and how much of it has been given out.

    Attributes:
        buffer: its number, from 0.
        epoch, index, offset: its first row: pass over the text, place in that pass's order of groups, row of the group.
        batch: number of batches given out from it.
    """

    buffer: int = 0
    epoch: int = 0
    index: int = 0
    offset: int = 0
    batch: int = 0


class ActivationStream:
    """Batches of the same rows at all points of a source.

    Args:
        source: where rows come from.
        batch: rows per batch.
        buffer: largest number of rows in memory, besides the group being read; they are shuffled together.
        last_document: documents from this one on are held out.
        seed: seed of all shuffling.
        position: where to resume, from `state`; None for the beginning.

    Raises:
        UserError: one pass over the text does not fill a batch.
    """

    def __init__(
        self,
        source: ActivationSource,
        *,
        batch: int,
        buffer: int,
        last_document: int,
        seed: int,
        position: dict[str, Any] | None = None,
    ) -> None:
        self.source = source
        self.batch = batch
        self.capacity = max(1, buffer // batch) * batch
        self.last_document = last_document
        self.seed = seed
        self._at = Position(**position) if position else Position()
        self._held: Batch = {}
        self._rows = 0
        self._next = Position()  # where the buffer after this one begins
        self._completed: list[int] = []  # groups whose last row is in this buffer
        self._spent: list[int] = []  # groups whose last row was in an earlier buffer
        self._fill()

    def state(self) -> dict[str, Any]:
        """The `position` for resuming from here."""
        return asdict(self._at)

    def take(self) -> Batch:
        """The next batch: at each point (batch, d_model) float32."""
        if (self._at.batch + 1) * self.batch > self._rows:
            self._at = self._next
            self._fill()
        self._at.batch += 1
        return self._batch(self._at.batch - 1)

    def peek(self, batches: int) -> list[Batch]:
        """The next batches of this buffer, at most this many, without taking them."""
        last = min(self._at.batch + batches, self._rows // self.batch)
        return [self._batch(n) for n in range(self._at.batch, last)]

    def spent(self) -> list[int]:
        """Groups that no buffer from this one on reads in this pass; each is returned once."""
        groups, self._spent = self._spent, []
        return groups

    def _batch(self, number: int) -> Batch:
        chosen = self._order[number * self.batch : (number + 1) * self.batch]
        return {point: value[chosen].to(torch.float32) for point, value in self._held.items()}

    def _fill(self) -> None:
        """Read the buffer that begins at the position. One too small for a batch is skipped."""
        while True:
            self._spent += self._completed
            self._completed, self._rows = [], 0
            at = replace(self._at, buffer=self._at.buffer + 1, batch=0)
            groups = self._groups(at.epoch)
            while at.index < len(groups) and self._rows < self.capacity:
                rows = self._training_rows(groups[at.index])
                taken = min(len(rows) - at.offset, self.capacity - self._rows)
                self._keep(rows, slice(at.offset, at.offset + taken))
                at.offset += taken
                if at.offset == len(rows):
                    if len(rows):
                        self._completed.append(groups[at.index])
                    at.index, at.offset = at.index + 1, 0
            if at.index == len(groups):
                at.epoch, at.index = at.epoch + 1, 0
            self._next = at
            if self._rows >= self.batch:
                break
            if self._at.index == self._at.offset == 0:  # a whole pass
                raise UserError("train.text is too short to fill one batch: give more text or lower train.batch")
            self._at = self._next
        order = np.random.default_rng([self.seed, 1, self._at.buffer]).permutation(self._rows)
        self._order = torch.from_numpy(order)

    def _groups(self, epoch: int) -> list[int]:
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(self.source.corpus.groups)
        return [int(group) for group in order]

    def _training_rows(self, group: int) -> Rows:
        # A group with only held-out documents need not be run.
        if self.source.corpus.group_documents[group][0] >= self.last_document:
            return Rows({}, torch.zeros(0, dtype=torch.int32))
        rows = self.source.group(group)
        return rows[rows.document < self.last_document]

    def _keep(self, rows: Rows, chosen: slice) -> None:
        n = chosen.stop - chosen.start
        for point, value in rows.values.items():
            if point not in self._held:
                self._held[point] = torch.empty((self.capacity, value.shape[1]), dtype=value.dtype)
            self._held[point][self._rows : self._rows + n] = value[chosen]
        self._rows += n


def heldout_rows(source: ActivationSource, first_document: int) -> Iterator[Rows]:
    """The rows of the documents from `first_document` on, group by group."""
    for group in range(source.corpus.groups):
        if source.corpus.group_documents[group][1] >= first_document:
            rows = source.group(group)
            yield rows[rows.document >= first_document]
