"""Row i is row i: whose places rows without places take, and the text that rows make.

The one rule for spaces that are brought, in studies and in `compare`. Rows have places if they have ends or tokens.
Rows without take those of the first space that has places and as many rows. If no space has places, all must have the
same number of rows, and rows are called by their numbers. docs/own.md tells users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from unifeat.codes.array_files import array_files
from unifeat.codes.brought import ROWS as AT_ONCE
from unifeat.codes.brought import TEXT, Codes, SavedCodes, write_codes
from unifeat.codes.own_text import OwnText
from unifeat.codes.row_places import RowPlaces, places_of_saved, read_places
from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.store import Form, Piece
from unifeat.store.paths import user_path
from unifeat.study.brought import BroughtSpec
from unifeat.study.text import ROWS, TextSpec

_VERSION = 1  # raised whenever the codes or texts made here change


@dataclass(frozen=True)
class Rows:
    """The rows of a space that is brought.

    Attributes:
        name: of the space.
        count: how many.
        numbered: whether they have no places, and are called by their numbers.
        own_text: whether they make a text: they have no ends in another.
        read: reads their places.
        text: the text that they make, if it has been written.
    """

    name: str
    count: int
    numbered: bool
    own_text: bool
    read: Callable[[], RowPlaces]
    text: Path | None = None

    @cached_property
    def places(self) -> RowPlaces:
        """Their places, in memory."""
        return self.read()

    @classmethod
    def of(cls, spec: BroughtSpec) -> Rows:
        """The rows of a study's space; activations are not encoded for it.

        Raises:
            UserError: files that are not there, or not what they should be.
        """
        if spec.codes is not None:
            return cls.of_saved(spec.name, SavedCodes.open(user_path(spec.codes, "codes")))
        assert spec.activations is not None
        shapes = [file.shape for file in array_files(user_path(spec.activations, "activations"))]
        given = spec.places
        places = RowPlaces.of_shape(shapes) if given is None else read_places(user_path(given, "places"))
        rows = sum(prod(shape[:-1]) for shape in shapes)
        return cls(spec.name, rows, places.numbered, places.ends is None, lambda: places)

    @classmethod
    def of_saved(cls, name: str, saved: SavedCodes) -> Rows:
        """The rows of saved codes."""
        settings, read = saved.store.settings, partial(places_of_saved, saved)
        return cls(name, saved.store.rows, saved.numbered, bool(settings["own_text"]), read, saved.text)


def at_their_places(spaces: dict[str, SavedCodes]) -> dict[str, SavedCodes]:
    """Saved codes by space, those without places at the places that they take.

    Raises:
        UserError: row i cannot be row i: the numbers of rows differ, or the documents.
    """
    rows = {name: Rows.of_saved(name, saved) for name, saved in spaces.items()}
    found = dict(spaces)
    for name, own in rows.items():
        other = _theirs(own, list(rows.values()))
        if other is not None:
            found[name] = _moved(spaces[name], spaces[other.name], other.places)
    return found


def _theirs(own: Rows, everyone: list[Rows]) -> Rows | None:
    """The rows whose places others take; None if these keep their own."""
    if not own.numbered:
        return None
    placed = [other for other in everyone if not other.numbered]
    like = [other for other in placed or everyone if other.count == own.count]
    if not like or (not placed and len(like) < len(everyone)):
        counts = sorted({other.count for other in [own, *(placed or everyone)]})
        raise UserError(
            f"space {own.name}: rows without tokens or ends: row i must be row i, and they have {counts} rows; give "
            "them places"
        )
    other = like[0] if placed else _of_most_documents(like)
    begins, theirs = own.places.begins, other.places.begins
    if np.array_equal(begins, theirs):
        return None if other.numbered else other
    if len(begins) > 1:
        raise UserError(
            f"space {own.name}: row i must be row i of {other.name}, and their documents differ: give both the same, "
            "or give places"
        )
    return other


def _of_most_documents(rows: list[Rows]) -> Rows:
    return max(rows, key=lambda own: len(own.places.begins))


def _moved(saved: SavedCodes, other: SavedCodes, places: RowPlaces) -> SavedCodes:
    made_from = {"version": _VERSION, "rows": saved.identity, "places": other.identity}
    form: Form[SavedCodes] = Form(_write_codes, lambda value, folder: SavedCodes(folder))
    piece = Piece("brought", made_from, form, "codes at the places of others")
    return Unit(piece, lambda: (_at(saved, places), saved.about)).result()


def _at(saved: SavedCodes, places: RowPlaces) -> Iterator[Codes]:
    begin = 0
    for shard in saved.shards_of(0, np.iinfo(np.int32).max):
        entries = np.asarray(shard.value), np.asarray(shard.feature, np.int32), np.asarray(shard.indptr)
        matrix = sparse.csr_array(entries, shape=(shard.rows, saved.features))
        yield places.codes(matrix, slice(begin, begin + shard.rows))
        begin += shard.rows


def _write_codes(work: tuple[Iterator[Codes], dict[str, Any]], folder: Path) -> None:
    blocks, about = work
    write_codes(blocks, folder, about=about)


def text_of(text: TextSpec, specs: list[BroughtSpec], *, encoded: bool) -> TextSpec:
    """The text as it is read: with `source: rows`, the one that rows make; by tokens or, if none has them, by numbers.

    Args:
        specs: the spaces that are brought.
        encoded: whether other spaces' models read the text, too.

    Raises:
        UserError: no rows make a text.
    """
    if text.source != ROWS:
        return text
    rows = [Rows.of(spec) for spec in specs]
    maker = next((own for own in rows if own.own_text and not own.numbered), None)
    if maker is None and rows and all(own.numbered for own in rows) and not encoded:
        maker = _of_most_documents(rows)
    if maker is None:
        raise UserError(
            "the study needs a text: a file, a dataset's name, or a list of documents; no space of your own has tokens "
            f"without ends, which would make one (text.source {ROWS}; a folder of this name is ./{ROWS})"
        )
    path = maker.text or _written(maker.places)
    return text.model_copy(update={"source": str(path), "field": "text"})


def _written(places: RowPlaces) -> Path:
    form: Form[Path] = Form(_write_text, lambda value, folder: folder / TEXT)
    piece = Piece("brought", {"version": _VERSION, "text of": places.digest}, form, "the text that rows make")
    return Unit(piece, lambda: places).result()


def _write_text(places: RowPlaces, folder: Path) -> None:
    text = OwnText(folder / TEXT)
    for start in range(0, len(places), AT_ONCE):
        stop = min(start + AT_ONCE, len(places))
        tokens = [f" {row}" for row in range(start, stop)] if places.tokens is None else places.tokens[start:stop]
        text.add(places.documents[start:stop], tokens)
    text.close()
