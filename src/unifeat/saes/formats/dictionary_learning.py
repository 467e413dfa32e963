"""dictionary_learning: `ae.pt` and `config.json`, whose `dict_class` says how to read the tensors.

Its trainer folds the norm of the activations into the biases when it saves. A crashed run leaves a backup under the
same file name, without this fold; such a file is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.build import Known, build, fold_decoder_norms, row_norms
from unifeat.saes.files import Files
from unifeat.saes.tensors import agree, checked, read_pickle

CONFIG, WEIGHTS = "config.json", "ae.pt"


class _Class(NamedTuple):
    """How one of its classes stores and encodes.

    Attributes:
        kind: SAELens' architecture with the same arithmetic.
        pre_bias: whether the decoder's bias is subtracted before the encoder.
        shapes: shapes of the tensors it saves.
        names: SAELens' names for them. Matrices are transposed if SAELens stores them the other way.
    """

    kind: str
    pre_bias: bool
    shapes: dict[str, str]
    names: dict[str, str]
    whole: tuple[str, ...] = ()


_LINEAR = {"encoder.weight": "md", "encoder.bias": "m", "decoder.weight": "dm"}
_LINEAR_NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec"}
_PLAIN = {"W_enc": "dm", "b_enc": "m", "W_dec": "md", "b_dec": "d"}
_PLAIN_NAMES = {name: name for name in _PLAIN}
_BATCH = {"threshold": "", "k": ""}

CLASSES = {
    "AutoEncoder": _Class("standard", True, _LINEAR | {"bias": "d"}, _LINEAR_NAMES | {"bias": "b_dec"}),
    "AutoEncoderNew": _Class(
        "standard", False, _LINEAR | {"decoder.bias": "d"}, _LINEAR_NAMES | {"decoder.bias": "b_dec"}
    ),
    "GatedAutoEncoder": _Class(
        "gated",
        True,
        {"encoder.weight": "md", "decoder.weight": "dm", "decoder_bias": "d"}
        | {"r_mag": "m", "gate_bias": "m", "mag_bias": "m"},
        {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "decoder_bias": "b_dec"}
        | {"r_mag": "r_mag", "gate_bias": "b_gate", "mag_bias": "b_mag"},
    ),
    "JumpReluAutoEncoder": _Class(
        "jumprelu", False, _PLAIN | {"threshold": "m"}, _PLAIN_NAMES | {"threshold": "threshold"}
    ),
    # Encodes with top-k by default, although it also saves a threshold.
    "AutoEncoderTopK": _Class(
        "topk", True, _LINEAR | {"b_dec": "d", "k": ""}, _LINEAR_NAMES | {"b_dec": "b_dec"}, ("k",)
    ),
    # These encode with the threshold by default, and with top-k over the batch only if asked to.
    "BatchTopKSAE": _Class(
        "jumprelu", True, _LINEAR | {"b_dec": "d"} | _BATCH, _LINEAR_NAMES | {"b_dec": "b_dec"}, ("k",)
    ),
    "MatryoshkaBatchTopKSAE": _Class(
        "jumprelu", True, _PLAIN | _BATCH | {"group_sizes": "g"}, _PLAIN_NAMES, ("k", "group_sizes")
    ),
}


def sniff(files: Files) -> bool:
    return files.has(WEIGHTS, CONFIG)


def read(files: Files, known: Known) -> Any:
    trainer = files.json(CONFIG).get("trainer")
    if not isinstance(trainer, dict) or "dict_class" not in trainer:
        raise UserError(f"SAE {files.name}: {CONFIG} has no trainer.dict_class, which says how to read {WEIGHTS}")
    name = str(trainer["dict_class"]).rpartition(".")[2]
    raw = read_pickle(files, WEIGHTS)
    _refuse_others(files, raw)
    if name not in CLASSES:
        raise UserError(f"SAE {files.name}: dictionary_learning's {name} is not supported, only {', '.join(CLASSES)}")
    spec = CLASSES[name]
    optional = {"threshold": ""} if name == "AutoEncoderTopK" else {}
    held, size = checked(files, WEIGHTS, raw, spec.shapes, optional=optional, whole=spec.whole)
    agree(
        files,
        CONFIG,
        {"activation_dim": trainer.get("activation_dim"), "dict_size": trainer.get("dict_size")},
        {"activation_dim": size["d"], "dict_size": size["m"]},
    )
    k = int(held["k"]) if "k" in held else None
    if k is not None:
        agree(files, CONFIG, {"k": trainer.get("k")}, {"k": k})
    tensors = {theirs: _turned(held[key], spec.shapes[key], theirs) for key, theirs in spec.names.items()}
    if "threshold" in spec.shapes and spec.shapes["threshold"] == "":
        tensors["threshold"] = held["threshold"].expand(size["m"]).clone()
    norms = row_norms(tensors["W_dec"])
    folds: tuple[str, ...] = ()
    if name == "AutoEncoder" and not torch.allclose(
        tensors["W_dec"].norm(dim=1), tensors["W_dec"].new_ones(size["m"])
    ):  # as in its `from_pretrained`, with the same tolerance
        tensors, folds = fold_decoder_norms(tensors), ("decoder norms into the encoder",)
    return build(
        "dictionary_learning",
        spec.kind,
        tensors,
        pre_bias=spec.pre_bias,
        folds=folds,
        decoder_norms=norms,
        k=k if spec.kind == "topk" else None,
        l0=float(k) if k is not None else None,
        model=known.model or trainer.get("lm_name"),
        hook=_hook(trainer),
        metadata={"dictionary_learning": {"dict_class": name, "k": k}},
    )


def _refuse_others(files: Files, raw: Any) -> None:
    if not isinstance(raw, Mapping):
        raise UserError(f"SAE {files.name}: {WEIGHTS} holds a {type(raw).__name__}, not tensors by name")
    if "ae" in raw or "optimizer" in raw:
        raise UserError(
            f"SAE {files.name}: {WEIGHTS} is the backup of a run that did not finish (step {raw.get('step')}), with "
            "the activations' norm not folded in; finish the run, or use a file from its checkpoints folder"
        )
    encoder = raw.get("encoder.weight")
    if isinstance(encoder, Tensor) and encoder.ndim == 3:
        raise UserError(f"SAE {files.name} is a crosscoder: a feature has a decoder row for each model, not one")


def _turned(tensor: Tensor, letters: str, name: str) -> Tensor:
    """The tensor as SAELens stores it: encoders (d_in, d_sae), decoders (d_sae, d_in)."""
    wanted: dict[str, str] = {"W_enc": "dm", "W_dec": "md"}
    return tensor if letters == wanted.get(name, letters) else tensor.T


def _hook(trainer: Mapping[str, Any]) -> str | None:
    layer = trainer.get("layer")
    if not isinstance(layer, int):
        return None
    name = str(trainer.get("submodule_name") or "")
    part = "hook_mlp_out" if "mlp" in name else "hook_attn_out" if "att" in name else "hook_resid_post"
    return f"blocks.{layer}.{part}"
