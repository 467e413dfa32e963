"""Reading activations: forward hooks at the hook points of a model's blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from unifeat.errors import UserError, did_you_mean
from unifeat.models.blocks import normalised, site_of
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookKind, HookPoint


def value_at(kind: HookKind, module: nn.Module, value: Any) -> Tensor:
    """The value at a hook point, from its module's input or output."""
    tensor: Tensor = value[0] if isinstance(value, tuple) else value
    return normalised(module, tensor) if kind == "ln2_normalized" else tensor


@contextmanager
def capturing(blocks: nn.ModuleList, points: list[HookPoint]) -> Iterator[dict[HookPoint, Tensor]]:
    """Inside this context, each forward pass stores the activations at `points` in the yielded dictionary.

    Raises:
        UserError: a kind of hook point that does not exist, or that these blocks do not have.
    """
    # Values are copied, since some blocks add to them in place, as Falcon's blocks do to their MLP's output.
    seen: dict[HookPoint, Tensor] = {}
    handles = []
    for point in points:
        if point.kind not in HOOK_KINDS:
            raise UserError(f"unknown hook point {point.kind!r}{did_you_mean(point.kind, HOOK_KINDS)}")
        module, before = site_of(blocks[point.layer], point.kind)
        if before:

            def keep_input(inner: nn.Module, args: Any, kwargs: Any, point: HookPoint = point) -> None:
                given = args[0] if args else kwargs["hidden_states"]
                seen[point] = value_at(point.kind, inner, given).detach().clone()

            handles.append(module.register_forward_pre_hook(keep_input, with_kwargs=True))
        else:

            def keep_output(inner: nn.Module, args: Any, output: Any, point: HookPoint = point) -> None:
                seen[point] = value_at(point.kind, inner, output).detach().clone()

            handles.append(module.register_forward_hook(keep_output))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
