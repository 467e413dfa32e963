"""Hook points read what they say, on every architecture, bit for bit where there is something to compare with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tiny import ARCHITECTURES, points_of
from unifeat.errors import UserError
from unifeat.models.blocks import find_blocks, normalised, reweighted
from unifeat.models.hooks import capturing
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.models.selftest import can_read
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookPoint, parse_hook, width_at

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
    points = points_of(architecture, LAYERS)
    model = load(architecture, points)
    found = model.activations(ids, points)
    for point in points:
        assert found[point].shape == (*ids.shape, model.width(point)), point
        assert point.kind == "attn_z" or model.width(point) == model.d_model
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
    points = [point for point in points_of(architecture, LAYERS) if point.layer == LAYERS - 1]
    model = load(architecture, points)
    alone = model.activations(ids[:1, :15], points)
    padded = [model.activations(torch.cat([ids[:1, :15], torch.full((1, 9), pad)], 1), points) for pad in (0, 7)]
    for point in points:
        assert torch.equal(padded[0][point][:, :15], padded[1][point][:, :15])
        torch.testing.assert_close(padded[0][point][:, :15], alone[point], rtol=1e-5, atol=1e-5)


def test_one_forward_pass_serves_all_points(load, ids):
    points = points_of("llama", LAYERS)
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
    assert HookPoint(3, "attn_z").saelens_name == "blocks.3.attn.hook_z"
    for kind in HOOK_KINDS:
        assert parse_hook(HookPoint(3, kind).saelens_name) == (kind, 3)


@every_architecture
def test_what_the_projections_make_of_their_inputs(architecture, load, ids):
    """attn_z through the output projection is attention's output; mlp_in through the MLP is the MLP's."""
    points = [HookPoint(1, kind) for kind in ("attn_z", "mlp_in", "attn_out", "mlp_out")]
    model = load(architecture, points)
    found = model.activations(ids, points)
    block = model.blocks[1]
    attention = next(getattr(block, name) for name in ("self_attn", "attn", "attention") if hasattr(block, name))
    projection = next(getattr(attention, n) for n in ("o_proj", "c_proj", "dense", "out_proj") if hasattr(attention, n))
    attended = projection(found[points[0]])
    mlp = (
        block.mlp(found[points[1]])
        if hasattr(block, "mlp")
        else block.fc2(block.activation_fn(block.fc1(found[points[1]])))
    )
    if hasattr(block, "post_feedforward_layernorm"):
        attended, mlp = block.post_attention_layernorm(attended), block.post_feedforward_layernorm(mlp)
    torch.testing.assert_close(attended, found[points[2]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mlp, found[points[3]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "phi"])
def test_the_norm_before_the_mlp(architecture, load, ids):
    """Between the stream and the MLP: unit variance without the norm's weights, and the MLP's input with them."""
    points = [p for p in points_of(architecture, 2) if p in [(1, k) for k in ("resid_mid", "ln2_normalized", "mlp_in")]]
    model = load(architecture, points)
    found = model.activations(ids, points)
    bare, given = found[HookPoint(1, "ln2_normalized")], found[HookPoint(1, "mlp_in")]
    torch.testing.assert_close(bare.pow(2).mean(-1), torch.ones(ids.shape), rtol=1e-3, atol=1e-3)
    name = next(
        n
        for n in ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm")
        if hasattr(model.blocks[1], n)
    )
    norm = getattr(model.blocks[1], name)
    torch.testing.assert_close(reweighted(norm, bare), given, rtol=1e-5, atol=1e-5)
    assert (bare - given).norm() > 0.05 * given.norm()  # the norm's weights are not ones
    if architecture != "gpt_neox":
        middle = found[HookPoint(1, "resid_mid")]
        torch.testing.assert_close(norm(middle), given)
        torch.testing.assert_close(normalised(norm, middle), bare)


@pytest.mark.parametrize(
    ("architecture", "kind", "said"),
    [
        ("gpt_neox", "resid_mid", "there is no resid_mid; use resid_pre, resid_post or mlp_in"),
        ("phi", "resid_mid", "has no norm before the MLP module, so no resid_mid"),
        ("phi", "ln2_normalized", "has no norm before the MLP module, so no ln2_normalized"),
        ("mamba", "attn_z", "has no attention module, so no attn_z: use resid_pre or resid_post"),
        ("mamba", "mlp_in", "has no MLP module, so no mlp_in"),
    ],
)
def test_what_an_architecture_lacks_is_said(architecture, kind, said, load):
    with pytest.raises(UserError, match=said):
        load(architecture, [HookPoint(1, kind)])
    model = load(architecture, [HookPoint(1)])
    assert not can_read(model, HookPoint(1, kind))
    assert can_read(model, HookPoint(0, "resid_pre"))
    assert not can_read(model, HookPoint(2))  # cut off


def test_heads_can_be_wider_than_the_stream():
    from transformers import Gemma2Config

    config = Gemma2Config(hidden_size=48, num_attention_heads=4, head_dim=32)
    assert width_at(config, "attn_z") == 128
    assert width_at(config, "mlp_in") == 48


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.15.hook_resid_post", ("resid_post", 15)),
        ("blocks.0.hook_resid_pre", ("resid_pre", 0)),
        ("blocks.7.hook_mlp_out", ("mlp_out", 7)),
        ("blocks.7.hook_attn_out", ("attn_out", 7)),
        ("layers.3", ("resid_post", 3)),
        ("h.3.mlp", ("mlp_out", 3)),
        ("gpt_neox.layers.3.attention", ("attn_out", 3)),
        ("model.layers.17.output", ("resid_post", 17)),
        ("model.layers.17.post_feedforward_layernorm.output", ("mlp_out", 17)),
        ("blocks.3.attn.hook_z", ("attn_z", 3)),
        ("blocks.3.hook_resid_mid", ("resid_mid", 3)),
        ("blocks.3.ln2.hook_normalized", ("ln2_normalized", 3)),
        ("model.layers.17.self_attn.o_proj.input", ("attn_z", 17)),
        ("model.layers.7.pre_feedforward_layernorm.output", ("mlp_in", 7)),
        ("blocks.2.mlp.hook_in", ("mlp_in", 2)),
        ("blocks.2.hook_mlp_in", ("resid_mid", 2)),  # TransformerLens reads it before the norm
        ("blocks.2.ln1.hook_normalized", ("blocks.2.ln1.hook_normalized", None)),
        ("blocks.2.attn.hook_q", ("blocks.2.attn.hook_q", None)),
        ("", (None, None)),
        (None, (None, None)),
    ],
)
def test_hook_names(name: str | None, expected: tuple[str | None, int | None]):
    assert parse_hook(name) == expected
