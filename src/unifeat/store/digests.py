"""SHA-256 of large files, remembered."""

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

_SETTLED_S = 2.0  # a file changed so lately may change again within one tick of the clock that its times are read off


def file_stamp(path: Path) -> list[Any]:
    """What tells a changed file from the same one without reading it.

    Path, size, time of last change, and what no program can set: the number of the file on its disk, and the time at
    which anything of it last changed, its times included.
    """
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; remembered in the cache by `file_stamp`, since models are large.

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
    # Remembered only if it was the same file throughout, and long enough ago that a change would show in its times.
    if file_stamp(path) == stamp and time.time() - stamp[3] / 1e9 > _SETTLED_S:
        with suppress(UserError):  # a cache that cannot be written serves to read
            write_text(memo, f"{digest} {key_of([stamp, digest])}")
    return digest


def read_sha256(path: Path) -> str:
    """SHA-256 of a file as it is now.

    Raises:
        UserError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        told = machine_error(error, path)
        if told is None:
            raise
        raise told from error
    return digest.hexdigest()
