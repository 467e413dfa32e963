"""Quality of an SAE on activations: FVU, L0 and dead share. They show whether loading or training worked."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class Variance:
    """Running sums for the variance that a reconstruction leaves unexplained, all in float64.

    Attributes:
        rows: number of rows.
        error: Σ‖x − x̂‖².
        squares: Σ‖x‖².
        total: Σx, (width,).
    """

    rows: int = 0
    error: float = 0.0
    squares: float = 0.0
    total: Tensor | None = None

    def add(self, x: Float[Tensor, "rows width"], reconstruction: Float[Tensor, "rows width"]) -> None:
        """Add (rows, width) activations and their reconstruction."""
        wide = x.to(torch.float64)
        self.rows += len(x)
        self.error += float((wide - reconstruction.to(torch.float64)).pow(2).sum())
        self.squares += float(wide.pow(2).sum())
        rows = wide.sum(0).cpu()
        self.total = rows if self.total is None else self.total + rows

    @property
    def about_mean(self) -> float:
        """Σ‖x − mean(x)‖²; NaN without rows."""
        if self.total is None or not self.rows:
            return float("nan")
        return self.squares - float(self.total.pow(2).sum()) / self.rows

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − mean(x)‖²; NaN if nothing varies."""
        return fvu(self.error, self.about_mean)


def fvu(error: float, about_mean: float) -> float:
    """Fraction of variance unexplained, from its two sums; NaN if nothing varies."""
    return error / about_mean if about_mean > 0 else float("nan")


@dataclass
class Quality:
    """Running sums over tokens; the properties are the resulting figures.

    Attributes:
        variance: sums for the FVU of the reconstruction.
        active: Σ of active features over the tokens.
        fired: (d_sae,) whether each feature ever fired.
    """

    variance: Variance = field(default_factory=Variance)
    active: int = 0
    fired: Tensor | None = field(default=None, repr=False)

    def add(
        self,
        x: Float[Tensor, "rows d_out"],
        codes: Float[Tensor, "rows d_sae"],
        reconstruction: Float[Tensor, "rows d_out"],
    ) -> None:
        """Add the target (rows, d_out), the codes (rows, d_sae) and the reconstruction (rows, d_out).

        Except for transcoders, the target is the SAE's input.
        """
        self.variance.add(x, reconstruction)
        on = codes != 0
        self.active += int(on.sum())
        self.fired = on.any(0) if self.fired is None else self.fired | on.any(0)

    @property
    def tokens(self) -> int:
        """Number of rows."""
        return self.variance.rows

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained."""
        return self.variance.fvu

    @property
    def l0(self) -> float:
        """Active features per token, on average."""
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
