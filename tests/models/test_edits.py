"""Many edits in one pass: the same logits as a window for each edit, and as a hook of the test's own gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import Tensor

from tiny import ARCHITECTURES, points_of, tiny_tokenizer
from unifeat.errors import UserError
from unifeat.models import LanguageModel, copies, edit_passes, edits, load_language_model
from unifeat.models.edits import Edits, copies_agree, edited_logits
from unifeat.vocabulary.hook_points import HookPoint

LAYERS = 3
NO_IDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 128,
    **NO_IDS,
}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
OTHERS: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: tf.MixtralConfig(num_local_experts=4, **COMMON),
    "qwen3-moe": lambda: tf.Qwen3MoeConfig(num_experts=4, head_dim=8, **EXPERTS, **COMMON),
    "gpt-oss": lambda: tf.GptOssConfig(num_local_experts=4, sliding_window=8, head_dim=8, **COMMON),
    "cohere2": lambda: tf.Cohere2Config(sliding_window=8, **COMMON),
    "granite": lambda: tf.GraniteConfig(residual_multiplier=0.5, logits_scaling=3.0, **COMMON),
    "gptj": lambda: tf.GPTJConfig(
        n_embd=32, n_layer=LAYERS, n_head=4, rotary_dim=4, n_positions=128, vocab_size=300, **NO_IDS
    ),
    "falcon-alibi": lambda: tf.FalconConfig(
        hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=4, vocab_size=300, alibi=True, **NO_IDS
    ),
}
# Recurrent, in all blocks or in some; slopes that attention adds to the mask; windows that it cuts by itself.
PLAIN: dict[str, Callable[[], Any]] = {
    "qwen3.5": lambda: tf.Qwen3_5TextConfig(
        **COMMON,
        head_dim=8,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
    "lfm2": lambda: tf.Lfm2Config(
        **COMMON, layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False
    ),
    "mamba": lambda: tf.MambaConfig(hidden_size=32, num_hidden_layers=LAYERS, state_size=8, vocab_size=300, **NO_IDS),
    "bloom": lambda: tf.BloomConfig(hidden_size=32, n_layer=LAYERS, n_head=4, vocab_size=300, **NO_IDS),
    "gpt-neo": lambda: tf.GPTNeoConfig(
        hidden_size=32,
        num_layers=LAYERS,
        num_heads=4,
        attention_types=[[["global", "local", "local"], 1]],
        window_size=8,
        vocab_size=300,
        max_position_embeddings=64,
        **NO_IDS,
    ),
}


def loaded(folder: Path, point: HookPoint, dtype: str = "float32") -> LanguageModel:
    return load_language_model(str(folder), [point], dtype=dtype, whole=True)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models that `model_folder` does not know, each made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            torch.manual_seed(0)
            model = tf.AutoModelForCausalLM.from_config((OTHERS | PLAIN)[name]())
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape))
            model.save_pretrained(made[name])
            tiny_tokenizer("bpe").save_pretrained(made[name])
        return made[name]

    return make


def windows(vocabulary: int = 300) -> Tensor:
    """Three windows of different lengths, all longer than the tiny models' sliding windows."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.full((3, 40), -1)
    for i, length in enumerate((40, 25, 33)):
        ids[i, :length] = torch.randint(5, vocabulary, (length,), generator=generator)
    return ids


def some_edits(model: LanguageModel, point: HookPoint) -> Edits:
    """At the first and the last position, several at one, in no order."""
    window = np.array([0, 0, 0, 1, 1, 2, 2, 0, 1])
    position = np.array([0, 39, 20, 24, 7, 31, 31, 20, 0])
    generator = torch.Generator().manual_seed(1)
    return Edits(window, position, torch.randn((len(window), model.width(point)), generator=generator))


def all_of(model: LanguageModel, point: HookPoint, some: Edits, way: Any) -> tuple[Tensor, Tensor]:
    """Logits of each edit and without it, both (edits, vocabulary), in the edits' order."""
    edited: dict[int, Tensor] = {}
    clean: dict[int, Tensor] = {}
    for batch in edited_logits(model, windows(), point, some, way=way):
        for edit, row, place in zip(batch.edit.tolist(), batch.logits, batch.place.tolist(), strict=True):
            assert edit not in edited
            edited[edit], clean[edit] = row, batch.clean[place]
    assert set(edited) == set(range(len(some)))
    return (torch.stack([rows[edit] for edit in range(len(some))]) for rows in (edited, clean))  # type: ignore[return-value]


