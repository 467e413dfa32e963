"""Models whose blocks are of several kinds: linear attention, convolution, state space, recurrence beside attention."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

from tiny import tiny_tokenizer
from unifeat.errors import UserError
from unifeat.models import load_language_model
from unifeat.models.blocks import find_blocks, site_of
from unifeat.models.resuming import Again
from unifeat.models.selftest import adds_up, self_test
from unifeat.models.splicing import splicing
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookKind, HookPoint

IDS = torch.randint(1, 300, (2, 24), generator=torch.Generator().manual_seed(0))
LAYERS = 3
NO_IDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "vocab_size": 300}
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    **NO_IDS,
}
HEADS = COMMON | {"head_dim": 8}
LINEAR: dict[str, Any] = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
STATES: dict[str, Any] = {
    "mamba_d_state": 8,
    "mamba_expand": 2,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}
SHORT: dict[str, Any] = {"layer_types": ["conv", "full_attention", "conv"]}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
}
GRANITE: dict[str, Any] = {"layer_types": ["mamba", "attention", "mamba"], "shared_intermediate_size": 64}
EVERY = frozenset(HOOK_KINDS)
STREAM = frozenset({"resid_pre", "resid_post"})
NO_HEADS = EVERY - {"attn_z"}
# Where what is added to the stream is scaled, or is the sum of several modules' outputs.
UNADDED = EVERY - {"attn_out", "mlp_out", "resid_mid"}
# Of each: its configuration, the hook points of block 0, and those of block 1.
QUICK: dict[str, tuple[Callable[[], Any], frozenset[str], frozenset[str]]] = {
    "qwen3.5": (lambda: tf.Qwen3_5TextConfig(**HEADS | LINEAR), NO_HEADS, EVERY),
    "qwen3.5-moe": (lambda: tf.Qwen3_5MoeTextConfig(**HEADS | LINEAR | EXPERTS), NO_HEADS, EVERY),
    "qwen3-next": (lambda: tf.Qwen3NextConfig(**HEADS | LINEAR | EXPERTS), NO_HEADS, EVERY),
    "lfm2": (lambda: tf.Lfm2Config(**COMMON | SHORT, block_auto_adjust_ff_dim=False), NO_HEADS, EVERY),
    "jamba": (
        lambda: tf.JambaConfig(
            **COMMON,
            attn_layer_period=3,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=4,
            use_mamba_kernels=False,
            mamba_d_state=8,
            mamba_dt_rank=4,
        ),
        NO_HEADS,
        EVERY,
    ),
    "bamba": (lambda: tf.BambaConfig(**COMMON | STATES, attn_layer_indices=[1]), NO_HEADS, EVERY),
    "recurrent-gemma": (
        lambda: tf.RecurrentGemmaConfig(
            **HEADS, lru_width=32, attention_window_size=16, block_types=["recurrent", "attention"]
        ),
        NO_HEADS,
        NO_HEADS,
    ),
    "granite-4": (
        lambda: tf.GraniteMoeHybridConfig(**COMMON | STATES | GRANITE, num_local_experts=0, residual_multiplier=1.0),
        NO_HEADS,
        EVERY,
    ),
    "gemma4": (
        lambda: tf.Gemma4TextConfig(
            **HEADS, vocab_size_per_layer_input=300, hidden_size_per_layer_input=8, global_head_dim=8
        ),
        EVERY - {"attn_out", "mlp_out"},
        EVERY - {"attn_out", "mlp_out"},
    ),
}
OTHERS: dict[str, tuple[Callable[[], Any], frozenset[str], frozenset[str]]] = {
    "olmo-hybrid": (
        lambda: tf.OlmoHybridConfig(**COMMON | LINEAR | {"linear_num_value_heads": 2}),
        NO_HEADS,
        EVERY - {"ln2_normalized"},
    ),
    "lfm2-moe": (lambda: tf.Lfm2MoeConfig(**COMMON | SHORT | EXPERTS, num_dense_layers=1), NO_HEADS, EVERY),
    "lfm3": (lambda: tf.Lfm3Config(**COMMON | SHORT), NO_HEADS, EVERY),
    "falcon-h1": (lambda: tf.FalconH1Config(**COMMON | STATES, mamba_d_ssm=64), UNADDED, UNADDED),
    "granite-4-moe": (
        lambda: tf.GraniteMoeHybridConfig(
            **COMMON | STATES | GRANITE, num_local_experts=4, num_experts_per_tok=2, residual_multiplier=0.22
        ),
        UNADDED - {"attn_z"},
        UNADDED,
    ),
    "kimi-linear": (
        lambda: tf.KimiLinearConfig(
            **COMMON | LATENT, layer_types=LINEAR["layer_types"], linear_head_dim=8, linear_num_heads=4
        ),
        EVERY,
        EVERY,
    ),
    "bailing": (
        lambda: tf.BailingHybridConfig(
            **COMMON | LATENT, layer_types=LINEAR["layer_types"], head_dim=8, topk_group=1, first_k_dense_replace=1
        ),
        EVERY,
        EVERY,
    ),
    "minimax": (
        lambda: tf.MiniMaxConfig(
            **HEADS, layer_types=LINEAR["layer_types"], num_local_experts=4, num_experts_per_tok=2, block_size=16
        ),
        UNADDED,
        UNADDED,
    ),
    "nemotron-h": (
        lambda: tf.NemotronHConfig(
            **{key: value for key, value in HEADS.items() if key != "num_hidden_layers"},
            layers_block_type=["mamba", "attention", "mlp"],
            mamba_num_heads=8,
            mamba_head_dim=8,
            ssm_state_size=8,
            n_groups=1,
            chunk_size=16,
        ),
        STREAM,
        STREAM,
    ),
    "zamba": (
        lambda: tf.ZambaConfig(
            **COMMON,
            layers_block_type=["mamba", "hybrid", "hybrid"],
            mamba_d_state=8,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
        ),
        STREAM,
        STREAM,
    ),
    "zamba2": (
        lambda: tf.Zamba2Config(
            **COMMON,
            layers_block_type=["mamba", "hybrid", "mamba"],
            mamba_d_state=8,
            mamba_ngroups=1,
            n_mamba_heads=8,
            num_mem_blocks=1,
            adapter_rank=4,
            chunk_size=16,
        ),
        STREAM,
        STREAM,
    ),
    "xlstm": (
        lambda: tf.xLSTMConfig(hidden_size=32, num_hidden_layers=LAYERS, num_blocks=LAYERS, num_heads=4, **NO_IDS),
        NO_HEADS,
        NO_HEADS,
    ),
    "rwkv": (
        lambda: tf.RwkvConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, context_length=128, **NO_IDS
        ),
        EVERY - {"attn_out", "mlp_out", "attn_z", "resid_mid"},
        NO_HEADS,
    ),
    "mamba2": (
        lambda: tf.Mamba2Config(
            hidden_size=32,
            num_hidden_layers=LAYERS,
            state_size=8,
            num_heads=8,
            head_dim=8,
            n_groups=1,
            chunk_size=16,
            **NO_IDS,
        ),
        STREAM,
        STREAM,
    ),
    "olmo2": (lambda: tf.Olmo2Config(**COMMON), EVERY - {"ln2_normalized"}, EVERY - {"ln2_normalized"}),
    "glm4": (lambda: tf.Glm4Config(**HEADS), EVERY, EVERY),
    "afmoe": (lambda: tf.AfmoeConfig(**HEADS | EXPERTS, num_dense_layers=1), EVERY, EVERY),
    "apertus": (lambda: tf.ApertusConfig(**COMMON), EVERY, EVERY),
    "granite-moe": (
        lambda: tf.GraniteMoeConfig(**COMMON, num_local_experts=4, num_experts_per_tok=2),
        EVERY,
        EVERY,
    ),
}
CASES = QUICK | OTHERS
every_case = pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models, each made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("mixed") / name
            torch.manual_seed(0)
            model = tf.AutoModelForCausalLM.from_config(CASES[name][0]()).float()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn(parameter.shape))
            model.save_pretrained(made[name])
            tiny_tokenizer("bpe").save_pretrained(made[name])
        return made[name]

    return make


def outputs(folder: Path) -> tuple[list[Tensor], nn.ModuleList]:
    """What each block of the model gives, as transformers loads it, by hooks of the test's own."""
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    blocks = find_blocks(model.get_decoder(), LAYERS)[2]
    seen: list[Tensor] = []
    for block in blocks:
        block.register_forward_hook(lambda _, __, out: seen.append((out[0] if isinstance(out, tuple) else out).clone()))
    with torch.inference_mode():
        model(input_ids=IDS, use_cache=False)
    return seen, blocks


