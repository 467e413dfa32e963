"""Direct effects against derivatives of the model's own norm and head, for every architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import Tensor, nn

from tiny import ARCHITECTURES, tiny_tokenizer
from unifeat.errors import UserError
from unifeat.models import LanguageModel, load_language_model
from unifeat.transfer.direct import direct_effects, readout
from unifeat.transfer.profiles import extremes, pearson, ranked, spearman, top_overlap
from unifeat.vocabulary.hook_points import HookPoint

NO_IDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    **NO_IDS,
}
OTHERS: dict[str, Callable[[], Any]] = {
    "opt-350m": lambda: tf.OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=16,
        do_layer_norm_before=False,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        vocab_size=300,
        **NO_IDS,
    ),
    "bloom": lambda: tf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=300, **NO_IDS),
    "cohere2": lambda: tf.Cohere2Config(sliding_window=8, **COMMON),
    "olmo": lambda: tf.OlmoConfig(**COMMON),  # a norm without weights
    "granite": lambda: tf.GraniteConfig(logits_scaling=3.0, **COMMON),
    "odd": lambda: tf.GPTNeoXConfig(**COMMON | {"hidden_size": 21, "num_attention_heads": 3}),
    "odd-rms": lambda: tf.LlamaConfig(
        **COMMON | {"hidden_size": 21, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 4}
    ),
}


def written(folder: Path, config: Any) -> Path:
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    tiny_tokenizer("bpe").save_pretrained(folder)
    return folder


def loaded(folder: Path, dtype: str = "float32") -> LanguageModel:
    return load_language_model(str(folder), [HookPoint(0)], dtype=dtype, whole=True)


def some_strings(vocabulary: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A map of n tokens, in no order, to strings; and the token of each string."""
    tokens = np.random.default_rng(0).permutation(vocabulary)[:n]
    to_string = np.full(vocabulary, -1, np.int64)
    to_string[tokens] = np.arange(n)
    return to_string, tokens


def head_of(model: LanguageModel) -> Callable[[Tensor], Tensor]:
    """From the last block's output to the head's output, in float64: by the names that these architectures use."""
    decoder = model.decoder
    names = ("norm", "ln_f", "norm_f", "final_layer_norm", "final_layernorm")
    holder = next(m for m in decoder.modules() if any(child is model.blocks for child in m.children()))
    norm: nn.Module | None = next((m for n in names if (m := getattr(holder, n, None)) is not None), None)
    project: nn.Module | None = getattr(holder, "project_out", None)
    head = model.causal.get_output_embeddings()
    for module in (norm, project, head):
        if module is not None:
            module.to(torch.float64)
    return lambda x: head((project or nn.Identity())((norm or nn.Identity())(x)))


@pytest.mark.parametrize("name", [*ARCHITECTURES, "mamba", *OTHERS])
def test_it_is_the_derivative_of_norm_and_head(model_folder: Callable[..., Path], tmp_path: Path, name: str) -> None:
    """Along directions that leave the stream's scale as it is, logits change by the direct effect over that scale."""
    model = loaded(written(tmp_path / name, OTHERS[name]()) if name in OTHERS else model_folder(name))
    to_string, tokens = some_strings(model.causal.config.vocab_size)
    read = readout(model, to_string, len(tokens))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(model.d_model, generator=generator, dtype=torch.float64) + 0.5
    directions = torch.randn((6, model.d_model), generator=generator, dtype=torch.float64)
    ((rows, found),) = direct_effects(read, directions)
    assert (rows, found.dtype) == (slice(0, 6), np.float32)
    if read.centred:
        x, directions = x - x.mean(), directions - directions.mean(-1, keepdim=True)
    directions -= torch.outer(directions @ x, x) / (x @ x)
    ((_, orthogonal),) = direct_effects(read, directions)
    logits = head_of(model)
    # OPT-350M has no final norm, and so no scale.
    scale = 1.0 if name == "opt-350m" else float(x.pow(2).mean().sqrt())
    chosen = torch.from_numpy(tokens)
    derivative: Any = torch.autograd.functional.jacobian(lambda row: logits(row[None])[0, chosen], x)
    for direction, effect in zip(directions, orthogonal, strict=True):
        change = (derivative @ direction * scale).numpy()
        np.testing.assert_allclose(effect, change - change.mean(), rtol=2e-3, atol=1e-4 * np.abs(change).max())
    assert np.abs(found.mean(axis=1)).max() < 1e-5
    assert np.linalg.norm(found) > 0.1


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "llama"])
def test_in_bfloat16_up_to_its_rounding(model_folder: Callable[..., Path], name: str) -> None:
    directions = torch.randn((4, 32), generator=torch.Generator().manual_seed(0))
    profiles = []
    for dtype in ("float32", "bfloat16"):
        model = loaded(model_folder(name), dtype)
        to_string, tokens = some_strings(model.causal.config.vocab_size)
        ((_, found),) = direct_effects(readout(model, to_string, len(tokens)), directions)
        profiles.append(found)
    assert np.linalg.norm(profiles[0] - profiles[1]) < 0.01 * np.linalg.norm(profiles[0])


