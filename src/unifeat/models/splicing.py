"""A forward pass that continues with other values at a hook point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from unifeat.models.blocks import normalised, reweighted, site_of
from unifeat.models.hooks import capturing
from unifeat.vocabulary.hook_points import HookKind, HookPoint


@contextmanager
def splicing(
    blocks: nn.ModuleList, point: HookPoint, replace: Callable[[Tensor, Tensor], Tensor], reads: HookPoint | None = None
) -> Iterator[None]:
    """Inside this context, the model continues with other values at a point.

    Args:
        replace: from the values at `point` and at `reads`, both (..., width), to the value to use at `point`.
        reads: a point that the model computes no later than `point`; None for `point` itself.
    """
    reads = reads or point
    stream = HookPoint(point.layer, "resid_pre")
    beside = [reads] * (reads != point) + [stream] * (point.kind == "resid_mid")
    with capturing(blocks, beside) as seen:

        def new(value: Tensor) -> Tensor:
            return replace(value, value if reads == point else seen[reads])

        handle = _replacing(blocks[point.layer], point.kind, new, lambda: seen[stream])
        try:
            yield
        finally:
            handle.remove()


def with_rows(value: Tensor, at: Tensor, new: Callable[[Tensor], Tensor]) -> Tensor:
    """A value (…, width) with some of its rows changed.

    Args:
        at: (rows,) int64 numbers, or a mask (…) of them.
        new: from those rows, (rows, width), to what takes their place.
    """
    flat = value.reshape(-1, value.shape[-1]).clone()  # OPT's second MLP layer gets all positions as one list
    chosen = at.flatten().to(flat.device)  # blocks may be on several devices
    flat[chosen] = new(flat[chosen]).to(flat)
    return flat.reshape(value.shape)


def _replacing(block: nn.Module, kind: HookKind, new: Callable[[Tensor], Tensor], stream: Callable[[], Tensor]) -> Any:
    """Register a hook that applies `new` at a kind of hook point.

    Args:
        stream: returns the block's input, once the model has computed it.
    """
    if kind == "ln2_normalized":
        module, _ = site_of(block, kind)
        return module.register_forward_hook(
            lambda norm, args, _: reweighted(norm, new(normalised(norm, args[0]))), prepend=True
        )
    if kind == "resid_mid":  # no module returns the stream here, so what attention adds to it is changed instead
        return site_of(block, "attn_out").module.register_forward_hook(
            lambda _, __, output: _with_first(output, lambda added: new(stream() + added) - stream())
        )
    module, before = site_of(block, kind)
    if not before:
        return module.register_forward_hook(lambda _, __, output: _with_first(output, new))

    def change_input(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (new(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": new(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(change_input, with_kwargs=True)


def _with_first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)
