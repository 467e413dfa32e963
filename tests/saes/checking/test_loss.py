"""Loss recovered, against plain transformers with hooks of the test's own, and at its two ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import sentences, tiny_sae
from unifeat.models.activations import run_group
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.saes import load_sae
from unifeat.saes.checking import loss
from unifeat.saes.checking.loss import Loss, measure_loss
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookPoint
from unifeat.vocabulary.windowing import Windowing

CONTEXT = 24
PARTS = [Part(n, 0, text) for n, text in enumerate(sentences(6, seed=4))]
MODELS = [("llama", "wordish", 2), ("gpt2", "bpe", None), ("gemma3", "wordish", 2), ("opt", "bpe", None)]


class Fixed:
    """An SAE whose reconstruction is a given map of the activations."""

    def __init__(self, reconstruct: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.decode = reconstruct

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x


def measured(model: LanguageModel, point: HookPoint, sae: Any, bos: int | None, parts: list[Part] = PARTS) -> Loss:
    above = run_group(model, parts, [point], Windowing(CONTEXT, bos)).sink_norm(point)
    return measure_loss(model, parts, point, sae, Windowing(CONTEXT, bos), sink_norm=above)


def loaded(folder: Path, point: HookPoint) -> LanguageModel:
    return load_language_model(str(folder), [point], dtype="float32", whole=True)


@pytest.mark.parametrize("kind", HOOK_KINDS)
@pytest.mark.parametrize(("architecture", "tokenizer", "bos"), MODELS)
def test_identity_recovers_all_and_zeros_nothing(
    model_folder: Callable[..., Path], architecture: str, tokenizer: str, bos: int | None, kind: Any
):
    point = HookPoint(1, kind)
    model = loaded(model_folder(architecture, tokenizer=tokenizer), point)
    same = measured(model, point, Fixed(lambda x: x), bos)
    assert same.tokens > 100
    assert same.spliced == pytest.approx(same.clean, abs=1e-6)
    assert same.zeroed != pytest.approx(same.clean, abs=1e-3)
    nothing = measured(model, point, Fixed(torch.zeros_like), bos)
    assert nothing.spliced == pytest.approx(nothing.zeroed, abs=1e-9)
    if same.zeroed > same.clean:  # random weights predict nothing: zeros may even do better
        assert same.recovered == pytest.approx(1, abs=1e-3)
        assert nothing.recovered == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("architecture", "tokenizer", "bos"), [MODELS[0], MODELS[1]])
def test_is_what_plain_transformers_gives(
    model_folder: Callable[..., Path], tmp_path: Path, architecture: str, tokenizer: str, bos: int | None
):
    """Window by window with a hook of its own; a sink is made by hand and keeps its activation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, point = model_folder(architecture, tokenizer=tokenizer), HookPoint(1)
    sae = load_sae(tiny_sae(tmp_path / "sae", 32, seed=1))
    model = loaded(folder, point)
    every = run_group(model, PARTS, [point], Windowing(CONTEXT, bos)).values[point].float()
    largest = float(every.norm(dim=-1).quantile(0.9))  # a tenth of the tokens shall be sinks
    found = measure_loss(model, PARTS, point, sae, Windowing(CONTEXT, bos), sink_norm=largest)

    words, network = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    block = (network.model.layers if architecture == "llama" else network.transformer.h)[1]
    sums, count = [0.0, 0.0, 0.0], 0
    special = set(words.all_special_ids)
    for part in PARTS:
        ids = words(part.text, add_special_tokens=False)["input_ids"]
        body = CONTEXT - (bos is not None)
        for start in range(0, len(ids), body):
            window = ([] if bos is None else [bos]) + ids[start : start + body]
            outputs: list[torch.Tensor] = []
            for i, ablation in enumerate(("none", "sae", "zero")):

                def replace(_: Any, __: Any, output: Any, ablation: str = ablation) -> Any:
                    value = output[0] if isinstance(output, tuple) else output
                    new = value.clone()
                    for t in range(1, len(window)):  # noqa: B023
                        if window[t] not in special and value[0, t].norm() <= largest:  # noqa: B023
                            if ablation == "sae":
                                new[0, t] = sae.decode(sae.encode(value[0, t : t + 1]))[0]
                            elif ablation == "zero":
                                new[0, t] = 0
                    if ablation == "none":
                        outputs.append(value)  # noqa: B023
                    return (new, *output[1:]) if isinstance(output, tuple) else new

                handle = block.register_forward_hook(replace)
                with torch.inference_mode():
                    log_p = network(torch.tensor([window])).logits[0].log_softmax(-1)
                handle.remove()
                for t in range(1, len(window) - 1):
                    if window[t] not in special and outputs[0][0, t].norm() <= largest:
                        sums[i] -= float(log_p[t, window[t + 1]])
                        count += i == 0
    assert found.tokens == count
    assert (found.clean, found.spliced, found.zeroed) == pytest.approx([s / count for s in sums], rel=1e-5)


def test_the_vocabulary_bounds_the_batch_and_changes_nothing(
    model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    point = HookPoint(0)
    model = loaded(model_folder("llama", tokenizer="wordish"), point)
    sae = Fixed(lambda x: 0.5 * x)
    together = measured(model, point, sae, 2)
    monkeypatch.setattr(loss, "_BATCH_LOGITS", 1)
    alone = measured(model, point, sae, 2)
    assert alone.tokens == together.tokens
    assert (alone.clean, alone.spliced, alone.zeroed) == pytest.approx(
        (together.clean, together.spliced, together.zeroed), rel=1e-5
    )


def test_nothing_to_predict_is_nan(model_folder: Callable[..., Path]):
    point = HookPoint(0)
    model = loaded(model_folder("llama", tokenizer="wordish"), point)
    found = measure_loss(model, [Part(0, 0, "a")], point, Fixed(lambda x: x), Windowing(CONTEXT, 2), sink_norm=math.inf)
    assert found.tokens == 0
    assert math.isnan(found.clean)
    assert math.isnan(found.recovered)
    assert found.as_dict()["recovered"] is None


def test_recovered_is_undefined_where_zeros_do_no_harm():
    assert math.isnan(Loss(clean=3.0, spliced=3.1, zeroed=2.9, tokens=10).recovered)
    assert Loss(clean=3.0, spliced=3.5, zeroed=5.0, tokens=10).recovered == 0.75


def test_needs_the_head(model_folder: Callable[..., Path]):
    model = load_language_model(str(model_folder("llama")), [HookPoint(0)])
    assert model.causal is None
    with pytest.raises(ValueError, match="without its head"):
        measure_loss(model, PARTS, HookPoint(0), None, Windowing(8, None), sink_norm=1.0)