@every_case
def test_blocks_are_read_and_have_the_hook_points_of_their_kind(folder_of: Callable[[str], Path], name: str) -> None:
    folder = folder_of(name)
    expected, _ = outputs(folder)
    whole = load_language_model(str(folder), [HookPoint(1)], dtype="float32", whole=True)
    for layer, kinds in enumerate(CASES[name][1:]):
        cut = load_language_model(str(folder), [HookPoint(layer)], dtype="float32")
        assert len(cut.blocks) == layer + 1
        assert torch.equal(cut.activations(IDS, [HookPoint(layer)])[HookPoint(layer)], expected[layer])
        found = set()
        for kind in HOOK_KINDS:
            with contextlib.suppress(UserError):
                self_test(whole, [HookPoint(layer, kind)])
                found.add(kind)
        assert found == kinds
        if "attn_out" in kinds:
            points = [HookPoint(layer, kind) for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
            values = whole.activations(IDS, points)
            assert adds_up(*(values[point] for point in points))
            assert all(values[point].abs().max() > 1e-4 for point in points)


@every_case
def test_the_rest_of_the_model_runs_from_a_block_on(folder_of: Callable[[str], Path], name: str) -> None:
    """Splicing, and passes that begin in the middle, beside the whole model with the same value put in by hand."""
    point = HookPoint(1)
    model = load_language_model(str(folder_of(name)), [point], dtype="float32", whole=True)
    chosen = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(1)) < 0.4

    def changed(output: Any) -> Any:
        value = (output[0] if isinstance(output, tuple) else output).flip(-1)
        return (value, *output[1:]) if isinstance(output, tuple) else value

    again = Again(model, IDS, point, chosen)
    with torch.inference_mode():
        clean = model.causal(input_ids=IDS, use_cache=False).logits[chosen]
        handle = model.blocks[1].register_forward_hook(lambda _, __, output: changed(output))
        expected = model.causal(input_ids=IDS, use_cache=False).logits[chosen]
        handle.remove()
    torch.testing.assert_close(again.logits(), clean, rtol=1e-4, atol=1e-5)
    with splicing(model.blocks, point, lambda value, _: value.flip(-1)):
        torch.testing.assert_close(again.logits(), expected, rtol=1e-4, atol=1e-5)
    assert (expected - clean).abs().max() > 1e-3


