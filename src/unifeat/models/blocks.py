"""The blocks of a decoder, and which module of a block holds which value, for the names of each architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unifeat.errors import UserError
from unifeat.vocabulary.hook_points import HookKind

_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
_MIXER_NAMES = ("mixer",)  # Mamba: one mixer instead of attention and MLP
_MLP_NAMES = ("mlp", "fc2", "feed_forward")  # OPT has no MLP module: its second linear layer is the output
_MLP_INPUTS = ("mlp", "fc1", "feed_forward")
_PROJECTIONS = ("o_proj", "c_proj", "dense", "out_proj")  # attention's last linear layer
# Llama calls the norm before the MLP `post_attention_layernorm`. In blocks that also have a
# `pre_feedforward_layernorm`, it is a post-norm.
_MLP_NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm")


class Site(NamedTuple):
    """Where a value can be read: a module, and whether the value is its input (`before`) or its output."""

    module: nn.Module
    before: bool


def find_blocks(decoder: nn.Module, n_layers: int) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of transformer blocks: (its parent, its name there, the list).

    Raises:
        UserError: no list of `n_layers` blocks is found, or several are.
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


def cut_after(decoder: nn.Module, config: Any, n_layers: int, deepest: int) -> nn.ModuleList:
    """Drop the blocks deeper than `deepest`, so that they take neither time nor memory; returns those left."""
    parent, name, blocks = find_blocks(decoder, n_layers)
    kept = nn.ModuleList(list(blocks)[: deepest + 1])
    setattr(parent, name, kept)
    config.num_hidden_layers = len(kept)
    return kept


def site_of(block: nn.Module, kind: HookKind) -> Site:
    """Where the value of a kind of hook point can be read.

    For `ln2_normalized` this is the norm's input, which `normalised` turns into the value.

    Raises:
        UserError: the block has no such module.
    """
    return SITES[kind](block)


def _after(block: nn.Module, post_norm: str, names: tuple[str, ...], what: str, kind: HookKind) -> Site:
    """A module's output as it is added to the stream: after its post-norm, if the block has one."""
    if has_post_norms(block):
        return Site(getattr(block, post_norm), False)
    return Site(_child(block, names, what, kind), False)


def _heads(block: nn.Module) -> Site:
    attention = _child(block, _ATTENTION_NAMES, "attention", "attn_z")
    return Site(_child(attention, _PROJECTIONS, "projection", "attn_z"), True)


# Where the value of each kind of hook point can be read in a block.
SITES: dict[HookKind, Callable[[nn.Module], Site]] = {
    "resid_pre": lambda block: Site(block, True),
    "attn_z": _heads,
    "attn_out": lambda block: _after(block, "post_attention_layernorm", _ATTENTION_NAMES, "attention", "attn_out"),
    "resid_mid": lambda block: Site(_child(block, _MLP_NORMS, "norm before the MLP", "resid_mid"), True),
    "ln2_normalized": lambda block: Site(_child(block, _MLP_NORMS, "norm before the MLP", "ln2_normalized"), True),
    "mlp_in": lambda block: Site(_child(block, _MLP_INPUTS, "MLP", "mlp_in"), True),
    "mlp_out": lambda block: _after(block, "post_feedforward_layernorm", _MLP_NAMES, "MLP", "mlp_out"),
    "resid_post": lambda block: Site(block, False),
}


def _child(module: nn.Module, names: tuple[str, ...], what: str, kind: str) -> nn.Module:
    for name in names:
        found: nn.Module | None = getattr(module, name, None)
        if found is not None:
            return found
    raise UserError(f"{type(module).__name__} has no {what} module, so no {kind}: use resid_pre or resid_post")


def has_post_norms(block: nn.Module) -> bool:
    """Whether attention and MLP outputs are normalised before they are added to the stream, as in Gemma 2 and 3."""
    return hasattr(block, "post_feedforward_layernorm")


def value_bias(block: nn.Module, width: int) -> Tensor | None:
    """The biases of attention's values at `attn_z`, (width,); a key-value head's repeat for all heads that share it.

    Returns:
        None if the values have no bias.

    Raises:
        UserError: it is not known where this kind of attention keeps its value biases.
    """
    attention: Any = _child(block, _ATTENTION_NAMES, "attention", "attn_z")
    if hasattr(attention, "c_attn"):  # GPT-2: queries, keys and values in one layer
        bias = attention.c_attn.bias[-width:]
    elif hasattr(attention, "v_proj"):
        bias = attention.v_proj.bias
    else:
        raise UserError(f"{type(attention).__name__}: unifeat does not know where its value biases are")
    if bias is None:
        return None
    head = getattr(attention, "head_dim", None) or width
    return bias.detach().reshape(-1, head).repeat_interleave(width // bias.numel(), dim=0).reshape(width)


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """The output of a LayerNorm or RMSNorm for (…, d) before its own weights are applied, in x's dtype."""
    wide = x.to(torch.float32)
    if isinstance(norm, nn.LayerNorm):
        wide = wide - wide.mean(-1, keepdim=True)
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + _epsilon(norm))).to(x.dtype)


def reweighted(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply the norm's own weights to `normalised` values (…, d), in x's dtype."""
    # The weights are found from the norm's outputs for two vectors, since some norms multiply by the weights and others
    # (Gemma's) by 1 + the weights. (`forward` and not a call, since the norm may have hooks; and not the parameters,
    # since accelerate may keep them elsewhere until the norm runs.)
    dtype = x.dtype if isinstance(norm, nn.LayerNorm) else torch.float32
    signs = torch.ones(x.shape[-1], dtype=dtype, device=x.device)
    signs[1::2] = -1
    bias = norm.forward(torch.zeros_like(signs)).to(x.device, torch.float32)
    gain = (norm.forward(signs).to(x.device, torch.float32) - bias) / normalised(norm, signs).to(torch.float32)
    return (x.to(torch.float32) * gain + bias).to(x.dtype)


def _epsilon(norm: nn.Module) -> float:
    for name in ("eps", "variance_epsilon"):
        if hasattr(norm, name):
            return float(getattr(norm, name))
    raise UserError(f"{type(norm).__name__} has no known epsilon, so there is no ln2_normalized: use mlp_in")
