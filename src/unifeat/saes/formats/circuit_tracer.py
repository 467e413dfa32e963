"""Transcoders of circuit-tracer (mwhanna and others): one `layer_N.safetensors` per layer, ReLU, some with a skip.

They read the MLP's input and write its output.
"""

from __future__ import annotations

from typing import Any

from unifeat.errors import UserError
from unifeat.saes.build import Known, build
from unifeat.saes.files import Files
from unifeat.saes.provenance import layer_in
from unifeat.saes.tensors import checked, read_tensors


def sniff(files: Files) -> bool:
    name = files.file or ""
    return name.endswith(".safetensors") and layer_in(name.removesuffix(".safetensors")) is not None


def read(files: Files, known: Known) -> Any:
    if files.file is None:
        raise UserError(f"SAE {files.name}: give one of its files, layer_N.safetensors")
    raw = read_tensors(files, files.file)
    if any(key.startswith(("W_enc_", "W_dec_")) for key in raw):
        raise UserError(
            f"SAE {files.name} is a cross-layer transcoder: each feature writes to many layers, so it has no single "
            "decoder row"
        )
    held, _ = checked(
        files,
        files.file,
        raw,
        {"W_enc": "md", "W_dec": "mo", "b_enc": "m", "b_dec": "o"},
        optional={"W_skip": "od"},
    )
    layer = layer_in(files.file.removesuffix(".safetensors"))
    reads, writes = _hooks(files)
    return build(
        "circuit_tracer",
        "skip_transcoder" if "W_skip" in held else "transcoder",
        held | {"W_enc": held["W_enc"].T},
        pre_bias=False,
        model=known.model,
        hook=f"blocks.{layer}.{reads}",
        hook_out=f"blocks.{layer}.{writes}",
    )


def _hooks(files: Files) -> tuple[str, str]:
    """Where they read and write, from circuit-tracer's `config.yaml` if it is beside them."""
    import yaml

    config = files.maybe("config.yaml")
    try:
        hooks = yaml.safe_load(config.read_text(encoding="utf-8")) if config else {}
    except yaml.YAMLError:
        hooks = {}
    hooks = hooks if isinstance(hooks, dict) else {}
    return str(hooks.get("feature_input_hook") or "mlp.hook_in"), str(
        hooks.get("feature_output_hook") or "hook_mlp_out"
    )
