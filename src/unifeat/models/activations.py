"""Activations of one unit of work: a group of text run through a model once, for all hook points wanted.

Masked, since they would dominate every correlation and variance: special tokens, padding, the first position of a
window, and attention sinks (activation norm above `SINK_RATIO` times the group's median).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.hooks import HookPoint
from unifeat.models.language import LanguageModel
from unifeat.models.opening import Opening, opening_tokens
from unifeat.text.corpus import Part
from unifeat.text.windows import TokenizedPart, tokenize_part, windows

SINK_RATIO = 5.0
BATCH_TOKENS = 2048  # larger batches are slower on a CPU: their intermediate values leave the cache


@dataclass(frozen=True)
class Places:
    """Where each row of codes comes from; arrays of shape (rows,), int32, in order of document and character.

    Attributes:
        document: number of the document in the corpus.
        char_end: the character of the document at which the token ends.
        order: 0 for the last token ending there (see `TokenizedPart.order`).
        token: the token's id in the model's vocabulary.
    """

    document: NDArray[np.int32]
    char_end: NDArray[np.int32]
    order: NDArray[np.int32]
    token: NDArray[np.int32]

    def __getitem__(self, keep: NDArray[np.bool_]) -> Places:
        return Places(*(getattr(self, field.name)[keep] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.document)


@dataclass
class Masked:
    """How many tokens were read, and how many left out for which reason."""

    read: int = 0
    special: int = 0
    first: int = 0
    sink: int = 0


@dataclass
class GroupActivations:
    """All tokens of a group that are neither special nor first in their window.

    Attributes:
        places: (rows,) places.
        values: for each point a (rows, d_model) tensor in the model's dtype.
        masked: counts; `sink` is still 0, since sinks differ by point.
    """

    places: Places
    values: dict[HookPoint, Tensor]
    masked: Masked

    def without_sinks(self, point: HookPoint) -> tuple[Tensor, Places, Masked]:
        """Rows at one point with attention sinks left out: ((rows, d) float32, places, counts)."""
        x = self.values[point].to(torch.float32)
        keep = ~is_sink(x)
        kept = keep.cpu().numpy()
        masked = Masked(self.masked.read, self.masked.special, self.masked.first, int((~kept).sum()))
        return x[keep], self.places[kept], masked


def is_sink(x: Tensor) -> Tensor:
    """(rows, d) to a (rows,) mask of the attention sinks: norm above 5 × the median norm of these rows."""
    norms = x.norm(dim=-1)
    return norms > SINK_RATIO * norms.median() if len(norms) else norms > 0


def sink_norm(x: Tensor) -> float:
    """5 × the median norm of (rows, d) activations; infinite if there are none."""
    return float(SINK_RATIO * x.norm(dim=-1).median()) if len(x) else float("inf")


def run_group(
    model: LanguageModel, parts: list[Part], points: list[HookPoint], *, context: int, bos: Opening
) -> GroupActivations:
    """Tokenize, window and run a group of text; a pure function of its arguments.

    Args:
        context: window length in tokens, the opening included.
        bos: what begins every window: a token, a chat template's tokens, or None. It gives no rows.

    Raises:
        UserError: activations with NaN or Inf, naming model and layer; windows longer than the model takes.
    """
    longest = getattr(model.decoder.config, "max_position_embeddings", None)
    if longest is not None and context > longest:
        raise UserError(
            f"model {model.name} takes windows of at most {longest} tokens: lower text.context from {context}"
        )
    prefix = opening_tokens(bos)
    if len(prefix) >= context:
        raise UserError(
            f"model {model.name}: what begins a window takes {len(prefix)} tokens of its {context}; raise text.context"
        )
    pieces: list[tuple[TokenizedPart, slice]] = []
    for part in parts:
        tokenized = tokenize_part(model.tokenizer, part)
        pieces += [(tokenized, window) for window in windows(tokenized, context - len(prefix))]
    _check_vocabulary(model, pieces)
    lengths = np.array([window.stop - window.start for _, window in pieces], np.int64)
    starts = np.r_[0, np.cumsum(lengths)]
    values = {
        point: torch.empty((int(starts[-1]), model.d_model), dtype=model.dtype, device=model.device) for point in points
    }
    for batch in _batches(lengths + len(prefix)):
        width = int(lengths[batch].max()) + len(prefix)
        ids = torch.zeros((len(batch), width), dtype=torch.int64)
        for row, index in enumerate(batch):
            tokenized, window = pieces[index]
            body = tokenized.token[window].tolist()
            ids[row, : len(prefix) + len(body)] = torch.tensor(prefix + body)
        seen = model.activations(ids, points)
        for point in points:
            for row, index in enumerate(batch):
                body_values = seen[point][row, len(prefix) : len(prefix) + lengths[index]]
                values[point][starts[index] : starts[index + 1]] = body_values
    places, keep, masked = _places(model, pieces, opening=len(prefix))
    kept = torch.from_numpy(keep).to(model.device)
    values = {point: value[kept] for point, value in values.items()}
    for point, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(
                f"model {model.name}, layer {point.layer} ({point.kind}): activations hold NaN or Inf in "
                f"{model.dtype}; try dtype float32 or bfloat16, or look at the model's weights"
            )
    return GroupActivations(places[keep], values, masked)


def _check_vocabulary(model: LanguageModel, pieces: list[tuple[TokenizedPart, slice]]) -> None:
    rows = int(model.decoder.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    largest = max((int(t.token[w].max()) for t, w in pieces), default=0)
    if largest >= rows:
        raise UserError(
            f"model {model.name}: its tokenizer gives token {largest} and its embeddings end at {rows - 1}: "
            "the tokenizer is another model's"
        )


def _places(
    model: LanguageModel, pieces: list[tuple[TokenizedPart, slice]], opening: int
) -> tuple[Places, NDArray[np.bool_], Masked]:
    def column(name: str) -> NDArray[np.int32]:
        return np.concatenate([getattr(t, name)[w] for t, w in pieces] or [np.zeros(0, np.int32)])

    lengths = [w.stop - w.start for _, w in pieces]
    documents = np.repeat(np.array([t.document for t, _ in pieces], np.int32), lengths)
    places = Places(documents, column("char_end"), column("order"), column("token"))
    special = np.isin(places.token, np.fromiter(model.special_ids, np.int32))
    first = np.zeros(len(places), bool)
    if not opening and lengths:
        first[np.r_[0, np.cumsum(lengths)[:-1]]] = True
    opened = len(pieces) if opening else 0  # an opening's first token is a first position, its others are special
    masked = Masked(
        read=len(places) + opening * len(pieces),
        special=int(special.sum()) + opening * len(pieces) - opened,
        first=int((first & ~special).sum()) + opened,
    )
    return places, ~(special | first), masked


def _batches(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Windows of like length together, `BATCH_TOKENS` at a time: fixed by the lengths alone, so results repeat."""
    by_length = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(by_length):
        size = max(1, BATCH_TOKENS // int(lengths[by_length[start]]))
        batches.append(by_length[start : start + size])
        start += size
    return batches
