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
from unifeat.progress import track
from unifeat.storage import key_of, write_json


@dataclass(frozen=True)
class CodeStore:
    """A folder of shards, one for each group of the corpus, in text order.

    Attributes:
        folder: `<cache>/codes/<key>`, where key is made from everything that determines the codes.
        settings: what the key is made from.
    """

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def create(cls, root: Path, settings: dict[str, Any]) -> CodeStore:
        """The store for these settings, there already or not.

        Raises:
            UserError: the folder of that name holds a store made with other settings.
        """
        store = cls(root / key_of(settings), settings)
        recorded = store.folder / "settings.json"
        if recorded.exists():
            try:
                store._check_settings(json.loads(recorded.read_text(encoding="utf-8")))
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(f"{recorded} is damaged ({error}): delete the folder {store.folder}") from error
        else:
            write_json(recorded, settings)
        return store

    @classmethod
    def open(cls, folder: Path) -> CodeStore:
        """Open a finished store by its folder.

        Raises:
            UserError: no finished store there.
        """
        try:
            settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
            json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is not a finished store of codes: {error}") from error
        return cls(folder, settings)

    def _check_settings(self, recorded: dict[str, Any]) -> None:
        if recorded == self.settings:
            return
        differ = sorted(k for k in {*recorded, *self.settings} if recorded.get(k, ...) != self.settings.get(k, ...))
        raise UserError(
            f"store {self.folder} was made with other settings ({', '.join(differ)}): "
            "delete the folder, or set UNIFEAT_CACHE to another place"
        )

    def shard_path(self, number: int) -> Path:
        """Where shard `number` is, or will be."""
        return self.folder / f"shard-{number:05d}.safetensors"

    def has(self, number: int) -> bool:
        """Whether shard `number` is there; it is renamed into place only when whole."""
        return self.shard_path(number).exists()

    def finished(self) -> bool:
        """Whether every shard was written and the manifest with them."""
        return self._manifest_path.exists()

    def verify(self, shards: int, *, repair: bool) -> None:
        """Check the shards that are there, byte for byte; a finished store also against its manifest.

        Args:
            shards: how many shards the store has when finished.
            repair: remove damaged shards, to be encoded anew, instead of raising.

        Raises:
            UserError: a damaged, missing or foreign shard, or a damaged manifest, named.
        """
        try:
            recorded = self._recorded(shards) if self.finished() else None
        except UserError:
            if not repair:
                raise
            self._unfinish()
            recorded = None
        with track("checking stored codes", shards, unit="shards") as advance:
            for number in range(shards):
                path = self.shard_path(number)
                try:
                    if recorded is not None or path.exists():
                        self._check(number, recorded[number] if recorded is not None else None)
                except UserError:
                    if not repair:
                        raise
                    path.unlink(missing_ok=True)
                    self._unfinish()
                advance(1)

    def _check(self, number: int, recorded: dict[str, Any] | None) -> None:
        entry = self._entry(number, verify=True)
        if recorded is not None and key_of(recorded) != key_of(entry):
            raise UserError(
                f"shard {self.shard_path(number)} is not the one in the manifest: run the same command with --repair, "
                "which encodes it anew"
            )

    def finish(self, shards: int) -> None:
        """Write the manifest: checksums and totals of all shards."""
        entries = [self._entry(number, verify=False) for number in range(shards)]
        write_json(self._manifest_path, {"format": FORMAT, "settings": self.settings, "shards": entries})

    def _entry(self, number: int, *, verify: bool) -> dict[str, Any]:
        """What the manifest says of a shard."""
        path = self.shard_path(number)
        shard, digest = read_shard(path, verify=verify)
        nonzeros = len(shard.feature)
        return {"file": path.name, "sha256": digest, "rows": shard.rows, "nonzeros": nonzeros, "stats": shard.stats}

    def _recorded(self, shards: int) -> list[dict[str, Any]]:
        """The manifest's entries, after a look at whether it can be this store's."""
        try:
            if self.manifest["settings"] != self.settings or len(self.manifest["shards"]) != shards:
                raise ValueError("it is another store's")
            return self.manifest["shards"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"manifest {self._manifest_path} is damaged ({error}): run the same command with --repair, "
                "which writes it anew"
            ) from error

    def _unfinish(self) -> None:
        self._manifest_path.unlink(missing_ok=True)
        self.__dict__.pop("manifest", None)  # what `manifest` remembers

    @property
    def _manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The finished store's manifest."""
        return json.loads(self._manifest_path.read_text(encoding="utf-8"))

    @property
    def n_shards(self) -> int:
        """Shards of the finished store."""
        return len(self.manifest["shards"])

    @property
    def rows(self) -> int:
        """Tokens of the finished store."""
        return sum(entry["rows"] for entry in self.manifest["shards"])

    @property
    def features(self) -> int:
        """Width of the dictionary."""
        return int(self.settings["d_sae"])

    def shard(self, number: int) -> Shard:
        """Map one shard into memory."""
        return read_shard(self.shard_path(number), verify=False)[0]

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
