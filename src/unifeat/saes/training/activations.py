"""A model's activations over the training text, computed one group of text at a time and stored on disk.

A group at one hook point is a piece: it has a checksum and a key made from everything that determines it. So a second
epoch, a second training or a resumed one reads it instead of running the model. With `train.store`, activations stay in
the cache for later trainings; otherwise they belong to one training and are removed once used. Damaged groups, and
those removed by another process, are made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unifeat.models.activations import run_group
from unifeat.models.language import LanguageModel
from unifeat.saes.training.folders import written_again_if_gone
from unifeat.store import Form, Piece
from unifeat.store.writing import take_away
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import SINK_RATIO
from unifeat.vocabulary.windowing import Windowing

FORMAT = "activations/3"
KIND = "activations"  # the folder of the cache for activations that are kept
_ROWS_FILE = "rows.safetensors"


@dataclass(frozen=True)
class Rows:
    """Activations of the same tokens at several points: `values[point]` is (rows, d_model).

    Special tokens, first positions and tokens that are attention sinks at any of the points are left out.
    """

    values: dict[HookPoint, Tensor]
    document: Tensor

    def __len__(self) -> int:
        return len(self.document)

    def __getitem__(self, chosen: Tensor) -> Rows:
        return Rows({point: value[chosen] for point, value in self.values.items()}, self.document[chosen])


def _write(tensors: dict[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / _ROWS_FILE)


def _read(_: Any, folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load((folder / _ROWS_FILE).read_bytes())  # not memory-mapped, since another process may remove the file


_FORM: Form[dict[str, Tensor]] = Form(_write, _read)


@dataclass(frozen=True)
class _Group(Piece[dict[str, Tensor]]):
    """A group's rows at one point: `values` (rows, width), `document` (rows,) int32, `sink` (rows,) bool.

    Attributes:
        folder: the folder it is in: the cache's, or a training's own.
    """

    folder: Path = Path()

    @property
    def path(self) -> Path:
        return self.folder / self.key


@dataclass
class ActivationSource:
    """Activations of one model over one corpus.

    Attributes:
        corpus: the text.
        identity: what determines the model's activations (`model_identity` and the tokenizer's digest).
        points: the hook points.
        windowing: how the text is cut into windows.
        folder: where groups are stored.
        load: loads the model, cut at or after the deepest point, or with `whole=True` all of it with its head. Called
            when the first group is run.
    """

    corpus: Corpus
    identity: dict[str, Any]
    points: list[HookPoint]
    windowing: Windowing
    folder: Path
    load: Callable[..., LanguageModel]
    _model: LanguageModel | None = field(default=None, repr=False)

    @property
    def model(self) -> LanguageModel:
        """The language model, loaded on first use."""
        if self._model is None:
            self._model = self.load()
        return self._model

    def whole_model(self) -> LanguageModel:
        """Load the model with all its blocks and its head, replacing the one loaded before."""
        self._model = None
        self._model = self.load(whole=True)
        return self._model

    @property
    def text_settings(self) -> dict[str, Any]:
        """Everything that determines the activations, apart from the hook point."""
        settings = {
            "format": FORMAT,
            "text": self.corpus.digest,
            "cut": list(self.corpus.cut),
            "context": self.windowing.context,
            "bos": self.windowing.opening,
            "mask": self.windowing.mask.model_dump(),
            "sink_ratio": SINK_RATIO,
        }
        limit = self.windowing.limit
        return settings | ({"limit": limit} if limit is not None else {}) | self.identity

    def piece(self, point: HookPoint, group: int) -> Piece[dict[str, Tensor]]:
        """The piece of one group at one point, stored or not."""
        made_from = self.text_settings | {"hook": list(point), "group": group}
        return _Group(KIND, made_from, _FORM, "a group of activations", self.folder)

    def group(self, group: int) -> Rows:
        """All rows of one group, from the disk or, if they are missing or damaged, from the model.

        Raises:
            UserError: as running the model does; an error of the machine.
        """
        pieces = {point: self.piece(point, group) for point in self.points}
        held = {point: piece.read() for point, piece in pieces.items()}
        missing = [point for point, tensors in held.items() if tensors is None]
        if missing:
            for point, tensors in self._run(group, missing).items():
                held[point] = _stored(pieces[point], tensors)
        whole = {point: tensors for point, tensors in held.items() if tensors is not None}
        document = whole[self.points[0]]["document"]
        sinks = torch.stack([tensors["sink"] for tensors in whole.values()]).any(dim=0)
        return Rows({point: tensors["values"] for point, tensors in whole.items()}, document)[~sinks]

    def discard(self, group: int) -> None:
        """Remove a group."""
        for point in self.points:
            take_away(self.piece(point, group).path)

    def _run(self, group: int, points: list[HookPoint]) -> dict[HookPoint, dict[str, Tensor]]:
        found = run_group(self.model, self.corpus.parts(group), points, self.windowing)
        document = torch.from_numpy(found.places.document.copy())
        return {
            point: {
                "values": found.values[point].cpu().contiguous(),
                "document": document,
                "sink": found.sinks(point).cpu(),
            }
            for point in points
        }


def _stored(piece: Piece[dict[str, Tensor]], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Store the tensors and return what is then on the disk: if another process stored them first, its version is used.

    If they cannot be stored, because another process removes them or they are damaged at once, the given tensors are
    used.
    """
    for _ in range(2):
        written_again_if_gone(piece.path, partial(piece.write, tensors))
        stored = piece.read()
        if stored is not None:
            return stored
        take_away(piece.path)  # a folder without its piece.json would never be replaced
    return tensors
