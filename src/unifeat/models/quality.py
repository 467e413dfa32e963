"""What an SAE does on real activations: FVU, L0 and dead share, the check that a load or a training went right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unifeat.models.activations import run_group
from unifeat.models.hooks import HookPoint
from unifeat.models.language import LanguageModel
from unifeat.models.opening import Opening
from unifeat.models.saes.output import reconstruct, writes_at
from unifeat.models.saes.preactivation import Codes, encode_as
from unifeat.text.corpus import Corpus

ENCODE_ROWS = 1024  # dense codes of so many tokens at a time


@dataclass
class Quality:
    """Running sums over tokens; the properties are what they amount to.

    Attributes:
        tokens: rows seen.
        squared_error: Σ‖x − x̂‖², of a float64 sum.
        total: Σx, (d_in,) float64, and `squared`: Σ‖x‖².
        active: Σ of features active a token.
        fired: (d_sae,) whether each feature ever fired.
    """

    tokens: int = 0
    squared_error: float = 0.0
    squared: float = 0.0
    total: Tensor | None = None
    active: int = 0
    fired: Tensor | None = field(default=None, repr=False)

    def add(self, x: Tensor, codes: Tensor, reconstruction: Tensor) -> None:
        """Take in what is to be reconstructed, (rows, d_out), its (rows, d_sae) codes and (rows, d_out) what they make.

        For all but transcoders, what is reconstructed is what was encoded.
        """
        wide = x.to(torch.float64)
        self.tokens += len(x)
        self.squared_error += float((wide - reconstruction.to(torch.float64)).pow(2).sum())
        self.squared += float(wide.pow(2).sum())
        self.total = wide.sum(0) if self.total is None else self.total + wide.sum(0)
        on = codes != 0
        self.active += int(on.sum())
        self.fired = on.any(0) if self.fired is None else self.fired | on.any(0)

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − mean(x)‖²."""
        if self.total is None:
            return float("nan")
        variance = self.squared - float(self.total.pow(2).sum()) / self.tokens
        return self.squared_error / variance if variance > 0 else float("nan")

    @property
    def l0(self) -> float:
        """Features active a token, on average."""
        return self.active / self.tokens if self.tokens else float("nan")

    @property
    def dead_share(self) -> float:
        """Share of features that never fired on these tokens."""
        return float((~self.fired).float().mean()) if self.fired is not None else float("nan")

    def as_dict(self) -> dict[str, float | int]:
        """The figures, for JSON."""
        return {
            "fvu": round(self.fvu, 5),
            "l0": round(self.l0, 3),
            "dead_share": round(self.dead_share, 5),
            "tokens": self.tokens,
        }

    def __str__(self) -> str:
        return f"FVU {self.fvu:.3f}, L0 {self.l0:.1f}, dead {self.dead_share:.1%} over {self.tokens:,} tokens"


@torch.inference_mode()
def encode_rows(sae: Any, x: Tensor, codes: Codes = "output") -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of ((rows, d_in) activations, (rows, d_sae) codes), `ENCODE_ROWS` at a time."""
    for rows in x.split(ENCODE_ROWS):
        yield rows, encode_as(sae, rows, codes)


def measure_quality(
    model: LanguageModel,
    corpus: Corpus,
    saes: dict[HookPoint, Any],
    *,
    context: int,
    bos: Opening,
    first_document: int = 0,
) -> dict[HookPoint, Quality]:
    """FVU, L0 and dead share of several SAEs of one model on the documents from `first_document` on."""
    qualities = {point: Quality() for point in saes}
    points = list(dict.fromkeys([*saes, *(writes_at(sae, point) for point, sae in saes.items())]))
    for group in range(corpus.groups):
        parts = [part for part in corpus.parts(group) if part.document >= first_document]
        if not parts:
            continue
        activations = run_group(model, parts, points, context=context, bos=bos)
        for point, sae in saes.items():
            x, _, _ = activations.without_sinks(point)
            target = activations.beside(point, writes_at(sae, point))
            for (rows, codes), wanted in zip(encode_rows(sae, x), target.split(ENCODE_ROWS), strict=True):
                qualities[point].add(wanted, codes, reconstruct(sae, rows, codes))
    return qualities
