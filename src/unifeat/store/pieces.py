"""A piece: a finished result, stored with a checksum under a key made from everything that determines it.

A piece without files is one JSON file, `<cache>/<kind>/<key>.json`; one with files is a folder,
`<cache>/<kind>/<key>/`, with `piece.json` beside them. Either says what it was made from and carries SHA-256 sums of
everything in it, which are checked whenever it is read. Specified in docs/cache.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from unifeat.progress import say
from unifeat.store.cache import cache_root
from unifeat.store.digests import read_sha256
from unifeat.store.keys import DamagedError, digest_of, key_of, sealed, unsealed
from unifeat.store.machine import machine_error
from unifeat.store.writing import DAMAGED, take_away, written_aside

FORMAT = "unifeat-piece/1"
_ABOUT = "piece.json"
_OF_ANOTHER_KIND = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP)  # not a file where a file should be, or no folder
T = TypeVar("T")


@dataclass(frozen=True)
class Form(Generic[T]):
    """How a value is stored: as JSON data, with files beside it if needed.

    Attributes:
        write: writes a value's files into a folder and returns the rest of the value as JSON data.
        read: makes the value again from that data and the folder.
        files: whether there are files. If not, no folder is made.
    """

    write: Callable[[Any, Path], Any]
    read: Callable[[Any, Path], T]
    files: bool = True


JSON: Form[Any] = Form(lambda value, folder: value, lambda value, folder: value, files=False)
"""JSON data."""


def _write_table(table: Any, folder: Path) -> None:
    table.to_parquet(folder / "table.parquet", index=False)


def _read_table(value: Any, folder: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(folder / "table.parquet")


TABLE: Form[Any] = Form(_write_table, _read_table)
"""A pandas DataFrame without an index."""


@dataclass(frozen=True)
class Piece(Generic[T]):
    """Where a piece is stored, or will be.

    Attributes:
        kind: the folder of the cache it is in: "scores", "candidates" …
        made_from: everything that determines it, as JSON data, including versions of the code.
        form: how its value is stored.
        what: what it is, for messages.
    """

    kind: str
    made_from: Mapping[str, Any]
    form: Form[T] = field(default=JSON, repr=False)
    what: str = ""

    @cached_property
    def key(self) -> str:
        """Its name: 16 hex digits."""
        return key_of({"kind": self.kind, "made_from": self.made_from})

    @property
    def path(self) -> Path:
        """Where it is, or will be: a JSON file or a folder."""
        name = self.key if self.form.files else f"{self.key}.json"
        return cache_root() / self.kind / name

    def read(self) -> T | None:
        """Its value, or None if it is not there or damaged. A damaged piece is reported on stderr and moved away.

        Raises:
            UserError: the machine cannot read it.
        """
        note_use(self.kind, self.path.name)
        try:
            try:
                return self._value()
            except FileNotFoundError:
                if not (self.form.files and self.path.is_dir()):
                    return None
                return self._value()  # another process may have put it there since it was looked for
        except FileNotFoundError:
            self._put_away("one of its files is missing")
        except DamagedError as damage:
            self._put_away(str(damage))
        except OSError as error:
            told = machine_error(error, f"reading {self.path}")
            in_its_place = error.errno in _OF_ANOTHER_KIND and os.path.lexists(self.path)
            if told is not None and not in_its_place:
                raise told from error
            self._put_away(f"{type(error).__name__}: {error}")
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            self._put_away(f"{type(error).__name__}: {error}")
        return None

    def note_use(self) -> None:
        """Note that a run uses it, where this process does not read it."""
        note_use(self.kind, self.path.name)

    def exists(self) -> bool:
        """Whether something is stored under its name."""
        return self._about_path.exists()

    def write(self, value: Any) -> None:
        """Store its value. If another process stored it first, that one stays.

        Raises:
            UserError: an error of the machine: no space, no permission …
        """
        with written_aside(self.path, replace=False) as aside:
            if self.form.files:
                aside.mkdir()
            data = self.form.write(value, aside)
            names = (
                sorted(p.relative_to(aside).as_posix() for p in aside.rglob("*") if p.is_file())
                if self.form.files
                else []
            )
            content = {
                "format": FORMAT,
                "kind": self.kind,
                "made_from": self.made_from,
                "value": data,
                "files": {name: read_sha256(aside / name) for name in names},
            }
            about = aside / _ABOUT if self.form.files else aside
            about.write_text(sealed(content), encoding="utf-8", errors="surrogatepass")

    @property
    def _about_path(self) -> Path:
        return self.path / _ABOUT if self.form.files else self.path

    def _value(self) -> T:
        content = read_about(self._about_path)
        if digest_of(content["made_from"]) != digest_of(self.made_from):
            raise DamagedError("it is another piece")
        for name, expected in content["files"].items():
            if read_sha256(self.path / name) != expected:
                raise DamagedError(f"the checksum of {name} does not match")
        return self.form.read(content["value"], self.path)

    def _put_away(self, how: str) -> None:
        """Remove what is damaged, so that a good one can take its place, and say so."""
        if take_away(self.path, DAMAGED, what=f"{self.path} is damaged ({how}) and cannot be made again"):
            say(f"warning: {self.what or self.kind} {self.path} is damaged ({how}): it is made again")


def read_about(path: Path) -> dict[str, Any]:
    """The content of a piece's JSON file, after its checksum has been verified.

    Raises:
        DamagedError: the file differs from what was written.
        OSError: the file is missing or cannot be read.
    """
    try:
        content = unsealed(path.read_text(encoding="utf-8", errors="surrogatepass"))
        if content["format"] != FORMAT:
            raise DamagedError(f"its format is {content['format']!r}, not {FORMAT}")
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedError(f"it cannot be read: {error}") from error
    return content


Used = set[tuple[str, str]]
Tell = Callable[[Used, tuple[str, str]], None]
_recorders: list[tuple[Used, Tell]] = []


@contextmanager
def recording(tell: Tell = lambda used, latest: None) -> Iterator[Used]:
    """Inside this context, record every piece that this process reads or makes: (kind, name of its file or folder).

    Args:
        tell: called at every use, with everything recorded so far and the piece that is used now.
    """
    recorder: tuple[Used, Tell] = (set(), tell)
    _recorders.append(recorder)
    try:
        yield recorder[0]
    finally:
        _recorders.remove(recorder)


def note_use(kind: str, name: str) -> None:
    """Tell the open recorders that this entry of the cache is used."""
    for used, tell in _recorders:
        used.add((kind, name))
        tell(used, (kind, name))