def test_a_head_whose_weights_are_elsewhere(model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate keeps them on the disk until the head runs: then they are found by running it."""
    model = loaded(model_folder("phi"))  # its head has a bias
    to_string, tokens = some_strings(model.causal.config.vocab_size)
    expected = readout(model, to_string, len(tokens)).rows
    head = model.causal.get_output_embeddings()
    weight, bias = head.weight.clone(), head.bias
    monkeypatch.setattr(head, "forward", lambda x: x @ weight.T + bias)
    head.weight = nn.Parameter(head.weight.to("meta"), requires_grad=False)
    torch.testing.assert_close(readout(model, to_string, len(tokens)).rows, expected, rtol=1e-4, atol=1e-5)


def test_batches_are_all_of_it(model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(model_folder("llama"))
    to_string, tokens = some_strings(model.causal.config.vocab_size)
    read = readout(model, to_string, len(tokens))
    rows = np.random.default_rng(0).standard_normal((7, 32))
    ((_, whole),) = direct_effects(read, rows)
    monkeypatch.setattr("unifeat.transfer.direct._BATCH_CELLS", 2 * len(tokens))
    parts = list(direct_effects(read, rows))
    assert [part.stop - part.start for part, _ in parts] == [2, 2, 2, 1]
    np.testing.assert_allclose(np.concatenate([found for _, found in parts]), whole, rtol=1e-5, atol=1e-6)


def test_a_direction_that_writes_a_token_promotes_it(model_folder: Callable[..., Path]) -> None:
    """Planted: the direction whose image under gain and unembedding is closest to one token's row."""
    model = loaded(model_folder("llama"))
    to_string, tokens = some_strings(model.causal.config.vocab_size)
    read = readout(model, to_string, len(tokens))
    ((_, found),) = direct_effects(read, read.rows / read.gain)
    up, down = extremes(found)
    assert up.shape == down.shape == (len(tokens), 10)
    assert (up[:, 0] == np.arange(len(tokens))).mean() > 0.9
    ordered = np.argsort(-found, axis=1)
    assert np.array_equal(up, ordered[:, :10])
    assert np.array_equal(down, ordered[:, ::-1][:, :10])


class TestAgreementOfProfiles:
    def test_against_scipy(self) -> None:
        from scipy import stats

        rng = np.random.default_rng(0)
        a = rng.standard_normal((6, 50)).round(1)  # with ties
        b = a + rng.standard_normal((6, 50))
        np.testing.assert_allclose(pearson(a, b), [stats.pearsonr(x, y)[0] for x, y in zip(a, b, strict=True)])
        np.testing.assert_allclose(spearman(a, b), [stats.spearmanr(x, y)[0] for x, y in zip(a, b, strict=True)])

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_ranks_are_scipys(self, dtype: Any) -> None:
        from scipy import stats

        rows = np.random.default_rng(0).standard_normal((7, 90)).round(1).astype(dtype)
        rows[2], rows[3, 5], rows[4, [1, 2]] = 1, np.nan, (0.0, -0.0)
        np.testing.assert_array_equal(ranked(rows), stats.rankdata(rows, axis=1, nan_policy="propagate"))
        assert ranked(rows[:0]).shape == (0, 90)

    def test_overlap_by_sets(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((2, 8, 60))
        b += a
        for found, x, y in zip(top_overlap(a, b), a, b, strict=True):
            ends = [set(np.argsort(sign * x)[:10]) & set(np.argsort(sign * y)[:10]) for sign in (1, -1)]
            assert found == pytest.approx(sum(map(len, ends)) / 20)
        assert top_overlap(a, a).tolist() == [1] * 8
        assert top_overlap(a, -a).max() == 0

    def test_what_is_undefined(self) -> None:
        a = np.random.default_rng(0).standard_normal((3, 20))
        b = a.copy()
        b[0], b[1, 3] = 0.1, np.nan
        for found in (pearson(a, b), spearman(a, b)):
            assert np.isnan(found).tolist() == [True, True, False]
        assert np.isnan(top_overlap(a, b)).tolist() == [False, True, False]


class TestWrongInput:
    def test_no_unembedding(self, model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        cut = load_language_model(str(model_folder("llama")), [HookPoint(0)], dtype="float32")
        model = loaded(model_folder("llama"))
        monkeypatch.setattr(model.causal, "get_output_embeddings", lambda: None)
        for bare in (cut, model):
            with pytest.raises(UserError, match="has no unembedding, so its features have no direct effect"):
                readout(bare, *some_one())

    def test_something_else_before_the_head(self, model_folder: Callable[..., Path]) -> None:
        model = loaded(model_folder("llama"))
        model.decoder.register_forward_hook(
            lambda _, __, output: output.__class__(last_hidden_state=output.last_hidden_state.abs())
        )
        with pytest.raises(UserError, match="its head is not given the norm of its last block's output"):
            readout(model, *some_one())

    def test_directions_elsewhere(self, model_folder: Callable[..., Path]) -> None:
        read = readout(loaded(model_folder("llama")), *some_one())
        with pytest.raises(UserError, match=r"shape \(2, 31\) are not in the residual stream, which has 32 values"):
            list(direct_effects(read, np.zeros((2, 31))))

    def test_a_map_of_several_tokens_to_a_string(self, model_folder: Callable[..., Path]) -> None:
        to_string, n = some_one()
        with pytest.raises(ValueError, match="one token for each of 2 strings"):
            readout(loaded(model_folder("llama")), to_string, n + 1)


def some_one() -> tuple[np.ndarray, int]:
    to_string = np.full(512, -1, np.int64)
    to_string[5] = 0
    return to_string, 1
