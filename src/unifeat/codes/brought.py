"""Codes that a user brings: a matrix, and where in a text each row comes from; saved in the store's format.

Specified in docs/code-store.md, under "Codes of your own".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from unifeat.codes.own_text import OwnText, Vocabulary, ends_of
from unifeat.codes.shard import Shard, narrow_ids, read_shard, write_shard
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.store import key_of, write_json, written_aside
from unifeat.store.keys import DamagedError
from unifeat.store.paths import exists, new_folder
from unifeat.vocabulary.paired_codes import as_csr
from unifeat.vocabulary.places import Places

VERSION = "unifeat-codes/1"
ROWS = 65_536  # rows of a shard
_LARGEST_PLACE = np.iinfo(np.int32).max
TOKENS, TEXT, DECODER, ABOUT = "tokens.json", "text.jsonl", "decoder.npy", "about.json"


class Codes:
    """Codes of a space (tokens × features) and where each row comes from.

    A row's place is its document and the character of that document's text at which its token ends. Without `ends`, the
    documents' texts are their tokens, one after another; without `tokens` as well, row i is row i, and is called so.

    Attributes:
        matrix: (rows, features) scipy CSR array, float32, without zeros.
        documents: (rows,) int32, the document of each row.
        ends: (rows,) int32, the character at which its token ends.
        tokens: the texts of the tokens, or None if they are to be read from the text.
        own_text: whether the tokens make the text; else `ends` are in a text that the study names.
    """

    def __init__(
        self, matrix: Any, documents: Any = None, *, ends: Any = None, tokens: Sequence[str] | None = None
    ) -> None:
        """Check and hold codes.

        Args:
            matrix: (rows, features), a scipy sparse matrix, NumPy array or torch tensor, dense or sparse.
            documents: (rows,) the document of each row: 0, 1, 2 …, never falling. By default all rows are of one.
            ends: (rows,) the character at which each row's token ends, in the text of its document.
            tokens: (rows,) the text of each row's token, with its blanks: " White".

        Raises:
            UserError: arrays of other lengths; documents or ends that fall; a code that is not finite.
        """
        self.matrix = _matrix(matrix)
        rows, features = self.matrix.shape
        if not features:
            raise UserError(f"codes have no features: their shape is {self.matrix.shape}")
        self.documents = _integers(documents if documents is not None else np.zeros(rows, np.int32), rows, "documents")
        if rows and (np.diff(self.documents) < 0).any():
            raise UserError("documents: they fall somewhere: sort the rows by document, in the order of the text")
        if tokens is not None and len(tokens) != rows:
            raise UserError(f"tokens: {len(tokens)} for {rows} rows")
        _check_characters(() if tokens is None else tokens)
        self.own_text = ends is None
        if ends is None:
            self.tokens: list[str] | None = (
                [f" {row}" for row in range(rows)] if tokens is None else list(map(str, tokens))
            )
            self.ends = ends_of(self.tokens, self.documents)
        else:
            self.tokens = None if tokens is None else list(map(str, tokens))
            self.ends = _integers(ends, rows, "ends")
            fall = (np.diff(self.ends) < 0) & (np.diff(self.documents) == 0)
            if fall.any():
                row = int(np.flatnonzero(fall)[0]) + 1
                raise UserError(f"ends: row {row} ends before the row before it, in document {self.documents[row]}")
        self.named_by_rows = ends is None and tokens is None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, features)."""
        return self.matrix.shape

    @property
    def places(self) -> Places:
        """The places of the rows; the ids of the tokens are 0."""
        order = np.zeros(len(self.ends), np.int32)
        same = np.r_[(np.diff(self.ends) == 0) & (np.diff(self.documents) == 0), False]
        for row in np.flatnonzero(same)[::-1]:  # the last token that ends at a character has order 0
            order[row] = order[row + 1] + 1
        return Places(self.documents, self.ends, order, np.zeros(len(self.ends), np.int32))

    def following(self, rows: int, document: int, end: int) -> Codes:
        """The same block where its tokens make the text, after other blocks.

        Args:
            rows: of the blocks before, by which rows without a token are named.
            document, end: of the last row before; the document may go on.
        """
        if not self.own_text:
            return self
        tokens = [f" {rows + row}" for row in range(self.shape[0])] if self.named_by_rows else self.tokens
        assert tokens is not None
        ends = ends_of(tokens, self.documents)
        ends[self.documents == document] += end
        placed = Codes(self.matrix, self.documents, ends=ends, tokens=tokens)
        placed.own_text, placed.named_by_rows = True, self.named_by_rows
        return placed

    def save(self, path: str | Path, *, decoder: Any = None) -> Path:
        """Write them to a folder (see `save_codes`)."""
        return save_codes(self, path, decoder=decoder)

    def _repr_html_(self) -> str:
        import pandas as pd

        first = {"document": self.documents[:5], "char_end": self.ends[:5]}
        shown = pd.DataFrame(first | ({"token": self.tokens[:5]} if self.tokens else {})).to_html(index=False)
        return f"<div><b>{self!r}</b>{shown}</div>"

    def __repr__(self) -> str:
        rows, features = self.matrix.shape
        documents = len(np.unique(self.documents))
        active = self.matrix.nnz / rows if rows else 0.0
        return f"Codes({rows:,} rows × {features:,} features, {active:.1f} active a row, {documents:,} documents)"


