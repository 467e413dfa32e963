"""The input embeddings of each feature's strongest tokens: what decoder rows may owe to the tokens alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unifeat.codes.top_activations import TopTokens
from unifeat.engine import Held, Unit
from unifeat.models.placement import ONE_GPU
from unifeat.pipeline.loading import Loader
from unifeat.store import Form, Piece

VERSION = 1  # raised whenever the embeddings of the same tokens change
_OPEN = Held(8)


def _write(rows: NDArray[np.float32], folder: Path) -> None:
    np.save(folder / "rows.npy", rows)


_FORM: Form[Any] = Form(_write, lambda value, folder: np.load(folder / "rows.npy", mmap_mode="r"))


@dataclass(frozen=True)
class TokenEmbeddings:
    """For each feature of a space, the mean of its model's input embeddings of the feature's strongest tokens.

    Attributes:
        tops: the strongest tokens, as many as the study's token filters look at.
        features: how many features the space has.
        loader: loads the model.
    """

    tops: TopTokens
    features: int
    loader: Loader

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines them, as JSON data."""
        return {"version": VERSION, "tops": self.tops.identity, "model": self.loader.identity}

    @property
    def unit(self) -> Unit[NDArray[np.float32]]:
        """The unit of work that makes them: (features, d_model) float32, on disk; zeros for a feature that is dead."""
        piece = Piece("token-embeddings", self.identity, _FORM, "embeddings of the strongest tokens")
        on_gpu = self.loader.spec.device in ONE_GPU
        work = partial(_mean_embeddings, self)
        return Unit(piece, work, fills_machine=True, model=self.loader.key, gpu=on_gpu)

    def rows(self, features: NDArray[np.integer]) -> NDArray[np.float32]:
        """The rows of some features, (n, d_model) float32."""
        unit = self.unit
        assert isinstance(unit.piece, Piece)
        return np.asarray(_OPEN.get(unit.piece.path, unit.result)[features])


@torch.inference_mode()
def _mean_embeddings(of: TokenEmbeddings) -> NDArray[np.float32]:
    tops = of.tops.tops.result()
    tops = tops[tops["rank"] < of.tops.n]
    embedding: Any = of.loader.model().decoder.get_input_embeddings()  # type: ignore[operator]
    tokens, place = np.unique(tops["token"].to_numpy(np.int64), return_inverse=True)
    device = next(embedding.parameters()).device
    embedded = embedding(torch.from_numpy(tokens).to(device)).to("cpu", torch.float32).numpy()
    feature = tops["feature"].to_numpy()
    sums = np.zeros((of.features, embedded.shape[1]))
    np.add.at(sums, feature, embedded[place])
    counts = np.bincount(feature, minlength=of.features)
    return np.asarray(sums / np.maximum(counts, 1)[:, None], np.float32)
