"""Where finished pieces live, how they are named, and how they come to be: whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unifeat.errors import UserError


def cache_root() -> Path:
    """The user's cache: `$UNIFEAT_CACHE`, else `$XDG_CACHE_HOME/unifeat`, else `~/.cache/unifeat`."""
    named = os.environ.get("UNIFEAT_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "unifeat"


def key_of(settings: Any) -> str:
    """A short name (16 hex digits) for everything that determines a piece of work; `settings` is JSON data."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_stamp(path: Path) -> list[Any]:
    """What tells a changed file from the same one without reading it: path, size, time of last change."""
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; remembered in the cache by size and time of change, since models are large."""
    memo = cache_root() / "digests" / key_of(file_stamp(path))
    if memo.exists():
        return memo.read_text()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    write_text(memo, digest.hexdigest())
    return digest.hexdigest()


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, otherwise removed.

    A kill leaves at most a `.partial-*` file, never a half-written one under the final name.
    Works for a file or a folder.

    Raises:
        UserError: when the disk is full.
    """
    # Two threads may come to the same piece at the same time, and then write the same.
    worker = "" if threading.current_thread() is threading.main_thread() else f"{threading.get_ident()}-"
    aside = path.with_name(f".partial-{os.getpid()}-{worker}{path.name}")
    with _removed_on_error(aside, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(aside)
        yield aside
        if aside.is_file():
            with aside.open("rb") as file:
                os.fsync(file.fileno())
        if path.is_dir() and aside.is_dir():
            # The old folder leaves whole, in one step: a kill between the two steps loses neither.
            old = aside.with_name(f"{aside.name}-old")
            remove(old)
            os.replace(path, old)
            os.replace(aside, path)
            remove(old)
        else:
            os.replace(aside, path)


@contextmanager
def written_together(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success all its files take their places in `folder`, on an error none does.

    Whatever else `folder` holds stays.

    Raises:
        UserError: when the disk is full.
    """
    new = not folder.exists()
    aside = folder / f".partial-{os.getpid()}"
    try:
        with _removed_on_error(aside, folder):
            remove(aside)
            aside.mkdir(parents=True)
            yield aside
            for path in sorted(aside.iterdir()):
                os.replace(path, folder / path.name)
            aside.rmdir()
    except BaseException:
        if new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise


@contextmanager
def _removed_on_error(aside: Path, path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        remove(aside)
        if is_disk_full(error):
            raise UserError(
                f"disk full while writing {path}: free some space and run the same command again, "
                "it carries on where it stopped"
            ) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that there is no space left, or no quota."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno in codes:
        return True
    # Libraries that write by themselves, safetensors among them, raise exceptions of their own.
    return isinstance(error, Exception) and any(f"(os error {code})" in str(error) for code in codes)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
