"""Tiny SAE checkpoints of every format, written file by file as their own libraries write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


def tensors(d_in: int, d_sae: int, seed: int = 0) -> Tensors:
    """Random weights named and shaped as SAELens does; decoder rows are not of unit norm, and most features fire."""
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn((d_sae, d_in), generator=generator)
    scale = torch.rand((d_sae, 1), generator=generator) + 0.5
    return {
        "W_enc": (decoder / decoder.norm(dim=-1, keepdim=True)).T.contiguous(),
        "W_dec": decoder * scale / d_in**0.5,
        "b_enc": 0.05 * torch.randn(d_sae, generator=generator),
        "b_dec": 0.1 * torch.randn(d_in, generator=generator),
        "threshold": 0.2 + 0.5 * torch.rand(d_sae, generator=generator),
    }


def _some(held: Tensors, *keys: str) -> Tensors:
    return {key: held[key].contiguous() for key in keys}


def _linear(held: Tensors, *, bias: str = "decoder.bias") -> Tensors:
    """As two `nn.Linear`s."""
    return {
        "encoder.weight": held["W_enc"].T.contiguous(),
        "encoder.bias": held["b_enc"],
        "decoder.weight": held["W_dec"].T.contiguous(),
        bias: held["b_dec"],
    }


def _config(at: Path, name: str, **config: Any) -> None:
    (at / name).write_text(json.dumps(config))


def write_saelens(at: Path, held: Tensors, k: int = 4, **config: Any) -> None:
    """A ReLU SAE as SAELens before 6.0 wrote it (the registry's own SAEs are of that age)."""
    del k
    at.mkdir(parents=True, exist_ok=True)
    d_in, d_sae = held["W_enc"].shape
    save_file(
        _some(held, "W_enc", "W_dec", "b_enc", "b_dec") | {k: v for k, v in held.items() if k == "scaling_factor"},
        at / "sae_weights.safetensors",
    )
    settings = {"d_in": d_in, "d_sae": d_sae, "dtype": "torch.float32", "device": "cuda", "hook_point": at.name}
    _config(at, "cfg.json", **settings | {"model_name": "tiny", "normalize_activations": False} | config)


def write_sparsify(at: Path, held: Tensors, k: int = 4, **config: Any) -> None:
    at.mkdir(parents=True, exist_ok=True)
    d_in, d_sae = held["W_enc"].shape
    weights = _linear(held, bias="b_dec") | {"W_dec": held["W_dec"]}
    del weights["decoder.weight"]
    save_file(weights, at / "sae.safetensors")
    settings = {"d_in": d_in, "num_latents": d_sae, "expansion_factor": 32, "k": k, "normalize_decoder": True}
    _config(at, "cfg.json", **settings | {"multi_topk": False, "signed": False} | config)


def write_gemma_scope(at: Path, held: Tensors, k: int = 4, **named: np.ndarray) -> None:
    del k
    at.mkdir(parents=True, exist_ok=True)
    np.savez(at / "params.npz", **{key: tensor.numpy() for key, tensor in held.items()} | named)


def write_gemma_scope_2(at: Path, held: Tensors, k: int = 4, skip: torch.Tensor | None = None, **config: Any) -> None:
    """A skip connection, (d_in, d_out), makes it an affine transcoder."""
    del k
    at.mkdir(parents=True, exist_ok=True)
    weights = {key.replace("W_", "w_"): tensor.contiguous() for key, tensor in held.items()}
    save_file(weights | ({} if skip is None else {"affine_skip_connection": skip}), at / "params.safetensors")
    _config(at, "config.json", **{"architecture": "jump_relu", "model_name": "gemma-3-270m-pt"} | config)


def write_llama_scope(at: Path, held: Tensors, k: int = 4, **config: Any) -> None:
    (at / "checkpoints").mkdir(parents=True, exist_ok=True)
    d_in, d_sae = held["W_enc"].shape
    save_file(_linear(held), at / "checkpoints" / "final.safetensors")
    settings = {
        "d_model": d_in,
        "d_sae": d_sae,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.25,
        "top_k": k,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 3.0, "out": 3.0},
        "sparsity_include_decoder_norm": True,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
    }
    _config(at, "hyperparams.json", **settings | config)


