"""How files come to be: written aside under a name that nobody else has, flushed, renamed; whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unifeat.store.machine import machine_error

ASIDE = ".partial-"
DAMAGED = ".damaged-"
FINISHED = ".finished-"
# The mask can only be read by setting it, so it is read once, before there are threads.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def aside_name(path: Path, prefix: str = ASIDE) -> Path:
    """A name beside `path` that no process on any host has: process ids repeat between containers."""
    # (A name may be no longer than 255 bytes, and this one is longer than the final one.)
    return path.with_name(f"{prefix}{secrets.token_hex(8)}-{path.name[-200:]}")


@contextmanager
def written_aside(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, otherwise removed.

    A kill leaves at most a `.partial-*` file, never a half-written one under the final name, and a power cut no empty
    one: everything is flushed to the disk before it is renamed. Works for a file or a folder.

    Args:
        replace: put a file in the place of what is there; a folder never takes another's. False: what another process
            put there first stays, and this is dropped; for pieces, which are alike whoever made them.

    Raises:
        UserError: an error of the machine: no space, no permission, a file where a folder should be …
    """
    aside = aside_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        _settle(aside)
        _put(aside, path, replace=replace)
        flush(path.parent)
    except BaseException as error:
        with suppress(OSError):  # what hinders writing may hinder this too, and must not be told in its place
            remove(aside)
        told = machine_error(error, f"writing {path}")
        if told is not None:
            raise told from error
        raise


def _put(aside: Path, path: Path, *, replace: bool) -> None:
    if aside.is_dir():
        if replace and path.exists():
            raise ValueError(f"{path}: no folder takes another's place in one step")
        try:
            os.replace(aside, path)  # onto a folder that holds anything this fails: the first one in place wins
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
    """Flush what was written, readable for whom the user's mask lets read (safetensors writes for the owner alone)."""
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
    """Have the disk hold what the system holds of a file or folder."""
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


def write_json(path: Path, data: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    for last in (False, False, True):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            return
        except FileNotFoundError:  # another process removes it too
            continue
        except OSError as error:
            if last or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process writes in it
                raise
