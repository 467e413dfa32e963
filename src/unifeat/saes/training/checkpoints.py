"""Checkpoints of a training: whole or not at all, found again by what is trained on what."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unifeat.store import key_of, remove, written_aside

FORMAT = "training/2"
INTERVAL_S = 30.0  # a killed training loses so much at most, and the group of text it was running


@dataclass
class Checkpoints:
    """The one newest checkpoint of a training, in a folder of its own.

    Attributes:
        folder: named by everything that determines the stream of activations.
        jobs: keys of the SAEs that are trained together.
    """

    folder: Path
    jobs: list[str]
    _last: float = field(default_factory=time.monotonic, repr=False)

    @property
    def path(self) -> Path:
        """Where the checkpoint lies."""
        return self.folder / f"{key_of(sorted(self.jobs))}.pt"

    def due(self) -> bool:
        """Whether the last one is old enough for another."""
        return time.monotonic() - self._last >= INTERVAL_S

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint; `state["jobs"]` has an entry for each job's key."""
        with written_aside(self.path) as aside:
            torch.save({"format": FORMAT} | state, aside)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that holds all of these jobs; it may hold more, whose SAEs have been saved since."""
        found = [self.path, *sorted(self.folder.glob("[!.]*.pt"))]  # a kill may have left part of one
        for path in [p for p in found if p.is_file()]:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state.get("format") == FORMAT and set(self.jobs) <= set(state["jobs"]):
                return state
        return None

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        remove(self.folder)
