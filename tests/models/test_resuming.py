"""Running the rest of a model: the same logits as from the start, at the positions asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tiny import ARCHITECTURES
from unifeat.models import load_language_model
from unifeat.models.resuming import Again
from unifeat.models.splicing import splicing
from unifeat.vocabulary.hook_points import HookPoint

IDS = torch.randint(3, 40, (3, 11), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mamba"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_logits_are_those_of_the_whole_model(model_folder: Callable[..., Path], architecture: str, layer: int) -> None:
    point = HookPoint(layer)
    folder = model_folder(architecture, tokenizer="bpe")
    model = load_language_model(str(folder), [point], dtype="float32", whole=True)
    chosen = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    blocks = list(model.blocks)
    with torch.inference_mode():
        whole = model.causal(input_ids=IDS, use_cache=False).logits
    again = Again(model, IDS, point, chosen)
    assert list(model.blocks) == blocks
    torch.testing.assert_close(again.clean, whole[chosen], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again.logits(), whole[chosen], rtol=1e-5, atol=1e-5)
    for factor in (0.0, 1.7):
        with splicing(model.blocks, point, lambda value, _, factor=factor: value.flip(-1) * factor):
            with torch.inference_mode():
                changed = model.causal(input_ids=IDS, use_cache=False).logits
            torch.testing.assert_close(again.logits(), changed[chosen], rtol=1e-4, atol=1e-5)
            assert (changed - whole).abs().max() > 1e-3
    assert list(model.blocks) == blocks
    with torch.inference_mode():
        assert torch.equal(model.causal(input_ids=IDS, use_cache=False).logits, whole)


def test_blocks_before_are_not_run_again(model_folder: Callable[..., Path]) -> None:
    model = load_language_model(str(model_folder("llama")), [HookPoint(2)], dtype="float32", whole=True)
    ran: list[int] = []
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    again = Again(model, IDS, HookPoint(2), torch.ones(IDS.shape, dtype=torch.bool))
    ran.clear()
    again.logits()
    assert ran == [2]


def test_where_more_passes_between_blocks_all_are_run(model_folder: Callable[..., Path]) -> None:
    """A model whose third block reads what the first one left behind."""
    model = load_language_model(str(model_folder("llama")), [HookPoint(2)], dtype="float32", whole=True)
    left: list[torch.Tensor] = []

    def leave(_: object, __: object, output: object) -> None:
        left[:] = [output[0] if isinstance(output, tuple) else output]  # type: ignore[list-item]

    def read(_: object, args: tuple, kwargs: dict) -> tuple:
        used, left[:] = (left[0], [torch.zeros_like(left[0])])
        return (args[0] + used, *args[1:]), kwargs

    model.blocks[0].register_forward_hook(leave)
    model.blocks[2].register_forward_pre_hook(read, with_kwargs=True)
    again = Again(model, IDS, HookPoint(2), torch.ones(IDS.shape, dtype=torch.bool))
    torch.testing.assert_close(again.logits(), again.clean, rtol=1e-6, atol=1e-6)


def test_a_model_without_its_head(model_folder: Callable[..., Path]) -> None:
    model = load_language_model(str(model_folder("llama")), [HookPoint(0)], dtype="float32")
    with pytest.raises(ValueError, match="whole=True"):
        Again(model, IDS, HookPoint(0), torch.ones(IDS.shape, dtype=torch.bool))
