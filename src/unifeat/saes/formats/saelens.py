"""SAELens' own folders, before and since 6.0: `cfg.json` and `sae_weights.safetensors`, read by SAELens itself.

Two things that SAELens leaves to its users are folded in here: the scale of `expected_average_only_in`, and the
centring of the residual stream by TransformerLens in the model that the SAE was trained on.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from unifeat.errors import UserError
from unifeat.saes.build import _NORMALISATIONS, Known, row_norms, saelens
from unifeat.saes.files import Files
from unifeat.saes.provenance import Provenance, describe_gate

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
# Hook points in the residual stream's coordinates, which change when the weights that write to the stream are centred.
_CENTRED = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "hook_embed")


def sniff(files: Files) -> bool:
    return files.has(CONFIG, WEIGHTS)


def read(files: Files, known: Known) -> Any:
    config, weights = files.path(CONFIG), files.path(WEIGHTS)
    _check_dtypes(files)
    finetuned: list[torch.Tensor] = []
    sae = _load(files, lambda: _from_disk(weights.parent, finetuned))
    if config.parent != weights.parent:
        raise UserError(f"SAE {files.name}: {CONFIG} and {WEIGHTS} come from two revisions")
    kind = sae.cfg.architecture()
    if kind == "temporal":
        raise UserError(f"SAE {files.name} is a temporal SAE, whose codes depend on earlier tokens")
    for key, value in (known.overrides or {}).items():
        sae.cfg.metadata[key] = value
    norms, folds = row_norms(sae.W_dec), []
    if finetuned:
        with torch.no_grad():
            sae.W_dec *= finetuned[0].to(torch.float32)[:, None]
        folds.append("decoder rows × their finetuning_scaling_factor")
    scale = _fold_scale(files, sae, known)
    if scale is not None:
        folds.append(f"activations × {scale:.6g}")
    if _centred(sae):
        _fold_centring(sae)
        folds.append("the mean over the stream's dimensions taken off each activation")
    if sae.cfg.reshape_activations == "hook_z":  # heads come concatenated here
        sae.turn_off_forward_pass_hook_z_reshaping()
        sae.cfg.reshape_activations = "none"
    meta = sae.cfg.metadata
    sae.unifeat_provenance = Provenance(
        format="saelens",
        architecture=kind,
        normalisation=(
            _NORMALISATIONS[sae.cfg.normalize_activations]
            if scale is None
            else f"× {scale:.6g}, folded into the weights"
        ),
        pre_bias=bool(sae.cfg.apply_b_dec_to_input),
        gate=describe_gate(sae),
        folds=tuple(folds),
        decoder_norms=norms,
        k=getattr(sae.cfg, "k", None),
        model=known.model or meta.model_name,
        hook=meta.hook_name,
        hook_out=(meta.hook_name_out or "another point") if "transcoder" in kind else None,
        bos=meta.prepend_bos,
        less_value_biases=bool((meta.model_from_pretrained_kwargs or {}).get("fold_value_biases")),
    )
    return sae


def _from_disk(folder: Path, finetuned: list[torch.Tensor]) -> Any:
    """SAELens' loading, without the fine-tuning scaling factors from before 6.0, which it reads but cannot store."""
    lens = saelens()
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    def read_folder(*args: Any, **kwargs: Any) -> Any:
        config, tensors = sae_lens_disk_loader(*args, **kwargs)
        if "finetuning_scaling_factor" in tensors:
            finetuned.append(tensors.pop("finetuning_scaling_factor"))
        return config, tensors

    return lens.SAE.load_from_disk(folder, device="cpu", dtype="float32", converter=read_folder)


def _load(files: Files, load: Any) -> Any:
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except (SafetensorError, AttributeError, KeyError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (
            lines[1] if len(lines) > 1 and lines[0].startswith("Error(s) in loading") else (lines or [repr(error)])[0]
        )
        raise UserError(
            f"SAE {files.name} cannot be read ({reason}): is the file whole, and does {CONFIG} fit it?"
        ) from error


def _check_dtypes(files: Files) -> None:
    """Refuse weights that are not floats. SAELens converts them silently, but quantised weights need their scale."""
    from safetensors import safe_open

    def look() -> dict[str, str]:
        with safe_open(files.path(WEIGHTS), framework="pt") as held:
            return {key: held.get_slice(key).get_dtype() for key in held.keys()}  # noqa: SIM118

    bad = [
        f"{key} holds {kind}" for key, kind in _load(files, look).items() if kind not in ("F64", "F32", "F16", "BF16")
    ]
    if bad:
        raise UserError(f"SAE {files.name}: {bad[0]} in {WEIGHTS}, not weights")


def _fold_scale(files: Files, sae: Any, known: Known) -> float | None:
    normalise = sae.cfg.normalize_activations
    if normalise == "covariance_whitening":
        raise UserError(
            f"SAE {files.name} is a checkpoint with its whitening not yet folded in: use the SAE saved at the end"
        )
    if normalise != "expected_average_only_in":
        return None
    factor = known.norm_factor
    if factor is None and files.has(SCALER):
        factor = files.json(SCALER).get("scaling_factor")
    if not isinstance(factor, (int, float)) or not factor > 0:
        raise UserError(
            f"SAE {files.name} expects activations scaled to a mean norm of √d, but does not state the factor: "
            f"put {SCALER} with scaling_factor beside it"
        )
    sae.fold_activation_norm_scaling_factor(float(factor))
    return float(factor)


def _centred(sae: Any) -> bool:
    meta = sae.cfg.metadata
    return bool((meta.model_from_pretrained_kwargs or {}).get("center_writing_weights")) and str(
        meta.hook_name
    ).endswith(_CENTRED)


@torch.no_grad()
def _fold_centring(sae: Any) -> None:
    """Change the weights so that the new encode(x) is the old encode(x − mean(x)).

    The SAE was trained on a model whose residual stream has mean 0: TransformerLens' `center_writing_weights` subtracts
    the mean over dimensions from everything written to the stream, which layer norms ignore. With C = I − 11ᵀ/d:
    (Cx − b)W = (x − b)CW + b(CW − W).
    """
    if sae.cfg.normalize_activations != "none" or not hasattr(sae, "b_enc"):
        return  # a layer norm already centres its input
    centred = sae.W_enc - sae.W_enc.mean(dim=0, keepdim=True)
    if sae.cfg.apply_b_dec_to_input:
        sae.b_enc += sae.b_dec @ (centred - sae.W_enc)
    sae.W_enc.copy_(centred)
