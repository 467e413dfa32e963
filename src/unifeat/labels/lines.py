"""Labels and tokens on one line."""

from __future__ import annotations

import re

MARK = "auto: "  # what automatic labels begin with
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def one_line(text: str) -> str:
    """The text with one blank for line breaks, other control characters, and runs of blanks."""
    return " ".join(_CONTROL.sub(" ", text).split())
