"""Folders that several processes make, read and remove at the same time."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from unifeat.progress import say
from unifeat.store.machine import error_number, machine_error
from unifeat.store.writing import aside_name, remove

_TRIES = 5


def take_away(path: Path) -> None:
    """Remove a file or folder in one step: another process finds all of it there, or nothing.

    Raises:
        UserError: an error of the machine.
    """
    away = aside_name(path)
    try:
        os.replace(path, away)
    except FileNotFoundError:
        return  # another process did
    except OSError as error:
        raise machine_error(error, f"removing {path}") or error from error
    for _ in range(_TRIES):
        try:
            remove(away)
            return
        except OSError as error:
            # Whoever was writing into it under its old name may have put one more file there.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise machine_error(error, f"removing {path}") or error from error
            time.sleep(0.01)


def written_again_if_gone(path: Path, write: Callable[[], None]) -> None:
    """Write into a folder that another process may take away meanwhile; once more, if it did.

    If it does so every time, nothing is written: what lies there can be made again.

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
    say(f"warning: {path} is left out: another process takes away what is written there")


def names_in(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder, in order of names; what a kill or another process left half-way is no part of it."""
    try:
        return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
    except OSError:  # it is gone, or another user's
        return []
