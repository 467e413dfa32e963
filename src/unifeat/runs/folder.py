"""A finished run: its folder and its tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from unifeat.errors import UserError, did_you_mean
from unifeat.runs.pairs import read_pairs
from unifeat.runs.writing import INFO, REPORT, TABLES, complete
from unifeat.store.digests import file_stamp, read_sha256
from unifeat.store.machine import machine_error
from unifeat.store.paths import user_path

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder.

    Attributes:
        folder: where its files are.
        goes_to: while it is being written, the folder that its files will be moved to.
        notes: what was worked out from its tables, so that it is worked out once.
    """

    folder: Path
    goes_to: Path | None = None
    notes: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _checked: dict[Path, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def info(self) -> dict[str, Any]:
        """`run.json`: versions, seeds, timings, and counts of tokens read, masked and aligned."""
        path = self.folder / INFO
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}): run the study again") from error

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Every candidate pair with its correlation, held-out correlation, and why it was dropped."""
        return self._table("pairs")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row for each pair of spaces and measure, with nulls, p and q."""
        return self._table("scores")

    @cached_property
    def members(self) -> pd.DataFrame | None:
        """Which features belong to which category: `space`, `subspace`, `feature`, `hits`; None without subspaces."""
        return self._optional("members")

    @cached_property
    def rates(self) -> pd.DataFrame | None:
        """Whether a category's features are matched more often than others; None without subspaces."""
        return self._optional("rates")

    @cached_property
    def families(self) -> pd.DataFrame | None:
        """Families of features over the run's spaces, one row each (see docs/families.md); None without `families`."""
        return self._optional("families")

    @cached_property
    def family_sets(self) -> pd.DataFrame | None:
        """How many families each set of spaces has, beside its null; None without `families`."""
        return self._optional("family_sets")

    @cached_property
    def sharedness(self) -> pd.DataFrame | None:
        """Comparative sharedness of every feature; None without `families.groups`."""
        return self._optional("sharedness")

    @cached_property
    def transfer(self) -> pd.DataFrame | None:
        """How well each variant stands in for a model's activations, one row each; None without `transfer`."""
        return self._optional("transfer")

    @cached_property
    def transfer_pairs(self) -> pd.DataFrame | None:
        """What each pair carries: gain, share predicted, by how much it lowers the error; None without `transfer`."""
        return self._optional("transfer_pairs")

    @cached_property
    def effects(self) -> pd.DataFrame | None:
        """What the features of pairs do to the next token, and how alike that is; None without `transfer.pairs`."""
        return self._optional("effects")

    @cached_property
    def steering(self) -> pd.DataFrame | None:
        """What directions of words' concepts do in the other model; None without `transfer` or `subspaces`."""
        return self._optional("steering")

    @cached_property
    def labels(self) -> pd.DataFrame | None:
        """Words for features: `space`, `feature`, `label`, `automatic`; None if the study has none."""
        return self._optional("labels")

    def _optional(self, name: str) -> pd.DataFrame | None:
        file = f"{name}.parquet"
        # (An earlier run in the same folder may have left such a file.)
        belongs = file in self.info["files"] if "files" in self.info else (self.folder / file).is_file()
        return self._table(name) if belongs else None

    def _table(self, name: str) -> pd.DataFrame:
        """A table of the run.

        Raises:
            UserError: the file is not the one that `run.json` was written with.
        """
        return self._own_file(name, pd.read_parquet)

    def _own_file(self, name: str, read: Callable[[Path], T]) -> T:
        """What is read from a table's file.

        Raises:
            UserError: the file is not the one that `run.json` was written with.
        """
        path = self.folder / f"{name}.parquet"
        if not self._is_own(path):
            complete(self.folder)  # another process may be moving the files of a later run to their places
            if not self.__dict__.keys() & set(TABLES):
                self.__dict__.pop("info", None)
            if not self._is_own(path):
                raise UserError(f"{path} is not the one that {INFO} was written with: run the study again")
        try:
            return read(path)
        except (OSError, ValueError) as error:
            raise machine_error(error, f"reading {path}") or UserError(
                f"{path} is damaged ({str(error).splitlines()[0]}): run the study again"
            ) from error

    def _is_own(self, path: Path) -> bool:
        expected = self.info.get("files", {}).get(path.name)  # (older runs have none)
        if expected is None:
            return True
        stamp = file_stamp(path)
        if self._checked.get(path) != (stamp, expected):  # (one pair of spaces is read at a time, of a large file)
            if read_sha256(path) != expected:
                return False
            self._checked[path] = (stamp, expected)
        return True

    def moved_to(self, folder: Path) -> Run:
        """The same run when its files have been moved. What has been read is not read again."""
        moved = Run(folder)
        moved.__dict__.update({name: self.__dict__[name] for name in self.__dict__.keys() & {"info", *TABLES}})
        return moved

    @cached_property
    def examples(self) -> pd.DataFrame:
        """Text around the strongest activations of the features that the report shows."""
        return self._table("examples")

    @cached_property
    def shown(self) -> pd.DataFrame:
        """The pairs that the report lists, with a column `chosen`: "strongest" or "random"."""
        return self._table("shown")

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / REPORT

    def check_space(self, name: str) -> None:
        """Raise a UserError if the run has no space of this name."""
        names = list(self.info["spaces"])
        if not isinstance(name, str):
            raise UserError(f"run {self.folder}: a space is a name, like {names[0]!r}, not {name!r}")
        if name not in names:
            near = did_you_mean(name, names)
            raise UserError(f"run {self.folder} has no space {name!r}{near}: it has {', '.join(names)}")

    def labels_of(self, space: str) -> dict[int, str]:
        """The labels of a space's features; empty for one that has none."""
        if self.labels is None:
            return {}
        own = self.labels[self.labels["space"] == space]
        return dict(zip(own["feature"].tolist(), own["label"].tolist(), strict=True))

    def space_pair(self, space_a: str, space_b: str) -> pd.DataFrame:
        """The candidates of one pair of spaces; only theirs are read.

        Raises:
            UserError: the run did not compare these spaces.
        """
        compared = [(pair["space_a"], pair["space_b"]) for pair in self.info["pairs"]]
        for name in (space_a, space_b):
            self.check_space(name)
        if (space_a, space_b) not in compared:
            raise UserError(f"run {self.folder} did not compare {space_a} with {space_b} in this order")
        if "pairs" in self.__dict__:
            return self._of(space_a, space_b, self.pairs)
        found = self._own_file("pairs", lambda path: read_pairs(path, compared.index((space_a, space_b))))
        if found is None or not ((found["space_a"] == space_a) & (found["space_b"] == space_b)).all():
            return self._of(space_a, space_b, self.pairs)  # an older run's, whose row groups are others
        return found

    @staticmethod
    def _of(space_a: str, space_b: str, pairs: pd.DataFrame) -> pd.DataFrame:
        return pairs[(pairs["space_a"] == space_a) & (pairs["space_b"] == space_b)]

    def __repr__(self) -> str:
        pairs = self.info["pairs"]
        kept, plural = sum(pair["kept"] for pair in pairs), "pair" if len(pairs) == 1 else "pairs"
        return f"Run({str(self.folder)!r}: {len(pairs)} {plural} of spaces, {kept:,} shared features)"

    def _repr_html_(self) -> str:
        return self.scores.drop(columns="settings").to_html(index=False, float_format=lambda v: f"{v:.3f}")


def open_run(folder: str | Path) -> Run:
    """Open a run's folder.

    Raises:
        UserError: the folder holds no finished run.
    """
    folder = user_path(folder, "the run")
    complete(folder)
    missing = [n for n in (INFO, "pairs.parquet", "scores.parquet") if not (folder / n).is_file()]
    if missing:
        raise UserError(f"{folder} holds no finished run ({missing[0]} is missing): `unifeat run STUDY.yaml` makes one")
    return Run(folder)
