"""Direct effects: what a direction of the residual stream does to the logits without the layers between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unifeat.errors import UserError
from unifeat.models import LanguageModel
from unifeat.models.blocks import find_blocks
from unifeat.transfer.profiles import extremes, pearson, spearman, top_overlap
from unifeat.transfer.strings import Indices

__all__ = ["Readout", "direct_effects", "extremes", "pearson", "readout", "spearman", "top_overlap"]

_PROBE_TOKENS = 8
_ROWS = 64
_BATCH_CELLS = 1 << 25  # effects in a batch: an eighth of a gigabyte in float32


@dataclass(frozen=True)
class Readout:
    """The linear part of a model's final norm and unembedding, for some tokens.

    Attributes:
        gain: (d,) float32, what the final norm multiplies each value by, once the stream has been scaled.
        centred: whether the norm takes off the mean first, as LayerNorm does.
        projection: (d, d_head) float32 between norm and unembedding, or None (OPT-350M has one).
        rows: (n, d_head) float32, the unembedding of each string, less their mean.
    """

    gain: Tensor
    centred: bool
    projection: Tensor | None
    rows: Tensor

    def __call__(self, directions: Tensor) -> Tensor:
        """The direct effects of directions, (k, d) to (k, n) float32; each row's mean is 0."""
        x = directions.to(self.rows.device, torch.float32)
        x = (x - x.mean(dim=-1, keepdim=True) if self.centred else x) * self.gain
        return (x if self.projection is None else x @ self.projection) @ self.rows.T


def readout(model: LanguageModel, to_string: Indices, n: int) -> Readout:
    """A model's readout for shared strings.

    The final norm divides by a token's scale, which differs from token to token but not between strings. So what is
    left of it is linear: its weights and, in a LayerNorm, taking off the mean. (These are the logit weights of Bricken
    et al. 2023, "Towards monosemanticity".) The norm is found by what it does: the head's input is what it makes of the
    last block's output, up to a factor. Profiles are centred over the strings, since a constant on all logits changes
    no probability. A softcap of the logits is left out.

    Args:
        model: loaded with `whole=True`.
        to_string: (vocabulary,) int64, `exact_a` or `exact_b` of `SharedStrings`.
        n: the number of strings.

    Raises:
        UserError: a model without an unembedding, or one that does something else between blocks and head.
        ValueError: not one token for each string.
    """
    tokens = np.flatnonzero(to_string >= 0)
    if len(tokens) != n or len(np.unique(to_string[tokens])) != n:
        raise ValueError(f"give a map of one token for each of {n} strings")
    head = None if model.causal is None else model.causal.get_output_embeddings()
    if head is None:
        raise UserError(f"model {model.name} has no unembedding, so its features have no direct effect on a next token")
    stream, given = _ends(model, head)
    norm, projection = _between(model, stream, given)
    gain, centred = (torch.ones(model.d_model), False) if norm is None else _linear(norm, stream)
    matrix = None if projection is None else _matrix(projection, model.d_model, given)
    rows = _unembedding(head, torch.from_numpy(tokens[np.argsort(to_string[tokens])]), given)
    rows = rows - rows.mean(dim=0, keepdim=True)
    return Readout(gain.to(rows.device), centred, None if matrix is None else matrix.to(rows.device), rows)


