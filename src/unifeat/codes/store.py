"""A space's codes on disk: numbered shards and a manifest with their checksums. Specified in docs/code-store.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from unifeat.codes.shard import FORMAT, Shard, read_shard
from unifeat.errors import UserError
from unifeat.progress import say, track
from unifeat.store import key_of, machine_error, write_json
from unifeat.store.keys import DamagedError, digest_of
from unifeat.store.pieces import note_use


@dataclass(frozen=True)
class CodeStore:
    """A folder of shards, one for each group of the corpus, in text order.

    Attributes:
        folder: `<cache>/codes/<key>`, where the key is made from everything that determines the codes.
        settings: what the key is made from.
    """

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def create(cls, root: Path, settings: dict[str, Any]) -> CodeStore:
        """The store for these settings, new or existing. Damaged settings are reported on stderr and written again.

        Raises:
            UserError: the machine cannot read or write them.
        """
        store = cls(root / key_of(settings), settings)
        store.note_use()
        recorded = store.folder / "settings.json"
        try:
            store._check_settings(json.loads(_read(recorded)))
        except FileNotFoundError:
            write_json(recorded, settings)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            say(f"warning: {recorded} is damaged ({error}): it is made again")
            write_json(recorded, settings)
        return store

    @classmethod
    def open(cls, folder: Path) -> CodeStore:
        """Open a finished store by its folder.

        Raises:
            UserError: there is no finished store.
        """
        try:
            settings = json.loads(_read(folder / "settings.json"))
            json.loads(_read(folder / "manifest.json"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{folder} is not a finished store of codes: {error}") from error
        return cls(folder, settings)

    def __getstate__(self) -> dict[str, Any]:
        # (The manifest may be large, and each process reads its own.)
        return {"folder": self.folder, "settings": self.settings}

    def note_use(self) -> None:
        """Note that a run uses this store."""
        note_use(self.folder.parent.name, self.folder.name)

    def _check_settings(self, recorded: dict[str, Any]) -> None:
        if recorded == self.settings:
            return
        differ = sorted(k for k in {*recorded, *self.settings} if recorded.get(k, ...) != self.settings.get(k, ...))
        # The folder's name is made from the settings, so different ones in its file mean damage.
        raise ValueError(f"its settings differ: {', '.join(differ)}")

    @property
    def identity(self) -> list[str]:
        """Identity of the finished store: its name, made from its settings, and a digest of all its shards."""
        return [self.folder.name, key_of([entry["sha256"] for entry in self.manifest["shards"]])]

    def shard_path(self, number: int) -> Path:
        """Where shard `number` is, or will be."""
        return self.folder / f"shard-{number:05d}.safetensors"

    def has(self, number: int) -> bool:
        """Whether shard `number` is there. (It is renamed into place only when complete.)"""
        return self.shard_path(number).exists()

    def finished(self) -> bool:
        """Whether all shards and the manifest have been written."""
        return self._manifest_path.exists()

    def verify(self, shards: int) -> None:
        """Check the shards that are there, byte for byte; in a finished store also against the manifest.

        Damaged files are reported on stderr and removed, to be made again.

        Args:
            shards: number of shards of the finished store.

        Raises:
            UserError: the machine cannot read a file.
        """
        recorded = self._recorded(shards)
        with track("checking stored codes", shards, unit="shards") as advance:
            for number in range(shards):
                path = self.shard_path(number)
                try:
                    if recorded is not None or path.exists():
                        entry = self._entry(number, verify=True)
                        if recorded is not None and key_of(recorded[number]) != key_of(entry):
                            raise DamagedError("it differs from the manifest")
                except FileNotFoundError:
                    self._again(path, "missing")
                except DamagedError as damage:
                    self._again(path, f"damaged ({damage})")
                advance(1)

    def _again(self, path: Path, how: str) -> None:
        say(f"warning: shard {path} is {how}: it is encoded again")
        self._unfinish()
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise machine_error(error, f"shard {path} is {how} and cannot be made again") or error from error

    def stats(self, number: int) -> dict[str, Any]:
        """The statistics of one shard. The store need not be finished.

        Raises:
            FileNotFoundError: it is not there.
        """
        return dict(self._entry(number, verify=False)["stats"])

    def finish(self, shards: int) -> None:
        """Write the manifest: checksums and totals of all shards."""
        entries = [self._entry(number, verify=False) for number in range(shards)]
        content = {"format": FORMAT, "settings": self.settings, "shards": entries}
        write_json(self._manifest_path, content | {"sha256": digest_of(content)})

    def _entry(self, number: int, *, verify: bool) -> dict[str, Any]:
        """The manifest's entry for a shard."""
        path = self.shard_path(number)
        shard, digest = read_shard(path, verify=verify)
        nonzeros = len(shard.feature)
        return {"file": path.name, "sha256": digest, "rows": shard.rows, "nonzeros": nonzeros, "stats": shard.stats}

    def _recorded(self, shards: int) -> list[dict[str, Any]] | None:
        """The entries of a finished store's manifest; None if there is none or it is damaged."""
        try:
            content = dict(self.manifest)
            sha256 = content.pop("sha256", None)
            if content["settings"] != self.settings or len(content["shards"]) != shards:
                raise ValueError("it belongs to another store")
            if sha256 is not None and sha256 != digest_of(content):
                raise ValueError("its checksum does not match")
            return list(content["shards"])
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            say(f"warning: manifest {self._manifest_path} is damaged ({error}): it is made again")
            self._unfinish()
            return None

    def _unfinish(self) -> None:
        try:
            self._manifest_path.unlink(missing_ok=True)
        except OSError as error:
            raise machine_error(error, f"manifest {self._manifest_path} cannot be made again") or error from error
        self.__dict__.pop("manifest", None)  # the cached value of `manifest`

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The finished store's manifest."""
        return json.loads(_read(self._manifest_path))

    @property
    def n_shards(self) -> int:
        """Number of shards of the finished store."""
        return len(self.manifest["shards"])

    @property
    def rows(self) -> int:
        """Number of tokens in the finished store."""
        return sum(entry["rows"] for entry in self.manifest["shards"])

    @property
    def features(self) -> int:
        """Number of features of the space."""
        return int(self.settings["d_sae"])

    def shard(self, number: int) -> Shard:
        """Map one shard into memory.

        Raises:
            UserError: the shard was damaged or removed after the store was verified.
        """
        path = self.shard_path(number)
        try:
            return read_shard(path, verify=False)[0]
        except (DamagedError, FileNotFoundError) as error:
            raise UserError(f"shard {path} was damaged during the run ({error}): run the same command again") from error

    def shards(self) -> Iterator[Shard]:
        """All shards, in text order."""
        return (self.shard(number) for number in range(self.n_shards))

    def totals(self) -> dict[str, float]:
        """The shards' statistics, summed."""
        totals: dict[str, float] = {}
        for entry in self.manifest["shards"]:
            for key, value in entry["stats"].items():
                totals[key] = totals.get(key, 0) + value
        return totals


def _read(path: Path) -> str:
    """The text of a file.

    Raises:
        FileNotFoundError: there is none.
        UserError: the machine cannot read it.
        ValueError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise machine_error(error, f"reading {path}") or error from error
