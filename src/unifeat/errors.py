"""The exception for mistakes that the user can correct."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the user can correct: one clear line that names the thing and the way out.

    The command line prints it on stderr and exits with code 2; Python callers catch it like any exception.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the nearest of the known names, or an empty string."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