def write_llamascopium(
    at: Path, held: Tensors, k: int = 4, *, old: bool = True, average: float | None = None, **config: Any
) -> None:
    """The library's newer files, of R1-Distill's generation (`old`) or since; `average`: the data set's norm."""
    at.mkdir(parents=True, exist_ok=True)
    d_in, d_sae = held["W_enc"].shape
    hook = "blocks.15.hook_resid_post"
    weights = (
        _linear(held) | {"log_jumprelu_threshold": held["threshold"].log()}
        if old
        else {"W_E": held["W_enc"], "b_E": held["b_enc"], "W_D": held["W_dec"], "b_D": held["b_dec"]}
        | {"activation_function.log_jumprelu_threshold": held["threshold"].log()}
    )
    if average is not None:
        weights[f"dataset_average_activation_norm.{hook}"] = torch.tensor(average)
    save_file(weights, at / "sae_weights.safetensors")
    settings = {"d_model": d_in, "expansion_factor": d_sae / d_in, "act_fn": "jumprelu", "top_k": k}
    settings |= {"norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "use_decoder_bias": True}
    _config(at, "config.json", **settings | {"sae_type": "sae", "hook_point_in": hook, "hook_point_out": hook} | config)


def write_dictionary_learning(at: Path, held: Tensors, k: int = 4, **config: Any) -> None:
    """An AutoEncoderTopK; its trainer saves a threshold too, which encoding does not use."""
    at.mkdir(parents=True, exist_ok=True)
    d_in, d_sae = held["W_enc"].shape
    weights = _linear(held, bias="b_dec") | {"k": torch.tensor(k, dtype=torch.int), "threshold": torch.tensor(0.3)}
    torch.save(weights, at / "ae.pt")
    trainer = {"dict_class": "AutoEncoderTopK", "activation_dim": d_in, "dict_size": d_sae, "k": k, "layer": 12}
    trainer |= {"lm_name": "google/gemma-2-2b", "submodule_name": "resid_post_layer_12"} | config
    _config(at, "config.json", trainer=trainer, buffer={"ctx_len": 128})


def write_openai(at: Path, held: Tensors, k: float | None = 4, **state: Any) -> None:
    """k: of its top-k; None makes it a ReLU SAE."""
    at.parent.mkdir(parents=True, exist_ok=True)
    linear = _linear(held, bias="pre_bias")
    linear["latent_bias"] = linear.pop("encoder.bias")
    counts = {"stats_last_nonzero": torch.zeros(len(held["b_enc"]), dtype=torch.long)}
    activation = (
        {"activation": "ReLU"}
        if k is None
        else {"activation": "TopK", "activation_state_dict": {"k": k, "postact_fn": "ReLU"} | state}
    )
    torch.save(linear | counts | activation, at)


def write_goodfire(at: Path, held: Tensors, k: int = 4) -> None:
    del k
    at.parent.mkdir(parents=True, exist_ok=True)
    linear = {key.replace("coder.", "coder_linear."): tensor for key, tensor in _linear(held).items()}
    torch.save(linear, at)


def write_linear(at: Path, held: Tensors, k: int = 4) -> None:
    del k
    at.parent.mkdir(parents=True, exist_ok=True)
    torch.save(_linear(held), at)


def write_qwen_scope(at: Path, held: Tensors, k: int = 4) -> None:
    del k
    at.parent.mkdir(parents=True, exist_ok=True)
    turned = {key: held[key].T.contiguous() for key in ("W_enc", "W_dec")}
    torch.save(turned | _some(held, "b_enc", "b_dec"), at)


def write_circuit_tracer(at: Path, held: Tensors, k: int = 4, skip: torch.Tensor | None = None) -> None:
    del k
    at.parent.mkdir(parents=True, exist_ok=True)
    weights = _some(held, "W_dec", "b_enc", "b_dec") | {"W_enc": held["W_enc"].T.contiguous()}
    save_file(weights | ({} if skip is None else {"W_skip": skip}), at)


def write_attention_z(at: Path, held: Tensors, k: int = 4) -> None:
    del k
    at.parent.mkdir(parents=True, exist_ok=True)
    d_in, d_sae = held["W_enc"].shape
    torch.save(_some(held, "W_enc", "W_dec", "b_enc", "b_dec"), at)
    config = {"act_size": d_in, "dict_size": d_sae, "act_name": "blocks.0.attn.hook_z"}
    _config(at.parent, f"{at.name.removesuffix('.pt')}_cfg.json", **config)


# By the name of SAELens' loader in its registry.
WRITERS: dict[str, Callable[[Path, Tensors, int], None]] = {
    "sae_lens": write_saelens,
    "gemma_2": write_gemma_scope,
    "gemma_2_transcoder": write_gemma_scope,
    "gemma_3": write_gemma_scope_2,
    "llama_scope": write_llama_scope,
    "llama_scope_r1_distill": write_llamascopium,
    "dictionary_learning_1": write_dictionary_learning,
    "deepseek_r1": write_linear,
    "qwen_scope": write_qwen_scope,
    "mwhanna_transcoder": write_circuit_tracer,
    "goodfire": write_goodfire,
    "connor_rob_hook_z": write_attention_z,
}
