"""A run's spaces as they are in the cache: codes and text. No model, SAE or tokenizer is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unifeat.codes.shard import read_shard
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.progress import track
from unifeat.runs.folder import Run
from unifeat.store import cache_root
from unifeat.store.keys import DamagedError
from unifeat.text.corpus import Corpus, stored_corpus

_AGAIN = "`unifeat run {study}` makes what is missing"


@dataclass(frozen=True)
class OpenedSpace:
    """A space of a finished run.

    Attributes:
        name: `model@layer`.
        info: its facts in `run.json`.
        store: its codes.
    """

    name: str
    info: dict[str, Any]
    store: CodeStore

    @property
    def features(self) -> int:
        """Number of features."""
        return self.store.features


def open_space(run: Run, name: str) -> OpenedSpace:
    """Open one space of a run. Its codes are compared with their checksums.

    Raises:
        UserError: the run has no such space; its codes are no longer in the cache, or damaged.
    """
    run.check_space(name)
    info = run.info["spaces"][name]
    store = _store(run, name, info)
    with track(f"checking the codes of {name}", store.n_shards, unit="shards") as advance:
        for number, entry in enumerate(store.manifest["shards"]):
            path = store.shard_path(number)
            try:
                if read_shard(path, verify=True)[1] != entry["sha256"]:
                    raise DamagedError("it differs from the manifest")
            except (DamagedError, FileNotFoundError) as error:
                raise UserError(f"shard {path} is damaged or missing ({error}): {_again(run)}") from error
            advance(1)
    return OpenedSpace(name, info, store)


def _store(run: Run, name: str, info: dict[str, Any]) -> CodeStore:
    """A space's codes, by the folder in `run.json`; the cache may have been moved since."""
    recorded = info.get("codes")
    if recorded is None:
        raise UserError(f"run {run.folder} does not say where the codes of {name} are: run the study again")
    folders = [Path(recorded), cache_root() / "codes" / Path(recorded).name]
    for folder in folders:
        if (folder / "manifest.json").is_file():
            store = CodeStore.open(folder)
            store.note_use()
            return store
    raise UserError(
        f"the codes of {name} are not in the cache (any more): no {folders[-1]}. They may have been pruned, or the run "
        f"used another cache (UNIFEAT_CACHE): {_again(run)}"
    )


def open_text(run: Run, spaces: list[OpenedSpace]) -> Corpus:
    """The text that these spaces were encoded on.

    Raises:
        UserError: it is no longer in the cache.
    """
    settings = spaces[0].store.settings
    found = stored_corpus(settings["text"], settings["cut"])
    if found is None:
        raise UserError(f"the text of run {run.folder} is not in the cache {cache_root()} (any more): {_again(run)}")
    return found


def _again(run: Run) -> str:
    return _AGAIN.format(study=run.folder / "study.yaml")
