"""Gemma Scope (Gemma 2): `layer_L/width_W/average_l0_N/params.npz`, JumpReLU without a pre-bias.

Hooks: `-res` is a block's output, `-mlp` the MLP's output after its post-norm, `-att` the concatenated heads before
o_proj, and `-transcoders` from the MLP's normalised input to its output. The authors have already folded in the scale
of the training.
"""

from __future__ import annotations

import re
from typing import Any

from unifeat.saes.build import Known, build, row_norms
from unifeat.saes.files import Files
from unifeat.saes.provenance import layer_in
from unifeat.saes.tensors import checked, read_tensors

WEIGHTS = "params.npz"


def sniff(files: Files) -> bool:
    return files.has(WEIGHTS) or (files.file or "").endswith(".npz")


def read(files: Files, known: Known) -> Any:
    file = files.file if files.file and files.file.endswith(".npz") else WEIGHTS
    raw = read_tensors(files, file)
    named = {re.sub("^w_", "W_", key): tensor for key, tensor in raw.items()}
    transcodes = "transcoder" in files.place
    held, size = checked(
        files,
        file,
        named,
        {"W_enc": "dm", "W_dec": "mo" if transcodes else "md", "b_enc": "m", "b_dec": "o" if transcodes else "d"}
        | {"threshold": "m"},
    )
    norms = row_norms(held["W_dec"])
    folds: tuple[str, ...] = ()
    if "embedding" in files.place:  # trained on embeddings as Gemma scales them
        root = size["d"] ** 0.5
        held |= {"W_enc": held["W_enc"] / root, "W_dec": held["W_dec"] * root}
        folds = (f"encoder / √d, decoder × √d (√d = {root:.4g}), as Gemma scales embeddings",)
    hook, hook_out = _hooks(files.place)
    l0 = re.search(r"average_l0_(\d+)", files.place)
    return build(
        "gemma_scope",
        "jumprelu_transcoder" if transcodes else "jumprelu",
        held,
        pre_bias=False,
        folds=folds,
        decoder_norms=norms,
        hook=hook,
        hook_out=hook_out,
        model=known.model or _model(files.place),
        bos=True,
        l0=float(l0[1]) if l0 else None,
    )


def _hooks(place: str) -> tuple[str | None, str | None]:
    layer = layer_in(place)
    if "embedding" in place:  # the embeddings are what the first block is given
        return "blocks.0.hook_resid_pre", None
    kind = re.search(r"gemma-scope-\w+-(?:pt|it)-(res|mlp|att|transcoders)", place)
    if kind is None or layer is None:
        return None, "another point" if "transcoder" in place else None
    inside = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
    if kind[1] == "transcoders":
        return f"blocks.{layer}.ln2.hook_normalized", f"blocks.{layer}.hook_mlp_out"
    return f"blocks.{layer}.{inside[kind[1]]}", None


def _model(place: str) -> str | None:
    found = re.search(r"gemma-scope-(\d+b)-(pt|it)", place)
    return None if found is None else f"gemma-2-{found[1]}{'-it' if found[2] == 'it' else ''}"
