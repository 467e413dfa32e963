"""Controls: what an SAE's numbers look like when its directions mean nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from unifeat.errors import UserError
from unifeat.saes.decoding import is_transcoder
from unifeat.saes.provenance import provenance_of


def random_directions(sae: Any, seed: int) -> Any:
    """Give every feature a random direction, in place; returns the SAE.

    Feature i's direction u_i is drawn uniformly from the unit sphere. Its encoder column becomes u_i times the norm
    that the column had, its decoder row u_i times the norm that the row had; so encoder and decoder of a feature stay
    tied, as trained ones nearly are. Biases, thresholds, gates and normalisation are kept. What such features share
    across models comes from the activations and the architecture, not from training.

    Args:
        sae: from `load_sae`.
        seed: of the directions; the same on every machine and device.

    Raises:
        UserError: a transcoder, which has no one space to draw a direction in.
    """
    d_sae, d_out = sae.W_dec.shape
    if sae.W_enc.shape[0] != d_out or is_transcoder(sae):
        raise UserError("random directions need an SAE that writes where it reads; this one is a transcoder")
    drawn = torch.randn((d_sae, d_out), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn /= torch.linalg.vector_norm(drawn, dim=1, keepdim=True)
    with torch.no_grad():
        for matrix, features in ((sae.W_enc, 0), (sae.W_dec, 1)):
            norms = torch.linalg.vector_norm(matrix.detach().cpu().double(), dim=features, keepdim=True)
            matrix.copy_((drawn.T if features == 0 else drawn) * norms)
    sae.unifeat_provenance = replace(provenance_of(sae), control=f"random directions, seed {seed}")
    return sae
