"""Checkpoints of OpenMOSS' library: `config.json` and `sae_weights.safetensors` (or `.pt`).

There are two generations: Llama-Scope-R1-Distill (`encoder.weight`, `log_jumprelu_threshold`) and later ones (`W_E`,
`W_D`, `activation_function.log_jumprelu_threshold`). In both, a feature fires if z · ‖decoder row‖ passes the gate,
where z is computed from activations scaled to a mean norm of √d. SAELens' loader of the first generation omits the
decoder's norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.build import Known, build, fold_decoder_norms, row_norms
from unifeat.saes.files import Files
from unifeat.saes.tensors import agree, checked, read_pickle, read_tensors

CONFIG, WEIGHTS, PICKLED = "config.json", "sae_weights.safetensors", "sae_weights.pt"
_NORM = "dataset_average_activation_norm."


def sniff(files: Files) -> bool:
    return files.has(CONFIG) and (files.has(WEIGHTS) or files.has(PICKLED))


def read(files: Files, known: Known) -> Any:
    cfg = files.json(CONFIG)
    _refuse(files, cfg)
    name, raw = _raw(files)
    tensors, averages, size = _tensors(files, name, raw, cfg)
    agree(
        files,
        CONFIG,
        {"d_model": cfg.get("d_model"), "d_sae": _d_sae(cfg)},
        {"d_model": size["d"], "d_sae": size["m"]},
    )
    norms, folds = row_norms(tensors["W_dec"]), []
    if cfg.get("sparsity_include_decoder_norm", True):
        tensors = fold_decoder_norms(tensors)
        folds.append("decoder norms into the encoder")
    hook, hook_out = cfg.get("hook_point_in"), cfg.get("hook_point_out") or cfg.get("hook_point_in")
    normalise = cfg.get("norm_activation") or "dataset-wise"
    factor = None
    if normalise == "dataset-wise":
        factor = _factor(files, averages.get(str(hook)), known.norm_factor, size["d"])
        out = factor if hook_out == hook else _factor(files, averages.get(str(hook_out)), None, size["d"])
        tensors |= {
            "W_enc": tensors["W_enc"] * factor,
            "W_dec": tensors["W_dec"] / out,
            "b_dec": tensors["b_dec"] / out,
        }
        folds.append(f"activations × {factor:.6g}: the data set's mean norm")
    elif normalise not in ("inference", "token-wise"):
        raise UserError(f"SAE {files.name}: norm_activation {normalise!r} depends on the batch")
    kind, k = _gate(files, cfg)
    transcodes = hook_out != hook
    if transcodes and kind == "topk":
        raise UserError(f"SAE {files.name} is a top-k transcoder, which is not supported")
    names = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}
    return build(
        "llamascopium",
        names[kind] if transcodes else kind,
        tensors,
        pre_bias=bool(cfg.get("apply_decoder_bias_to_pre_encoder", False)),
        normalisation="constant_norm_rescale" if normalise == "token-wise" else "none",
        scale=factor,
        folds=tuple(folds),
        decoder_norms=norms,
        k=k,
        model=known.model,
        hook=hook,
        hook_out=hook_out if transcodes else None,
    )


def _refuse(files: Files, cfg: Mapping[str, Any]) -> None:
    kind = cfg.get("sae_type", "sae")
    if kind != "sae":
        raise UserError(f"SAE {files.name} is a {kind}, which does not have one decoder row per feature")
    if cfg.get("use_glu_encoder"):
        raise UserError(f"SAE {files.name}: its gated linear encoder (use_glu_encoder) is not supported")


def _raw(files: Files) -> tuple[str, Mapping[str, Any]]:
    if files.has(WEIGHTS):
        return WEIGHTS, read_tensors(files, WEIGHTS)
    held = read_pickle(files, PICKLED)
    if not isinstance(held, dict) or not isinstance(held.get("sae"), dict):
        raise UserError(f"SAE {files.name}: {PICKLED} holds no 'sae'")
    return PICKLED, held["sae"]


def _tensors(
    files: Files, name: str, raw: Mapping[str, Any], cfg: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, float], dict[str, int]]:
    old = "encoder.weight" in raw
    biased = cfg.get("use_decoder_bias", True)
    shapes = (
        {"encoder.weight": "md", "encoder.bias": "m", "decoder.weight": "dm"}
        | ({"decoder.bias": "d"} if biased else {})
        if old
        else {"W_E": "dm", "b_E": "m", "W_D": "md"} | ({"b_D": "d"} if biased else {})
    )
    log = "log_jumprelu_threshold" if old else "activation_function.log_jumprelu_threshold"
    if str(cfg.get("act_fn", "jumprelu")).lower() == "jumprelu":
        shapes[log] = "m"
    held, size = checked(files, name, raw, shapes, ignored=(_NORM,), optional={log: "m"})
    tensors = {
        "W_enc": held["encoder.weight"].T if old else held["W_E"],
        "b_enc": held["encoder.bias"] if old else held["b_E"],
        "W_dec": held["decoder.weight"].T if old else held["W_D"],
    }
    bias = held.get("decoder.bias" if old else "b_D")
    tensors["b_dec"] = tensors["W_dec"].new_zeros(size["d"]) if bias is None else bias
    if log in shapes:
        tensors["threshold"] = held[log].exp()
    averages = {key.removeprefix(_NORM): float(raw[key]) for key in raw if key.startswith(_NORM)}
    return tensors, averages, size


def _factor(files: Files, average: float | None, factor: float | None, d: int) -> float:
    if average is not None and average > 0:
        return float(d**0.5 / average)
    if factor is not None:
        return factor
    raise UserError(
        f"SAE {files.name} expects activations scaled to a mean norm of √d, but neither its weights nor SAELens' "
        "registry state the factor"
    )


def _gate(files: Files, cfg: Mapping[str, Any]) -> tuple[str, int | None]:
    act = str(cfg.get("act_fn", "jumprelu")).lower()
    if act == "jumprelu":
        return "jumprelu", None
    if act == "topk":
        return "topk", int(cfg["top_k"])
    if act == "relu":
        return "standard", None
    raise UserError(f"SAE {files.name}: with act_fn {act!r}, a token's codes depend on its batch; not supported")


def _d_sae(cfg: Mapping[str, Any]) -> int | None:
    if cfg.get("d_sae"):
        return int(cfg["d_sae"])
    if cfg.get("d_model") and cfg.get("expansion_factor"):
        return int(cfg["d_model"] * cfg["expansion_factor"])
    return None
