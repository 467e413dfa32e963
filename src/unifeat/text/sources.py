"""Sources of documents: local files or a Hugging Face dataset, read one document at a time in a fixed order."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.store import file_stamp
from unifeat.store.machine import machine_error
from unifeat.store.paths import user_path
from unifeat.text.files import is_stream, is_terminal, read_file, text_of, unknown_kind
from unifeat.vocabulary.text_files import LOCAL_SUFFIXES, OFTEN_NOTES, PACKED, SAID

SHIPPED_TEXT = Path(__file__).with_name("alice.txt")  # Carroll 1865, chapters I to III; public domain
_SUBJECT = "text source"
_STANDARD_INPUT = "-"
_PART_OF_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_HUB_NAME = re.compile(rf"(?:{_PART_OF_NAME}/)?{_PART_OF_NAME}")


def find_source(source: str) -> list[Path] | str:
    """The sorted local files that `source` (a path or glob) names, or the dataset's name unchanged.

    `-` is standard input. Names that begin with a dot are skipped in folders, and in globs unless the glob writes the
    dot: they are copies and notes of other programs (`.ipynb_checkpoints/`, `._text.jsonl`). In a folder that holds
    other kinds, .md, .json, .csv and .tsv are skipped: they are notes and facts about them.

    Raises:
        UserError: a path that does not exist, is not valid or cannot be read; a glob without matches; a file of another
            kind; a name that no dataset on the hub can have, or the name of a reader of the datasets library.
    """
    if not source.strip():
        raise UserError("text source: it is empty; give a file, a folder, a glob or a dataset's name")
    path = user_path("/dev/stdin" if source == _STANDARD_INPUT else source, _SUBJECT)
    looks_local = source.lower().endswith(LOCAL_SUFFIXES) or source.startswith((".", "/", "~"))
    mode = _mode(path, source, looks_local)
    if mode is not None and stat.S_ISDIR(mode):
        return _files_below(path, source)
    if mode is not None and is_stream(path):
        if is_terminal(mode):
            raise UserError(f"text source {source} is a terminal or a device: give a file, or pipe a text into it")
        return [path]
    if mode is not None and stat.S_ISREG(mode):
        files = [path]
    elif mode is not None:
        raise UserError(f"text source {source} is neither a file nor a folder: unifeat reads {SAID}")
    elif glob.has_magic(str(path)):
        files = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if _is_file(p, source))
        if not files:
            raise UserError(f"text source {source}: no file matches this pattern")
    elif looks_local:
        raise UserError(f"text source {source}: no such file")
    else:
        return _hub_name(source)
    wrong = [p for p in files if not p.name.lower().endswith(LOCAL_SUFFIXES)]
    if wrong:
        raise unknown_kind(wrong[0])
    return files


def source_stamp(found: list[Path] | str) -> Any:
    """What identifies the source's content without reading it.

    Raises:
        UserError: a file no longer exists or cannot be accessed.
    """
    if isinstance(found, str):
        return found
    stamps = []
    for path in found:
        try:
            stamps.append(file_stamp(path))
        except OSError as error:
            user_error = machine_error(error, path) or UserError(f"text file {path} cannot be read: {error.strerror}")
            raise user_error from error
    return stamps


def read_documents(found: list[Path] | str, field: str, split: str, config: str | None) -> Iterator[str]:
    """Stream the documents of a source found by `find_source`; blank ones are left out.

    Args:
        found: files, or the name of a Hugging Face dataset.
        field: the text field of rows of files and of datasets.
        split: the dataset's split; local files ignore it.
        config: the dataset's configuration name, if it has several.

    Raises:
        UserError: the text cannot be read; one line says why.
    """
    if isinstance(found, str):
        documents = _from_dataset(found, field, split, config)
    else:
        documents = (text for path in found for text in read_file(path, field))
    return (text for text in documents if text and not text.isspace())


def _mode(path: Path, source: str, looks_local: bool) -> int | None:
    """The file mode of the path; None if nothing is there."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        if not looks_local:  # `ORG/NAME` beside a file called ORG
            return None
        raise _refused(error, source) from error
    except OSError as error:
        raise _refused(error, source) from error


def _files_below(folder: Path, source: str) -> list[Path]:
    def fail(error: OSError) -> None:
        raise _refused(error, source) from error

    files = []
    for here, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found = (
            Path(here, name) for name in names if name.lower().endswith(LOCAL_SUFFIXES) and not name.startswith(".")
        )
        files += [path for path in found if _is_file(path, source)]
    if not files:
        raise UserError(
            f"text source {source}: the folder holds none of {SAID} (names that begin with a dot are not read)"
        )
    return sorted([path for path in files if not _often_notes(path)] or files)


def _often_notes(path: Path) -> bool:
    return path.name.lower().endswith(tuple(kind + packing for kind in OFTEN_NOTES for packing in ("", *PACKED)))


def _is_file(path: Path, source: str) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:  # a broken link
        return False
    except OSError as error:
        raise _refused(error, source) from error


def _refused(error: OSError, source: str) -> UserError:
    return machine_error(error, f"{_SUBJECT} {source}") or UserError(
        f"{_SUBJECT} {source} cannot be read: {error.strerror or error}"
    )


def _hub_name(source: str) -> str:
    """The name, if it can only name a dataset on the hub, and nothing else that `datasets` would open for it."""
    if not _HUB_NAME.fullmatch(source) or source.endswith(".py"):
        raise UserError(
            f"text source {source!r}: there is no such file or folder, and a dataset on the hub is called ORG/NAME"
        )
    if "/" not in source:
        from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as READERS

        # Given only such a name, datasets reads whatever is in the working directory.
        if source in READERS:
            raise UserError(
                f"text source {source!r}: that is a reader of the datasets library, not a text; give a file, a folder "
                "(./NAME), a glob, or a dataset on the hub (ORG/NAME)"
            )
    return source


def _from_dataset(name: str, field: str, split: str, config: str | None) -> Iterator[str]:
    import datasets

    if os.path.lexists(_hub_name(name)):  # datasets would read it instead of the hub's dataset
        raise UserError(f"text source {name!r}: there is a file or folder of that name too; write ./{name} for it")
    try:
        for row in datasets.load_dataset(name, config, split=split, streaming=True):
            yield text_of(row, field, f"dataset {name}")
    except UserError:
        raise
    except Exception as error:  # datasets raises many types of error for a wrong name
        user_error = machine_error(error) if isinstance(error, OSError) else None
        if user_error is not None:
            raise UserError(f"text source {name!r}: {user_error}") from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"text source {name!r} is neither a local file nor a dataset that can be read now: {reason}"
        ) from error
