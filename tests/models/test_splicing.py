"""Splicing: the model goes on with the value it is given, at every hook point, and is as before when it ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tiny import points_of
from unifeat.errors import UserError
from unifeat.models import LanguageModel, load_language_model
from unifeat.models.splicing import splicing
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookKind, HookPoint

IDS = torch.randint(3, 40, (2, 9), generator=torch.Generator().manual_seed(0))
MODELS = [("llama", "wordish"), ("gpt2", "bpe"), ("gemma3", "wordish"), ("opt", "bpe")]
# No module puts these out: the model goes on with a sum or a product made again, equal up to rounding.
COMPUTED_AGAIN = ("resid_mid", "ln2_normalized")
# Of a Llama: the layer and the module whose input shows what the model went on with.
NEXT: dict[HookKind, tuple[int, str]] = {
    "resid_pre": (1, "input_layernorm"),
    "attn_z": (1, "self_attn.o_proj"),
    "attn_out": (1, "post_attention_layernorm"),
    "resid_mid": (1, "post_attention_layernorm"),
    "ln2_normalized": (1, "mlp.gate_proj"),
    "mlp_in": (1, "mlp.gate_proj"),
    "mlp_out": (2, "input_layernorm"),
    "resid_post": (2, "input_layernorm"),
}


def loaded(folder: Path, *points: HookPoint) -> LanguageModel:
    return load_language_model(str(folder), list(points), dtype="float32", whole=True)


@torch.inference_mode()
def logits(model: LanguageModel) -> Tensor:
    return model.causal(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("kind", HOOK_KINDS)
@pytest.mark.parametrize(("architecture", "tokenizer"), MODELS)
def test_the_same_value_changes_nothing_and_another_does(
    model_folder: Callable[..., Path], architecture: str, tokenizer: str, kind: HookKind
) -> None:
    point = HookPoint(1, kind)
    assert point in points_of(architecture, 3)
    model = loaded(model_folder(architecture, tokenizer=tokenizer), point)
    before = logits(model)
    with splicing(model.blocks, point, lambda value, _: value):
        torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
        if kind not in COMPUTED_AGAIN:
            assert torch.equal(logits(model), before)
    with splicing(model.blocks, point, lambda value, _: torch.zeros_like(value)):
        assert (logits(model) - before).abs().max() > 1e-3
    assert torch.equal(logits(model), before)


def inputs(model: LanguageModel, *names: tuple[int, str]) -> list[Tensor]:
    """What modules of the blocks are given in one forward pass, seen by hooks of the test's own."""
    seen: dict[tuple[int, str], Tensor] = {}
    handles = []
    for layer, name in names:

        def keep(_: Any, args: Any, kwargs: Any, key: tuple[int, str] = (layer, name)) -> None:
            seen[key] = (args[0] if args else kwargs["hidden_states"]).clone()

        module = model.blocks[layer].get_submodule(name)
        handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))
    logits(model)
    for handle in handles:
        handle.remove()
    return [seen[name] for name in names]


@pytest.mark.parametrize("kind", HOOK_KINDS)
def test_what_comes_next_is_given_the_spliced_value(model_folder: Callable[..., Path], kind: HookKind) -> None:
    """Llama's block by hand: h = x + attention(norm(x)), y = h + mlp(norm(h))."""
    point = HookPoint(1, kind)
    model = loaded(model_folder("llama", tokenizer="wordish"), point)
    block: Any = model.blocks[1]
    with torch.no_grad():
        block.post_attention_layernorm.weight.mul_(torch.linspace(0.5, 2, 32))  # a norm that does weigh
    plain, middle = inputs(model, (1, "input_layernorm"), (1, "post_attention_layernorm"))
    new = torch.randn((*IDS.shape, model.width(point)), generator=torch.Generator().manual_seed(1))
    with splicing(model.blocks, point, lambda value, _: new):
        (given,) = inputs(model, NEXT[kind])
        (after,) = inputs(model, (2, "input_layernorm"))
    expected = {
        "attn_out": plain + new,
        "ln2_normalized": new * block.post_attention_layernorm.weight,
        "mlp_out": middle + new,
    }.get(kind, new)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)
    if kind == "resid_mid":  # the stream that goes past the MLP is the new one too
        mlp = block.mlp(block.post_attention_layernorm(new))
        torch.testing.assert_close(after, new + mlp, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "tokenizer"), MODELS)
@pytest.mark.parametrize("reads", ["mlp_in", "ln2_normalized", "resid_mid", "resid_pre", "attn_out"])
def test_the_replacement_is_made_of_both_values(
    model_folder: Callable[..., Path], architecture: str, tokenizer: str, reads: HookKind
) -> None:
    """As a transcoder's: written where the MLP writes, made of what it read before."""
    point, before = HookPoint(1, "mlp_out"), HookPoint(1, reads)
    model = loaded(model_folder(architecture, tokenizer=tokenizer), point, before)
    known = model.activations(IDS, [point, before])
    seen: list[tuple[Tensor, Tensor]] = []

    def replace(value: Tensor, read: Tensor) -> Tensor:
        seen.append((value.clone(), read.clone()))
        return value

    with splicing(model.blocks, point, replace, before):
        logits(model)
    ((value, read),) = seen
    torch.testing.assert_close(value.reshape(known[point].shape), known[point], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(read.reshape(known[before].shape), known[before], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", HOOK_KINDS)
def test_it_ends_with_an_error_too(model_folder: Callable[..., Path], kind: HookKind) -> None:
    point = HookPoint(1, kind)
    model = loaded(model_folder("llama", tokenizer="wordish"), point)
    before = logits(model)

    def fail(*_: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), splicing(model.blocks, point, fail):
        logits(model)
    assert torch.equal(logits(model), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.causal.modules())


def test_a_whole_model_keeps_its_blocks_and_a_missing_head_is_named(
    model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """What is spliced needs all that comes after it."""
    folder = Path(shutil.copytree(model_folder("gpt_neox"), tmp_path / "neox"))
    assert len(loaded(folder, HookPoint(0)).blocks) == 3
    tensors = load_file(folder / "model.safetensors")
    del tensors["embed_out.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    load_language_model(str(folder), [HookPoint(0)])  # nothing is read from the head
    with pytest.raises(UserError, match=r"hold no weights .*embed_out\.weight|lm_head\.weight"):
        loaded(folder, HookPoint(0))