def test_what_stands_in_attentions_place_is_read_as_its_output(folder_of: Callable[[str], Path]) -> None:
    """The module by its own name, for each of the kinds."""
    for name, module in {
        "qwen3.5": "linear_attn",
        "lfm2": "conv",
        "jamba": "mamba",
        "recurrent-gemma": "temporal_block",
    }.items():
        _, blocks = outputs(folder_of(name))
        assert site_of(blocks[0], "attn_out") == (blocks[0].get_submodule(module), False)
        kind: HookKind = "attn_z"
        with pytest.raises(UserError, match="no attention module, so no attn_z: use resid_pre or resid_post"):
            site_of(blocks[0], kind)


@pytest.mark.parametrize("experts", [False, True])
def test_the_text_part_of_a_qwen_that_sees(tmp_path: Path, experts: bool) -> None:
    """Qwen 3.5's published files are of models that also take images."""
    made, kind = (tf.Qwen3_5MoeConfig, EXPERTS) if experts else (tf.Qwen3_5Config, {})
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    sight |= {"patch_size": 4, "spatial_merge_size": 2, "num_position_embeddings": 16}
    config = made(text_config=HEADS | LINEAR | kind, vision_config=sight, tie_word_embeddings=False)
    torch.manual_seed(0)
    model = tf.AutoModelForImageTextToText.from_config(config).float().eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer("bpe").save_pretrained(tmp_path)
    seen: list[Tensor] = []
    model.get_decoder().layers[1].register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    with torch.inference_mode():
        logits = model(input_ids=IDS, use_cache=False).logits
    loaded = load_language_model(str(tmp_path), [HookPoint(1)], dtype="float32", whole=True)
    assert (loaded.n_layers, loaded.d_model) == (LAYERS, 32)
    assert torch.equal(loaded.activations(IDS, [HookPoint(1)])[HookPoint(1)], seen[0])
    with torch.inference_mode():
        assert torch.equal(loaded.causal(input_ids=IDS, use_cache=False).logits, logits)
