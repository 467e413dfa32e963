"""What an SAE's decoder reconstructs, and where: its own input or, for a transcoder, the MLP's output."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from unifeat.saes.protocol import SAE
from unifeat.vocabulary.hook_points import HookPoint


def is_transcoder(sae: SAE) -> bool:
    """Whether an SAE reads and writes at different hook points."""
    provenance = getattr(sae, "unifeat_provenance", None)
    return provenance is not None and provenance.hook_out is not None


def writes_at(sae: SAE, point: HookPoint) -> HookPoint:
    """The hook point that an SAE's decoder writes to when it reads at `point`: the MLP's output for a transcoder."""
    return HookPoint(point.layer, "mlp_out") if is_transcoder(sae) else point


def reconstruct(
    sae: SAE, x: Float[Tensor, "rows d_in"], codes: Float[Tensor, "rows d_sae"]
) -> Float[Tensor, "rows d_out"]:
    """The reconstruction from an SAE's codes, (rows, d_out): the decoder's output, plus W_skip · x in skip transcoders.

    Args:
        x: (rows, d_in) the activations that were encoded.
    """
    made: Tensor = sae.decode(codes)
    skip = getattr(sae, "W_skip", None)
    return made if skip is None else made + x.to(skip.dtype) @ skip.T
