"""GGUF files: converted once into the cache, with the same weights and tokenizer as the model they were made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tiny import sentences
from unifeat.errors import UserError
from unifeat.models import gguf as gguf_module
from unifeat.models.language import load_language_model, load_tokenizer, model_identity
from unifeat.vocabulary.hook_points import HookPoint

_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(source: Path, path: Path) -> Path:
    """Write a transformers Llama folder with a byte-level BPE tokenizer as llama.cpp's converter does, in float32."""
    import gguf

    config = json.loads((source / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    inner = json.loads((source / "tokenizer.json").read_text())["model"]
    pieces = sorted(inner["vocab"], key=inner["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if piece == "<|endoftext|>" else normal for piece in pieces])
    writer.add_token_merges([" ".join(merge) for merge in inner["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in load_file(source / "model.safetensors").items():
        stem = name.removesuffix(".weight")
        if stem in _ENDS:
            target = _ENDS[stem]
        else:
            _, _, layer, module = stem.split(".", 3)
            target = f"blk.{layer}.{_BLOCK[module]}"
            if module == "self_attn.q_proj":
                tensor = _permuted(tensor, heads)
            elif module == "self_attn.k_proj":
                tensor = _permuted(tensor, kv_heads)
        writer.add_tensor(f"{target}.weight", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp interleaves the two halves of each rotary head."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture
def source(model_folder: Callable[..., Path]) -> Path:
    return model_folder("llama")


@pytest.fixture
def gguf_file(source: Path, tmp_path: Path) -> Path:
    return write_gguf(source, tmp_path / "tiny.gguf")


def test_gives_the_activations_of_the_model_it_was_made_from(source: Path, gguf_file: Path):
    points = [HookPoint(0), HookPoint(2)]
    text = sentences(1, seed=7)[0]
    original = load_language_model(str(source), points, dtype="float32")
    unpacked = load_language_model(str(gguf_file), points, dtype="float32")
    ids = original.tokenizer(text)["input_ids"]
    assert unpacked.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    batch = torch.tensor([ids[:60]])
    expected, found = (m.activations(batch, points) for m in (original, unpacked))
    for point in points:
        torch.testing.assert_close(found[point], expected[point], rtol=1e-5, atol=1e-5)


def test_is_converted_once(gguf_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    first = model_identity(str(gguf_file), "float32")
    folders = list((own_cache / "models").iterdir())
    assert len(folders) == 1
    assert folders[0].name.startswith("gguf-")
    assert folders[0].name.endswith("float32")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf_module, "say", never)
    assert model_identity(str(gguf_file), "float32") == first
    assert load_tokenizer(str(gguf_file), "float32").is_fast
    moved = gguf_file.rename(gguf_file.with_name("renamed.gguf"))
    assert model_identity(str(moved), "float32") == first


def test_is_converted_anew_for_another_dtype(gguf_file: Path, own_cache: Path):
    model_identity(str(gguf_file), "float32")
    model = load_language_model(str(gguf_file), [HookPoint(0)], dtype="bfloat16")
    assert next(model.decoder.parameters()).dtype == torch.bfloat16
    assert len(list((own_cache / "models").iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "noise", "empty"])
def test_a_damaged_file_is_a_users_error(gguf_file: Path, own_cache: Path, damage: str):
    whole = gguf_file.read_bytes()
    broken = {"truncated": whole[: len(whole) // 2], "noise": b"no gguf at all" * 100, "empty": b""}[damage]
    gguf_file.write_bytes(broken)
    with pytest.raises(UserError, match=r"tiny\.gguf"):
        load_language_model(str(gguf_file), [HookPoint(0)])
    assert not list(own_cache.glob("models/*"))
