"""Copies of positions behind a window, so that one forward pass holds many changes of single positions.

What a causal model computes at position t depends on positions up to t alone. So a change of the value at t, everything
before it as it was, needs one more token and not one more window: a copy of t that attends to the positions before t
and to itself. Copies stand behind the window and see neither each other nor what they are copies of; the window sees
no copy. The attention mask is that of a tree, as where a large model verifies many guesses of a small one in a single
pass (Miao et al. 2024, "SpecInfer", ASPLOS, arXiv 2305.09781: tree attention).

Copies begin at a block in the middle, since up to there they are what they copy. All that a block is given by position
is copied with them: positions and rotary embeddings as they are, and each block's own mask, whatever window it slides,
turned into the tree's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def copying(
    blocks: nn.ModuleList, start: int, length: int, copied: Tensor, edit: AbstractContextManager[None], wanted: Tensor
) -> Iterator[None]:
    """Inside this context, blocks from `start` on also run copies of some positions, and then only `wanted` ones go on.

    A pass has to be given an attention mask of 0 and 1 with at least one 0, so that blocks are given masks of two
    positions each. (Without padding, transformers leaves the mask out.)

    Args:
        blocks: those of the decoder.
        start: the first block that runs copies.
        length: positions that the pass has, padding included.
        copied: (windows, copies) int64, the position that each copy is one of. In the blocks, positions `length` … are
            the copies.
        edit: a context in which values of copies are changed, as by `splicing`.
        wanted: (n,) int64, window × (length + copies) + position of those that go on to the final norm and the head.
            Behind the blocks they are the first n of all rows; others, which only fill the shape, follow.
    """
    behind = _Behind(length, copied)

    def keep(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (keep(_, __, output[0]), *output[1:])
        rows = output.reshape(-1, output.shape[-1])[wanted.to(output.device)]
        # GPT-2 gives its last values the shape of its input again: so many positions to a row, however many rows.
        return nn.functional.pad(rows, (0, 0, 0, -len(rows) % length)).reshape(-1, length, rows.shape[-1])

    handles = [block.register_forward_pre_hook(behind.with_copies, with_kwargs=True) for block in list(blocks)[start:]]
    try:
        with edit:  # its hooks come between those that make copies and the one that keeps what is wanted
            handles.append(blocks[-1].register_forward_hook(keep))
            yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Behind:
    """Puts copies behind the positions of whatever a block is given."""

    length: int
    copied: Tensor
    # Blocks are given the same masks and embeddings: each is made once a pass. The tensors are kept beside what is made
    # of them, so that no other can come to have their identity.
    made: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def with_copies(self, _: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """A block's arguments, with the copies."""
        return tuple(self._of(value) for value in args), {name: self._of(value) for name, value in kwargs.items()}

    def _of(self, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._of(inner) for inner in value)
        if not isinstance(value, Tensor) or not self._by_position(value):
            return value
        if id(value) not in self.made:
            make = self._mask if value.dim() == 4 else self._rows
            self.made[id(value)] = value, make(value)
        return self.made[id(value)][1]

    def _by_position(self, value: Tensor) -> bool:
        if value.shape[0] not in (1, len(self.copied)):
            return False
        if value.dim() == 4:
            return tuple(value.shape[2:]) == (self.length, self.length)
        return value.dim() in (2, 3) and value.shape[1] == self.length

    def _rows(self, value: Tensor) -> Tensor:
        """(windows or 1, length, …) with the copies' rows behind: (windows, length + copies, …)."""
        windows, sources = self._sources(value)
        return value[windows, sources]

    def _mask(self, mask: Tensor) -> Tensor:
        """(windows or 1, heads or 1, length, length) as the tree's mask: (windows, heads or 1, all, all)."""
        windows, sources = self._sources(mask)
        total = sources.shape[1]
        hidden = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        tree = mask.new_full((len(sources), mask.shape[1], total, total), hidden)
        tree[..., : self.length] = mask[windows, :, sources].transpose(1, 2)
        window = torch.arange(len(sources), device=mask.device)[:, None]
        copy = torch.arange(self.length, total, device=mask.device)[None, :]
        of = sources[:, self.length :]
        tree[window, :, copy, copy] = tree[window, :, copy, of]
        tree[window, :, copy, of] = hidden
        return tree

    def _sources(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Where each row comes from: the window, (windows, 1), and the position, (windows, all)."""
        copied = self.copied.to(value.device)  # blocks may be on several devices
        own = torch.arange(self.length, device=value.device).expand(len(copied), -1)
        window = torch.arange(len(copied), device=value.device)[:, None]
        return window if value.shape[0] > 1 else torch.zeros_like(window), torch.cat([own, copied], dim=1)
