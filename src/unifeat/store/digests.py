"""SHA-256 of large files, kept in the cache so that each file is read once."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.store.cache import cache_root
from unifeat.store.keys import key_of
from unifeat.store.machine import machine_error
from unifeat.store.writing import write_text

_SETTLED_S = 2.0  # a file changed more recently could change again without a new time stamp


def file_stamp(path: Path) -> list[Any]:
    """What identifies a file's state without reading it.

    Path, size and modification time, and two things that programs cannot set: the inode and the time of its last
    change (ctime).
    """
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, kept in the cache under its `file_stamp`, since models are large.

    Raises:
        UserError: the file cannot be read.
    """
    stamp = file_stamp(path)
    memo = cache_root() / "digests" / key_of(stamp)
    try:
        known, _, checksum = memo.read_text(encoding="ascii").partition(" ")
        if checksum == key_of([stamp, known]):
            return known
    except (OSError, UnicodeDecodeError):
        pass
    digest = read_sha256(path)
    # Kept only if the file did not change while it was read, and its last change is old enough that another one would
    # show in its time stamps.
    if file_stamp(path) == stamp and time.time() - stamp[3] / 1e9 > _SETTLED_S:
        with suppress(UserError):  # a read-only cache is fine: the digest is computed again next time
            write_text(memo, f"{digest} {key_of([stamp, digest])}")
    return digest


def read_sha256(path: Path) -> str:
    """SHA-256 of a file, always read from the disk.

    Raises:
        UserError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        user_error = machine_error(error, path)
        if user_error is None:
            raise
        raise user_error from error
    return digest.hexdigest()
