"""From activations to codes: the SAE's output, or its pre-activations, which arXiv 2410.06981 correlated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.protocol import SAE

Codes = Literal["output", "pre_activation"]
ENCODE_ROWS = 1024  # dense codes of so many tokens at a time


def codes_for(sae: Any, asked: str) -> Codes:
    """Which codes a study's `codes` means for an SAE: `before_topk` depends on what kind of SAE it is."""
    if asked == "before_topk":
        return "pre_activation" if sae.cfg.architecture() == "topk" else "output"
    return "pre_activation" if asked == "pre_activation" else "output"


def encode_as(sae: Any, x: Tensor, codes: Codes) -> Tensor:
    """Codes of (rows, d_in) activations, (rows, d_sae): the SAE's output, or its pre-activations.

    `pre_activation` is relu of the encoder, before TopK chooses or a threshold cuts: many features of every token, so
    neither sparse nor what the SAE decodes. Input normalisation and pre-bias are those of the SAE.
    """
    if codes == "output":
        return sae.encode(x)
    return torch.relu(sae.process_sae_in(x) @ sae.W_enc + sae.b_enc)


@torch.inference_mode()
def encode_rows(sae: SAE, x: Tensor, codes: Codes = "output") -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of ((rows, d_in) activations, (rows, d_sae) codes), `ENCODE_ROWS` at a time."""
    for rows in x.split(ENCODE_ROWS):
        yield rows, encode_as(sae, rows, codes)


def check_pre_activation(sae: Any, name: str) -> None:
    """Raise a UserError if an SAE has no pre-activations of this kind (gated ones have two, tied ones none)."""
    if not all(hasattr(sae, part) for part in ("process_sae_in", "W_enc", "b_enc")):
        raise UserError(
            f"SAE {name} ({sae.cfg.architecture()}) has no single pre-activation: set codes to output for its spaces"
        )
