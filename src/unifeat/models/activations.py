"""Activations of one group of text, run through a model once for all hook points.

Some tokens are masked, since they would dominate every correlation and variance: special tokens, padding, the first
position of a window, and attention sinks (activation norm above `SINK_RATIO` times the group's median). Behind a norm
all tokens have similar norms, so there the norms of the block's input are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifeat.errors import UserError
from unifeat.text.corpus import Part
from unifeat.text.windows import Window, cut_windows, tokenize_part
from unifeat.vocabulary.hook_points import HookPoint, stream_before
from unifeat.vocabulary.masks import SINK_RATIO, Mask, Masked
from unifeat.vocabulary.openings import opening_tokens
from unifeat.vocabulary.places import Places
from unifeat.vocabulary.windowing import Windowing

BATCH_TOKENS = 2048  # larger batches are slower on a CPU: their intermediate values leave the cache


@dataclass
class GroupActivations:
    """All tokens of a group that are neither special nor first in their window.

    Attributes:
        places: (rows,) places.
        values: for each point, a (rows, width) tensor in the model's dtype.
        masked: counts; `sink` is still 0, since sinks differ between points.
        mask_sinks: whether attention sinks are left out.
        stream_norms: for points behind a norm, (rows,) norms of the block's input, which show the sinks there.
    """

    places: Places
    values: dict[HookPoint, Tensor]
    masked: Masked
    mask_sinks: bool = True
    stream_norms: dict[HookPoint, Tensor] = field(default_factory=dict)

    def without_sinks(self, point: HookPoint) -> tuple[Tensor, Places, Masked]:
        """Rows at one point without attention sinks: ((rows, d) float32, places, counts)."""
        keep = ~self.sinks(point)
        kept = keep.cpu().numpy()
        masked = replace(self.masked, sink=int((~kept).sum()))
        return self.values[point].to(torch.float32)[keep], self.places[kept], masked

    def beside(self, point: HookPoint, other: HookPoint) -> Tensor:
        """(rows, d) float32 at another point, for the tokens that `without_sinks(point)` gives."""
        return self.values[other].to(torch.float32)[~self.sinks(point)]

    def sinks(self, point: HookPoint) -> Tensor:
        """(rows,) which tokens are left out as attention sinks."""
        norms = self._norms(point)
        return are_sinks(norms) if self.mask_sinks else torch.zeros_like(norms, dtype=torch.bool)

    def sink_norm(self, point: HookPoint) -> float:
        """The norm at `stream_before(point)` above which a token is an attention sink; infinite without rows."""
        norms = self._norms(point)
        return float(SINK_RATIO * norms.median()) if len(norms) else float("inf")

    def _norms(self, point: HookPoint) -> Tensor:
        held = self.stream_norms.get(point)
        return self.values[point].to(torch.float32).norm(dim=-1) if held is None else held


def are_sinks(norms: Tensor) -> Tensor:
    """(rows,) mask of the attention sinks among tokens with these activation norms: above 5 × the median."""
    return norms > SINK_RATIO * norms.median() if len(norms) else norms > 0


class Reader(Protocol):
    """A model whose activations can be read: a `LanguageModel`, or one that a user brings.

    Attributes:
        name: for messages.
        tokenizer: a fast tokenizer, which gives character offsets.
        special_ids: ids of special tokens, which are masked.
        device, dtype: of the activations.
        longest_window: the most tokens that it accepts; None if it does not say.
        vocabulary: how many ids it knows; None if it does not say.
    """

    name: str
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype

    @property
    def special_ids(self) -> frozenset[int]: ...
    @property
    def longest_window(self) -> int | None: ...
    @property
    def vocabulary(self) -> int | None: ...

    def width(self, point: HookPoint) -> int:
        """Number of values per token at a hook point."""
        ...

    def activations(self, input_ids: Tensor, points: list[HookPoint]) -> dict[HookPoint, Tensor]:
        """(batch, position, width) at each point, of (batch, position) ids padded on the right."""
        ...


def run_group(model: Reader, parts: list[Part], points: list[HookPoint], windowing: Windowing) -> GroupActivations:
    """Tokenize a group of text, cut it into windows and run the model; a pure function of its arguments.

    Raises:
        UserError: activations with NaN or Inf, naming model and layer; windows longer than the model accepts.
    """
    context, mask = windowing.context, windowing.mask
    if model.longest_window is not None and context > model.longest_window:
        raise UserError(
            f"model {model.name} accepts windows of at most {model.longest_window} tokens: lower text.context from "
            f"{context}"
        )
    prefix = opening_tokens(windowing.opening)
    if len(prefix) >= context:
        raise UserError(
            f"model {model.name}: the opening takes {len(prefix)} of a window's {context} tokens; raise text.context"
        )
    cut: list[Window] = []
    for part in parts:
        tokenized = tokenize_part(model.tokenizer, part)
        cut += cut_windows(
            tokenized,
            prefix,
            context,
            at_start=part.start == 0,
            limit=windowing.limit,
            with_opening=not mask.special,
            pad=None if mask.pads else pad_token(model.tokenizer),
        )
    _check_vocabulary(model, cut)
    starts = np.r_[0, np.cumsum([window.rows for window in cut])].astype(np.int64)
    values = {
        point: torch.empty((int(starts[-1]), model.width(point)), dtype=model.dtype, device=model.device)
        for point in points
    }
    behind = [point for point in points if stream_before(point) != point]
    norms = {point: torch.empty(int(starts[-1]), dtype=torch.float32, device=model.device) for point in behind}
    read = list(dict.fromkeys([*points, *map(stream_before, behind)]))
    for batch in _batches(np.array([len(window.ids) for window in cut], np.int64)):
        width = max(len(cut[index].ids) for index in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.int64)
        for row, index in enumerate(batch):
            ids[row, : len(cut[index].ids)] = torch.from_numpy(cut[index].ids.astype(np.int64))
        seen = model.activations(ids, read)
        # All windows of the batch at once: on a GPU, a copy for each would cost more than the copies themselves.
        rows_of = [np.arange(cut[index].lead, len(cut[index].ids)) + row * width for row, index in enumerate(batch)]
        source = torch.from_numpy(np.concatenate(rows_of)).to(model.device)
        target = torch.from_numpy(np.concatenate([np.arange(starts[index], starts[index + 1]) for index in batch])).to(
            model.device
        )
        for point in points:
            values[point].index_copy_(0, target, seen[point].flatten(0, 1)[source])
            if point in norms:
                stream = seen[stream_before(point)].flatten(0, 1)[source]
                norms[point].index_copy_(0, target, stream.to(torch.float32).norm(dim=-1))
    places, keep, masked = _places(model, cut, mask)
    kept = torch.from_numpy(keep).to(model.device)
    values = {point: value[kept] for point, value in values.items()}
    for point, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(
                f"model {model.name}, layer {point.layer} ({point.kind}): activations hold NaN or Inf in "
                f"{model.dtype}; try dtype float32 or bfloat16, or check the model's weights"
            )
    norms = {point: value[kept] for point, value in norms.items()}
    return GroupActivations(places[keep], values, masked, mask.sinks, norms)


def pad_token(tokenizer: Any) -> int:
    """The token that pads windows: the tokenizer's padding token or, without one, its end of text."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _check_vocabulary(model: Reader, cut: list[Window]) -> None:
    rows = model.vocabulary
    largest = max((int(window.ids.max()) for window in cut), default=0)
    if rows is not None and largest >= rows:
        raise UserError(
            f"model {model.name}: its tokenizer gives token {largest}, but its embeddings end at {rows - 1}: "
            "the tokenizer belongs to another model"
        )


