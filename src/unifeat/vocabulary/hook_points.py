"""Hook points: where in a transformer block activations are read.

Layer `L` is block `L`, counted from 0. `HOOKS` lists the kinds with TransformerLens' names. `resid_post` is Gemma
Scope's `layer_L` and `hidden_states[L + 1]` of transformers. (The last entry of `hidden_states` comes after the final
norm, so it is *not* the last block's output.) `attn_out` and `mlp_out` are taken after the post-norm of architectures
that have one (Gemma 2 and 3), as in TransformerLens. Transcoders read `mlp_in` or `ln2_normalized`.

To add a kind, add a row to `HOOKS` and its name to `HookKind`; `models.blocks.SITES` says which module holds its value.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, get_args

HookKind = Literal["resid_post", "resid_pre", "attn_out", "mlp_out", "attn_z", "resid_mid", "ln2_normalized", "mlp_in"]
HOOK_KINDS: tuple[HookKind, ...] = get_args(HookKind)


class Hook(NamedTuple):
    """One kind of hook point.

    Attributes:
        lens: TransformerLens' name for it within a block.
        what: the value in words.
        label: the same in two or three words, for the report.
        mistaken_for: kinds at which an SAE may be read by mistake; `unifeat check` tries them.
        behind_norm: whether the value has been normalised, so that all tokens have similar norms and attention sinks
            show only in the block's input.
    """

    lens: str
    what: str
    label: str
    mistaken_for: tuple[HookKind, ...]
    behind_norm: bool = False


HOOKS: dict[HookKind, Hook] = {
    "resid_pre": Hook("hook_resid_pre", "the block's input", "block input", ("attn_out", "mlp_out")),
    "attn_z": Hook(
        "attn.hook_z",
        "the outputs of the attention heads, concatenated, before the output projection",
        "attention heads",
        ("attn_out",),
    ),
    "attn_out": Hook(
        "hook_attn_out", "what attention adds to the residual stream", "attention", ("resid_post", "mlp_out")
    ),
    "resid_mid": Hook(
        "hook_resid_mid", "the stream between attention and MLP", "before the MLP’s norm", ("resid_pre", "mlp_in")
    ),
    "ln2_normalized": Hook(
        "ln2.hook_normalized",
        "that stream normalised, before the norm's own weights",
        "normed, unweighted",
        ("mlp_in", "resid_mid"),
        behind_norm=True,
    ),
    "mlp_in": Hook(
        "mlp.hook_in",
        "the MLP's input: after the norm and its weights",
        "MLP input",
        ("ln2_normalized", "resid_mid"),
        behind_norm=True,
    ),
    "mlp_out": Hook("hook_mlp_out", "what the MLP adds to the residual stream", "MLP", ("resid_post", "attn_out")),
    "resid_post": Hook(
        "hook_resid_post", "the block's output, before any final norm", "block output", ("attn_out", "mlp_out")
    ),
}

_KIND_OF: dict[str, HookKind] = {hook.lens: kind for kind, hook in HOOKS.items()}
_KIND_OF["mlp.hook_out"] = "mlp_out"  # the same but for post-norms (`saes.fit.fit_to_model`)
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
    """A hook point of a model: block number, and which of the block's values."""

    layer: int
    kind: HookKind = "resid_post"

    @property
    def saelens_name(self) -> str:
        """The name SAELens and TransformerLens give this place."""
        return f"blocks.{self.layer}.{HOOKS[self.kind].lens}"


def parse_hook(name: Any) -> tuple[str | None, int | None]:
    """Kind and layer from the name of a hook point.

    Returns (kind, layer), (name, None) if the name is not one of our hook points, or (None, None) without a name.

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


def stream_before(point: HookPoint) -> HookPoint:
    """Where the norms that show attention sinks are measured: the point itself or, behind a norm, the block's input."""
    return HookPoint(point.layer, "resid_pre") if HOOKS[point.kind].behind_norm else point


def width_at(config: Any, kind: HookKind) -> int:
    """Number of values per token at a kind of hook point, from a model's text configuration."""
    if kind == "attn_z" and getattr(config, "num_attention_heads", None):
        heads = int(config.num_attention_heads)
        # In latent attention (DeepSeek), a head's values have their own width.
        head = getattr(config, "v_head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
        return heads * int(head)
    return int(config.hidden_size)
