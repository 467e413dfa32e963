"""Hook points: where in a transformer block activations are read.

Layer `L` is block `L`, counted from 0. The kinds, in the order of a pre-norm block, with TransformerLens' names:

    resid_pre        hook_resid_pre       the block's input
    attn_z           attn.hook_z          what attention's heads put out, concatenated, before the output projection
    attn_out         hook_attn_out        what attention adds to the residual stream
    resid_mid        hook_resid_mid       the stream between attention and MLP
    ln2_normalized   ln2.hook_normalized  that stream normalised, before the norm's own weights
    mlp_in           mlp.hook_in          what the MLP is given: after the norm and its weights
    mlp_out          hook_mlp_out         what the MLP adds to the residual stream
    resid_post       hook_resid_post      the block's output, before any final norm

`resid_post` is Gemma Scope's `layer_L` and `hidden_states[L + 1]` of transformers (whose last entry is taken after the
final norm and is therefore *not* the last block's output). `attn_out` and `mlp_out` are taken after the post-norm of
architectures that have one (Gemma 2 and 3), as in TransformerLens. Transcoders read `mlp_in` or `ln2_normalized`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from unifeat.errors import UserError, did_you_mean
from unifeat.models.blocks import normalised, site_of

HookKind = Literal["resid_post", "resid_pre", "attn_out", "mlp_out", "attn_z", "resid_mid", "ln2_normalized", "mlp_in"]
HOOK_KINDS: tuple[HookKind, ...] = get_args(HookKind)

_WITHIN: dict[str, str] = {"attn_z": "attn.hook_z", "ln2_normalized": "ln2.hook_normalized", "mlp_in": "mlp.hook_in"}
_KIND_OF: dict[str, HookKind] = {_WITHIN.get(kind, f"hook_{kind}"): kind for kind in HOOK_KINDS}
_KIND_OF["mlp.hook_out"] = "mlp_out"  # the same but for post-norms (`saes.output.fit_to_model`)
_KIND_OF["hook_mlp_in"] = "resid_mid"  # TransformerLens' copy of the stream before the norm
_SAELENS = re.compile(r"blocks\.(\d+)\.(.+)")
# Module names of transformers, as sparsify and Gemma Scope 2 write them: layers.3, h.3.mlp, model.layers.3.output
_MODULE = re.compile(r"(?:[a-z_]+\.)*(?:layers|h|blocks)\.(\d+)(?:\.([\w.]+))?")
_MODULE_KINDS: dict[str | None, HookKind] = {
    None: "resid_post",
    "output": "resid_post",
    "mlp": "mlp_out",
    "post_feedforward_layernorm": "mlp_out",
    "pre_feedforward_layernorm": "mlp_in",
    "attn": "attn_out",
    "self_attn": "attn_out",
    "attention": "attn_out",
    "self_attn.o_proj.input": "attn_z",
}


class HookPoint(NamedTuple):
    """A place in a model: block number and which of its values."""

    layer: int
    kind: HookKind = "resid_post"

    @property
    def saelens_name(self) -> str:
        """The name SAELens and TransformerLens give this place."""
        return f"blocks.{self.layer}.{_WITHIN.get(self.kind, f'hook_{self.kind}')}"


def parse_hook(name: Any) -> tuple[str | None, int | None]:
    """Kind and layer from the name of a place: (kind, layer), (name, None) if it is another place, or two Nones.

    >>> parse_hook("blocks.15.hook_resid_post")
    ('resid_post', 15)
    >>> parse_hook("blocks.3.attn.hook_q")
    ('blocks.3.attn.hook_q', None)
    """
    if not isinstance(name, str) or not name:
        return None, None
    if (match := _SAELENS.fullmatch(name)) and match[2] in _KIND_OF:
        return _KIND_OF[match[2]], int(match[1])
    if match := _MODULE.fullmatch(name):
        part = match[2] if match[2] in _MODULE_KINDS else (match[2] or "").removesuffix(".output")
        if part in _MODULE_KINDS:
            return _MODULE_KINDS[part], int(match[1])
    return name, None


def value_at(kind: HookKind, module: nn.Module, value: Any) -> Tensor:
    """The value at a hook point from what its module takes or puts out."""
    tensor: Tensor = value[0] if isinstance(value, tuple) else value
    return normalised(module, tensor) if kind == "ln2_normalized" else tensor


@contextmanager
def capturing(blocks: nn.ModuleList, points: list[HookPoint]) -> Iterator[dict[HookPoint, Tensor]]:
    """While open, each forward pass leaves the activations at `points` in the yielded dictionary.

    Raises:
        UserError: a kind of hook point that does not exist, or that these blocks do not have.
    """
    # (Copies: some blocks go on to add to a value in place, as Falcon's do to what their MLP puts out.)
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


def stream_before(point: HookPoint) -> HookPoint:
    """Where attention sinks are told by their norm: the point itself, or, behind a norm, the block's input."""
    return HookPoint(point.layer, "resid_pre") if point.kind in ("ln2_normalized", "mlp_in") else point


def width_at(config: Any, kind: HookKind) -> int:
    """How many values a token has at a kind of hook point, by a model's configuration."""
    if kind == "attn_z" and getattr(config, "num_attention_heads", None):
        heads = int(config.num_attention_heads)
        # Latent attention (DeepSeek) has values of a width of their own.
        head = getattr(config, "v_head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
        return heads * int(head)
    return int(config.hidden_size)
