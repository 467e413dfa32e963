"""Checkpoints of a training, written whole or not at all, with a checksum, in folders named after stream and SAEs.

    training/<stream>/<SAEs>/checkpoint-000000120-5f3a…/   about.json, state.pt
    training/<stream>/<SAEs>/activations/                  of this training only, unless they are kept for others

A training writes only into the folder of its own SAEs. To resume, it looks into all folders of its stream: a training
that was killed may have had more SAEs, or other folders to save them in.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from unifeat.errors import UserError
from unifeat.progress import say
from unifeat.saes.training.folders import names_in, written_again_if_gone
from unifeat.store import key_of, written_aside
from unifeat.store.digests import read_sha256
from unifeat.store.keys import DamagedError, sealed, unsealed
from unifeat.store.writing import take_away
from unifeat.vocabulary.hook_points import HookPoint

FORMAT = "training/3"
INTERVAL_S = 30.0  # a killed training loses at most this, and the group of text that it was running
_STATE_FILE, _ABOUT_FILE = "state.pt", "about.json"
_TRIES = 3


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk, its state not yet read.

    Attributes:
        path: its folder.
        step: number of batches taken when it was saved.
        over: whether no batch is left to take.
        jobs: key of each SAE, and the folder to save it in.
        points: hook points; tokens that are sinks at any of them are left out.
        sha256: checksum of its state.
    """

    path: Path
    step: int
    over: bool
    jobs: dict[str, str]
    points: list[HookPoint]
    sha256: str

    @property
    def done(self) -> bool:
        """Whether all of its SAEs have been saved."""
        return all(os.path.exists(folder) for folder in self.jobs.values())


@dataclass
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        stream: the folder of all trainings over one stream of activations.
        jobs: key of each SAE, and the folder to save it in.
        points: hook points of this training, unless it is resumed.
    """

    stream: Path
    jobs: dict[str, Path]
    points: list[HookPoint]
    _last: float = field(default_factory=time.monotonic, repr=False)

    @property
    def folder(self) -> Path:
        """The folder of this training only, named after its SAEs and where they are saved."""
        return self.stream / key_of(sorted(self._targets.items()))

    @property
    def _targets(self) -> dict[str, str]:
        return {key: os.path.abspath(folder) for key, folder in self.jobs.items()}

    def due(self) -> bool:
        """Whether it is time for another checkpoint."""
        return time.monotonic() - self._last >= INTERVAL_S

    def save(self, state: dict[str, Any], *, step: int, over: bool, points: list[HookPoint]) -> None:
        """Write a checkpoint, then remove earlier ones. `state["jobs"]` has an entry for each job's key.

        Raises:
            UserError: an error of the machine: no space, no permission …
        """
        # Numbers are padded, so that names sort by step, even if several processes train the same SAEs.
        path = self.folder / f"checkpoint-{step:012d}-{secrets.token_hex(4)}"
        about = {"format": FORMAT, "step": step, "over": over, "jobs": self._targets, "points": list(map(list, points))}

        def write() -> None:
            with written_aside(path, replace=False) as aside:
                aside.mkdir()
                content = about | {"state": _write_state(state, aside / _STATE_FILE)}
                (aside / _ABOUT_FILE).write_text(sealed(content), encoding="utf-8")

        written_again_if_gone(path, write)
        for other in names_in(self.folder, "checkpoint-*"):
            if other.name < path.name:
                take_away(other)
        self._last = time.monotonic()

    def load(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The most advanced checkpoint with all of these SAEs, and its state.

        Damaged checkpoints are reported on stderr and removed, and the next one is used.
        """
        for _ in range(_TRIES):
            usable = self._usable()
            for found in sorted(usable, key=lambda f: (f.over, f.step, f.path.parent == self.folder), reverse=True):
                state = _state_of(found)
                if state is not None:
                    return found, state
            if not usable:
                break  # otherwise all were damaged, or another process has replaced them: look again
        return None

    def clear(self) -> None:
        """Remove this training's folder, and those of others on its stream whose SAEs have all been saved."""
        folders = [self.folder]
        for other in names_in(self.stream, "*"):
            held = _checkpoints_in(other)
            if held and all(found.done for found in held):
                folders.append(other)
        for folder in dict.fromkeys(folders):
            try:
                take_away(folder)
            except (OSError, UserError) as error:  # the SAEs are saved, so only disk space is lost
                say(f"warning: {folder} is not needed any more and cannot be removed: {error}")
        with suppress(OSError):  # not empty: others train on this stream
            self.stream.rmdir()

    def _usable(self) -> list[Checkpoint]:
        return [f for folder in names_in(self.stream, "*") for f in _checkpoints_in(folder) if self._can_resume_from(f)]

    def _can_resume_from(self, found: Checkpoint) -> bool:
        if not set(self.jobs) <= set(found.jobs):
            return False
        if set(found.points) == set(self.points):
            return True
        # With other points, other tokens are left out as sinks, so it is another training. The exception is this
        # training itself, killed while saving: the SAEs already saved are not among its jobs any more.
        ours = self._targets
        others = (folder for key, folder in found.jobs.items() if key not in ours)
        return (
            found.over
            and all(found.jobs[key] == folder for key, folder in ours.items())
            and all(map(os.path.exists, others))
        )


class _Summed:
    """A file being written, with its checksum, and with the original error if torch replaces it by one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        return written

    def flush(self) -> None:
        self.file.flush()


def _write_state(state: dict[str, Any], path: Path) -> str:
    """Write a state; returns its SHA-256."""
    with path.open("wb") as file:
        summed: Any = _Summed(file)
        try:
            torch.save(state, summed)
        except Exception as error:
            raise summed.error or error from error
    return summed.digest.hexdigest()


def _checkpoints_in(folder: Path) -> list[Checkpoint]:
    return [found for path in names_in(folder, "checkpoint-*") if (found := _look_at(path)) is not None]


def _look_at(path: Path) -> Checkpoint | None:
    """A checkpoint's description; None if it is damaged, of another format, or has been removed."""
    try:
        content = unsealed((path / _ABOUT_FILE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return None
        points = [HookPoint(*point) for point in content["points"]]
        return Checkpoint(path, content["step"], content["over"], content["jobs"], points, content["state"])
    except FileNotFoundError:
        if path.is_dir():
            _put_away(path, f"{_ABOUT_FILE} is missing")
    except OSError as error:
        say(f"warning: checkpoint {path} cannot be read and is ignored: {error}")
    except (DamagedError, ValueError, LookupError, TypeError) as error:
        _put_away(path, f"{_ABOUT_FILE}: {error}")
    return None


def _state_of(found: Checkpoint) -> dict[str, Any] | None:
    """A checkpoint's state; None if it is damaged, cannot be read, or has been removed."""
    try:
        if read_sha256(found.path / _STATE_FILE) != found.sha256:
            raise DamagedError(f"the checksum of {_STATE_FILE} does not match")
        state: dict[str, Any] = torch.load(found.path / _STATE_FILE, map_location="cpu", weights_only=True)
        return state
    except FileNotFoundError:
        if found.path.is_dir():
            _put_away(found.path, f"{_STATE_FILE} is missing")
    except DamagedError as damage:
        _put_away(found.path, str(damage))
    except Exception as error:  # torch and pickle raise many types; the checksum was right, so it is not removed
        say(f"warning: checkpoint {found.path} cannot be read and is ignored: {error}")
    return None


def _put_away(path: Path, how: str) -> None:
    say(f"warning: checkpoint {path} is damaged ({how}) and is ignored")
    with suppress(OSError, UserError):  # if it cannot be removed, it is ignored the next time too
        take_away(path)
