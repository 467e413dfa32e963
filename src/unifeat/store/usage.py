"""What the cache holds, which runs use it, and what may be removed. Everything in it can be made again."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.store.cache import cache_root
from unifeat.store.keys import key_of
from unifeat.store.pieces import Used, recording
from unifeat.store.writing import ASIDE, DAMAGED, remove, take_away, write_json

RUNS = "runs"
KINDS = {
    "text": "texts, chosen and cut",
    "models": "GGUF files unpacked",
    "demo": "the demo's ingredients",
    "checks": "checks of SAEs",
    "codes": "codes of spaces",
    "top-activations": "strongest activations",
    "candidates": "candidate pairs",
    "intervals": "intervals of r",
    "shifted-candidates": "candidate pairs of shifted text",
    "rematches": "matched again",
    "matched": "filters and methods",
    "decoders": "decoder rows",
    "brought": "codes of your own",
    "token-embeddings": "embeddings of tokens",
    "top-tokens": "strongest tokens",
    "token-texts": "texts of tokens",
    "beyond-token": "r within token",
    "elsewhere": "r elsewhere",
    "near-copies": "near-copies of features",
    "latents": "activations compared",
    "families": "pairs in draws, for families",
    "totals": "total activations",
    "code-facts": "facts on codes",
    "transfer": "transfer and samples for it",
    "transfer-loss": "transfer, in loss",
    "effects": "effects of pairs",
    "feature-maps": "the explorer: maps",
    "activity": "the explorer: firings",
    "partner-activity": "the explorer: partners' firings",
    "labels": "labels made from contexts",
    "scores": "scores and their nulls",
    "activations": "activations kept for trainings",
    "training": "unfinished trainings",
    "digests": "digests of files",
}
Reason = str
_NOT_PIECES = (RUNS, "digests", "demo")  # small, or not made by a study
_OWN_NAME = re.compile(r"[0-9a-f]{16}(?:\.json)?")  # what `key_of` gives; every other name is somebody else's
_OWN_LEFTOVERS = (ASIDE, DAMAGED, ".offload-")
_READ_ON = ("text", "codes", "models")  # read all along; the others are in memory once they are read
_UNUSED: Reason = "no kept run uses it"
_TELL_EVERY_S = 30.0
_LOOK_EVERY_S = 0.2
_UNDER_WAY_S = 24 * 3600.0  # a run whose note is older is no longer under way
_LIVELY_S = 3600.0  # files that a living process writes to are younger


@dataclass
class Entry:
    """One entry of the cache: a piece, a store of codes, a training, or a leftover.

    Attributes:
        kind: the folder it is in.
        studies: names of the studies of kept runs that use it.
        changed: when any of its files last changed, in seconds since 1970.
    """

    path: Path
    kind: str
    size: int
    changed: float
    leftover: bool = False
    studies: set[str] = field(default_factory=set)


class RunNote:
    """The cache's note of a run: the pieces it uses, so that `unifeat cache` does not count them as unused while the
    run is kept or under way.

    Args:
        folder: the run's folder.
        study: the study's name.
        what: a name for something that is made of the finished run, and uses pieces of its own.
    """

    def __init__(self, folder: Path, study: str, what: str | None = None) -> None:
        self._run, self._study = str(folder.resolve()), study
        name = key_of(self._run if what is None else [self._run, what])
        self._path = cache_root() / RUNS / f"{name}.json"
        # Apart from the note of the run that lies in this folder, which stays if this one fails.
        self._path_under_way = self._path.with_name(f"{secrets.token_hex(8)}.json")
        self._told = float("-inf")
        self._used: Used = set()
        self._read_on: Used = set()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """While open, note what the run uses: at once what it goes on reading, the rest at most twice a minute."""
        try:
            with recording(self._tell) as self._used:
                yield
        finally:
            with suppress(OSError):
                remove(self._path_under_way)

    def finish(self, created: str) -> None:
        """Note what the finished run uses; `created` is the date in its `run.json`."""
        self._write(self._path, created)

    def _tell(self, used: Used, latest: tuple[str, str]) -> None:
        urgent = latest[0] in _READ_ON and latest not in self._read_on
        if urgent:
            self._read_on.add(latest)
        if urgent or time.monotonic() - self._told > _TELL_EVERY_S:
            self._told = time.monotonic()
            self._write(self._path_under_way, None)

    def _write(self, path: Path, created: str | None) -> None:
        pieces: dict[str, list[str]] = {}
        for kind, name in sorted(self._used):
            pieces.setdefault(kind, []).append(name)
        note = {"run": self._run, "study": self._study, "created": created, "pieces": pieces}
        with suppress(UserError):  # a read-only cache can still be used
            write_json(path, note)


def kept_runs(root: Path) -> dict[Path, dict[str, Any]]:
    """The notes, by path, of the runs that are still in their folders and of those under way."""
    kept = {}
    for path in sorted((root / RUNS).glob("[!.]*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            if note["created"] is None:
                if time.time() - path.stat().st_mtime < _UNDER_WAY_S:
                    kept[path] = note
                continue
            info = json.loads((Path(note["run"]) / "run.json").read_text(encoding="utf-8"))
            if info["created"] == note["created"]:
                kept[path] = note
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return kept


def contents(root: Path) -> list[Entry]:
    """All entries of the cache, with the studies of kept runs that use them.

    What has no name that unifeat gives is no part of it: the folder may be one that holds other things too.

    Raises:
        UserError: the cache is a file.
    """
    if root.exists() and not root.is_dir():
        raise UserError(f"the cache {root} is a file: set UNIFEAT_CACHE to a folder")
    kept = kept_runs(root)
    users = _users(kept)
    entries = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.name.startswith(_OWN_LEFTOVERS):
            entries.append(_entry(folder, folder.name, leftover=True))
        elif folder.is_dir():
            for path in sorted(folder.iterdir()):
                own = _OWN_NAME.fullmatch(path.name) is not None
                aside = path.name.startswith(_OWN_LEFTOVERS)
                if not own and not aside and folder.name != "demo":
                    continue
                leftover = aside or (folder.name == RUNS and path.suffix == ".json" and path not in kept)
                entry = _entry(path, folder.name, leftover=leftover)
                entry.studies = users.get((folder.name, path.name), set())
                entries.append(entry)
                if own and not leftover and path.is_dir():
                    entries += [
                        _entry(inner, folder.name, leftover=True) for inner in path.rglob("*") if _is_leftover(inner)
                    ]
    return entries


def prunable(
    entries: list[Entry], *, unused: bool = False, older_s: float | None = None, to_size: int | None = None
) -> list[tuple[Entry, Reason]]:
    """The entries that may be removed, each with the reason.

    These always include what killed processes left behind (`.partial-…`, `.tmp…` of libraries), if no living process
    can be writing it.

    Args:
        unused: also everything that no kept run uses, including unfinished trainings.
        older_s: of what no run uses, only what has not changed for this many seconds.
        to_size: also the pieces that changed longest ago, used or not, until the cache has at most this many bytes.
    """
    now = time.time()
    chosen: dict[Path, tuple[Entry, Reason]] = {}
    for entry in entries:
        if entry.leftover and now - entry.changed > _LIVELY_S:
            chosen[entry.path] = (entry, "left behind by a kill")
    whole = [entry for entry in entries if not entry.leftover and entry.kind not in _NOT_PIECES]
    if unused or older_s is not None:
        for entry in whole:
            age = now - entry.changed
            if not entry.studies and age > max(older_s or 0.0, _LIVELY_S if entry.kind == "training" else 0.0):
                chosen[entry.path] = (entry, _UNUSED)
    if to_size is not None:
        left = sum(e.size for e in entries if not e.leftover) - sum(
            e.size for e, _ in chosen.values() if not e.leftover
        )
        for entry in sorted(whole, key=lambda e: (bool(e.studies), e.changed)):
            if left <= to_size:
                break
            if entry.path not in chosen:
                chosen[entry.path] = (entry, "to make room")
                left -= entry.size
    return list(chosen.values())


def prune(chosen: Iterable[tuple[Entry, Reason]]) -> int:
    """Remove entries, less those that a run has begun to use since they were chosen; returns how many bytes they had.

    Raises:
        UserError: an error of the machine.
    """
    freed, users, looked = 0, {}, float("-inf")
    for entry, reason in chosen:
        if time.monotonic() - looked > _LOOK_EVERY_S:
            users, looked = _users(kept_runs(cache_root())), time.monotonic()
        if reason == _UNUSED and (entry.kind, entry.path.name) in users:
            continue
        try:
            take_away(entry.path)
        except OSError:  # (those of the machine are UserErrors)
            continue  # a process keeps writing into it
        freed += entry.size
    return freed


def _users(kept: dict[Path, dict[str, Any]]) -> dict[tuple[str, str], set[str]]:
    """The studies of kept runs that use a piece, by kind and name."""
    users: dict[tuple[str, str], set[str]] = {}
    for run in kept.values():
        for kind, names in run["pieces"].items():
            for name in names:
                users.setdefault((kind, name), set()).add(run["study"])
    return users


def _is_leftover(path: Path) -> bool:
    return path.name.startswith((ASIDE, DAMAGED, ".tmp", ".offload-", "tmp")) or path.name.endswith(".tmp")


def _entry(path: Path, kind: str, *, leftover: bool) -> Entry:
    size, changed = 0, 0.0
    for file in _files(path):
        try:
            stat = file.lstat()
        except FileNotFoundError:
            continue
        size, changed = size + stat.st_size, max(changed, stat.st_mtime)
    with suppress(FileNotFoundError):
        changed = changed or path.lstat().st_mtime
    return Entry(path, kind, size, changed, leftover)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        yield from (inner for inner in path.rglob("*") if not inner.is_dir())
    else:
        yield path


def when(seconds: float) -> str:
    """A time as a date, `2026-11-28`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
