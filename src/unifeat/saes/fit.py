"""Whether an SAE fits a model's hook point, and changes to the SAE that need the loaded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unifeat.errors import UserError
from unifeat.models.blocks import has_post_norms, value_bias
from unifeat.saes.decoding import is_transcoder, writes_at
from unifeat.saes.protocol import SAE
from unifeat.vocabulary.hook_points import HookPoint, parse_hook, width_at

_POINTS_BEFORE_MLP = ("mlp_in", "ln2_normalized", "resid_mid")


def check_fits(sae: SAE, name: str | Path, model: str, config: Any, point: HookPoint) -> None:
    """Raise a UserError if an SAE cannot read at a model's hook point, or writes at a place that is not supported.

    Args:
        model: the model's name, for messages.
        config: its text configuration.
    """
    provenance: Any = getattr(sae, "unifeat_provenance", None)
    kind = parse_hook(provenance.hook)[0] if provenance is not None else None
    if is_transcoder(sae):
        if parse_hook(provenance.hook_out)[0] != "mlp_out":
            raise UserError(
                f"SAE {name} is a transcoder from {provenance.hook or 'one point'} to {provenance.hook_out}: "
                "unifeat supports only transcoders that write an MLP's output"
            )
        if point.kind not in _POINTS_BEFORE_MLP:
            known = kind if kind in _POINTS_BEFORE_MLP else "mlp_in"
            raise UserError(
                f"SAE {name} is a transcoder and reads {provenance.hook or 'an MLP’s input'}, not {point.kind}: "
                f"set hook to {known}"
            )
    width = width_at(config, point.kind)
    d_out = int(sae.W_dec.shape[1])
    for what, has, wants in (
        ("takes", sae.cfg.d_in, width),
        ("writes", d_out, width_at(config, "mlp_out") if is_transcoder(sae) else width),
    ):
        if has != wants:
            named = f" (it says it reads {provenance.hook})" if provenance is not None and provenance.hook else ""
            raise UserError(
                f"SAE {name} {what} vectors of width {has}, but {model} has width {wants} there: "
                f"it was trained on another model or hook point{named}"
            )


def fit_to_model(sae: SAE, name: str | Path, blocks: nn.ModuleList, point: HookPoint) -> None:
    """Adapt an SAE to the loaded model, in place and once.

    An SAE of attention heads may have been trained on a model whose value biases b were folded away (TransformerLens'
    default). Attention weights sum to 1, so it was trained on x − b where our model has x. The biases are folded into
    the SAE: (x − b)W = xW − bW.

    Args:
        blocks: the model's blocks.
        point: where the SAE reads.

    Raises:
        UserError: an SAE of a module's own output, in a model that normalises this output before adding it: there is
            no such hook point.
    """
    provenance: Any = getattr(sae, "unifeat_provenance", None)
    if provenance is None:
        return
    block = blocks[point.layer]
    of_module = provenance.of_module or (
        "mlp" if str(provenance.hook_out or provenance.hook).endswith("mlp.hook_out") else None
    )
    if of_module and has_post_norms(block) and writes_at(sae, point).kind in ("attn_out", "mlp_out"):
        raise UserError(
            f"SAE {name} was trained on the output of {of_module}, which {type(block).__name__} normalises before it "
            "adds it to the stream; unifeat has no hook point before that norm"
        )
    if provenance.less_value_biases and point.kind == "attn_z":
        bias = value_bias(block, int(sae.cfg.d_in))
        if bias is not None:
            _shift(sae, bias.to(sae.W_enc.device, sae.W_enc.dtype))
        fold = "the model's value biases, which its training had folded away"
        sae.unifeat_provenance = replace(provenance, less_value_biases=False, folds=(*provenance.folds, fold))


@torch.no_grad()
def _shift(sae: Any, by_D: Tensor) -> None:
    """Change the biases so that the new encode(x) is the old encode(x − by), and decode adds `by`."""
    if not sae.cfg.apply_b_dec_to_input:  # otherwise subtracting the new b_dec already shifts the input
        sae.b_enc -= by_D @ sae.W_enc
    sae.b_dec += by_D
