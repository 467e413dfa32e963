"""Writing files whole or not at all: under a unique temporary name first, then flushed and renamed."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.store.machine import machine_error

ASIDE = ".partial-"
DAMAGED = ".damaged-"
FINISHED = ".finished-"
_TRIES = 5
# The umask can only be read by setting it, so it is read once, at import, before there are threads.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def aside_name(path: Path, prefix: str = ASIDE) -> Path:
    """A name beside `path` that no other process uses, on any host. (Process ids repeat between containers.)"""
    # A name has at most 255 bytes, so a long final name is shortened to make room for the prefix.
    return path.with_name(f"{prefix}{secrets.token_hex(8)}-{path.name[-200:]}")


@contextmanager
def written_aside(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, otherwise removed.

    A killed process leaves at most a `.partial-*` file, never a half-written one under the final name. Everything is
    flushed to the disk before the rename, so that a power cut leaves no empty file. Works for a file or a folder.

    Args:
        replace: whether to replace a file that is already at `path`; folders are never replaced. If false, what another
            process put there first stays and this one is dropped: for pieces, which are the same whichever process made
            them.

    Raises:
        UserError: an error of the machine: no space, no permission, a file where a folder should be …
    """
    aside = aside_name(path)
    try:
        make_folder(path.parent)
        yield aside
        _settle(aside)
        _put(aside, path, replace=replace)
        flush(path.parent)
    except BaseException as error:
        with suppress(OSError):  # the same fault may stop this too; the first error is the one to report
            remove(aside)
        user_error = machine_error(error, f"writing {path}")
        if user_error is not None:
            raise user_error from error
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they do not exist, even while other processes remove them.

    Raises:
        OSError: a file is in the way, no permission …
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return
        except FileExistsError:  # also raised for a folder that was there for `mkdir` and is gone since
            if any(os.path.lexists(path) and not path.is_dir() for path in (folder, *folder.parents)):
                raise


def _put(aside: Path, path: Path, *, replace: bool) -> None:
    if aside.is_dir():
        if replace and path.exists():
            raise ValueError(f"{path}: a folder cannot be replaced in one step")
        try:
            os.replace(aside, path)  # fails if the folder is there and not empty: the first one in place wins
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove(aside)
        return
    if not replace and path.exists():
        remove(aside)
        return
    os.replace(aside, path)


def _settle(aside: Path) -> None:
    """Flush what was written, with the permissions of the user's umask (safetensors writes for the owner only)."""
    if aside.is_dir():
        for entry in sorted(aside.rglob("*")):
            if entry.is_file() and not entry.is_symlink():
                _settle(entry)
        for folder in [*(entry for entry in aside.rglob("*") if entry.is_dir()), aside]:
            flush(folder)
    elif aside.exists():
        os.chmod(aside, 0o666 & ~_UMASK)
        flush(aside)


def flush(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some file systems cannot flush folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_new_text(path: Path, text: str, what: str) -> Path:
    """Write a text file whole, where there is none, or one with the same text.

    Args:
        what: what the path is, for messages: "--out".

    Raises:
        UserError: another file is there; an error of the machine.
    """
    if path.exists():
        if path.read_bytes() == text.encode():
            return path
        raise UserError(f"{what} {path} exists: name another file")
    write_text(path, text)
    return path


def write_json(path: Path, data: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def take_away(path: Path, prefix: str = ASIDE, *, what: str = "") -> bool:
    """Remove a file or folder in one step, so that other processes see either all of it or nothing.

    Args:
        prefix: of the name that it has until it is gone.
        what: what to call it in a message; "removing PATH" if left out.

    Returns:
        Whether it was there. False if another process removed it first.

    Raises:
        UserError: an error of the machine: no permission …
    """
    away = aside_name(path, prefix)
    try:
        os.replace(path, away)
        remove(away)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise machine_error(error, what or f"removing {path}") or error from error
    return True


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    for attempt in range(_TRIES):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            return
        except FileNotFoundError:  # another process removed it first
            continue
        except OSError as error:
            # A process that was writing into it may have added another file.
            if attempt == _TRIES - 1 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            time.sleep(0.01)
