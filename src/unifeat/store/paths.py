"""Paths written by a user, checked before they reach the file system."""

from __future__ import annotations

import os
from pathlib import Path

from unifeat.errors import UserError
from unifeat.store.machine import machine_error
from unifeat.store.writing import aside_name

_LONGEST_NAME = 255  # bytes; the limit of the usual file systems


def user_path(text: str | Path, what: str) -> Path:
    """A path as the user wrote it, with `~` replaced.

    Args:
        what: what the path is, for the message: "text.source", "--out".

    Raises:
        UserError: not a possible path: a NUL byte, a lone surrogate, a part too long for a file name, or a `~` that
            names no home directory.
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
        raise UserError(f"{what} {short}: {Path(given).parts[0]} has no home directory on this machine") from None


def exists(path: Path) -> bool:
    """Whether the path exists. False too for a loop of links, and inside a folder that may not be searched."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def new_folder(text: str | Path, what: str) -> Path:
    """Check that a folder a user names for results can be written; it need not exist yet.

    Args:
        what: as for `user_path`.

    Raises:
        UserError: not a possible path, a file or a broken link is in the way, or nothing can be written there.
    """
    folder = user_path(text, what)
    other = f"name another folder{f' with {what}' if what.startswith('--') else ''}"
    nearest = folder
    while not exists(nearest) and nearest != nearest.parent:
        if nearest.is_symlink():
            raise UserError(f"{what} {folder}: {nearest} is a link that leads nowhere; {other}")
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{what} {folder}: {nearest} is a file; {other}")
    trial = aside_name(nearest / "trial")
    try:  # permission bits are not enough: /proc and full disks look writable
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        user_error = machine_error(error, f"{what} {folder}")
        raise user_error or UserError(f"{what} {folder}: nothing can be written there; {other}") from error
    return folder
