"""A loaded SAE's weights: a digest, and unit decoder rows."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from unifeat.saes.protocol import SAE


def sae_digest(sae: SAE) -> str:
    """SHA-256 over an SAE's tensors and the settings that shape its codes."""
    digest = hashlib.sha256()
    settings = {k: v for k, v in sae.cfg.to_dict().items() if k not in ("metadata", "device")}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for key, tensor in sorted(sae.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def decoder_rows(sae: SAE) -> Any:
    """The decoder as a float32 NumPy array (d_sae, d_out), one row of unit norm per feature.

    d_out is d_in except for transcoders. Norms are a convention of the checkpoint, not a property of the feature, so
    geometry does not use them. A row of zeros stays zero.
    """
    rows = sae.W_dec.detach().to("cpu", torch.float32)
    return (rows / rows.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)).numpy()