def _places(model: Reader, cut: list[Window], mask: Mask) -> tuple[Places, NDArray[np.bool_], Masked]:
    """The place of each row, whether it is kept, and how many positions are masked."""

    def column(name: str) -> NDArray[np.int32]:
        return np.concatenate([getattr(window, name) for window in cut] or [np.zeros(0, np.int32)])

    rows = np.array([window.rows for window in cut], np.int64)
    documents = np.repeat(np.array([window.document for window in cut], np.int32), rows)
    places = Places(documents, column("char_end"), column("order"), column("token"))
    pad = np.concatenate([window.is_pad for window in cut] or [np.zeros(0, bool)])
    opening = np.concatenate([window.is_opening for window in cut] or [np.zeros(0, bool)])
    special = (np.isin(places.token, np.fromiter(model.special_ids, np.int32)) | opening) & ~pad
    first = np.zeros(len(places), bool)
    # The first position of a window with an opening belongs to the opening, and is a row only if openings give rows.
    begins = np.r_[0, np.cumsum(rows)[:-1]][[window.lead == 0 for window in cut]].astype(np.int64)
    first[begins[begins < len(places)]] = True
    dropped = (special & mask.special) | (first & mask.first)
    hidden = sum(window.lead for window in cut)
    opened = sum(window.lead > 0 for window in cut)  # an opening's first token counts as first, the others as special
    masked = Masked(
        read=len(places) + hidden,
        special=int((special & mask.special).sum()) + hidden - opened,
        first=int((first & mask.first & ~(special & mask.special)).sum()) + opened,
        pad=int(pad.sum()),
    )
    return places, ~dropped, masked


def _batches(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Batches of about `BATCH_TOKENS` in windows of similar length. Only the lengths decide, so results repeat."""
    by_length = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(by_length):
        size = max(1, BATCH_TOKENS // int(lengths[by_length[start]]))
        batches.append(by_length[start : start + size])
        start += size
    return batches
