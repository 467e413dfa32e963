"""A model that a user brings: any function from token ids to activations, with a tokenizer that gives offsets."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.tokens import special_ids
from unifeat.vocabulary.hook_points import HookPoint


def fast_tokenizer(space: str, tokenizer: Any) -> Any:
    """A tokenizer that a user brings, as a fast one of transformers; a `tokenizers.Tokenizer` becomes one.

    Raises:
        UserError: it gives no character offsets.
    """
    from tokenizers import Tokenizer

    if isinstance(tokenizer, Tokenizer):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"space {space}: the tokenizer ({type(tokenizer).__name__}) gives no character offsets: use a fast one of "
            "transformers (AutoTokenizer.from_pretrained), or tokenizers.Tokenizer.from_file of a tokenizer.json"
        )
    return tokenizer


class OwnModel:
    """A function from token ids to activations, as `run_group` reads models."""

    longest_window = None
    vocabulary = None
    dtype = torch.float32

    def __init__(self, call: Callable[[Tensor], Any], tokenizer: Any, name: str = "the model") -> None:
        """Hold a model.

        Args:
            call: from (batch, position) int64 ids, padded on the right with 0, to (batch, position, width) activations:
                a torch tensor, or what NumPy takes. Attention must be causal: padding may not change what is before it.
            tokenizer: a fast tokenizer of transformers, or a `tokenizers.Tokenizer`.

        Raises:
            UserError: a tokenizer that gives no character offsets.
        """
        self.name, self.tokenizer, self.device = name, fast_tokenizer(name, tokenizer), torch.device("cpu")
        self._call = call

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens, which are masked."""
        return special_ids(self.tokenizer)

    @cached_property
    def _width(self) -> int:
        ids = self.tokenizer("a b", add_special_tokens=False)["input_ids"]
        return int(self._read(torch.tensor([ids], dtype=torch.int64)).shape[-1])

    def width(self, point: HookPoint) -> int:
        """Number of values per token."""
        return self._width

    @torch.inference_mode()
    def activations(self, input_ids: Tensor, points: list[HookPoint]) -> dict[HookPoint, Tensor]:
        """The activations, at every point that is asked for: there is one."""
        return dict.fromkeys(points, self._read(input_ids))

    def _read(self, input_ids: Tensor) -> Tensor:
        given = self._call(input_ids)
        try:
            found = given.detach() if isinstance(given, Tensor) else torch.from_numpy(np.asarray(given))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"space {self.name}: the function gave {type(given).__name__}, not activations: return the array "
                "alone, (batch, position, width)"
            ) from error
        found = found.to("cpu", torch.float32)
        if found.ndim != 3 or found.shape[:2] != input_ids.shape:
            raise UserError(
                f"space {self.name}: for ids of shape {tuple(input_ids.shape)} it gave activations of shape "
                f"{tuple(found.shape)}, not (batch, position, width)"
            )
        return found
