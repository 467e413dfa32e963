"""Every architecture that published SAEs exist for: hook points against the model's own arithmetic, widths, limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tiny import ARCHITECTURES, CONTEXT, tiny_config, tiny_tokenizer
from unifeat.errors import UserError
from unifeat.models.activations import run_group
from unifeat.models.blocks import find_blocks
from unifeat.models.language import LanguageModel, load_language_model, read_config, redraw_weights
from unifeat.models.selftest import adds_up
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

LAYERS = 3
PARALLEL = ("gpt_neox", "phi")  # attention and MLP read the same input
OUTPUTS = {  # the last linear layer of attention and of the MLP, within a block
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "opt": ("self_attn.out_proj", "fc2"),
    "phi": ("self_attn.dense", "mlp.fc2"),
}
NO_IDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(1, 300, (2, 24), generator=torch.Generator().manual_seed(0))


def write(folder: Path, config: Any, seed: int = 0) -> Path:
    """A folder with random weights for a configuration that `tiny_model` does not know."""
    torch.manual_seed(seed)
    kind = AutoModelForCausalLM if type(config) in tf.MODEL_FOR_CAUSAL_LM_MAPPING else tf.AutoModelForImageTextToText
    model = kind.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    tiny_tokenizer("bpe").save_pretrained(folder)
    return folder


@torch.no_grad()
def block_without(decoder: nn.Module, layer: int, name: str, ids: Tensor, x: Tensor) -> Tensor:
    """What block `layer` makes of the residual stream x when its linear layer `name` puts out zeros."""
    block = find_blocks(decoder, LAYERS)[2][layer]
    linear = block.get_submodule(name)
    seen: list[Tensor] = []

    def swap(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    handles = [
        linear.register_forward_hook(lambda _, __, output: torch.zeros_like(output)),
        block.register_forward_pre_hook(swap, with_kwargs=True),
        block.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out)),
    ]
    decoder(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen[0]


@every_architecture
def test_attention_and_mlp_are_what_each_alone_adds(architecture: str, model_folder: Callable[..., Path], ids: Tensor):
    """Attention's share is the block without its MLP, and the other way round: no hook of ours is asked."""
    folder = model_folder(architecture)
    points = [HookPoint(layer, kind) for layer in range(LAYERS) for kind in ("resid_pre", "attn_out", "mlp_out")]
    found = load_language_model(str(folder), points, dtype="float32").activations(ids, points)
    decoder = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).get_decoder().eval()
    of_attention, of_mlp = OUTPUTS.get(architecture, ("self_attn.o_proj", "mlp.down_proj"))
    states = decoder(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    for layer in range(LAYERS):
        pre = states[layer].detach()
        attention = block_without(decoder, layer, of_mlp, ids, pre) - pre
        middle = pre if architecture in PARALLEL else pre + attention
        mlp = block_without(decoder, layer, of_attention, ids, middle) - middle
        torch.testing.assert_close(found[HookPoint(layer, "attn_out")], attention, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[HookPoint(layer, "mlp_out")], mlp, rtol=1e-4, atol=1e-5)
        assert (attention - mlp).norm() > 0.5 * mlp.norm()


class TestMamba:
    @pytest.fixture
    def folder(self, model_folder: Callable[..., Path]) -> Path:
        return model_folder("mamba")

    def test_residuals_are_its_hidden_states(self, folder: Path, ids: Tensor):
        points = [HookPoint(layer, kind) for layer in range(LAYERS) for kind in ("resid_pre", "resid_post")]
        model = load_language_model(str(folder), points, dtype="float32")
        found = model.activations(ids, points)
        whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).get_decoder().eval()
        with torch.no_grad():
            # Mamba's list holds each block's output and the final norm's, but not the embeddings.
            states = whole(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
            for layer, before in enumerate((whole.embeddings(ids), *states[: LAYERS - 1])):
                assert torch.equal(found[HookPoint(layer, "resid_pre")], before)
                assert torch.equal(found[HookPoint(layer)], states[layer])

    @pytest.mark.parametrize(("kind", "what"), [("attn_out", "attention"), ("mlp_out", "MLP")])
    def test_has_neither_attention_nor_mlp(self, folder: Path, kind: Any, what: str):
        with pytest.raises(
            UserError, match=f"MambaBlock has no {what} module, so no {kind}: use resid_pre or resid_post"
        ):
            load_language_model(str(folder), [HookPoint(0, kind)])

    def test_takes_windows_of_any_length(self, folder: Path):
        model = load_language_model(str(folder), [HookPoint(0)], dtype="float32")
        found = run_group(model, [Part(0, 0, "the tide " * 300)], [HookPoint(0)], Windowing(400, None))
        assert len(found.places) > 256


class TestUnusualConfigurations:
    def test_opt_350m_embeds_narrower_than_its_stream_and_norms_the_stream(self, tmp_path: Path, ids: Tensor):
        folder = write(
            tmp_path / "opt-350m",
            tf.OPTConfig(
                hidden_size=32,
                word_embed_proj_dim=16,
                do_layer_norm_before=False,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                ffn_dim=48,
                vocab_size=300,
                **NO_IDS,
            ),
        )
        points = [HookPoint(0), HookPoint(1)]
        model = load_language_model(str(folder), points, dtype="float32")
        assert model.d_model == 32
        whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).get_decoder().eval()
        with torch.no_grad():
            states = whole(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
        for layer in range(2):
            assert torch.equal(model.activations(ids, points)[HookPoint(layer)], states[layer + 1])
        with pytest.raises(UserError, match=r"\(opt\), layer 1: the outputs of its attention and MLP modules are not"):
            load_language_model(str(folder), [HookPoint(0), HookPoint(1, "mlp_out")])

    def test_a_gpt_neox_without_parallel_blocks(self, tmp_path: Path, ids: Tensor):
        config = tiny_config("gpt_neox", LAYERS, 32, 300)
        config.use_parallel_residual = False
        kinds = ("resid_pre", "attn_out", "mlp_out", "resid_post")
        points = [HookPoint(1, kind) for kind in kinds]
        model = load_language_model(str(write(tmp_path / "neox", config)), points, dtype="float32")
        assert adds_up(*(model.activations(ids, points)[point] for point in points))

    def test_names_of_layers_and_width_of_its_own(self, tmp_path: Path, ids: Tensor):
        config = tf.GPTNeoConfig(
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=8,
            vocab_size=300,
            max_position_embeddings=64,
            **NO_IDS,
        )
        folder = str(write(tmp_path / "neo", config))
        assert (read_config(folder).num_hidden_layers, read_config(folder).hidden_size) == (2, 32)
        points = [HookPoint(1, kind) for kind in ("attn_out", "mlp_out")]
        found = load_language_model(folder, points, dtype="float32").activations(ids, points)
        assert found[points[0]].shape == (*ids.shape, 32)

    def test_attention_that_puts_out_the_whole_stream_is_refused(self, tmp_path: Path):
        """BLOOM adds the residual inside its attention and MLP modules: their outputs are not what they add."""
        config = tf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=300, **NO_IDS)
        folder = str(write(tmp_path / "bloom", config))
        load_language_model(folder, [HookPoint(1), HookPoint(0, "resid_pre")])
        for kind in ("attn_out", "mlp_out"):
            with pytest.raises(UserError, match=r"model .*bloom \(bloom\), layer 0: .*use the hook points resid_pre"):
                load_language_model(folder, [HookPoint(0, kind)])

    def test_outputs_that_are_scaled_before_they_are_added_are_refused(self, tmp_path: Path):
        config = tf.GraniteConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            residual_multiplier=0.22,
            vocab_size=300,
            **NO_IDS,
        )
        folder = str(write(tmp_path / "granite", config))
        with pytest.raises(UserError, match=r"\(granite\), layer 1"):
            load_language_model(folder, [HookPoint(1, "attn_out")])

    def test_the_text_part_of_a_model_that_sees(self, tmp_path: Path, ids: Tensor):
        sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        sight |= {"image_size": 28, "patch_size": 14}
        gemma = tf.Gemma3Config(text_config=tiny_config("gemma3", LAYERS, 32, 300), vision_config=sight)
        llava = tf.LlavaConfig(
            text_config=tiny_config("llama", LAYERS, 32, 300),
            vision_config=tf.CLIPVisionConfig(**sight),
            image_token_index=299,
        )
        for name, config in {"gemma": gemma, "llava": llava}.items():
            folder = write(tmp_path / name, config)
            points = [HookPoint(1, kind) for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
            model = load_language_model(str(folder), points, dtype="float32")
            assert (model.n_layers, model.d_model) == (LAYERS, 32)
            kind = tf.AutoModelForImageTextToText
            whole = kind.from_pretrained(folder, dtype=torch.float32).get_decoder().eval()
            with torch.no_grad():
                states = whole(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
            assert torch.equal(model.activations(ids, points)[points[0]], states[1])
            assert torch.equal(model.activations(ids, points)[points[-1]], states[2])


class TestLimits:
    @every_architecture
    def test_windows_longer_than_its_positions(self, architecture: str, model_folder: Callable[..., Path]):
        model = load_language_model(str(model_folder(architecture)), [HookPoint(0)], dtype="float32")
        with pytest.raises(UserError, match=rf"at most {CONTEXT} tokens: lower text\.context from {CONTEXT + 1}"):
            run_group(model, [], [HookPoint(0)], Windowing(CONTEXT + 1, None))
        text = [Part(0, 0, "the tide " * 300)]
        found = run_group(model, text, [HookPoint(0)], Windowing(CONTEXT, None))
        assert bool(torch.isfinite(found.values[HookPoint(0)]).all())

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_a_narrow_dtype_that_overflows(self, dtype: str, model_folder: Callable[..., Path], tmp_path: Path):
        """Weights of 300 give activations that float16 (up to 65,504) cannot hold, and bfloat16 can."""
        whole = AutoModelForCausalLM.from_pretrained(model_folder("llama"), dtype=torch.float32)
        with torch.no_grad():
            whole.get_decoder().layers[1].mlp.down_proj.weight.mul_(1e5)
        whole.save_pretrained(tmp_path / "large")
        tiny_tokenizer("bpe").save_pretrained(tmp_path / "large")
        points = [HookPoint(0), HookPoint(1)]
        model = load_language_model(str(tmp_path / "large"), points, dtype=dtype)
        text = [Part(0, 0, "the tide and the harbour")]
        if dtype == "bfloat16":
            run_group(model, text, points, Windowing(16, None))
            return
        with pytest.raises(
            UserError, match=r"large, layer 1 \(resid_post\): activations hold NaN or Inf in torch\.flo"
        ):
            run_group(model, text, points, Windowing(16, None))


class TestProbe:
    def test_an_encoder_is_refused(self, tmp_path: Path):
        config = tf.BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            vocab_size=600,
            pad_token_id=0,
        )
        folder = str(write(tmp_path / "bert", config))
        with pytest.raises(UserError, match=r"bert \(bert\): its tokens attend to later ones, so it is not a causal"):
            load_language_model(folder, [HookPoint(1)])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_adding_up_is_up_to_rounding(self, dtype: torch.dtype):
        generator = torch.Generator().manual_seed(0)
        before, attention, mlp = ((scale * torch.randn(50, 64, generator=generator)).to(dtype) for scale in (100, 1, 1))
        for after in ((before + attention) + mlp, before + (attention + mlp)):
            assert adds_up(before, attention, mlp, after)
            assert not adds_up(before, attention, 1.1 * mlp, after)
            assert not adds_up(before, attention, mlp.roll(1, 0), after)
            assert not adds_up(before, before + attention, mlp, after)

    def test_a_nan_is_left_to_the_text_to_name(self, model_folder: Callable[..., Path]):
        model = load_language_model(str(model_folder("llama")), [HookPoint(1)], dtype="float32")
        assert isinstance(model, LanguageModel)


class TestRedrawnWeights:
    @pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mamba"])
    def test_keep_each_tensors_mean_and_spread(self, architecture: str, model_folder: Callable[..., Path]):
        folder = model_folder(architecture)
        before, after, again = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(3))
        for model in (after, again):
            redraw_weights(model, 5)
        old, same, redrawn = (
            {name: parameter.detach() for name, parameter in model.named_parameters()}
            for model in (before, again, after)
        )
        assert len(old) > 10
        for name, new in redrawn.items():
            assert torch.equal(new, same[name])
            n, spread = new.numel(), float(old[name].std(correction=0))
            # Five standard errors, of a mean and of a standard deviation of n normal values.
            assert abs(float(new.mean() - old[name].mean())) <= 5 * spread / n**0.5, name
            assert abs(float(new.std(correction=0)) - spread) <= 5 * spread / (2 * n) ** 0.5 + 1 / n, name
            if spread:
                assert not torch.equal(new, old[name]), name
                assert abs(float(torch.corrcoef(torch.stack([new.flatten(), old[name].flatten()]))[0, 1])) < 6 / n**0.5

    def test_leave_constant_tensors_alone(self):
        model = AutoModelForCausalLM.from_config(tiny_config("llama", 2, 32, 300))
        with torch.no_grad():
            model.get_decoder().layers[1].input_layernorm.weight.fill_(0.3)
        redraw_weights(model, 0)
        assert torch.equal(model.get_decoder().layers[0].input_layernorm.weight, torch.ones(32))
        assert torch.equal(model.get_decoder().layers[1].input_layernorm.weight, torch.full((32,), 0.3))
        embeddings = model.get_decoder().embed_tokens.weight
        assert float(embeddings.detach().std()) == pytest.approx(0.02, rel=0.1)

    def test_keep_tied_weights_tied(self):
        config = tiny_config("gemma2", 2, 32, 300)
        model = AutoModelForCausalLM.from_config(config)
        redraw_weights(model, 0)
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight

    def test_are_those_of_the_seed_and_do_not_depend_on_the_cut(self, model_folder: Callable[..., Path], ids: Tensor):
        name, point = str(model_folder("gpt2")), HookPoint(0)

        def run(points: list[HookPoint], seed: int | None) -> Tensor:
            return load_language_model(name, points, dtype="float32", randomise=seed).activations(ids, [point])[point]

        first = run([point], 1)
        assert torch.equal(first, run([point, HookPoint(2)], 1))
        assert not torch.allclose(first, run([point], 2), atol=0.1)
        assert not torch.allclose(first, run([point], None), atol=0.1)
