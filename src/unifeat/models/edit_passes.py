"""One forward pass for edits of single positions: with copies behind the windows, or a window for each edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.copies import copying
from unifeat.models.heads import head_at
from unifeat.models.hooks import capturing
from unifeat.models.language import LanguageModel
from unifeat.models.splicing import splicing, with_rows
from unifeat.vocabulary.hook_points import HookPoint

Indices = NDArray[np.int64]
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Edits:
    """Changes of single positions, each made by itself, all else as it was.

    Attributes:
        window: (edits,) int64, which window.
        position: (edits,) int64, which position of it.
        delta: (edits, width) float32, what is added to the value at the hook point there.
    """

    window: Indices
    position: Indices
    delta: Tensor

    def __len__(self) -> int:
        return len(self.window)

    def some(self, chosen: Indices) -> Edits:
        """A part of them."""
        return Edits(self.window[chosen], self.position[chosen], self.delta[torch.from_numpy(chosen)])


@dataclass(frozen=True)
class EditedLogits:
    """The logits of some of the edits.

    Attributes:
        edit: (n,) int64, which edits.
        logits: (n, vocabulary) in the dtype of the model's head, of the token after each edit's position.
        clean: (places, vocabulary), the same without an edit, a row for each edited position.
        place: (n,) int64, the row of `clean` at each edit's position.
        seen: (n, width) the value at a later hook point at each edit's position, if one is observed.
        seen_clean: (places, width) the same without an edit.
    """

    edit: Indices
    logits: Tensor
    clean: Tensor
    place: Indices
    seen: Tensor | None = None
    seen_clean: Tensor | None = None


@dataclass(frozen=True)
class Row:
    """A window and some of its edits."""

    window: int
    length: int
    edits: Indices
    places: Indices  # positions with an edit, ascending
    place: Indices  # of each edit


def row_of(lengths: Indices, edits: Edits, own: Indices) -> Row:
    places, place = np.unique(edits.position[own], return_inverse=True)
    window = int(edits.window[own[0]])
    return Row(window, int(lengths[window]), own, places, place.reshape(-1).astype(np.int64))


@torch.no_grad()
def with_copies(
    model: LanguageModel,
    ids: Tensor,
    point: HookPoint,
    edits: Edits,
    batch: list[Row],
    observe: HookPoint | None = None,
) -> EditedLogits:
    length = max(row.length for row in batch) + 1  # one column of padding at least: see `copying`
    copies = max(len(row.edits) for row in batch)
    tokens, mask = _padded(ids, batch, length)
    copied = torch.zeros((len(batch), copies), dtype=torch.int64)
    for i, row in enumerate(batch):
        copied[i, : len(row.edits)] = torch.from_numpy(edits.position[row.edits])
    total = length + copies
    edited = [(i, length + k) for i, row in enumerate(batch) for k in range(len(row.edits))]
    clean = [(i, int(position)) for i, row in enumerate(batch) for position in row.places]
    wanted = _flat(edited + clean, total)
    order = np.concatenate([row.edits for row in batch])
    start, at = point.layer, point
    if point.kind == "resid_post" and point.layer + 1 < len(model.blocks):
        # The output of a block is the next one's input: copies of it need not run the block itself.
        start, at = point.layer + 1, HookPoint(point.layer + 1, "resid_pre")
    edit = _adding(model, at, _flat(edited, total), edits.delta[torch.from_numpy(order)])
    with (
        _observing(model, observe, wanted) as seen,
        copying(model.blocks, start, length, copied, edit, wanted),
        head_at(model, torch.arange(len(wanted))),
    ):
        logits = model.causal(
            input_ids=tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).logits[0]
        rows = seen()
    n = len(order)
    values = None if rows is None else (rows[:n], rows[n:])
    return _result(model, point, order, batch, logits[:n], logits[n:], values)


@torch.no_grad()
def plainly(
    model: LanguageModel,
    ids: Tensor,
    point: HookPoint,
    edits: Edits,
    batch: list[Row],
    observe: HookPoint | None = None,
) -> EditedLogits:
    length = max(row.length for row in batch)
    tokens, _ = _padded(ids, batch, length)
    clean = _flat([(i, int(position)) for i, row in enumerate(batch) for position in row.places], length)
    with _observing(model, observe, clean) as seen, head_at(model, clean):
        without = model.causal(input_ids=tokens.to(model.device), use_cache=False).logits[0]
        seen_clean = seen()
    order = np.concatenate([row.edits for row in batch])
    found, later = [], []
    step = max(1, BATCH_TOKENS // length)
    for first in range(0, len(order), step):
        own = order[first : first + step]
        last = edits.position[own]
        cut = int(last.max()) + 1
        # Padding is on the right, where it affects no earlier position, so any token will do.
        rows = ids[torch.from_numpy(edits.window[own])][:, :cut].clamp(min=0)
        at = _flat(list(enumerate(last.tolist())), cut)
        with (
            _observing(model, observe, at) as seen,
            _adding(model, point, at, edits.delta[torch.from_numpy(own)]),
            head_at(model, at),
        ):
            found.append(model.causal(input_ids=rows.to(model.device), use_cache=False).logits[0])
            later.append(seen())
    values = None if seen_clean is None else (torch.cat([part for part in later if part is not None]), seen_clean)
    return _result(model, point, order, batch, torch.cat(found), without, values)


@contextmanager
def _observing(model: LanguageModel, point: HookPoint | None, places: Tensor) -> Iterator[Callable[[], Tensor | None]]:
    """Inside this context, a function that gives the values of the last pass at a point, (places, width)."""
    if point is None:
        yield lambda: None
        return
    with capturing(model.blocks, [point]) as values:

        def seen() -> Tensor:
            value = values.pop(point)
            return value.reshape(-1, value.shape[-1])[places.to(value.device)]

        yield seen


def _flat(places: list[tuple[int, int]], length: int) -> Tensor:
    """Numbers of (row, position) among all positions of rows of a length."""
    return torch.tensor([row * length + position for row, position in places], dtype=torch.int64)


def _padded(ids: Tensor, batch: list[Row], length: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of the rows' windows, (rows, length)."""
    tokens = torch.zeros((len(batch), length), dtype=torch.int64)
    mask = torch.zeros((len(batch), length), dtype=torch.int64)
    for i, row in enumerate(batch):
        tokens[i, : row.length] = ids[row.window, : row.length]
        mask[i, : row.length] = 1
    return tokens, mask


