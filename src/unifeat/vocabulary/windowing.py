"""How text is cut into windows, and which of their positions give rows of codes."""

from __future__ import annotations

from dataclasses import dataclass

from unifeat.vocabulary.masks import DEFAULT_MASK, Mask
from unifeat.vocabulary.openings import Opening


@dataclass(frozen=True)
class Windowing:
    """The windows of one model over one text.

    Attributes:
        context: length of a window in tokens, including its opening.
        opening: what every window begins with: a token, a chat template's tokens, or None.
        mask: which positions give no rows. An opening gives rows only where special tokens are not masked, and then
            only at the beginning of a document: elsewhere it has no place of its own in the text.
        limit: at most this many windows of each document, from its start; None for all of them.
    """

    context: int
    opening: Opening = None
    mask: Mask = DEFAULT_MASK
    limit: int | None = None
