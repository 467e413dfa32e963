"""Where an SAE's decoder writes, and what: its own input again, or, of a transcoder, what the MLP puts out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.hooks import HookPoint, parse_hook, width_at


def is_transcoder(sae: Any) -> bool:
    """Whether an SAE writes elsewhere than it reads."""
    reading = getattr(sae, "unifeat_reading", None)
    return reading is not None and reading.hook_out is not None


def writes_at(sae: Any, point: HookPoint) -> HookPoint:
    """The hook point that an SAE's decoder writes to when it reads at `point`: the MLP's output for a transcoder."""
    return HookPoint(point.layer, "mlp_out") if is_transcoder(sae) else point


def reconstruct(sae: Any, x: Tensor, codes: Tensor) -> Tensor:
    """What an SAE makes of its codes, (rows, d_out): decoded, and for a skip transcoder W_skip · x added.

    Args:
        x: (rows, d_in) activations that the codes are of.
    """
    made: Tensor = sae.decode(codes)
    skip = getattr(sae, "W_skip", None)
    return made if skip is None else made + x.to(skip.dtype) @ skip.T


def check_fits(sae: Any, name: str | Path, model: str, config: Any, point: HookPoint) -> None:
    """Raise a UserError if an SAE cannot read at a hook point of a model, or writes where nothing can be compared.

    Args:
        model: what to call the model.
        config: its text configuration.
    """
    reading: Any = getattr(sae, "unifeat_reading", None)
    kind = parse_hook(reading.hook)[0] if reading is not None else None
    if is_transcoder(sae):
        if parse_hook(reading.hook_out)[0] != "mlp_out":
            raise UserError(
                f"SAE {name} is a transcoder from {reading.hook or 'one point'} to {reading.hook_out}: of transcoders, "
                "only those that write an MLP's output make a space"
            )
        if kind is not None and kind != point.kind:
            raise UserError(
                f"SAE {name} is a transcoder and reads {reading.hook}, not {point.kind}: set hook to {kind}"
            )
    width = width_at(config, point.kind)
    d_out = int(sae.W_dec.shape[1])
    for what, has, wants in (
        ("takes", sae.cfg.d_in, width),
        ("writes", d_out, width_at(config, "mlp_out") if is_transcoder(sae) else width),
    ):
        if has != wants:
            named = f" (it says it reads {reading.hook})" if reading is not None and reading.hook else ""
            raise UserError(
                f"SAE {name} {what} vectors of width {has}, but {model} has width {wants} there: "
                f"it was trained on another model or hook point{named}"
            )
