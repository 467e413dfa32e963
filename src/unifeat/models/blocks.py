"""The blocks of a decoder, and which module of a block holds which value, for the names of each architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unifeat.errors import UserError
from unifeat.vocabulary.hook_points import HookKind

_ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention", "multi_head_attention")
# What stands in attention's place in some or all blocks: linear attention (Qwen3-Next, Qwen3.5, OLMo-Hybrid), a state
# space (Jamba, Bamba, Granite 4), a short convolution (LFM2), a recurrence (RecurrentGemma, xLSTM). They are called
# `attn_out` too, but have no `attn_z`. What is only known to make a block: Mamba's mixer, which is attention and MLP in
# one, and Zamba's blocks, which add what a transformer block shared by several layers puts out.
_IN_ITS_PLACE = ("linear_attn", "mamba", "conv", "temporal_block", "mlstm_layer")
_WHOLE_MIXERS = ("mixer", "mamba_decoder")
# OPT has no MLP module: its second linear layer is the output.
_MLP_NAMES = ("mlp", "fc2", "feed_forward", "mlp_block", "ffn", "block_sparse_moe", "shared_mlp")
_MLP_INPUTS = tuple("fc1" if name == "fc2" else name for name in _MLP_NAMES)
_PROJECTIONS = ("o_proj", "c_proj", "dense", "out_proj")  # attention's last linear layer
# Norms of what attention and the MLP put out, before it is added to the stream.
_POST_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3, OLMo 2
    ("post_self_attn_layernorm", "post_mlp_layernorm"),  # GLM-4
    ("post_attention_layernorm", "post_mlp_layernorm"),  # AFMoE
    ("post_operator_norm", "post_ffn_norm"),  # LFM3
)
# Llama calls the norm before the MLP `post_attention_layernorm`. In blocks that also have a norm whose name says that
# it comes before the MLP, it is a post-norm.
_MLP_NORMS = (
    *("pre_feedforward_layernorm", "pre_mlp_layernorm", "pre_ff_layernorm", "ffn_norm", "norm_ffn", "channel_pre_norm"),
    *("feedforward_layernorm", "post_attention_layernorm", "ln_2", "final_layer_norm", "ln2", "norm_2", "layernorm2"),
)


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
        if isinstance(child, nn.ModuleList) and len(child) == n_layers and _are_blocks(child)
    ]
    if len(found) != 1:
        raise UserError(
            f"model {type(decoder).__name__}: found {len(found)} lists of {n_layers} transformer blocks, expected one; "
            "this architecture is not supported yet"
        )
    return found[0]


def _are_blocks(modules: nn.ModuleList) -> bool:
    """Whether any is a block: of mixed blocks, the first may be of a kind that is not known."""
    names = (*_ATTENTION_NAMES, *_IN_ITS_PLACE, *_WHOLE_MIXERS)
    return any(getattr(module, name, None) is not None for module in modules for name in names)


def cut_after(decoder: nn.Module, config: Any, n_layers: int, deepest: int) -> nn.ModuleList:
    """Drop the blocks deeper than `deepest`, so that they take neither time nor memory; returns those left."""
    parent, name, blocks = find_blocks(decoder, n_layers)
    kept = nn.ModuleList(list(blocks)[: deepest + 1])
    setattr(parent, name, kept)
    # Where each block is given embeddings of its own (Gemma 4), these are cut up by the number in the configuration.
    if not getattr(config, "hidden_size_per_layer_input", None):
        config.num_hidden_layers = len(kept)
    return kept


def site_of(block: nn.Module, kind: HookKind) -> Site:
    """Where the value of a kind of hook point can be read.

    For `ln2_normalized` this is the norm's input, which `normalised` turns into the value.

    Raises:
        UserError: the block has no such module.
    """
    return SITES[kind](block)


def _attention_output(block: nn.Module) -> Site:
    return _added(block, 0, (*_ATTENTION_NAMES, *_IN_ITS_PLACE), "attention", "attn_out")


def _mlp_output(block: nn.Module) -> Site:
    return _added(block, 1, _MLP_NAMES, "MLP", "mlp_out")


def _added(block: nn.Module, of: int, names: tuple[str, ...], what: str, kind: HookKind) -> Site:
    """A module's output as it is added to the stream: after its post-norm, if the block has one."""
    post_norms = _post_norms(block)
    if post_norms is not None:
        return Site(getattr(block, post_norms[of]), False)
    return Site(_child(block, names, what, kind), False)


def _heads(block: nn.Module) -> Site:
    attention = _child(block, _ATTENTION_NAMES, "attention", "attn_z")
    return Site(_child(attention, _PROJECTIONS, "projection", "attn_z"), True)


def _middle(block: nn.Module) -> Site:
    norm = _child(block, _MLP_NORMS, "norm before the MLP", "resid_mid")
    post_norms = _post_norms(block)
    if post_norms is not None and norm is getattr(block, post_norms[0]):  # OLMo 2: the MLP is given the stream as it is
        return Site(_child(block, _MLP_INPUTS, "MLP", "resid_mid"), True)
    return Site(norm, True)


# Where the value of each kind of hook point can be read in a block.
SITES: dict[HookKind, Callable[[nn.Module], Site]] = {
    "resid_pre": lambda block: Site(block, True),
    "attn_z": _heads,
    "attn_out": _attention_output,
    "resid_mid": _middle,
    "ln2_normalized": lambda block: Site(_child(block, _MLP_NORMS, "norm before the MLP", "ln2_normalized"), True),
    "mlp_in": lambda block: Site(_child(block, _MLP_INPUTS, "MLP", "mlp_in"), True),
    "mlp_out": _mlp_output,
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
    return _post_norms(block) is not None


def _post_norms(block: nn.Module) -> tuple[str, str] | None:
    """The names of attention's and of the MLP's post-norm."""
    return next((pair for pair in _POST_NORMS if all(hasattr(block, name) for name in pair)), None)


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
