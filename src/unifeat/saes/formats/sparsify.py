"""sparsify (EleutherAI): one folder per hook point, with `cfg.json` and `sae.safetensors`.

SAELens' own loader is not used. It transposes `W_dec`, although sparsify stores it as (num_latents, d_in) like SAELens.
And it subtracts `b_dec` only with `normalize_decoder`, while sparsify always does, except in transcoders. sparsify
applies relu before top-k and SAELens after it; the result is the same, since the k largest of relu(z) are the positive
ones of the k largest z.
"""

from __future__ import annotations

import re
from typing import Any

from unifeat.errors import UserError
from unifeat.saes.build import Known, build
from unifeat.saes.files import Files
from unifeat.saes.tensors import agree, checked, read_tensors

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def sniff(files: Files) -> bool:
    return files.has(CONFIG, WEIGHTS)


def read(files: Files, known: Known) -> Any:
    cfg = files.json(CONFIG)
    activation = cfg.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise UserError(f"SAE {files.name}: sparsify's {activation!r} activation is not supported, only topk, groupmax")
    if cfg.get("signed"):
        raise UserError(f"SAE {files.name}: sparsify's signed top-k is not supported")
    skips, transcodes = bool(cfg.get("skip_connection")), bool(cfg.get("transcode"))
    if skips and not transcodes:
        raise UserError(
            f"SAE {files.name} has a skip connection but is not a transcoder, so its features need not reconstruct"
        )
    k = cfg.get("k")
    if isinstance(k, bool) or not isinstance(k, int):
        raise UserError(f"SAE {files.name} cannot be read ({CONFIG} says k = {k!r}, not a number)")
    held, size = checked(
        files,
        WEIGHTS,
        read_tensors(files, WEIGHTS),
        {"encoder.weight": "md", "encoder.bias": "m", "W_dec": "md", "b_dec": "d"}
        | ({"W_skip": "dd"} if skips else {}),
    )
    agree(
        files,
        CONFIG,
        {"d_in": cfg.get("d_in"), "num_latents": cfg.get("num_latents") or None},
        {"d_in": size["d"], "num_latents": size["m"]},
    )
    if activation == "groupmax" and (k < 1 or size["m"] % k):
        raise UserError(f"SAE {files.name}: {size['m']} features cannot be divided into {k} groups")
    hook = hook_of(files.place.rstrip("/").rpartition("/")[2])
    sae = build(
        "sparsify",
        activation,
        {
            "W_enc": held["encoder.weight"].T,
            "b_enc": held["encoder.bias"],
            "W_dec": held["W_dec"],
            "b_dec": held["b_dec"],
        },
        pre_bias=not transcodes,
        k=k,
        hook=hook.replace("hook_mlp_out", "mlp.hook_in").replace("_out", "_in") if hook and transcodes else hook,
        hook_out=(hook or "another point") if transcodes else None,
        of_module=_inner_module(files.place),
        model=known.model or _model(files),
        metadata={"sparsify_config": cfg},
    )
    if skips:  # SAELens has no top-k transcoder with a skip connection; `reconstruct` adds it
        sae.register_buffer("W_skip", held["W_skip"])
    return sae


def hook_of(module: str) -> str | None:
    """TransformerLens' hook name for a submodule as sparsify names it; sparsify reads its output."""
    if module.endswith("embed_tokens") or module in ("wte", "embed_in"):
        return "hook_embed"
    found = re.search(r"(?:layers|h|blocks)[._](\d+)(?:\.(\w+))?$", module)
    if found is None:
        return None
    part = {None: "hook_resid_post", "mlp": "hook_mlp_out"}.get(found[2], "hook_attn_out")
    return f"blocks.{found[1]}.{part}"


def _inner_module(place: str) -> str | None:
    """The submodule whose output the SAE was trained on; None for the whole block."""
    module = place.rstrip("/").rpartition("/")[2]
    found = re.search(r"(?:layers|h|blocks)[._]\d+\.(\w+)$", module)
    return None if found is None or found[1].endswith("layernorm") else found[1]


def _model(files: Files) -> str | None:
    """The model's name, from the training run's config one folder up."""
    import json

    above = files.maybe("../config.json")
    try:
        return json.loads(above.read_text()).get("model") if above else None
    except (ValueError, AttributeError):
        return None
