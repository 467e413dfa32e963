"""Bare pickled files of tensors, recognised by the names of their tensors: OpenAI, Goodfire, Qwen-Scope and others.

A bare file has no settings. What the tensors do not determine (Qwen-Scope's k) is read from the name, or the file is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.build import Known, build
from unifeat.saes.files import Files
from unifeat.saes.provenance import layer_in
from unifeat.saes.tensors import checked, read_pickle

_OPENAI = {"pre_bias": "d", "latent_bias": "m", "encoder.weight": "md", "decoder.weight": "dm"}
_OPENAI_COUNTS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square", "activation")
_GOODFIRE = {"encoder_linear.weight": "md", "encoder_linear.bias": "m"}
_GOODFIRE |= {"decoder_linear.weight": "dm", "decoder_linear.bias": "d"}
_LINEAR = {"encoder.weight": "md", "encoder.bias": "m", "decoder.weight": "dm", "decoder.bias": "d"}
_QWEN = {"W_enc": "md", "W_dec": "dm", "b_enc": "m", "b_dec": "d"}
_PLAIN = {"W_enc": "dm", "W_dec": "md", "b_enc": "m", "b_dec": "d"}
_QWEN_K = re.compile(r"L0[_-](\d+)")


def sniff_openai(files: Files) -> bool:
    return set(_OPENAI) <= _keys(files)


def read_openai(files: Files, known: Known) -> Any:
    """relu or top-k of W(norm(x) − pre_bias) + latent_bias. With top-k, norm is a layer norm, undone after decoding."""
    file, raw = _one(files)
    held, _ = checked(files, file, raw, _OPENAI, ignored=_OPENAI_COUNTS)
    activation, state = raw.get("activation", "ReLU"), raw.get("activation_state_dict") or {}
    if activation not in ("ReLU", "TopK"):
        raise UserError(f"SAE {files.name}: OpenAI's activation {activation!r} is not supported, only ReLU, TopK")
    top = activation == "TopK"
    if top and (state.get("postact_fn", "ReLU") != "ReLU" or not isinstance(state.get("k"), int)):
        raise UserError(f"SAE {files.name}: its top-k needs a number k, followed by ReLU, not {dict(state)}")
    tensors = {
        "W_enc": held["encoder.weight"].T,
        "W_dec": held["decoder.weight"].T,
        "b_enc": held["latent_bias"],
        "b_dec": held["pre_bias"],
    }
    return build(
        "openai",
        "topk" if top else "standard",
        tensors,
        pre_bias=True,
        normalisation="layer_norm" if top else "none",
        k=int(state["k"]) if top else None,
        model=known.model,
    )


def sniff_goodfire(files: Files) -> bool:
    return set(_GOODFIRE) <= _keys(files)


def read_goodfire(files: Files, known: Known) -> Any:
    """relu(Wx + b); no pre-bias."""
    file, raw = _one(files)
    held, _ = checked(files, file, raw, _GOODFIRE)
    return _relu("goodfire", file, known, {key.replace("_linear", ""): tensor for key, tensor in held.items()})


def sniff_linear(files: Files) -> bool:
    return set(_LINEAR) <= _keys(files)


def read_linear(files: Files, known: Known) -> Any:
    """Two linear layers with biases and a relu (qresearch's DeepSeek-R1 SAEs, AutoEncoderNew); no pre-bias."""
    file, raw = _one(files)
    held, _ = checked(files, file, raw, _LINEAR)
    return _relu("linear", file, known, held)


def sniff_qwen_scope(files: Files) -> bool:
    keys = _keys(files)
    return set(_QWEN) <= keys and (".sae.pt" in (files.file or files.pickles[0]) or bool(_QWEN_K.search(files.place)))


def read_qwen_scope(files: Files, known: Known) -> Any:
    """top-k of Wx + b; no pre-bias. Both matrices are stored transposed compared with SAELens."""
    file, raw = _one(files)
    found = _QWEN_K.search(files.place)
    if found is None:
        raise UserError(
            f"SAE {files.name}: only the repository's name (…-L0_50) says how many features fire: "
            "keep the file in a folder of that name"
        )
    held, size = checked(files, file, raw, _QWEN)
    if size["d"] == size["m"]:
        raise UserError(
            f"SAE {files.name}: it has {size['d']} features of width {size['d']}, so rows and columns look the same"
        )
    layer, base = layer_in(file), re.search(r"SAE-Res-(.+)-W\d+K", files.place)
    return build(
        "qwen_scope",
        "topk",
        held | {"W_enc": held["W_enc"].T, "W_dec": held["W_dec"].T},
        pre_bias=False,
        k=int(found[1]),
        model=known.model or (f"Qwen/{base[1]}" if base else None),
        hook=None if layer is None else f"blocks.{layer}.hook_resid_post",
    )


def sniff_attention_z(files: Files) -> bool:
    return set(_PLAIN) <= _keys(files) and _config_beside(files) in files.names


def read_attention_z(files: Files, known: Known) -> Any:
    """relu((x − b_dec)W + b) of the concatenated heads (Kissane et al., GPT-2), with a `_cfg.json` beside the file."""
    file, raw = _one(files)
    held, size = checked(files, file, raw, _PLAIN)
    cfg = files.json(_config_beside(files))
    for key, letter in (("act_size", "d"), ("dict_size", "m")):
        if cfg.get(key) not in (None, size[letter]):
            raise UserError(
                f"SAE {files.name}: its config says {key} = {cfg[key]}, but the weights have {size[letter]}"
            )
    return build(
        "attention_z",
        "standard",
        held,
        pre_bias=True,
        model=known.model,
        hook=cfg.get("act_name"),
        bos=True,
        less_value_biases=True,  # TransformerLens' default, which the authors used
    )


def _relu(format: str, file: str, known: Known, held: Mapping[str, Tensor]) -> Any:
    layer = re.search(r"SAE-l(\d+)", file)
    return build(
        format,
        "standard",
        {
            "W_enc": held["encoder.weight"].T,
            "W_dec": held["decoder.weight"].T,
            "b_enc": held["encoder.bias"],
            "b_dec": held["decoder.bias"],
        },
        pre_bias=False,
        model=known.model,
        hook=f"blocks.{layer[1]}.hook_resid_post" if layer else None,
    )


def _one(files: Files) -> tuple[str, Mapping[str, Any]]:
    """The name and content of the only pickled file."""
    names = files.pickles
    if len(names) != 1:
        raise UserError(f"SAE {files.name}: it has {len(names)} pickled files; give one of them")
    held = read_pickle(files, names[0])
    return names[0], held if isinstance(held, Mapping) else {}


def _keys(files: Files) -> set[str]:
    return set(map(str, _one(files)[1])) if len(files.pickles) == 1 else set()


def _config_beside(files: Files) -> str:
    return f"{files.pickles[0].removesuffix('.pt')}_cfg.json"
