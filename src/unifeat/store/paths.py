"""Paths that a user wrote: checked before anything is asked of the file system."""

from __future__ import annotations

import os
from pathlib import Path

from unifeat.errors import UserError
from unifeat.store.machine import machine_error
from unifeat.store.writing import aside_name

_LONGEST_NAME = 255  # bytes, on every file system in use


def user_path(text: str | Path, what: str) -> Path:
    """A path as the user wrote it, with `~` replaced.

    Args:
        what: what it is, for the message: "text.source", "--out".

    Raises:
        UserError: it cannot be a path: a NUL byte, half a character, a part longer than a file name may be, or a `~`
            that stands for no home.
    """
    given = str(text)
    short = given if len(given) <= 60 else f"{given[:40]}…{given[-15:]}"
    if "\0" in given:
        raise UserError(f"{what} {short.replace(chr(0), chr(0x2400))!r}: a path cannot hold a NUL byte")
    try:
        parts = [os.fsencode(part) for part in Path(given).parts]
    except UnicodeEncodeError:
        raise UserError(f"{what} {short!a}: a path cannot hold half a character (a lone surrogate)") from None
    if max(map(len, parts), default=0) > _LONGEST_NAME or len(os.fsencode(given)) >= 4096:
        raise UserError(f"{what} {short}: the name is longer than a file name may be")
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise UserError(f"{what} {short}: {Path(given).parts[0]} stands for no home here") from None


def exists(path: Path) -> bool:
    """Whether something is there. A loop of links, or a folder that may not be searched, has nothing there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def new_folder(text: str | Path, what: str) -> Path:
    """A folder that a user names for results, there or not yet, found to be one that can be written.

    Args:
        what: as for `user_path`.

    Raises:
        UserError: it cannot be a path, a file or a broken link is in its way, or nothing can be written there.
    """
    folder = user_path(text, what)
    other = f"name another folder{f' with {what}' if what.startswith('--') else ''}"
    there = folder
    while not exists(there) and there != there.parent:
        if there.is_symlink():
            raise UserError(f"{what} {folder}: {there} is a link that leads nowhere; {other}")
        there = there.parent
    if not there.is_dir():
        raise UserError(f"{what} {folder}: {there} is a file; {other}")
    trial = aside_name(there / "trial")
    try:  # (whether one may write can be known in no other way: not of /proc, nor of a full disk)
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        told = machine_error(error, f"{what} {folder}")
        raise told or UserError(f"{what} {folder}: nothing can be written there; {other}") from error
    return folder
