"""From checked tensors to a SAELens object with its `Provenance`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unifeat.saes.provenance import Provenance, describe_gate


@dataclass(frozen=True)
class Known:
    """What SAELens' registry says about a checkpoint, before its files are opened; may be nothing.

    Attributes:
        norm_factor: √d over the mean norm of the activations it was trained on; `None` if not stated.
        overrides: settings of its config that the registry corrects.
    """

    model: str | None = None
    norm_factor: float | None = None
    l0: float | None = None
    variance_explained: float | None = None
    overrides: Mapping[str, Any] | None = None


def saelens() -> Any:
    """The `sae_lens` module, imported without its warnings, which users can do nothing about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
        import sae_lens.registry
    return sae_lens


def build(
    format: str,
    kind: str,
    tensors: Mapping[str, Tensor],
    *,
    pre_bias: bool,
    normalisation: str = "none",
    scale: float | None = None,
    folds: tuple[str, ...] = (),
    decoder_norms: tuple[float, float] | None = None,
    k: int | None = None,
    model: str | None = None,
    hook: str | None = None,
    hook_out: str | None = None,
    bos: bool | None = None,
    l0: float | None = None,
    of_module: str | None = None,
    less_value_biases: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    """A SAELens SAE in float32 on the CPU with these tensors, and with its `Provenance` as `unifeat_provenance`.

    Args:
        format: name of the format.
        kind: SAELens' name of the architecture, or `groupmax`.
        tensors: with SAELens' names and shapes: W_enc (d_in, d_sae), W_dec (d_sae, d_out), b_enc, b_dec, threshold …
        pre_bias: whether b_dec is subtracted from the activations before encoding.
        normalisation: SAELens' `normalize_activations`, applied to each activation and undone after decoding.
        scale: for the `Provenance`: the factor on activations that is already folded into the tensors.
        folds: for the `Provenance`: what was folded into the tensors.
        decoder_norms: the norms in the file, if folding changed them.
        model, hook, hook_out, bos, l0, of_module, less_value_biases: for the `Provenance`.
    """
    sae = _empty(
        kind,
        tensors,
        k=k,
        apply_b_dec_to_input=pre_bias,
        normalize_activations=normalisation,
        metadata={"model_name": model, "hook_name": hook, "hook_name_out": hook_out, "prepend_bos": bos}
        | dict(metadata or {}),
    )
    sae.unifeat_provenance = Provenance(
        format=format,
        architecture=kind,
        normalisation=_NORMALISATIONS[normalisation] if scale is None else f"× {scale:.6g}, folded into the weights",
        pre_bias=pre_bias,
        gate=describe_gate(sae),
        folds=folds,
        decoder_norms=decoder_norms or row_norms(tensors["W_dec"]),
        k=k,
        model=model,
        hook=hook,
        hook_out=hook_out,
        bos=bos,
        claimed_l0=l0,
        of_module=of_module,
        less_value_biases=less_value_biases,
    )
    return sae


_NORMALISATIONS = {
    "none": "none",
    "layer_norm": "layer norm: less its mean, over its standard deviation",
    "constant_norm_rescale": "scaled to norm √d, token by token",
    "expected_average_only_in": "none",
    "covariance_whitening": "none",
}


def _empty(kind: str, tensors: Mapping[str, Tensor], *, k: int | None, metadata: dict[str, Any], **cfg: Any) -> Any:
    lens = saelens()
    if kind == "groupmax":
        from unifeat.saes.groupmax import GroupMaxSAE, GroupMaxSAEConfig

        made, configured = GroupMaxSAE, GroupMaxSAEConfig
    else:
        made, configured = lens.registry.get_sae_class(kind)
    from sae_lens.saes.sae import SAEMetadata

    d_in, d_sae = tensors["W_enc"].shape
    if k is not None:
        cfg["k"] = k
    if "transcoder" in kind:
        cfg["d_out"] = tensors["W_dec"].shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # On the meta device, the initial weights take neither memory nor time.
        sae = made(
            configured(
                d_in=d_in,
                d_sae=d_sae,
                dtype="float32",
                device="meta",
                metadata=SAEMetadata(**{key: value for key, value in metadata.items() if value is not None}),
                **cfg,
            )
        )
        sae.cfg.device = "cpu"
        sae.load_state_dict({key: tensor.contiguous() for key, tensor in tensors.items()}, assign=True)
        return sae.to(device="cpu")


def row_norms(decoder: Tensor) -> tuple[float, float]:
    """Smallest and largest norm of the rows of a decoder (d_sae, d_out)."""
    low, high = torch.linalg.vector_norm(decoder.detach().to(torch.float32), dim=1).aminmax()
    return float(low), float(high)


def fold_decoder_norms(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same SAE with decoder rows of unit norm: each feature's code is multiplied by the norm of its old row.

    Thresholds are not changed: the formats that need this fold (OpenMOSS) compare them with the product. A feature with
    a zero row, which writes nothing, no longer fires.
    """
    norms = torch.linalg.vector_norm(tensors["W_dec"], dim=1)
    safe = torch.where(norms > 0, norms, 1.0)
    return dict(tensors) | {
        "W_enc": tensors["W_enc"] * norms,
        "b_enc": tensors["b_enc"] * norms,
        "W_dec": tensors["W_dec"] / safe[:, None],
    }
