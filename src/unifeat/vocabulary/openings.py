"""Openings: what every window of text begins with. Nothing, one token, or the tokens of a chat template."""

from __future__ import annotations

from typing import Literal, get_args

Chat = Literal["none", "user", "assistant", "system"]
CHATS: tuple[Chat, ...] = get_args(Chat)
Opening = int | tuple[int, ...] | None
"""One token, several tokens, or None."""


def opening_tokens(opening: Opening) -> list[int]:
    """The tokens of an opening, in order."""
    if opening is None:
        return []
    return [opening] if isinstance(opening, int) else list(opening)