def direct_effects(read: Readout, directions: Any) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The direct effects of decoder rows, batch by batch.

    Args:
        read: of the model.
        directions: (features, d) array or tensor, in the residual stream.

    Yields:
        Which rows, and their effects: (rows, n) float32.

    Raises:
        UserError: directions of another width than the residual stream.
    """
    rows = torch.as_tensor(directions)
    if rows.dim() != 2 or rows.shape[1] != len(read.gain):
        raise UserError(
            f"directions of shape {tuple(rows.shape)} are not in the residual stream, which has {len(read.gain)} "
            "values: direct effects are of features that write there"
        )
    step = max(1, _BATCH_CELLS // len(read.rows))
    for start in range(0, len(rows), step):
        own = slice(start, min(start + step, len(rows)))
        yield own, read(rows[own]).cpu().numpy()


@torch.no_grad()
def _ends(model: LanguageModel, head: nn.Module) -> tuple[Tensor, Tensor]:
    """What the last block puts out and what the head is given for a few tokens, (tokens, d) and (tokens, d_head)."""
    seen: dict[str, Tensor] = {}

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen["stream"] = (output[0] if isinstance(output, tuple) else output).detach().clone()

    def keep_input(_: nn.Module, args: Any) -> None:
        seen["given"] = args[0].detach().clone()

    handles = [model.blocks[-1].register_forward_hook(keep), head.register_forward_pre_hook(keep_input)]
    try:
        # Ordinary tokens: special ones may have streams so large that rounding hides the norm's bias.
        vocabulary = int(model.causal.config.get_text_config().vocab_size)
        ids = [i for i in range(vocabulary) if i not in model.special_ids][-_PROBE_TOKENS:]
        model.causal(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(seen[name].reshape(-1, seen[name].shape[-1]) for name in ("stream", "given"))  # type: ignore[return-value]


def _between(model: LanguageModel, stream: Tensor, given: Tensor) -> tuple[nn.Module | None, nn.Module | None]:
    """The final norm, and a projection behind it, that turn the stream into what the head is given, up to a factor."""
    parent, name, _ = find_blocks(model.decoder, model.n_layers)
    beside = [child for label, child in parent.named_children() if label != name]
    norms = [child for child in beside if "norm" in type(child).__name__.lower()]
    projections = [child for child in beside if isinstance(child, nn.Linear)]
    for norm in (*norms, None):
        for projection in (None, *projections):
            try:
                made = stream if norm is None else norm(stream)
                made = made if projection is None else projection(made)
            except RuntimeError:  # it takes another width
                continue
            if made.shape == given.shape and _proportional(made, given):
                return norm, projection
    raise UserError(
        f"model {model.name} ({model.architecture}): its head is not given the norm of its last block's output, so it "
        "has no direct effects; compare full effects instead"
    )


def _proportional(made: Tensor, given: Tensor) -> bool:
    one, other = made.to(given.device, torch.float64), given.to(torch.float64)
    factor = (one * other).sum() / (one * one).sum()
    return bool((other - factor * one).norm() <= 4 * torch.finfo(given.dtype).eps * other.norm())


@torch.no_grad()
def _linear(norm: nn.Module, stream: Tensor) -> tuple[Tensor, bool]:
    """A norm's gain, (d,) float32, and whether it takes off the mean.

    Found from what the norm does, since some multiply by their weights and others (Gemma's) by 1 + the weights.
    """
    of_torch = isinstance(norm, nn.LayerNorm)  # this one takes its weights' dtype alone
    signs = torch.ones(stream.shape[-1], dtype=stream.dtype if of_torch else torch.float32, device=stream.device)
    ones, zeros = signs.clone(), torch.zeros_like(signs)
    signs[1::2] = -1
    plus, minus, flat, nothing = (norm(x).to(torch.float32) for x in (signs, -signs, ones, zeros))
    # Of a constant, a norm that takes off the mean leaves nothing.
    centred = bool((flat - nothing).norm() < 0.5 * (plus - nothing).norm())
    unit = signs.to(torch.float32) - (signs.to(torch.float32).mean() if centred else 0)
    gain = (plus - minus) / 2 / (unit / unit.pow(2).mean().sqrt())  # the bias is gone from the difference
    weight: Any = getattr(norm, "weight", None)
    if of_torch and weight is not None and not weight.is_meta:
        gain = weight.detach().to(torch.float32)  # not rounded together with the bias
    return gain, centred


@torch.no_grad()
def _matrix(linear: nn.Module, width: int, like: Tensor, columns: Tensor | None = None) -> Tensor:
    """The matrix of a linear module, (width, columns) float32, from what it does: its weights may be elsewhere.

    Args:
        width: of its input.
        like: a tensor of its dtype and device.
        columns: which of its outputs; None: all.
    """
    nothing = linear(like.new_zeros((1, width)))
    parts = []
    for start in range(0, width, _ROWS):
        rows = like.new_zeros((min(_ROWS, width - start), width))
        rows[range(len(rows)), range(start, start + len(rows))] = 1
        made = (linear(rows) - nothing).to(torch.float32)
        parts.append(made if columns is None else made[:, columns.to(made.device)])
    return torch.cat(parts)


@torch.no_grad()
def _unembedding(head: nn.Module, tokens: Tensor, given: Tensor) -> Tensor:
    """The head's rows for some tokens, (n, width) float32."""
    weight: Any = getattr(head, "weight", None)
    width = given.shape[-1]
    if isinstance(head, nn.Linear) and not weight.is_meta and weight.is_floating_point() and weight.shape[-1] == width:
        return weight.detach()[tokens.to(weight.device)].to(torch.float32)
    return _matrix(head, width, given, tokens).T.contiguous()
