"""How text is cut into windows and which positions of them give rows: what travels together through every reading."""

from __future__ import annotations

from dataclasses import dataclass

from unifeat.vocabulary.masks import DEFAULT_MASK, Mask
from unifeat.vocabulary.openings import Opening


@dataclass(frozen=True)
class Windowing:
    """The windows of one model over one text.

    Attributes:
        context: length of a window in tokens, its opening included.
        opening: what begins every window: a token, a chat template's tokens, or None.
        mask: which positions give no rows. An opening gives rows only where special tokens are not masked, and there
            only at the beginning of a document: anywhere else it has no place of its own in the text.
        limit: at most so many windows of each document, from its start; None is all of them.
    """

    context: int
    opening: Opening = None
    mask: Mask = DEFAULT_MASK
    limit: int | None = None
