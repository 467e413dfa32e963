"""Controls: an SAE whose directions are random."""

from __future__ import annotations

from dataclasses import replace

import torch

from unifeat.errors import UserError
from unifeat.saes.decoding import is_transcoder
from unifeat.saes.protocol import SAE
from unifeat.saes.provenance import provenance_of


def random_directions(sae: SAE, seed: int) -> SAE:
    """Give every feature a random direction, in place; returns the SAE.

    Feature i's direction u_i is drawn uniformly from the unit sphere. Its encoder column becomes u_i times the column's
    old norm, and its decoder row u_i times the row's old norm. So the encoder and decoder of a feature are parallel, as
    they nearly are after training. Biases, thresholds, gates and normalisation are kept. What such features share
    across models comes from the activations and the architecture, not from training.

    Args:
        sae: from `load_sae`.
        seed: seed of the directions, which are the same on every machine and device.
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