@torch.no_grad()
def by_hand(model: LanguageModel, layer: int, some: Edits, number: int) -> tuple[Tensor, Tensor]:
    """One edit of a block's output by a hook of the test's own, the window cut after it; and no edit."""
    position = int(some.position[number])
    ids = windows()[int(some.window[number]), : position + 1][None]

    def change(_: Any, __: Any, output: Any) -> Any:
        x = (output[0] if isinstance(output, tuple) else output).clone()
        x[0, position] += some.delta[number].to(x.dtype)
        return (x, *output[1:]) if isinstance(output, tuple) else x

    clean = model.causal(input_ids=ids, use_cache=False).logits[0, -1]
    handle = model.blocks[layer].register_forward_hook(change)
    edited = model.causal(input_ids=ids, use_cache=False).logits[0, -1]
    handle.remove()
    return edited, clean


def assert_as_by_hand(model: LanguageModel, layer: int, way: Any) -> None:
    some = some_edits(model, HookPoint(layer))
    edited, clean = all_of(model, HookPoint(layer), some, way)
    for number in range(len(some)):
        changed, unchanged = by_hand(model, layer, some, number)
        torch.testing.assert_close(edited[number], changed, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(clean[number], unchanged, rtol=1e-4, atol=2e-5)
        assert (changed - unchanged).abs().max() > 0.02


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_copies_are_what_a_hook_of_the_tests_own_gives(model_folder: Callable[..., Path], architecture: str) -> None:
    model = loaded(model_folder(architecture), HookPoint(1))
    assert copies_agree(model, windows(), HookPoint(1), some_edits(model, HookPoint(1)))
    for layer in (0, LAYERS - 1):
        assert_as_by_hand(model, layer, "copies")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_later_values_are_seen_in_both_ways(model_folder: Callable[..., Path], architecture: str) -> None:
    point = HookPoint(0)
    model = loaded(model_folder(architecture), point)
    some = some_edits(model, point)
    for observe in [at for at in points_of(architecture, LAYERS) if at.layer == 1 and edits.is_later(at, point)]:
        found = {way: tuple(seen_by(model, point, some, way, observe)) for way in ("copies", "plain")}
        torch.testing.assert_close(found["copies"], found["plain"], rtol=1e-4, atol=2e-5)
        edited, clean = found["plain"]
        first = int(some.window[0])
        own = model.activations(windows()[first][None].clamp(min=0), [observe])[observe][0, int(some.position[0])]
        torch.testing.assert_close(clean[0], own, rtol=1e-4, atol=2e-5)
        if observe.kind == "resid_post":
            assert ((edited - clean).abs().amax(dim=1) > 0.02).all()


def test_what_is_not_computed_later_is_refused(model_folder: Callable[..., Path]) -> None:
    point = HookPoint(1)
    model = loaded(model_folder("llama"), point)
    for observe in (HookPoint(1), HookPoint(0), HookPoint(2, "resid_pre")):
        with pytest.raises(ValueError, match="is not computed after"):
            edited_logits(model, windows(), point, some_edits(model, point), observe=observe)


def seen_by(model: LanguageModel, point: HookPoint, some: Edits, way: Any, observe: HookPoint) -> tuple[Tensor, Tensor]:
    """Values at a later point at each edit, and without it, both (edits, width), in the edits' order."""
    edited: dict[int, Tensor] = {}
    clean: dict[int, Tensor] = {}
    for batch in edited_logits(model, windows(), point, some, way=way, observe=observe):
        assert batch.seen is not None
        assert batch.seen_clean is not None
        for edit, row, place in zip(batch.edit.tolist(), batch.seen, batch.place.tolist(), strict=True):
            edited[edit], clean[edit] = row, batch.seen_clean[place]
    return (torch.stack([rows[edit] for edit in range(len(some))]) for rows in (edited, clean))  # type: ignore[return-value]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_copies_and_the_plain_way_agree_at_every_hook_point(
    model_folder: Callable[..., Path], architecture: str
) -> None:
    points = [point for point in points_of(architecture, LAYERS) if point.layer == 1]
    for point in [*points, HookPoint(0, "resid_pre"), HookPoint(2, "mlp_out")]:
        model = loaded(model_folder(architecture), point)
        some = some_edits(model, point)
        (edited, clean), (expected, unchanged) = (all_of(model, point, some, way) for way in ("copies", "plain"))
        torch.testing.assert_close(edited, expected, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(clean, unchanged, rtol=1e-4, atol=2e-5)
        assert ((expected - unchanged).abs().amax(dim=1) > 0.02).all()


@pytest.mark.parametrize("name", OTHERS)
def test_mixtures_scaled_logits_and_masks_with_a_slope(folder_of: Callable[[str], Path], name: str) -> None:
    model = loaded(folder_of(name), HookPoint(1))
    assert copies_agree(model, windows(), HookPoint(1), some_edits(model, HookPoint(1)))
    assert_as_by_hand(model, 1, "copies")


@pytest.mark.parametrize("name", PLAIN)
def test_models_that_cannot_have_copies_go_the_plain_way(folder_of: Callable[[str], Path], name: str) -> None:
    model = loaded(folder_of(name), HookPoint(1))
    assert not copies_agree(model, windows(), HookPoint(1), some_edits(model, HookPoint(1)))
    for layer in range(LAYERS):
        assert_as_by_hand(model, layer, "auto")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copies_that_see_what_they_should_not_are_found_out(
    model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """The check sees a mask that slides no window, and one that lets copies see each other."""
    point = HookPoint(1)
    model = loaded(model_folder("gemma2"), point, dtype)
    some = some_edits(model, point)
    right = copies._Behind._mask

    def far(self: Any, mask: Tensor) -> Tensor:
        return right(self, torch.ones_like(mask).tril())

    def each_other(self: Any, mask: Tensor) -> Tensor:
        tree = right(self, mask)
        tree[..., self.length :, self.length :] = True
        return tree

    assert copies_agree(model, windows(), point, some)
    for wrong in (far, each_other):
        monkeypatch.setattr(copies._Behind, "_mask", wrong)
        assert not copies_agree(model, windows(), point, some)
        edited, _ = all_of(model, point, some, "auto")
        expected, _ = all_of(model, point, some, "plain")
        assert torch.equal(edited, expected)


def test_the_clean_logits_are_the_models_own(model_folder: Callable[..., Path]) -> None:
    """Gemma 2 caps its logits: they are its own head's."""
    point = HookPoint(1)
    model = loaded(model_folder("gemma2"), point)
    some = some_edits(model, point)
    with torch.no_grad():
        logits = model.causal(input_ids=windows().clamp(min=0), use_cache=False).logits
    own = logits[torch.from_numpy(some.window), torch.from_numpy(some.position)]
    nothing = Edits(some.window, some.position, torch.zeros_like(some.delta))
    for way in ("copies", "plain"):
        edited, clean = all_of(model, point, nothing, way)
        torch.testing.assert_close(clean, own, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(edited, own, rtol=1e-4, atol=2e-5)


def test_what_comes_later_in_the_window_changes_nothing(model_folder: Callable[..., Path]) -> None:
    point = HookPoint(1)
    model = loaded(model_folder("llama"), point)
    some = Edits(np.array([0]), np.array([20]), torch.ones((1, 32)))
    other = windows()
    other[0, 21:] = 7
    one, two = (next(iter(edited_logits(model, ids, point, some))).logits for ids in (windows(), other))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["copies", "plain"])
@pytest.mark.parametrize(
    ("name", "size"), [("_BATCH_LOGITS", 2200), ("_BATCH_LOGITS", 1), ("BATCH_TOKENS", 50), ("_MOST_COPIES", 2)]
)
def test_batches_change_no_logits_and_hold_few(
    model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str, size: int, way: Any
) -> None:
    point = HookPoint(1)
    model = loaded(model_folder("gemma3"), point)
    some = some_edits(model, point)
    expected = all_of(model, point, some, way)
    whole = len(list(edited_logits(model, windows(), point, some, way=way)))
    for module in (edits, edit_passes):
        monkeypatch.setattr(module, name, size, raising=False)
    rows: list[int] = []
    handle = model.causal.get_output_embeddings().register_forward_hook(lambda _, __, out: rows.append(out.shape[1]))
    found = all_of(model, point, some, way)
    handle.remove()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)
    batches = list(edited_logits(model, windows(), point, some, way=way))
    if name == "_BATCH_LOGITS":
        most = max(2, size // model.causal.config.vocab_size)
        assert max(rows) <= most
        assert max(len(batch.logits) + len(batch.clean) for batch in batches) <= most
    if name == "_MOST_COPIES":
        assert len(batches) == whole == 1
    else:
        assert len(batches) > whole


def test_the_head_runs_at_no_other_position(model_folder: Callable[..., Path]) -> None:
    point = HookPoint(1)
    model = loaded(model_folder("gpt2"), point)
    some = some_edits(model, point)
    rows: list[int] = []
    model.causal.get_output_embeddings().register_forward_hook(lambda _, __, out: rows.append(out.shape[1]))
    list(edited_logits(model, windows(), point, some, way="copies"))
    assert rows == [len(some) + len({*zip(some.window.tolist(), some.position.tolist(), strict=True)})]


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_in_bfloat16_up_to_its_rounding(model_folder: Callable[..., Path], architecture: str) -> None:
    point = HookPoint(1)
    model = loaded(model_folder(architecture), point, "bfloat16")
    some = some_edits(model, point)
    assert copies_agree(model, windows(), point, some)
    (edited, clean), (expected, unchanged) = (all_of(model, point, some, way) for way in ("copies", "plain"))
    assert edited.dtype == torch.bfloat16
    effect = (expected - unchanged).float().norm()
    assert (edited - expected).float().norm() < 0.03 * effect
    assert (clean - unchanged).float().norm() < 0.03 * effect


def test_nothing_of_it_stays_in_the_model(model_folder: Callable[..., Path]) -> None:
    point = HookPoint(1)
    model = loaded(model_folder("gemma3"), point)
    with torch.no_grad():
        before = model.causal(input_ids=windows()[:1], use_cache=False).logits
        for way in ("copies", "plain"):
            all_of(model, point, some_edits(model, point), way)
        assert torch.equal(model.causal(input_ids=windows()[:1], use_cache=False).logits, before)


def test_no_edits_are_no_batches(model_folder: Callable[..., Path]) -> None:
    point = HookPoint(1)
    model = loaded(model_folder("llama"), point)
    nothing = Edits(np.zeros(0, np.int64), np.zeros(0, np.int64), torch.zeros((0, 32)))
    assert list(edited_logits(model, windows(), point, nothing)) == []


class TestWrongInput:
    @pytest.fixture
    def model(self, model_folder: Callable[..., Path]) -> LanguageModel:
        return loaded(model_folder("llama"), HookPoint(1))

    def test_a_dose_that_is_no_number(self, model: LanguageModel) -> None:
        some = Edits(np.array([0]), np.array([3]), torch.full((1, 32), float("nan")))
        with pytest.raises(UserError, match=r"edits at layer 1 \(resid_post\) of .* hold NaN or Inf: lower the dose"):
            edited_logits(model, windows(), HookPoint(1), some)

    def test_a_dose_that_is_too_large(self, model_folder: Callable[..., Path]) -> None:
        model = loaded(model_folder("llama"), HookPoint(1), "float16")
        some = Edits(np.array([0]), np.array([3]), torch.full((1, 32), 1e6))
        with pytest.raises(UserError, match=r"make logits with NaN or Inf in torch.float16; lower the dose"):
            list(edited_logits(model, windows(), HookPoint(1), some))

    @pytest.mark.parametrize(("window", "position"), [(3, 0), (-1, 0), (1, 25), (0, -1)])
    def test_places_that_are_not_there(self, model: LanguageModel, window: int, position: int) -> None:
        some = Edits(np.array([window]), np.array([position]), torch.zeros((1, 32)))
        with pytest.raises(ValueError, match="window"):
            edited_logits(model, windows(), HookPoint(1), some)

    def test_deltas_of_another_width(self, model: LanguageModel) -> None:
        with pytest.raises(ValueError, match="a delta of 32 values for each of 1 edits"):
            edited_logits(model, windows(), HookPoint(1), Edits(np.array([0]), np.array([0]), torch.zeros((1, 31))))

    def test_a_model_that_was_cut(self, model_folder: Callable[..., Path]) -> None:
        model = load_language_model(str(model_folder("llama")), [HookPoint(1)], dtype="float32")
        with pytest.raises(ValueError, match="without its head"):
            edited_logits(model, windows(), HookPoint(1), some_edits(model, HookPoint(1)))
