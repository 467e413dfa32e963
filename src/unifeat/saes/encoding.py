"""From activations to codes: the SAE's output, or its pre-activations, which arXiv 2410.06981 correlated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.protocol import SAE

Codes = Literal["output", "pre_activation"]
ENCODE_ROWS = 1024  # tokens whose dense codes are in memory at once


def codes_for(sae: SAE, asked: str) -> Codes:
    """What a study's `codes` means for an SAE: `before_topk` depends on the SAE's architecture."""
    if asked == "before_topk":
        return "pre_activation" if sae.cfg.architecture() == "topk" else "output"
    return "pre_activation" if asked == "pre_activation" else "output"


def encode_as(sae: Any, x: Tensor, codes: Codes) -> Tensor:
    """Codes of (rows, d_in) activations, (rows, d_sae): the SAE's output, or its pre-activations.

    `pre_activation` is relu of the encoder, before top-k or a threshold is applied. Many features are active on every
    token, so these codes are not sparse, and they are not what the SAE decodes. The SAE's input normalisation and
    pre-bias are applied.
    """
    if codes == "output":
        return sae.encode(x)
    return torch.relu(sae.process_sae_in(x) @ sae.W_enc + sae.b_enc)


@torch.inference_mode()
def encode_rows(sae: SAE, x: Tensor, codes: Codes = "output") -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of ((rows, d_in) activations, (rows, d_sae) codes), `ENCODE_ROWS` at a time."""
    for rows in x.split(ENCODE_ROWS):
        yield rows, encode_as(sae, rows, codes)


def check_pre_activation(sae: SAE, name: str) -> None:
    """Raise a UserError if an SAE has no pre-activation of this kind (gated SAEs have two, tied ones none)."""
    if not all(hasattr(sae, part) for part in ("process_sae_in", "W_enc", "b_enc")):
        raise UserError(
            f"SAE {name} ({sae.cfg.architecture()}) has no single pre-activation: set codes to output for its spaces"
        )
