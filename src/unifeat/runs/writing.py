"""Writing a finished run: all its files in one step, and never over files that are not a run's.

The files are written into a temporary folder. Renaming that folder to `.finished-…` makes the run final; then its files
are moved up one by one. If the process is killed in between, the rest is moved when the folder is next opened or used.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unifeat.errors import UserError
from unifeat.store.digests import read_sha256
from unifeat.store.machine import machine_error
from unifeat.store.paths import new_folder
from unifeat.store.writing import ASIDE, FINISHED, aside_name, flush, remove

STUDY, INFO, REPORT = "study.yaml", "run.json", "report.html"
TABLES = (
    *("pairs", "scores", "members", "rates", "families", "family_sets", "sharedness", "labels"),
    *("transfer", "transfer_pairs", "steering", "effects", "examples", "shown"),
)
RUN_FILES = (STUDY, INFO, REPORT, *(f"{name}.parquet" for name in TABLES))
_OLD_S = 24 * 3600.0


def check_free(folder: Path) -> None:
    """Check before hours of work that a run can be written to a folder.

    Raises:
        UserError: a file is in the way, the folder cannot be written, or it holds files under a run's names that are
            not a run's: a study that somebody wrote, or a resolved one that somebody changed.
    """
    new_folder(folder, "--out")
    complete(folder)
    files = _files_of_run(folder)
    for name in RUN_FILES:
        path = folder / name
        if not path.exists():
            continue
        if name == STUDY and not _is_own_study(path, (files or {}).get(STUDY)):
            raise UserError(
                f"the run would overwrite {path}, which is not as unifeat wrote it: name another folder with --out"
            )
        if name != STUDY and files is None:
            raise UserError(f"the run would overwrite {path}, which is no run's: name another folder with --out")


def _files_of_run(folder: Path) -> dict[str, str] | None:
    """The digests in a folder's `run.json` of the files beside it; None if it is not a run's."""
    path = folder / INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(info, dict) or "unifeat" not in info["versions"]:
            return None
        return dict(info.get("files", {}))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        # A run's own, and damaged: beside the tables of a run it may be made again.
        return {} if (folder / "pairs.parquet").exists() and (folder / "scores.parquet").exists() else None


def _is_own_study(path: Path, digest: str | None) -> bool:
    """Whether a `study.yaml` is unchanged since unifeat wrote it: by its digest or, in older runs, by its content."""
    if digest is not None:
        return read_sha256(path) == digest
    from unifeat.study.read import dump_study, load_study

    try:
        return path.read_text(encoding="utf-8") == dump_study(load_study(path))
    except (UserError, OSError, UnicodeDecodeError):
        return False


@contextmanager
def run_written(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success all its files are moved into `folder`, on an error none is.

    Other files in `folder` stay.

    Raises:
        UserError: an error of the machine: no space, no permission …
    """
    new = not folder.exists()
    aside = aside_name(folder / "run")
    try:
        aside.mkdir(parents=True)
        yield aside
        for path in aside.iterdir():
            flush(path)
        flush(aside)
        os.replace(aside, folder / f"{FINISHED}{aside.name.removeprefix(ASIDE)}")
        complete(folder)
    except BaseException as error:
        with suppress(OSError):  # the original error is reported below
            remove(aside)
            if new and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        told = machine_error(error, f"writing {folder}")
        if told is not None:
            raise told from error
        raise


def complete(folder: Path) -> None:
    """Finish moving the files of runs that were killed while finishing, and remove old unfinished ones.

    Raises:
        UserError: there are such files, and the folder cannot be written.
    """
    if not folder.is_dir():
        return
    try:
        for finished in sorted(folder.glob(f"{FINISHED}*"), key=lambda path: path.stat().st_mtime_ns):
            # `run.json` goes last: it says which files belong to it.
            for path in sorted(finished.iterdir(), key=lambda path: path.name == INFO):
                try:
                    os.replace(path, folder / path.name)
                except FileNotFoundError:  # another process moved it first
                    continue
            flush(folder)
            remove(finished)
        for left in folder.glob(f"{ASIDE}*"):
            if time.time() - left.stat().st_mtime > _OLD_S:
                remove(left)
    except FileNotFoundError:
        return
    except OSError as error:
        told = machine_error(error, f"{folder} holds a finished run whose files are not in their places yet")
        raise told or error from error
