"""Where an SAE's decoder writes, and what: its own input again, or, of a transcoder, what the MLP puts out."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from unifeat.saes.protocol import SAE
from unifeat.vocabulary.hook_points import HookPoint


def is_transcoder(sae: Any) -> bool:
    """Whether an SAE writes elsewhere than it reads."""
    provenance = getattr(sae, "unifeat_provenance", None)
    return provenance is not None and provenance.hook_out is not None


def writes_at(sae: SAE, point: HookPoint) -> HookPoint:
    """The hook point that an SAE's decoder writes to when it reads at `point`: the MLP's output for a transcoder."""
    return HookPoint(point.layer, "mlp_out") if is_transcoder(sae) else point


def reconstruct(
    sae: SAE, x: Float[Tensor, "rows d_in"], codes: Float[Tensor, "rows d_sae"]
) -> Float[Tensor, "rows d_out"]:
    """What an SAE makes of its codes, (rows, d_out): decoded, and for a skip transcoder W_skip · x added.

    Args:
        x: (rows, d_in) activations that the codes are of.
    """
    made: Tensor = sae.decode(codes)
    skip = getattr(sae, "W_skip", None)
    return made if skip is None else made + x.to(skip.dtype) @ skip.T
