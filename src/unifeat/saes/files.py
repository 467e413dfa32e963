"""The files of a checkpoint: a local folder or file, or part of a hub repository, downloaded when read."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from unifeat.errors import UserError
from unifeat.store.machine import machine_error

PICKLES = (".pt", ".pth", ".bin")


class Files:
    """One checkpoint's files.

    Attributes:
        name: the name that the user gave, with which every message begins.
        place: the whole path, or `ORG/NAME/path`: in some formats, only this states the layer, width or k.
        names: files in the folder and in its `checkpoints` folder, relative to it.
        file: the file that the name refers to, if it is not a folder.
        opened: pickled files already read, since several formats look inside and some files have gigabytes.
    """

    def __init__(
        self,
        name: str,
        place: str,
        names: frozenset[str],
        find: Callable[[str], Path | None],
        file: str | None = None,
    ) -> None:
        self.name = name
        self.place = place
        self.names = names
        self.file = file
        self.opened: dict[str, Any] = {}
        self._find = find

    def has(self, *names: str) -> bool:
        """Whether all of these files are there."""
        return all(name in self.names for name in names)

    def path(self, name: str) -> Path:
        """The path of a file on this machine.

        Raises:
            UserError: the file does not exist, cannot be downloaded, or cannot be opened by this machine.
        """
        found = self._find(name)
        if found is None:
            raise UserError(f"SAE {self.name}: it has no {name}")
        try:  # safetensors says of a file that it may not open that there is none, torch that it holds no tensors
            with found.open("rb"):
                pass
        except OSError as error:
            told = machine_error(error, f"SAE {self.name}: {found}")
            raise told or UserError(f"SAE {self.name}: {name} cannot be read ({error.strerror})") from error
        return found

    def maybe(self, name: str) -> Path | None:
        """Like `path`, but None if there is no such file. `../name` looks in the folder above."""
        try:
            return self._find(name)
        except UserError:
            return None

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file that holds an object.

        Raises:
            UserError: it is damaged or does not hold an object.
        """
        try:
            held = json.loads(self.path(name).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise UserError(f"SAE {self.name} cannot be read ({name} is not JSON: {error})") from error
        if not isinstance(held, dict):
            raise UserError(f"SAE {self.name} cannot be read ({name} holds a {type(held).__name__}, not settings)")
        return held

    @property
    def pickles(self) -> list[str]:
        """The bare pickled files: the one that the name refers to, or all in the folder."""
        names = [self.file] if self.file else sorted(n for n in self.names if "/" not in n)
        return [name for name in names if name.endswith(PICKLES)]


def local_files(name: str, path: Path) -> Files:
    """The files of a local folder, or of the folder around a local file."""
    folder = path if path.is_dir() else path.parent
    names = {p.name for p in folder.iterdir() if p.is_file()}
    names |= {f"checkpoints/{p.name}" for p in (folder / "checkpoints").glob("*") if p.is_file()}

    def find(wanted: str) -> Path | None:
        at = folder / wanted
        return at if at.is_file() else None

    return Files(name, str(path.absolute()), frozenset(names), find, None if path.is_dir() else path.name)


def hub_files(name: str, repo: str, within: str) -> Files:
    """The files of one folder of a hub repository, or of the folder around one file of it.

    Raises:
        UserError: the repository is neither on the hub nor in the cache.
    """
    held = _listed(name, repo)
    within = within.strip("/")
    file = within.rpartition("/")[2] if within in held else None
    folder = within.rpartition("/")[0] if file else within
    prefix = f"{folder}/" if folder else ""
    names = {n.removeprefix(prefix) for n in held if n.startswith(prefix)}
    names = {n for n in names if "/" not in n or n.startswith("checkpoints/")}

    def find(wanted: str) -> Path | None:
        return _fetched(name, repo, _joined(folder, wanted))

    return Files(name, f"{repo}/{within}", frozenset(names), find, file)


def _joined(folder: str, wanted: str) -> str:
    at = PurePosixPath(folder)
    while wanted.startswith("../"):
        at, wanted = at.parent, wanted[3:]
    return str(at / wanted)


def _listed(name: str, repo: str) -> frozenset[str]:
    """Names of a repository's files: from the hub, or from the cache if the hub cannot be reached."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return frozenset(HfApi().list_repo_files(repo))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"SAE {name}: the hub has no repository {repo}, or you have no access to it") from error
    except _network_errors() as error:
        try:
            home = Path(snapshot_download(repo, local_files_only=True))
        except (OSError, ValueError):
            raise UserError(
                f"SAE {name} cannot be downloaded from the hub now, and is not in the cache: {_reason(error)}"
            ) from error
        return frozenset(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file())


def _fetched(name: str, repo: str, path: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, path))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"SAE {name} cannot be downloaded from the hub now, and is not in the cache ({repo}: {path}): "
            f"{_reason(error)}"
        ) from error
    except EntryNotFoundError:
        return None
    except _network_errors(ValueError) as error:
        raise UserError(f"SAE {name}: {repo}: {path} cannot be downloaded: {_reason(error)}") from error


def _network_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """The errors of the hub's client without a network: httpx's up to huggingface_hub 2.3, httpx2's since."""
    found: list[type[Exception]] = [OSError, *others]
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name).HTTPError)
        except ImportError:
            continue
    return tuple(found)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
