"""An SAE by name, so that it can be read where and when it is needed, and is not kept in memory."""

from __future__ import annotations

from dataclasses import dataclass

from unifeat.saes.controls import random_directions
from unifeat.saes.load import load_sae
from unifeat.saes.protocol import SAE


@dataclass(frozen=True)
class Recipe:
    """How an SAE is made.

    Attributes:
        name: release/sae_id of SAELens' registry, a folder, or a place on the hub.
        format: the format of its files; "auto" recognises it.
        random_directions: seed of a control whose directions are redrawn; None for an ordinary SAE.
    """

    name: str
    format: str = "auto"
    random_directions: int | None = None

    def load(self) -> SAE:
        """The SAE, in the CPU's memory.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        sae = load_sae(self.name, format=self.format)
        if self.random_directions is not None:
            random_directions(sae, self.random_directions)
        return sae
