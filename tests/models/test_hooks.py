"""Hook points read what they say, on every architecture, bit for bit where there is something to compare with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tiny import ARCHITECTURES
from unifeat.errors import UserError
from unifeat.models.hooks import HOOK_KINDS, HookPoint, capturing, find_blocks
from unifeat.models.language import LanguageModel, load_language_model

LAYERS = 3
FINAL_NORM = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm", "opt": "final_layer_norm", "phi": "final_layernorm"}

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture
def load(model_folder: Callable[..., Path]) -> Callable[..., LanguageModel]:
    def make(architecture: str, points: list[HookPoint], dtype: str = "float32") -> LanguageModel:
        return load_language_model(str(model_folder(architecture)), points, dtype=dtype, device="cpu")

    return make


@pytest.fixture
def reference(model_folder: Callable[..., Path]) -> Callable[..., nn.Module]:
    """The whole decoder, as transformers alone gives it."""

    def make(architecture: str, dtype: torch.dtype = torch.float32) -> nn.Module:
        folder = model_folder(architecture)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).get_decoder().eval()

    return make


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(1, 300, (2, 24), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def hidden_states(decoder: nn.Module, ids: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """transformers' own hidden states, and what goes into the final norm."""
    norm = getattr(decoder, FINAL_NORM.get(decoder.config.model_type, "norm"))
    before: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _, args: before.append(args[0].clone()))
    states = decoder(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    handle.remove()
    assert torch.equal(norm(before[0]), states[-1])
    return states, before[0]


@every_architecture
def test_layer_l_is_hidden_state_l_plus_1(architecture, load, reference, ids):
    points = [HookPoint(layer) for layer in range(LAYERS)]
    found = load(architecture, points).activations(ids, points)
    states, before_norm = hidden_states(reference(architecture), ids)
    assert len(states) == LAYERS + 1
    for layer in range(LAYERS - 1):
        assert torch.equal(found[HookPoint(layer)], states[layer + 1])
    assert torch.equal(found[HookPoint(LAYERS - 1)], before_norm)
    assert not torch.equal(found[HookPoint(LAYERS - 1)], states[-1])


@every_architecture
def test_resid_pre_is_hidden_state_l(architecture, load, reference, ids):
    points = [HookPoint(layer, "resid_pre") for layer in range(LAYERS)]
    found = load(architecture, points).activations(ids, points)
    states, _ = hidden_states(reference(architecture), ids)
    for point in points:
        assert torch.equal(found[point], states[point.layer])


@every_architecture
def test_attention_and_mlp_add_up_to_the_block(architecture, load, ids):
    points = [HookPoint(layer, kind) for layer in range(LAYERS) for kind in HOOK_KINDS]
    model = load(architecture, points)
    found = model.activations(ids, points)
    for point in points:
        assert found[point].shape == (*ids.shape, model.d_model), point
    for layer in range(LAYERS):
        pre, attention, mlp, post = (
            found[HookPoint(layer, kind)] for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        assert attention.std() > 0.1
        assert mlp.std() > 0.1
        torch.testing.assert_close(pre + attention + mlp, post, rtol=1e-5, atol=1e-5)


@every_architecture
def test_the_cut_changes_no_bit(architecture, load, reference, ids):
    point = HookPoint(1)
    cut = load(architecture, [point])
    assert len(cut.blocks) == 2
    assert cut.n_layers == LAYERS
    assert len(find_blocks(cut.decoder, 2)[2]) == 2
    states, _ = hidden_states(reference(architecture), ids)
    assert torch.equal(cut.activations(ids, [point])[point], states[2])


@every_architecture
def test_padding_on_the_right_changes_nothing_before_it(architecture, load, ids):
    points = [HookPoint(LAYERS - 1, kind) for kind in HOOK_KINDS]
    model = load(architecture, points)
    alone = model.activations(ids[:1, :15], points)
    padded = [model.activations(torch.cat([ids[:1, :15], torch.full((1, 9), pad)], 1), points) for pad in (0, 7)]
    for point in points:
        assert torch.equal(padded[0][point][:, :15], padded[1][point][:, :15])
        torch.testing.assert_close(padded[0][point][:, :15], alone[point], rtol=1e-5, atol=1e-5)


def test_one_forward_pass_serves_all_points(load, ids):
    points = [HookPoint(layer, kind) for layer in range(LAYERS) for kind in HOOK_KINDS]
    model = load("llama", points)
    calls = []
    model.decoder.register_forward_hook(lambda *_: calls.append(1))
    together = model.activations(ids, points)
    assert len(calls) == 1
    for point in points:
        assert torch.equal(together[point], model.activations(ids, [point])[point])


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_bfloat16(architecture, load, reference, ids):
    point = HookPoint(1)
    model = load(architecture, [point], dtype="bfloat16")
    found = model.activations(ids, [point])[point]
    assert found.dtype == torch.bfloat16
    states, _ = hidden_states(reference(architecture, torch.bfloat16), ids)
    assert torch.equal(found, states[2])
    exact = load(architecture, [point]).activations(ids, [point])[point]
    assert 0 < (found.float() - exact).norm() / exact.norm() < 0.05


def test_hooks_are_gone_afterwards(load, ids):
    model = load("gpt2", [HookPoint(1)])
    model.activations(ids, [HookPoint(0), HookPoint(1, "resid_pre")])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.decoder.modules())


def test_an_unknown_hook_point_suggests_the_nearest(load):
    model = load("gpt2", [HookPoint(0)])
    with (
        pytest.raises(UserError, match=r"'resid_pots' \(did you mean 'resid_post'\?\)"),
        capturing(model.blocks, [HookPoint(0, "resid_pots")]),
    ):
        pass


def test_a_model_without_blocks_is_a_users_error():
    with pytest.raises(UserError, match="Sequential: found 0 lists of 2 transformer blocks"):
        find_blocks(nn.Sequential(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])), 2)


def test_points_have_saelens_names():
    assert HookPoint(12).saelens_name == "blocks.12.hook_resid_post"
    assert HookPoint(0, "mlp_out").saelens_name == "blocks.0.hook_mlp_out"
