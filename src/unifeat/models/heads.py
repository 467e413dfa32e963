"""A model's head at some positions only: with a large vocabulary, it costs more than the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.language import LanguageModel


def head_of(model: LanguageModel) -> Any:
    """The unembedding of a model that was loaded with `whole=True`.

    Raises:
        ValueError: a model that was loaded without its head.
        UserError: a model that has none.
    """
    if model.causal is None:
        raise ValueError("the model was loaded without its head: load_language_model(..., whole=True)")
    head = model.causal.get_output_embeddings()
    if head is None:
        raise UserError(f"model {model.name} has no unembedding, so its features do nothing to a next token")
    return head


@contextmanager
def head_at(model: LanguageModel, places: Tensor) -> Iterator[None]:
    """Inside this context, the head runs at some positions alone; its output is (1, places, vocabulary).

    Args:
        places: (places,) int64, numbers among all positions of all rows.

    Raises:
        ValueError, UserError: as `head_of` does.
    """

    def chosen(_: Any, args: Any) -> Any:
        x = args[0]
        return (x.reshape(-1, x.shape[-1])[places.to(x.device)][None], *args[1:])

    handle = head_of(model).register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()
