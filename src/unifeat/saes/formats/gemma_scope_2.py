"""Gemma Scope 2 (Gemma 3): `config.json` and `params.safetensors`, JumpReLU without a pre-bias; some with affine skip.

SAELens' loader is not used: it fetches the shapes of the tensors over the network even if the file is in the cache.
"""

from __future__ import annotations

import re
from typing import Any

from unifeat.errors import UserError
from unifeat.saes.build import Known, build
from unifeat.saes.files import Files
from unifeat.saes.provenance import layer_in
from unifeat.saes.tensors import checked, read_tensors

CONFIG, WEIGHTS = "config.json", "params.safetensors"


def sniff(files: Files) -> bool:
    return files.has(WEIGHTS)


def read(files: Files, known: Known) -> Any:
    cfg = files.json(CONFIG) if files.has(CONFIG) else {}
    if cfg.get("architecture", "jump_relu") != "jump_relu":
        raise UserError(f"SAE {files.name}: {CONFIG} says architecture {cfg['architecture']!r}, not jump_relu")
    raw = read_tensors(files, WEIGHTS)
    if getattr(raw.get("w_dec"), "ndim", 2) == 3 or "/clt" in files.place:
        raise UserError(
            f"SAE {files.name} is a cross-layer transcoder: each feature writes to many layers, so it has no single "
            "decoder row"
        )
    reads, writes = cfg.get("hf_hook_point_in"), cfg.get("hf_hook_point_out")
    transcodes = "transcoder" in files.place or writes not in (None, "", reads)
    held, size = checked(
        files,
        WEIGHTS,
        raw,
        {"w_enc": "dm", "w_dec": "mo", "b_enc": "m", "b_dec": "o", "threshold": "m"},
        optional={"affine_skip_connection": "do"},
    )
    if not transcodes and size["o"] != size["d"]:
        raise UserError(f"SAE {files.name}: it reads width {size['d']} but writes width {size['o']}")
    tensors = {
        "W_enc": held["w_enc"],
        "W_dec": held["w_dec"],
        "b_enc": held["b_enc"],
        "b_dec": held["b_dec"],
        "threshold": held["threshold"],
    }
    skips = "affine_skip_connection" in held
    if skips:
        tensors["W_skip"] = held["affine_skip_connection"].T
    hook, hook_out = _hooks(files.place, reads)
    return build(
        "gemma_scope_2",
        f"jumprelu_{'skip_' if skips else ''}transcoder" if transcodes or skips else "jumprelu",
        tensors,
        pre_bias=False,
        hook=hook,
        hook_out=(hook_out or "another point") if transcodes or skips else None,
        model=known.model or cfg.get("model_name"),
        bos=True,
    )


def _hooks(place: str, module: str | None) -> tuple[str | None, str | None]:
    """The hooks it reads and writes: from the folder's name, else from Hugging Face's name of the module."""
    layer = layer_in(place) if layer_in(place) is not None else layer_in(module or "")
    if layer is None:
        return None, None
    for part, hook in (("resid_post", "hook_resid_post"), ("mlp_out", "hook_mlp_out"), ("attn_out", "attn.hook_z")):
        if part in place:
            return f"blocks.{layer}.{hook}", None
    if "transcoder" in place:
        return f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out"
    if module and re.search(r"layers\.\d+\.output$", module):
        return f"blocks.{layer}.hook_resid_post", None
    return None, None
