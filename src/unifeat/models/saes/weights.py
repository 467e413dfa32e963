"""What other modules ask of a loaded SAE: a digest, unit decoder rows, its width."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from unifeat.errors import UserError


def sae_digest(sae: Any) -> str:
    """SHA-256 over an SAE's tensors and the settings that shape its codes."""
    digest = hashlib.sha256()
    settings = {k: v for k, v in sae.cfg.to_dict().items() if k not in ("metadata", "device")}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for key, tensor in sorted(sae.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def decoder_rows(sae: Any) -> Any:
    """The decoder, one unit-norm row a feature: a NumPy array (d_sae, d_in), float32.

    Norms are a convention of the checkpoint, not of the feature, so geometry never sees them; a row of zeros
    stays zero.
    """
    rows = sae.W_dec.detach().to("cpu", torch.float32)
    return (rows / rows.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)).numpy()


def check_width(sae: Any, name: str | Path, model: str, d_model: int) -> None:
    """Raise a UserError if the SAE does not take vectors of the model's width, or writes elsewhere than it reads."""
    reading = getattr(sae, "unifeat_reading", None)
    if reading is not None and reading.hook_out is not None:
        raise UserError(
            f"SAE {name} is a transcoder: it reads {reading.hook or 'one point'} and writes {reading.hook_out}; "
            "a space needs an SAE that writes where it reads"
        )
    if sae.cfg.d_in != d_model:
        raise UserError(
            f"SAE {name} takes vectors of width {sae.cfg.d_in}, but {model} has width {d_model}: "
            "it was trained on another model or hook point"
        )