def _matrix(matrix: Any) -> sparse.csr_array:
    with np.errstate(over="ignore"):
        found = as_csr(matrix).astype(np.float32)
    if not np.isfinite(found.data).all():
        raise UserError("codes hold NaN or Inf, or numbers beyond float32: check the SAE or the array they are from")
    found.eliminate_zeros()  # (of a copy: float32 codes are copied, too)
    return found


def _check_characters(tokens: Sequence[str]) -> None:
    try:
        "".join(map(str, tokens)).encode()
    except UnicodeEncodeError:
        row = next(row for row, token in enumerate(tokens) if any("\ud800" <= sign <= "\udfff" for sign in str(token)))
        raise UserError(
            f"tokens: that of row {row}, {tokens[row]!r}, is no text (it has a lone surrogate): decode it with "
            "errors='replace'"
        ) from None


def _integers(values: Any, rows: int, what: str) -> NDArray[np.int32]:
    found = np.asarray(values)
    if found.shape != (rows,):
        raise UserError(f"{what}: shape {found.shape} for {rows} rows of codes")
    if rows and (not np.issubdtype(found.dtype, np.integer) or found.min() < 0 or found.max() > _LARGEST_PLACE):
        raise UserError(f"{what}: give whole numbers from 0 and below 2**31, one for each row")
    return found.astype(np.int32)


def save_codes(codes: Codes | Iterable[Codes], path: str | Path, *, decoder: Any = None) -> Path:
    """Write codes to a new folder that a study's `codes:` can name. Memory does not grow with the number of blocks.

    Args:
        codes: all of them or, one after another, blocks of rows in the order of the text.
        path: the folder, which must not exist.
        decoder: (features, width) decoder rows, or an SAE that has them as `W_dec`, to be kept with them.

    Returns:
        The folder.

    Raises:
        UserError: the folder exists, or nothing can be written there; blocks that do not fit together; documents that
            are blank, or left out, where the tokens make the text.
    """
    folder = new_folder(path, "path")
    if exists(folder):
        raise UserError(f"path {folder} exists: name a new folder")
    with written_aside(folder) as aside:
        aside.mkdir()
        write_codes([codes] if isinstance(codes, Codes) else codes, aside, decoder)
    return folder


def write_codes(
    blocks: Iterable[Codes], folder: Path, decoder: Any = None, about: dict[str, Any] | None = None
) -> None:
    """Write blocks of codes into an empty folder (see `save_codes`).

    Args:
        about: what else is known of them, for the report: the SAE that made them, its FVU. Read after the last block.
    """
    store: CodeStore | None = None
    vocabulary, text = Vocabulary(), OwnText(folder / TEXT)
    kind: tuple[int, bool, bool, bool] | None = None
    shards, rows, last = 0, 0, (-1, 0)
    if not isinstance(blocks, Iterable):
        raise UserError(f"codes to save are uf.Codes(matrix, …), or blocks of them, not {type(blocks).__name__}")
    for given in blocks:
        if not isinstance(given, Codes):
            raise UserError(f"codes to save are uf.Codes(matrix, …), or blocks of them, not {type(given).__name__}")
        own = (given.shape[1], given.own_text, given.tokens is not None, given.named_by_rows)
        kind = kind or own
        if own != kind:
            raise UserError(f"a block of codes has {_kind(own)}, and those before it {_kind(kind)}")
        if not given.shape[0]:
            continue
        block = given.following(rows, *last)
        if (int(block.documents[0]), int(block.ends[0])) < last:
            raise UserError("a block of codes begins before the end of the one before it: keep the order of the text")
        if store is None:
            settings = {"format": VERSION, "brought": True, "d_sae": own[0], "own_text": own[1], "tokens": own[2]}
            settings |= {"numbered": True} if own[3] else {}
            store = CodeStore(folder, settings)
            write_json(folder / "settings.json", settings)
        if block.own_text:
            text.add(block.documents, block.tokens or [])
        ids, places = vocabulary.ids(block.tokens, block.shape[0]), block.places
        for start in range(0, block.shape[0], ROWS):
            part = np.arange(start, min(start + ROWS, block.shape[0]))
            write_shard(store.shard_path(shards), _shard(block.matrix[part], replace(places, token=ids)[part]))
            shards += 1
        rows, last = rows + block.shape[0], (int(block.documents[-1]), int(block.ends[-1]))
    if store is None:
        raise UserError("there are no codes to save: no block has a row")
    text.close()
    write_json(folder / TOKENS, vocabulary.texts)
    write_json(folder / ABOUT, about or {})
    if decoder is not None:
        np.save(folder / DECODER, decoder_array(decoder, int(store.settings["d_sae"])))
    store.finish(shards)


