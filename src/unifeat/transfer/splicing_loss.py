"""What a model loses when rebuilt activations stand in for its own at some tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import Float64, Integer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from unifeat.models.language import LanguageModel
from unifeat.models.resuming import Again
from unifeat.models.splicing import splicing, with_rows
from unifeat.text.windows import Window
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.places import Places

CLEAN = "clean"
# Logits that are held at once, whatever the vocabulary and the length of windows: 256 MiB in float32, and as many of
# the clean model. Softmaxes of them are computed in smaller parts.
_LOGITS, _AT_A_TIME = 1 << 26, 1 << 22


@dataclass
class Losses:
    """Sums over the tokens at which activations were replaced and whose next token is in the window, by document.

    Attributes:
        tokens: by document.
        nats: by variant and document: Σ cross-entropy of the next token.
        divergence: by variant and document: Σ KL(clean ‖ spliced), in nats.
    """

    tokens: dict[int, int] = field(default_factory=dict)
    nats: dict[str, dict[int, float]] = field(default_factory=dict)
    divergence: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, name: str, document: NDArray[np.integer], nats: Tensor, divergence: Tensor) -> None:
        """Add tokens of one variant; those of `clean` are also counted."""
        for number in np.unique(document):
            own = torch.from_numpy(document == number)
            key = int(number)
            if name == CLEAN:
                self.tokens[key] = self.tokens.get(key, 0) + int(own.sum())
            for sums, values in ((self.nats, nats), (self.divergence, divergence)):
                by_document = sums.setdefault(name, {})
                by_document[key] = by_document.get(key, 0.0) + float(values[own].double().sum())


def rows_in(window: Window, places: Places) -> NDArray[np.int64]:
    """For each position of a window, the row of `places` that it is, or −1: (positions,)."""
    found = np.full(len(window.ids), -1, np.int64)
    candidates = np.flatnonzero(places.document == window.document)
    known = _keys(places.char_end[candidates], places.order[candidates])
    own = _keys(window.char_end, window.order)
    by_key = np.argsort(known, kind="stable")
    at = np.searchsorted(known[by_key], own)
    inside = at < len(known)
    rows = candidates[by_key[at[inside]]]
    same = np.zeros(len(own), bool)
    same[inside] = known[by_key[at[inside]]] == own[inside]
    of_text = ~(window.is_pad | window.is_opening)
    found[window.lead :][inside] = rows
    found[window.lead :][~(same & of_text)] = -1
    return found


def _keys(char_end: Integer[np.ndarray, " n"], order: Integer[np.ndarray, " n"]) -> NDArray[np.int64]:
    """Places in a document as whole numbers. (Beyond 4,096 tokens that end at one character, they are not distinct.)"""
    return char_end.astype(np.int64) << 12 | np.minimum(order.astype(np.int64), 4095)


@torch.inference_mode()
def spliced_losses(
    model: LanguageModel,
    windows: list[tuple[Window, NDArray[np.int64]]],
    point: HookPoint,
    variants: Callable[[NDArray[np.int64]], Iterator[tuple[str, Float64[np.ndarray, "n d"]]]],
    losses: Losses,
) -> None:
    """Run windows with each variant spliced in, and add what it costs.

    Args:
        model: loaded with `whole=True`.
        windows: each with the row of every position, −1 where the activation stays.
        point: where activations are replaced.
        variants: gives, for some rows, each variant's name and activations.
        losses: what is added to.
    """
    vocabulary = int(model.causal.config.get_text_config().vocab_size)
    longest = max((len(window.ids) for window, _ in windows), default=1)
    size = max(1, _LOGITS // (longest * vocabulary))
    for start in range(0, len(windows), size):
        batch = windows[start : start + size]
        width = max(len(window.ids) for window, _ in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.int64)
        rows = np.full((len(batch), width), -1, np.int64)
        document = np.zeros((len(batch), width), np.int64)
        for number, (window, own) in enumerate(batch):
            ids[number, : len(window.ids)] = torch.from_numpy(window.ids.astype(np.int64))
            rows[number, : len(own)] = own
            document[number] = window.document
        replaced = torch.from_numpy(rows >= 0)
        following = torch.zeros_like(replaced)
        for number, (window, _) in enumerate(batch):
            following[number, : len(window.ids) - 1] = True
        scored = replaced & following
        put_rows = rows[rows >= 0]
        for some in _parts(scored, max(1, _LOGITS // vocabulary)):
            targets = ids.roll(-1, 1)[some].to(model.device)
            of_document = document[some.numpy()]
            again = Again(model, ids, point, some)
            losses.add(CLEAN, of_document, *_costs(again.clean, again.clean, targets))
            for name, made in variants(put_rows):
                put = partial(_put, replaced, torch.from_numpy(made))
                with splicing(model.blocks, point, put):
                    losses.add(name, of_document, *_costs(again.clean, again.logits(), targets))


def _parts(chosen: Tensor, most: int) -> Iterator[Tensor]:
    """A mask of any shape as masks of at most so many of its places."""
    for places in torch.nonzero(chosen.flatten())[:, 0].split(most):
        part = torch.zeros(chosen.numel(), dtype=torch.bool)
        part[places] = True
        yield part.reshape(chosen.shape)


def _costs(clean: Tensor, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of logits (n, vocabulary): the cross-entropy of the next token, and KL(clean ‖ these), (n,) each, on the CPU."""
    found = []
    step = max(1, _AT_A_TIME // clean.shape[-1])
    for before, after, target in zip(clean.split(step), logits.split(step), targets.split(step), strict=True):
        one, other = (log_softmax(values.to(torch.float32), -1) for values in (before, after))
        nats = -other.gather(1, target[:, None])[:, 0]
        found.append((nats.cpu(), (one.exp() * (one - other)).sum(-1).cpu()))
    nats, divergence = (torch.cat(part) for part in zip(*found, strict=True))
    return nats, divergence


def _put(replaced: Tensor, values: Tensor, value: Tensor, _: Tensor) -> Tensor:
    return with_rows(value, replaced, lambda rows: values)
