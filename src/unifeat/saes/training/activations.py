"""A model's activations over the training text, one group of text at a time, each run once and kept on disk.

A group's file is named by everything that determines it, so that a second epoch, a second training or a resumed one
reads it instead of running the model. What is kept for later trainings (`train.store`) lies in the cache for good;
else the files are a training's own and go when they are used up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unifeat.models.activations import run_group
from unifeat.models.language import LanguageModel
from unifeat.store import key_of, remove, write_json, written_aside
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import SINK_RATIO
from unifeat.vocabulary.windowing import Windowing

FORMAT = "activations/2"


@dataclass(frozen=True)
class Rows:
    """Activations of some tokens at several points: `values[point]` is (rows, d_model), the same rows at each.

    Special tokens, first positions and tokens that are attention sinks at any of the points are left out.
    """

    values: dict[HookPoint, Tensor]
    document: Tensor

    def __len__(self) -> int:
        return len(self.document)

    def __getitem__(self, chosen: Tensor) -> Rows:
        return Rows({point: value[chosen] for point, value in self.values.items()}, self.document[chosen])


@dataclass
class ActivationSource:
    """Activations of one model over one corpus.

    Attributes:
        corpus: the text.
        identity: what determines the model's activations (`model_identity` and the tokenizer's digest).
        points: where they are read.
        windowing: how the text is cut into windows.
        folder: where files of groups lie; each point has a folder of its own in it.
        load: gives the model, cut at or after the deepest point, or all of it with its head where `whole=True` is
            asked for; called when the first group is run.
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
        """The language model, loaded when first wanted."""
        if self._model is None:
            self._model = self.load()
        return self._model

    def whole_model(self) -> LanguageModel:
        """The model with all its blocks and its head, in the place of the one that was loaded before."""
        self._model = None
        self._model = self.load(whole=True)
        return self._model

    def settings(self, point: HookPoint) -> dict[str, Any]:
        """Everything that determines the activations at one point."""
        settings = {
            "format": FORMAT,
            "text": self.corpus.digest,
            "cut": list(self.corpus.cut),
            "hook": list(point),
            "context": self.windowing.context,
            "bos": self.windowing.opening,
        }
        limit = self.windowing.limit
        return settings | ({"limit": limit} if limit is not None else {}) | self.identity

    def path(self, point: HookPoint, group: int) -> Path:
        """The file of one group at one point."""
        return self.folder / key_of(self.settings(point)) / f"group-{group:06d}.safetensors"

    def group(self, group: int) -> Rows:
        """All rows of one group, from its files or, where one is missing, from the model."""
        from safetensors.torch import load_file

        if not all(self.path(point, group).exists() for point in self.points):
            self._run(group)
        held = {point: load_file(self.path(point, group)) for point in self.points}
        document = held[self.points[0]]["document"]
        sinks = torch.stack([tensors["sink"] for tensors in held.values()]).any(dim=0)
        return Rows({point: tensors["values"] for point, tensors in held.items()}, document)[~sinks]

    def discard(self, group: int) -> None:
        """Remove a group's files."""
        for point in self.points:
            remove(self.path(point, group))

    def _run(self, group: int) -> None:
        from safetensors.torch import save_file

        missing = [point for point in self.points if not self.path(point, group).exists()]
        found = run_group(self.model, self.corpus.parts(group), missing, self.windowing)
        document = torch.from_numpy(found.places.document.copy())
        for point in missing:
            path = self.path(point, group)
            about = path.parent / "activations.json"
            if not about.exists():
                write_json(about, self.settings(point) | {"sink_ratio": SINK_RATIO})
            with written_aside(path) as aside:
                values, sink = found.values[point].cpu().contiguous(), found.sinks(point).cpu()
                save_file({"values": values, "document": document, "sink": sink}, aside)
