"""A forward pass that begins in the middle of a model.

When the same text runs through a model many times, each time with another value at one hook point, the blocks before it
compute the same again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unifeat.models.heads import head_at, head_of
from unifeat.models.hooks import capturing
from unifeat.models.language import LanguageModel
from unifeat.vocabulary.hook_points import HookPoint

# What a block returns after the stream; None for one that returns the stream alone.
Beside = tuple[Any, ...] | None


class _Passed(nn.Module):
    """Stands for a block that is not run: gives its input, or a stored value, and what else the block gave."""

    def __init__(self, block: nn.Module, value: Tensor | None, beside: Beside) -> None:
        super().__init__()
        self._block = [block]  # (a list, so that it is no submodule)
        self._value, self._beside = value, beside

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattribute__("_block")[0], name)  # such as a block's kind of attention

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        value = given if self._value is None else self._value
        return value if self._beside is None else (value, *self._beside)


@contextmanager
def resumed(blocks: nn.ModuleList, layer: int, stream: Tensor, beside: list[Beside]) -> Iterator[None]:
    """Inside this context, the model begins at block `layer` with the stream (batch, positions, width) that enters it.

    Args:
        beside: of each block before it.
    """
    own = list(blocks[:layer])
    try:
        for index, block in enumerate(own):
            blocks[index] = _Passed(block, stream if index == layer - 1 else None, beside[index])
        yield
    finally:
        for index, block in enumerate(own):
            blocks[index] = block


class Again:
    """One batch of text, run through a whole model again and again with other values at one hook point.

    Blocks before the point's are not run again, unless the model then gives other logits (an architecture in which
    something else passes from block to block).
    """

    @torch.inference_mode()
    def __init__(self, model: LanguageModel, ids: Tensor, point: HookPoint, chosen: Tensor) -> None:
        """Run the model once, unchanged.

        Args:
            model: loaded with `whole=True`.
            ids: (batch, positions) int64, padded on the right with any token.
            point: where values will be replaced.
            chosen: (batch, positions) bool, the positions whose logits are wanted.

        Raises:
            ValueError, UserError: as `head_of` does.
        """
        head_of(model)
        self._model, self._ids, self._layer = model, ids.to(model.device), point.layer
        self._places = torch.nonzero(chosen.flatten())[:, 0]
        self._stream: Tensor | None = None
        self._beside: list[Beside] = []
        entry = HookPoint(point.layer, "resid_pre")
        with ExitStack() as stack:
            seen = stack.enter_context(capturing(model.blocks, [entry] if point.layer else []))
            for block in model.blocks[: point.layer]:
                stack.callback(block.register_forward_hook(self._keep_beside).remove)
            self.clean = self.logits()
        if point.layer:
            self._stream = seen[entry].reshape(*ids.shape, -1)
            if not self._agrees():
                self._stream, self._beside = None, []

    def _keep_beside(self, _: nn.Module, __: Any, output: Any) -> None:
        self._beside.append(tuple(output[1:]) if isinstance(output, tuple) else None)

    def _agrees(self) -> bool:
        try:
            return torch.allclose(self.logits(), self.clean, rtol=1e-2, atol=1e-2)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception:  # of any type, where a model asks more of its blocks than that they pass on the stream
            return False

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """Logits at the chosen positions, (chosen, vocabulary), under the hooks that are registered now."""
        with ExitStack() as stack:
            stack.enter_context(head_at(self._model, self._places))
            if self._stream is not None:
                stack.enter_context(resumed(self._model.blocks, self._layer, self._stream, self._beside))
            found: Tensor = self._model.causal(input_ids=self._ids, use_cache=False).logits
        return found[0]
