"""The self-test of a loaded model on a few tokens: is it causal, and do its blocks add up as the hook points say?

In some architectures, modules of the expected names hold other values: BLOOM's attention returns the residual stream
with its own output already added, and Granite scales outputs before adding them. Instead of a list of such
architectures, the sums are tested.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unifeat.errors import UserError
from unifeat.models.blocks import reweighted, site_of
from unifeat.models.hooks import capturing
from unifeat.vocabulary.hook_points import HookKind, HookPoint

_TOKENS = 6
_ADDED_KINDS: tuple[HookKind, HookKind] = ("attn_out", "mlp_out")
_BLOCK_KINDS: tuple[HookKind, ...] = ("resid_pre", *_ADDED_KINDS, "resid_post")
_NORM_KINDS: tuple[HookKind, HookKind] = ("ln2_normalized", "mlp_in")
_MIDDLE_KINDS: tuple[HookKind, ...] = ("resid_pre", "attn_out", "resid_mid")


class Model(Protocol):
    """What the self-test asks of a language model (`models.language.LanguageModel`)."""

    name: str
    architecture: str
    decoder: nn.Module
    blocks: nn.ModuleList
    d_model: int
    device: torch.device
    dtype: torch.dtype

    def width(self, point: HookPoint) -> int:
        """Number of values per token at a hook point."""
        ...


class _EnoughError(Exception):
    """Raised to stop a forward pass."""


def can_read(model: Model, point: HookPoint) -> bool:
    """Whether a model (or what was kept of it) can be read at a hook point."""
    if not 0 <= point.layer < len(model.blocks):
        return False
    try:
        self_test(model, [point])
    except UserError:
        return False
    return True


def self_test(model: Model, points: list[HookPoint]) -> None:
    """Run two sequences that differ in their last token, through as few blocks as needed: usually one.

    The test checks that the first block's output has the width in the configuration, that no position depends on a
    later one, and at the layers of `points`:

    * for `attn_out` or `mlp_out`: resid_pre + attn_out + mlp_out = resid_post, up to rounding;
    * for `resid_mid`: it is resid_pre + attn_out;
    * for `ln2_normalized`: with the norm's weights applied, it is mlp_in.

    Raises:
        UserError: one of these does not hold.
    """
    added = sorted({point.layer for point in points if point.kind in _ADDED_KINDS})
    first = HookPoint(0)
    # The requested points come first, so that an error for a missing module names the point that the user asked for.
    middle = sorted({point.layer for point in points if point.kind == "resid_mid"})
    normed = sorted({point.layer for point in points if point.kind == "ln2_normalized"})
    wanted = [*points, first]
    for layers, kinds in ((added, _BLOCK_KINDS), (middle, _MIDDLE_KINDS), (normed, _NORM_KINDS)):
        wanted += [HookPoint(layer, kind) for layer in layers for kind in kinds]
    config: Any = model.decoder.config
    vocabulary = int(config.vocab_size)
    ids = torch.arange(_TOKENS).repeat(2, 1) % vocabulary
    ids[1, -1] = (_TOKENS + 1) % vocabulary
    seen = _values(model, ids, list(dict.fromkeys(wanted)), deepest=max(added + middle + normed, default=0))
    block = seen[first].to(torch.float64)
    if block.shape[-1] != model.d_model:
        raise UserError(
            f"model {model.name}: its blocks give {block.shape[-1]} values per token, but its configuration says "
            f"{model.d_model}; this architecture is not supported yet"
        )
    if not all(bool(torch.isfinite(value).all()) for value in seen.values()):
        return  # encoding will find this too, with an error that names the layer
    for point in points:
        if point in seen and seen[point].shape[-1] != model.width(point):
            raise UserError(
                f"model {model.name} ({model.architecture}) has {seen[point].shape[-1]} values per token at "
                f"{point.kind}, but its configuration says {model.width(point)}; this hook point is not supported "
                "there yet"
            )
    one, other = block[:, :-1]
    if float((one - other).norm()) > torch.finfo(model.dtype).eps ** 0.5 * float(one.norm()):
        raise UserError(
            f"model {model.name} ({model.architecture}): its tokens attend to later ones, so it is not a causal "
            "language model; unifeat reads only these"
        )
    _check_values(model, seen, added, middle, normed)


def _check_values(
    model: Model, seen: dict[HookPoint, Tensor], added: list[int], middle: list[int], normed: list[int]
) -> None:
    for layer in added:
        if not adds_up(*(seen[HookPoint(layer, kind)] for kind in _BLOCK_KINDS)):
            raise UserError(
                f"model {model.name} ({model.architecture}), layer {layer}: the outputs of its attention and MLP "
                "modules are not what is added to the residual stream; use the hook points resid_pre and resid_post"
            )
    for layer in middle:
        before, attention, between = (seen[HookPoint(layer, kind)] for kind in _MIDDLE_KINDS)
        if not adds_up(before, attention, torch.zeros_like(before), between):
            raise UserError(
                f"model {model.name} ({model.architecture}), layer {layer}: the input of its MLP's norm is not the "
                "stream plus attention's output, so there is no resid_mid; use resid_pre, resid_post or mlp_in"
            )
    for layer in normed:
        bare, given = (seen[HookPoint(layer, kind)] for kind in _NORM_KINDS)
        norm = site_of(model.blocks[layer], "ln2_normalized").module
        difference = reweighted(norm, bare).to(torch.float64) - given.to(torch.float64)
        if float(difference.norm()) > 4 * torch.finfo(model.dtype).eps * float(given.to(torch.float64).norm()):
            raise UserError(
                f"model {model.name} ({model.architecture}), layer {layer}: the norm before its MLP does not give the "
                "MLP's input, so there is no ln2_normalized; use mlp_in"
            )


@torch.inference_mode()
def _values(model: Model, ids: Tensor, points: list[HookPoint], deepest: int) -> dict[HookPoint, Tensor]:
    """Values at the points that a forward pass reaches by the end of block `deepest`."""

    def end(*_: Any) -> None:
        raise _EnoughError

    with capturing(model.blocks, points) as seen:
        handle = model.blocks[deepest].register_forward_hook(end)
        try:
            model.decoder(input_ids=ids.to(model.device), use_cache=False)
        except _EnoughError:
            pass
        finally:
            handle.remove()
    return {point: value.reshape(*ids.shape, -1).to(model.device) for point, value in seen.items()}


def adds_up(before: Tensor, attention: Tensor, mlp: Tensor, after: Tensor) -> bool:
    """Whether before + attention + mlp = after, up to the rounding of two additions in the tensors' dtype."""
    eps = torch.finfo(after.dtype).eps
    terms = [t.to(torch.float64) for t in (before, attention, mlp, after)]
    error = (terms[0] + terms[1] + terms[2] - terms[3]).abs()
    return bool((error <= 2 * eps * sum(t.abs() for t in terms)).all())
