"""SAEs of heads without value biases, and of a module's own output: put right, or refused, once the model is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import checkpoints
from tiny import sentences, write_text
from unifeat.errors import UserError
from unifeat.models.activations import run_group
from unifeat.models.blocks import value_bias
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.saes import fit_to_model, load_sae, provenance_of
from unifeat.saes.checking.check import check_sae
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

POINT = HookPoint(1, "attn_z")
PARTS = [Part(n, 0, text) for n, text in enumerate(sentences(20, seed=2))]


def heads(model: LanguageModel) -> Tensor:
    return run_group(model, PARTS, [POINT], Windowing(24)).values[POINT]


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "phi", "qwen2"])  # Qwen 2's values are shared by heads
def test_values_are_longer_by_their_biases(architecture: str, model_folder: Callable[..., Path]):
    """The model with its value biases set to zero puts out less by what `value_bias` says: attention adds up to 1."""
    model = load_language_model(str(model_folder(architecture)), [POINT], dtype="float32")
    block = model.blocks[1]
    attention = block.attn if architecture == "gpt2" else block.self_attn
    before = heads(model)
    bias = value_bias(block, model.width(POINT))
    assert bias is not None
    assert bias.abs().max() > 0.01
    bias = bias.clone()
    if architecture == "gpt2":
        attention.c_attn.bias[-32:] = 0
    else:
        attention.v_proj.bias.zero_()
    torch.testing.assert_close(before - heads(model), bias.expand_as(before), rtol=1e-4, atol=1e-5)


def test_where_there_are_none(model_folder: Callable[..., Path]):
    model = load_language_model(str(model_folder("llama")), [POINT], dtype="float32")
    assert value_bias(model.blocks[1], 32) is None
    fused = load_language_model(str(model_folder("gpt_neox")), [POINT], dtype="float32")
    with pytest.raises(UserError, match="does not know where its value biases are"):
        value_bias(fused.blocks[1], 32)


def test_kissane_s_saes_see_heads_as_transformer_lens_gives_them(model_folder: Callable[..., Path], tmp_path: Path):
    folder, held = model_folder("gpt2"), checkpoints.tensors(32, 64)
    checkpoints.write_attention_z(tmp_path / "heads.pt", held)
    model, sae = load_language_model(str(folder), [POINT], dtype="float32"), load_sae(tmp_path / "heads.pt")
    assert provenance_of(sae).less_value_biases
    z, bias = heads(model), value_bias(model.blocks[1], 32)
    bare = z - bias
    codes = torch.relu((bare - held["b_dec"]) @ held["W_enc"] + held["b_enc"])
    made = codes @ held["W_dec"] + held["b_dec"] + bias
    for _ in range(2):  # done once, however often it is asked for
        fit_to_model(sae, "heads", model.blocks, POINT)
        torch.testing.assert_close(sae.encode(z), codes, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sae.decode(codes), made, rtol=1e-4, atol=1e-5)
    assert not provenance_of(sae).less_value_biases
    assert any("value biases" in fold for fold in provenance_of(sae).folds)
    text = str(write_text(tmp_path, sentences(20, seed=2)))
    found = check_sae(str(tmp_path / "heads.pt"), str(folder), 1, text, hook="attn_z", dtype="float32", loss=False)
    assert any("value biases" in fold for fold in found.provenance.folds)


def test_without_a_pre_bias_the_encoder_s_bias_takes_it(model_folder: Callable[..., Path], tmp_path: Path):
    held = checkpoints.tensors(32, 64)
    settings = {"apply_b_dec_to_input": False, "model_from_pretrained_kwargs": {"fold_value_biases": True}}
    checkpoints.write_saelens(tmp_path / "a", held, hook_point="blocks.1.attn.hook_z", **settings)
    model = load_language_model(str(model_folder("gpt2")), [POINT], dtype="float32")
    sae, z = load_sae(tmp_path / "a"), heads(model)
    fit_to_model(sae, "a", model.blocks, POINT)
    bias = value_bias(model.blocks[1], 32)
    codes = torch.relu((z - bias) @ held["W_enc"] + held["b_enc"])
    torch.testing.assert_close(sae.encode(z), codes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae.decode(codes), codes @ held["W_dec"] + held["b_dec"] + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("module", "kind"), [("layers.1.mlp", "mlp_out"), ("layers.1.self_attn", "attn_out")])
def test_a_module_s_own_output_is_no_hook_point_where_it_is_normalised(
    model_folder: Callable[..., Path], tmp_path: Path, module: str, kind: str
):
    """sparsify reads what `mlp` puts out; Gemma adds that to the stream only after another norm."""
    checkpoints.write_sparsify(tmp_path / module, checkpoints.tensors(32, 64))
    text = str(write_text(tmp_path, sentences(20, seed=2)))
    match = f"was trained on the output of {module[9:]}, which Gemma3DecoderLayer normalises"
    with pytest.raises(UserError, match=match):
        check_sae(str(tmp_path / module), str(model_folder("gemma3")), text=text, loss=False)
    found = check_sae(str(tmp_path / module), str(model_folder("llama")), text=text, loss=False, dtype="float32")
    assert found.point == HookPoint(1, kind)  # type: ignore[arg-type]
