"""Folders that several processes create, read and remove at the same time."""

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
    """Remove a file or folder in one step, so that other processes see either all of it or nothing.

    Raises:
        UserError: an error of the machine.
    """
    away = aside_name(path)
    try:
        os.replace(path, away)
    except FileNotFoundError:
        return  # another process did it first
    except OSError as error:
        raise machine_error(error, f"removing {path}") or error from error
    for _ in range(_TRIES):
        try:
            remove(away)
            return
        except OSError as error:
            # A process that was writing into it under its old name may have added another file.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise machine_error(error, f"removing {path}") or error from error
            time.sleep(0.01)


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
