"""Llama Scope (OpenMOSS, 2024): `hyperparams.json` and `checkpoints/final.safetensors`.

Its authors load it in this order. The data set's mean norm is folded into the weights. Then decoder rows are scaled to
unit norm, and the encoder by their old norms. Then features above a common threshold fire. SAELens' loader omits the
second step, so each feature is compared with a different threshold from the one it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.build import Known, build, fold_decoder_norms, row_norms
from unifeat.saes.files import Files
from unifeat.saes.tensors import agree, checked, read_tensors

CONFIG = "hyperparams.json"
# In the order in which the authors' code looks for them.
WEIGHTS = tuple(f"{name}.safetensors" for name in ("sae_weights", "checkpoints/pruned", "checkpoints/final"))


def sniff(files: Files) -> bool:
    return files.has(CONFIG)


def read(files: Files, known: Known) -> Any:
    cfg = files.json(CONFIG)
    weights = next((name for name in WEIGHTS if files.has(name)), WEIGHTS[-1])
    biased = cfg.get("use_decoder_bias", True)
    held, size = checked(
        files,
        weights,
        read_tensors(files, weights),
        {"encoder.weight": "md", "encoder.bias": "m", "decoder.weight": "dm"}
        | ({"decoder.bias": "d"} if biased else {}),
    )
    agree(
        files,
        CONFIG,
        {"d_model": cfg.get("d_model"), "d_sae": cfg.get("d_sae")},
        {"d_model": size["d"], "d_sae": size["m"]},
    )
    tensors = {
        "W_enc": held["encoder.weight"].T,
        "W_dec": held["decoder.weight"].T,
        "b_enc": held["encoder.bias"],
        "b_dec": held["decoder.bias"] if biased else held["decoder.weight"].new_zeros(size["d"]),
    }
    norms, folds = row_norms(tensors["W_dec"]), []
    factor = None
    if (cfg.get("norm_activation") or "dataset-wise") == "dataset-wise":
        factor, out = _factors(files, cfg, size["d"])
        tensors = standardised(tensors, factor, out)
        folds.append(f"biases / {factor:.6g}: the data set's mean norm")
    elif cfg["norm_activation"] not in ("inference", "token-wise"):
        raise UserError(f"SAE {files.name}: norm_activation {cfg['norm_activation']!r} depends on the batch")
    if cfg.get("sparsity_include_decoder_norm", True):
        tensors = fold_decoder_norms(tensors)
        folds.append("decoder norms into the encoder")
    kind, k, gates = _gate(files, cfg, size["m"], tensors)
    hook, hook_out = cfg.get("hook_point_in"), cfg.get("hook_point_out")
    transcodes = hook_out is not None and hook_out != hook
    if transcodes and (kind == "topk" or cfg.get("apply_decoder_bias_to_pre_encoder")):
        raise UserError(f"SAE {files.name}: a Llama Scope transcoder without a threshold is not supported")
    return build(
        "llama_scope",
        "jumprelu_transcoder" if transcodes else kind,
        tensors | gates,
        pre_bias=bool(cfg.get("apply_decoder_bias_to_pre_encoder", False)),
        normalisation="constant_norm_rescale" if cfg.get("norm_activation") == "token-wise" else "none",
        scale=factor,
        folds=tuple(folds),
        decoder_norms=norms,
        k=k,
        model=known.model,
        hook=hook,
        hook_out=hook_out if transcodes else None,
        bos=True,
    )


def standardised(tensors: Mapping[str, Tensor], factor: float, out: float) -> dict[str, Tensor]:
    """OpenMOSS' fold of the data set's norm, after which codes have the scale of the unscaled activations."""
    return dict(tensors) | {
        "b_enc": tensors["b_enc"] / factor,
        "b_dec": tensors["b_dec"] / out,
        "W_dec": tensors["W_dec"] * (factor / out),
    }


def _factors(files: Files, cfg: Mapping[str, Any], d: int) -> tuple[float, float]:
    norms = cfg.get("dataset_average_activation_norm")
    try:
        return d**0.5 / float(norms["in"]), d**0.5 / float(norms["out"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"SAE {files.name}: {CONFIG} lacks dataset_average_activation_norm, without which its scale is unknown"
        ) from error


def _gate(
    files: Files, cfg: Mapping[str, Any], d_sae: int, tensors: Mapping[str, Tensor]
) -> tuple[str, int | None, dict[str, Tensor]]:
    threshold = cfg.get("jump_relu_threshold")
    if cfg.get("act_fn", "jumprelu").lower() in ("jumprelu", "topk") and threshold and threshold > 0:
        return "jumprelu", None, {"threshold": tensors["W_enc"].new_full((d_sae,), float(threshold))}
    if cfg.get("act_fn", "").lower() == "topk":
        return "topk", int(cfg["top_k"]), {}
    if cfg.get("act_fn", "").lower() == "relu":
        return "standard", None, {}
    raise UserError(f"SAE {files.name}: {CONFIG} says act_fn {cfg.get('act_fn')!r} without a threshold")
