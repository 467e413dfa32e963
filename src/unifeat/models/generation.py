"""Text that a model goes on with, as it is or with something added to its activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.heads import head_of
from unifeat.models.language import LanguageModel
from unifeat.models.splicing import splicing
from unifeat.vocabulary.hook_points import HookPoint


@dataclass(frozen=True)
class Sampling:
    """How next tokens are drawn.

    Attributes:
        tokens: how many, at most.
        temperature: of the softmax; 0 takes the most probable token.
        top_p: tokens are drawn from the most probable ones that have this share.
        seed: of the draws.
    """

    tokens: int = 40
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0


def _checked(name: str, _: Tensor, scores: Tensor) -> Tensor:
    if not bool((scores < torch.inf).all()):  # NaN is not, either; top p makes -inf
        raise UserError(f"model {name} gives NaN or infinity for the next token: lower the dose")
    return scores


@torch.inference_mode()
def continuation(
    model: LanguageModel,
    prompt: str,
    opening: list[int],
    sampling: Sampling,
    point: HookPoint | None = None,
    add: Callable[[Tensor], Tensor] | None = None,
) -> str:
    """What a model goes on with after a prompt.

    Args:
        model: loaded with `whole=True`.
        opening: tokens before the prompt. Nothing is added there: models keep much of their attention on the first.
        point, add: from the activations (positions, width) at a hook point to what is added to them, at every position
            of the prompt and of the text that follows.

    Raises:
        UserError: an empty prompt, a temperature that is no number, a model without a head, or a change after which
            activations overflow or next tokens' probabilities are NaN.
    """
    if not 0 <= sampling.temperature < math.inf:
        raise UserError(f"temperature {sampling.temperature:g}: give a number, 0 or more")
    head_of(model)
    ids = model.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    if not ids:
        raise UserError("the prompt is empty: give some words to go on from")
    given = torch.tensor([opening + ids], device=model.device)
    lead = len(opening)

    def change(value: Tensor, _: Tensor) -> Tensor:
        assert add is not None
        skip = lead if value.shape[-2] > 1 else 0  # after the prompt, tokens come one by one
        changed = value.to(torch.float32).clone()
        changed[..., skip:, :] += add(changed[..., skip:, :])
        made = changed.to(value.dtype)
        # Norms square what they are given: of infinity they make 0, and the text is noise without any NaN.
        if not bool(made.float().square().sum(-1).isfinite().all()):
            raise UserError(f"the activations of model {model.name} are beyond float32: lower the dose")
        return made

    steering = splicing(model.blocks, point, change) if point is not None else nullcontext()
    stops = model.causal.generation_config.eos_token_id
    pad = stops[0] if isinstance(stops, list) else stops
    draw: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        draw = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    devices = [model.device] if model.device.type == "cuda" else []
    with steering, torch.random.fork_rng(devices=devices):
        torch.manual_seed(sampling.seed)
        made = model.causal.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=sampling.tokens,
            pad_token_id=pad if pad is not None else 0,
            logits_processor=[partial(_checked, model.name)],
            **draw,
        )
    return str(model.tokenizer.decode(made[0, given.shape[1] :], skip_special_tokens=True))
