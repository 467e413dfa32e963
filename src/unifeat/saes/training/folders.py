"""Folders that several processes create, read and remove at the same time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from unifeat.progress import say
from unifeat.store.machine import error_number

_TRIES = 5


def written_again_if_gone(path: Path, write: Callable[[], None]) -> None:
    """Write into a folder that another process may remove at the same time; if it did, write again.

    If it is removed every time, nothing is written: the content can be made again.

    Raises:
        UserError: an error of the machine.
    """
    for _ in range(_TRIES):
        try:
            write()
            return
        except Exception as error:
            if error_number(error) != errno.ENOENT:
                raise
    say(f"warning: {path} is not kept: another process removes what is written there")


def names_in(folder: Path, pattern: str) -> list[Path]:
    """The entries of a folder in order of names, without unfinished ones, whose names begin with a dot."""
    try:
        return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
    except OSError:  # the folder is gone, or belongs to another user
        return []