def _kind(kind: tuple[int, bool, bool, bool]) -> str:
    features, own_text, tokens, numbered = kind
    has_tokens = tokens and not numbered
    return f"{features} features, {'no ends' if own_text else 'ends'} and {'tokens' if has_tokens else 'no tokens'}"


def _shard(matrix: sparse.csr_array, places: Places) -> Shard:
    stats = {
        "read": matrix.shape[0],
        **dict.fromkeys(("special", "first", "sink", "fvu_tokens"), 0),
        "first_document": int(places.document[0]),
        "last_document": int(places.document[-1]),
    }
    feature = matrix.indices.astype(narrow_ids(matrix.shape[1]))
    return Shard(matrix.indptr.astype(np.int64), feature, matrix.data, places, stats)


def decoder_array(decoder: Any, features: int) -> NDArray[np.float32]:
    """Decoder rows as (features, width) float32.

    Raises:
        UserError: another shape, or rows that are not finite.
    """
    decoder = getattr(decoder, "W_dec", decoder)
    if hasattr(decoder, "detach"):
        decoder = decoder.detach().to("cpu").float().numpy()
    try:
        found = np.asarray(decoder, np.float32)
    except (TypeError, ValueError):
        what = repr(decoder) if isinstance(decoder, str | Path) else type(decoder).__name__
        raise UserError(
            f"decoder: give the rows, an array (features, width), not {what}; files and names of SAEs are for uf.space "
            "and for studies"
        ) from None
    if found.ndim == 3:
        raise UserError(
            f"decoder: shape {found.shape} looks like a crosscoder's: make a space of each side, with decoder[0] and "
            "decoder[1]"
        )
    if found.ndim != 2 or found.shape[0] != features:
        turned = " (turn it over: one row a feature)" if found.ndim == 2 and found.shape[1] == features else ""
        raise UserError(f"decoder: shape {found.shape} for {features} features{turned}")
    if not np.isfinite(found).all():
        raise UserError("decoder: its rows hold NaN or Inf")
    return found


@dataclass(frozen=True)
class SavedCodes:
    """Codes that were saved in a folder.

    Attributes:
        folder: where they are.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> SavedCodes:
        """Open a folder written by `save_codes`.

        Raises:
            UserError: it was not.
        """
        saved = cls(folder)
        settings = saved.store.settings
        if not (isinstance(settings, dict) and settings.get("brought") and (folder / TOKENS).is_file()):
            raise UserError(f"codes {folder} were not written by save_codes")
        return saved

    @cached_property
    def store(self) -> CodeStore:
        """Their shards, cut as they were saved."""
        return CodeStore.open(self.folder)

    @property
    def features(self) -> int:
        """Number of features."""
        return self.store.features

    @property
    def numbered(self) -> bool:
        """Whether the rows have neither ends nor tokens, and are called by their numbers."""
        return bool(self.store.settings.get("numbered"))

    @cached_property
    def identity(self) -> str:
        """A digest of the codes, of their places and of their tokens."""
        return key_of([self.store.settings, self.store.identity[1], self.vocabulary])

    @cached_property
    def vocabulary(self) -> list[str]:
        """The texts of the tokens, by id; empty if they are to be read from the text."""
        return list(self._json(TOKENS))

    @property
    def about(self) -> dict[str, Any]:
        """What else is known of them."""
        return dict(self._json(ABOUT))

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"codes {self.folder} are damaged: {name}: {error}: save them again") from error

    @property
    def text(self) -> Path | None:
        """The documents that its tokens make, if they make the text."""
        return self.folder / TEXT if self.store.settings["own_text"] else None

    @property
    def decoder(self) -> Path | None:
        """The decoder rows that were saved with them, if any were."""
        path = self.folder / DECODER
        return path if path.is_file() else None

    def shards_of(self, first: int, last: int) -> Iterator[Shard]:
        """The shards that have rows of some documents, from the first to the last; each is verified.

        Raises:
            UserError: a shard is damaged or missing.
        """
        for number, entry in enumerate(self.store.manifest["shards"]):
            if entry["stats"]["first_document"] <= last and entry["stats"]["last_document"] >= first:
                path = self.store.shard_path(number)
                try:
                    shard, digest = read_shard(path, verify=True)
                    if digest != entry["sha256"]:
                        raise DamagedError("it differs from the manifest")
                except (DamagedError, FileNotFoundError) as error:
                    raise UserError(f"codes {path} are damaged ({error}): save them again") from error
                yield shard
