"""Hook points: where in a transformer block activations are read.

Layer `L` is block `L`, counted from 0. `resid_post` is the block's output, before any final norm: SAELens'
`blocks.L.hook_resid_post`, Gemma Scope's `layer_L`, and `hidden_states[L + 1]` of transformers (whose last entry is
taken after the final norm and is therefore *not* the last block's output). `resid_pre` is the block's input.
`attn_out` and `mlp_out` are what attention and MLP add to the residual stream: after the post-norm of
architectures that have one (Gemma 2 and 3), as in TransformerLens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from unifeat.errors import UserError, did_you_mean

HookKind = Literal["resid_post", "resid_pre", "attn_out", "mlp_out"]
HOOK_KINDS: tuple[HookKind, ...] = get_args(HookKind)

_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
_MIXER_NAMES = ("mixer",)  # Mamba: one mixer instead of attention and MLP
_MLP_NAMES = ("mlp", "fc2", "feed_forward")  # OPT has no MLP module: its second linear layer is the output


class HookPoint(NamedTuple):
    """A place in a model: block number and which of its values."""

    layer: int
    kind: HookKind = "resid_post"

    @property
    def saelens_name(self) -> str:
        """The name SAELens and TransformerLens give this place."""
        return f"blocks.{self.layer}.hook_{self.kind}"


def find_blocks(decoder: nn.Module, n_layers: int) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of transformer blocks: (its parent, its name there, the list).

    Raises:
        UserError: when no list of `n_layers` modules is found, or several are.
    """
    found = [
        (parent, name, child)
        for parent in decoder.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == n_layers and _looks_like_block(child[0])
    ]
    if len(found) != 1:
        raise UserError(
            f"model {type(decoder).__name__}: found {len(found)} lists of {n_layers} transformer blocks, expected one; "
            "this architecture is not supported yet"
        )
    return found[0]


def _looks_like_block(module: nn.Module) -> bool:
    return any(hasattr(module, name) for name in (*_ATTENTION_NAMES, *_MIXER_NAMES))


def _submodule(block: nn.Module, kind: HookKind) -> nn.Module:
    if kind in ("resid_post", "resid_pre"):
        return block
    # Llama calls the norm *before* the MLP `post_attention_layernorm`; it is a post-norm only where there is
    # a `post_feedforward_layernorm` beside it.
    has_post_norms = hasattr(block, "post_feedforward_layernorm")
    if has_post_norms:
        return getattr(block, "post_attention_layernorm" if kind == "attn_out" else "post_feedforward_layernorm")
    for name in _ATTENTION_NAMES if kind == "attn_out" else _MLP_NAMES:
        if hasattr(block, name):
            return getattr(block, name)
    what = "attention" if kind == "attn_out" else "MLP"
    raise UserError(
        f"{type(block).__name__} has no {what} module, so no {kind}: use the hook points resid_pre and resid_post"
    )


def module_at(blocks: nn.ModuleList, point: HookPoint) -> nn.Module:
    """The module whose output is the value at a hook point, or for `resid_pre` whose input it is.

    Raises:
        UserError: the block has no such module.
    """
    return _submodule(blocks[point.layer], point.kind)


@contextmanager
def capturing(blocks: nn.ModuleList, points: list[HookPoint]) -> Iterator[dict[HookPoint, Tensor]]:
    """While open, each forward pass leaves the activations at `points` in the yielded dictionary."""
    seen: dict[HookPoint, Tensor] = {}
    handles = []

    def keep(point: HookPoint, value: Any) -> None:
        seen[point] = (value[0] if isinstance(value, tuple) else value).detach()

    for point in points:
        if point.kind not in HOOK_KINDS:
            raise UserError(f"unknown hook point {point.kind!r}{did_you_mean(point.kind, HOOK_KINDS)}")
        module = _submodule(blocks[point.layer], point.kind)
        if point.kind == "resid_pre":

            def before(_: nn.Module, args: Any, kwargs: Any, point: HookPoint = point) -> None:
                keep(point, args[0] if args else kwargs["hidden_states"])

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(_: nn.Module, args: Any, output: Any, point: HookPoint = point) -> None:
                keep(point, output)

            handles.append(module.register_forward_hook(after))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def cut_after(decoder: nn.Module, config: Any, n_layers: int, deepest: int) -> nn.ModuleList:
    """Drop the blocks deeper than `deepest`, so that they cost neither time nor memory; returns those left."""
    parent, name, blocks = find_blocks(decoder, n_layers)
    kept = nn.ModuleList(list(blocks)[: deepest + 1])
    setattr(parent, name, kept)
    config.num_hidden_layers = len(kept)
    return kept
