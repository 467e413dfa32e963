"""Where rows of activations come from: documents and, if they are known, ends or tokens; read from a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.brought import Codes, SavedCodes
from unifeat.errors import UserError
from unifeat.store.keys import digest_of, digest_of_arrays

_ENDINGS = (".csv", ".tsv", ".parquet", ".npz")


@dataclass(frozen=True)
class RowPlaces:
    """Places of rows.

    Attributes:
        documents: (rows,) the document of each row.
        ends: (rows,) the characters at which tokens end; None if the tokens make the text.
        tokens: (rows,) their texts; None if they are not known.
    """

    documents: NDArray[Any]
    ends: NDArray[Any] | None = None
    tokens: list[str] | None = None

    @classmethod
    def of_columns(cls, columns: Mapping[str, Any], what: str = "places") -> RowPlaces:
        """Of a table's columns `document` and, where there are any, `char_end` and `token`.

        Whether they are whole numbers is checked with the codes (`Codes`).

        Raises:
            UserError: there is no `document`.
        """
        if "document" not in columns:
            raise UserError(f"{what}: there is no document; there is {', '.join(columns) or 'nothing'}")
        ends, tokens = columns.get("char_end"), columns.get("token")
        return cls(
            np.asarray(columns["document"]),
            None if ends is None else np.asarray(ends),
            None if tokens is None else [str(token) for token in tokens],
        )

    @classmethod
    def of_shape(cls, shapes: list[tuple[int, ...]]) -> RowPlaces:
        """Of arrays (documents, positions, width), a document each; of (rows, width), one document for each array."""
        lengths = (
            [shape[1] for shape in shapes for _ in range(shape[0])] if len(shapes[0]) == 3 else [s[0] for s in shapes]
        )
        return cls(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def numbered(self) -> bool:
        """Whether rows are called by their numbers, for want of ends and tokens."""
        return self.ends is None and self.tokens is None

    @property
    def begins(self) -> NDArray[np.intp]:
        """The rows with which documents begin."""
        return np.flatnonzero(np.diff(self.documents, prepend=-1))

    @property
    def digest(self) -> str:
        """Identity of the places."""
        arrays = [self.documents, *([] if self.ends is None else [self.ends])]
        return digest_of([digest_of_arrays(*arrays), self.tokens])

    def codes(self, matrix: Any, rows: slice) -> Codes:
        """Codes of some rows, with their places."""
        ends = None if self.ends is None else self.ends[rows]
        tokens = None if self.tokens is None else self.tokens[rows]
        return Codes(matrix, self.documents[rows], ends=ends, tokens=tokens)


def read_places(path: Path) -> RowPlaces:
    """Read `document` and, where there are any, `char_end` and `token` of each row.

    Raises:
        UserError: another kind of file, or no documents.
    """
    import pandas as pd

    if path.suffix not in _ENDINGS:
        raise UserError(f"places {path}: give a table that ends in {', '.join(_ENDINGS)}")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                table = pd.DataFrame({name: arrays[name] for name in arrays.files})
        elif path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            separator = "," if path.suffix == ".csv" else "\t"
            table = pd.read_csv(path, sep=separator, keep_default_na=False, skip_blank_lines=False)
    except (OSError, ValueError) as error:
        raise UserError(f"places {path} cannot be read: {str(error).splitlines()[0]}") from error
    return RowPlaces.of_columns({str(name): table[name] for name in table}, f"places {path}")


def places_of_saved(saved: SavedCodes) -> RowPlaces:
    """The places of all rows of saved codes, in memory; without ends where the tokens make the text.

    Raises:
        UserError: a shard is damaged or missing.
    """
    shards = [shard.places for shard in saved.shards_of(0, np.iinfo(np.int32).max)]
    documents, ends, ids = (
        np.concatenate([np.asarray(getattr(places, name)) for places in shards])
        for name in ("document", "char_end", "token")
    )
    texts = saved.vocabulary
    named = bool(texts) and not saved.numbered
    return RowPlaces(
        documents,
        None if saved.store.settings["own_text"] else ends,
        [texts[token] for token in ids.tolist()] if named else None,
    )