def _adding(model: LanguageModel, point: HookPoint, places: Tensor, delta: Tensor) -> AbstractContextManager[None]:
    """A context in which deltas are added at `places` among all positions of all rows."""

    def added(value: Tensor, _: Tensor) -> Tensor:
        return with_rows(value, places, lambda rows: rows.to(torch.float32) + delta.to(rows.device, torch.float32))

    return splicing(model.blocks, point, added)


def _result(
    model: LanguageModel,
    point: HookPoint,
    order: Indices,
    batch: list[Row],
    logits: Tensor,
    clean: Tensor,
    seen: tuple[Tensor, Tensor] | None,
) -> EditedLogits:
    # (The largest and the smallest tell as much as all, and take a tenth of the time. NaN is both.)
    ends = [end(dim=-1) for rows in (logits, clean) for end in (rows.amax, rows.amin)]
    if not all(bool(torch.isfinite(end).all()) for end in ends):
        raise UserError(
            f"model {model.name}: edits at layer {point.layer} ({point.kind}) make logits with NaN or Inf in "
            f"{model.dtype}; lower the dose, or try dtype float32"
        )
    starts = np.cumsum([0] + [len(row.places) for row in batch[:-1]])
    place = np.concatenate([row.place + start for row, start in zip(batch, starts, strict=True)])
    return EditedLogits(order, logits, clean, place, *(seen or (None, None)))
