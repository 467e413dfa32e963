"""Errors of the machine (no space, no permission, too many open files …), as one line that says what to do."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from unifeat.errors import UserError

_ADVICE = {
    errno.ENOSPC: "disk full: free some space and run the same command again; it continues where it stopped",
    errno.EDQUOT: "disk full: free some space in your quota and run the same command again; it continues from there",
    errno.EFBIG: "the file would exceed the size limit: raise it (ulimit -f) and run the same command again",
    errno.EROFS: "the file system is read-only: name another folder, or set UNIFEAT_CACHE to one that can be written",
    errno.EACCES: "permission denied: name another folder, or ask its owner",
    errno.EPERM: "not permitted: name another folder, or ask its owner",
    errno.ENOTDIR: "a file is where a folder should be: move it, or name another folder",
    errno.EISDIR: "a folder is where a file should be: move it, or name another place",
    errno.EEXIST: "a file is where a folder should be: move it, or name another folder",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n) and run the same command again",
    errno.ENFILE: "too many open files on this machine: run the same command again later",
    errno.ENAMETOOLONG: "the name is longer than a file name may be: choose a shorter one",
    errno.ELOOP: "its links form a loop",
    errno.EIO: "the disk cannot read or write it (input/output error): check the disk",
    errno.ESTALE: "the network file system lost it (stale handle): run the same command again",
    errno.ENXIO: "there is no such device",
    errno.ENODEV: "there is no such device",
    errno.ETXTBSY: "the file is in use",
    errno.EBUSY: "the file or folder is in use",
    errno.ENOMEM: "out of memory",
}
_NUMBER = re.compile(r"(?:os error|[Ee]rrno) (\d+)")


def error_number(error: BaseException) -> int | None:
    """The operating system's number of an error, even where a library hides it in its own exception.

    safetensors writes "(os error 28)", Arrow "[errno 28]".
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(str(error)) if isinstance(error, Exception) and not isinstance(error, UserError) else None
    return int(found[1]) if found else None


def machine_error(error: BaseException, what: str | Path = "") -> UserError | None:
    """One line for an error of the machine; None for every other exception.

    Args:
        what: what was being done, such as "writing FILE". If left out, the file that the error names.
    """
    advice = _ADVICE.get(error_number(error) or 0)
    if advice is None:
        return None
    named = getattr(error, "filename", None)
    subject = str(what) or (str(named) if named else "")
    if what and named and ".partial-" not in str(named) and str(named) not in subject:
        subject = f"{subject} ({named})"
    if advice.startswith("disk full"):
        head, _, rest = advice.partition(": ")
        return UserError(f"{head} while {subject}: {rest}" if what else f"{advice}")
    return UserError(f"{subject}: {advice}" if subject else advice)


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that there is no space left, or no quota."""
    return error_number(error) in (errno.ENOSPC, errno.EDQUOT)
