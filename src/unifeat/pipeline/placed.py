"""The windows that hold some sampled tokens, and where in them each token is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifeat.models.edits import Edits
from unifeat.models.language import LanguageModel
from unifeat.pipeline.spaces import Space
from unifeat.text.corpus import Corpus, Part
from unifeat.text.windows import Window, cut_windows, tokenize_part
from unifeat.transfer.splicing_loss import rows_in
from unifeat.vocabulary.openings import opening_tokens
from unifeat.vocabulary.places import Places

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Placed:
    """Windows of one model that hold some of the sampled tokens.

    Attributes:
        ids: (windows, positions) token ids, −1 behind a window's end.
        window, position: (sampled tokens,) where each is; −1 for those that were not asked for.
    """

    ids: Tensor
    window: Ids
    position: Ids

    def edits(self, rows: Ids, delta: NDArray[np.float32]) -> Edits:
        """Edits at some of the tokens: what is added there, (rows, width)."""
        return Edits(self.window[rows], self.position[rows], torch.from_numpy(delta))


def windows_of(space: Space, model: LanguageModel, part: Part) -> list[Window]:
    """A part of a document as a space's model reads it."""
    windowing = space.windowing
    assert windowing is not None
    return cut_windows(
        tokenize_part(model.tokenizer, part),
        opening_tokens(windowing.opening),
        windowing.context,
        at_start=part.start == 0,
        limit=windowing.limit,
    )


def placed(space: Space, places: Places, rows: Ids, model: LanguageModel, corpus: Corpus) -> Placed:
    """Find sampled tokens in the windows of a space's model.

    Args:
        places: of all sampled tokens, as this model cuts the text.
        rows: which of them are wanted.
        model: the space's, for its tokenizer.
    """
    wanted = np.zeros(len(places), bool)
    wanted[rows] = True
    ids: list[NDArray[np.int32]] = []
    window_of, position_of = (np.full(len(places), -1, np.int64) for _ in range(2))
    for part in corpus.parts_of(set(places.document[rows].tolist())):
        for window in windows_of(space, model, part):
            at = rows_in(window, places)
            position = np.flatnonzero((at >= 0) & wanted[np.maximum(at, 0)])
            if len(position):
                window_of[at[position]], position_of[at[position]] = len(ids), position
                ids.append(window.ids)
    padded = torch.full((len(ids), max(map(len, ids), default=1)), -1, dtype=torch.int64)
    for number, own in enumerate(ids):
        padded[number, : len(own)] = torch.from_numpy(own.astype(np.int64))
    return Placed(padded, window_of, position_of)
