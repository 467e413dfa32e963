"""Saved codes of a user, cut as a study's text is, so that they are aligned with other spaces group by group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.brought import VERSION, SavedCodes
from unifeat.codes.encode import GroupShards
from unifeat.codes.shard import Shard, narrow_ids
from unifeat.codes.store import CodeStore
from unifeat.engine import Engine, Held, Unit
from unifeat.errors import UserError
from unifeat.progress import track
from unifeat.store import JSON, Piece, cache_root
from unifeat.text.corpus import Corpus, Part
from unifeat.vocabulary.places import Places

_MARKS = " \n\tĠ▁Ċ"  # blanks, and the signs that tokenizers write for them
_LONGEST = 50  # characters of a token, where only ends are known
_FEWEST_AS_SAID = 0.5
_TEXTS = Held(8)


@dataclass(frozen=True)
class TokenTexts:
    """The texts of a brought space's tokens, by id: what a tokenizer is for the other spaces.

    Attributes:
        unit: makes the list of texts.
    """

    unit: Unit[list[str]]

    @classmethod
    def of(cls, brought: str, text: str, cut: list[int]) -> TokenTexts:
        """Those that a run has left in the cache.

        Args:
            brought, text, cut: of the settings of the space's codes.
        """
        made = [{"version": 1, "brought": brought}]
        made.append(made[0] | {"text": text, "cut": cut})
        pieces = [Piece("token-texts", made_from, JSON, "the texts of tokens") for made_from in made]
        piece = next((piece for piece in pieces if piece.exists()), pieces[0])
        return cls(Unit(piece, _lost))

    def __call__(self) -> TokenTexts:
        """Itself, as a loaded tokenizer."""
        return self

    def decode(self, ids: list[int]) -> str:
        """The text of some tokens, as a tokenizer gives it."""
        texts = self.texts()
        return "".join(texts[token] for token in ids)

    def texts(self) -> list[str]:
        """All texts, by id."""
        assert isinstance(self.unit.piece, Piece)
        return _TEXTS.get((str(cache_root()), self.unit.piece.key), self.unit.result)


def token_texts(saved: SavedCodes, corpus: Corpus) -> TokenTexts:
    """The texts of tokens: as saved or, where only ends were, read from the text."""
    made_from = {"version": 1, "brought": saved.identity}
    if saved.vocabulary:
        return TokenTexts(Unit(Piece("token-texts", made_from, JSON, "the texts of tokens"), partial(_saved, saved)))
    made_from |= {"text": corpus.digest, "cut": list(corpus.cut)}
    read = partial(_read_texts, saved, corpus)
    return TokenTexts(Unit(Piece("token-texts", made_from, JSON, "the texts of tokens"), read))


def _lost() -> list[str]:
    raise UserError("the texts of the tokens are not in the cache (any more): run the study again, which makes them")


def _saved(saved: SavedCodes) -> list[str]:
    return saved.vocabulary


def _read_texts(saved: SavedCodes, corpus: Corpus) -> list[str]:
    found: set[str] = set()
    for group in range(corpus.groups):
        for part, places, before, _, _ in _rows_of(saved, corpus.parts(group)):
            found.update(_written(part, places, before))
    return sorted(found)


def import_codes(
    name: str,
    saved: SavedCodes,
    decoder: str,
    corpus: Corpus,
    texts: TokenTexts,
    engine: Engine,
    *,
    run: bool = True,
) -> CodeStore:
    """A space's codes as a store over a study's text; what is missing is made, a group of text at a time.

    Args:
        name: the space, for messages.
        decoder: digest of the decoder rows that belong to them.
        run: if False, nothing is made.

    Raises:
        UserError: no row is at a place of the text, or most tokens are not what the text has at their places.
    """
    settings = {
        "format": VERSION,
        "text": corpus.digest,
        "cut": list(corpus.cut),
        "brought": saved.identity,
        "tokenizer": f"brought {saved.identity}",
        "sae": decoder,
        "d_sae": saved.features,
    }
    store = CodeStore.create(cache_root() / "codes", settings)
    store.verify(corpus.groups)
    if store.finished() or not run:
        return store
    missing = [group for group in range(corpus.groups) if not store.has(group)]
    units = (
        Unit(GroupShards(group, {name: store}), partial(_import_group, name, saved, corpus, texts, group))
        for group in missing
    )
    with track(f"reading codes of {name}", max(len(missing), 1), unit="groups") as advance:
        for _ in engine.map(units):
            store.note_use()
            advance(1)
    _check(name, saved, store, corpus)
    store.finish(corpus.groups)
    return store


def _check(name: str, saved: SavedCodes, store: CodeStore, corpus: Corpus) -> None:
    stats = [store.stats(group) for group in range(corpus.groups)]
    rows, as_said = (sum(own[key] for own in stats) for key in ("read", "as_said"))
    if saved.numbered and as_said < _FEWEST_AS_SAID * max(rows, 1):
        raise UserError(
            f"space {name}: its rows have no places in this text: give their ends or tokens or, if row i is row i in "
            "all spaces, text: {source: rows}"
        )
    if not rows:
        raise UserError(f"space {name}: none of the {saved.store.rows:,} rows of codes is at a place of this text")
    if saved.vocabulary and as_said < _FEWEST_AS_SAID * rows:
        raise UserError(
            f"space {name}: only {as_said / rows:.0%} of the tokens of codes {saved.folder} are what the text has at "
            "their places: it is another text, or ends are not counted in characters of a document"
        )


def _import_group(
    name: str, saved: SavedCodes, corpus: Corpus, texts: TokenTexts, group: int
) -> Iterator[tuple[str, Shard]]:
    numbers = None if saved.vocabulary else {text: number for number, text in enumerate(texts.texts())}
    places: list[Places] = []
    indptr, feature, value = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    as_said = 0
    for part, own, before, shard, rows in _rows_of(saved, corpus.parts(group)):
        if numbers is None:
            as_said += _as_said(part, own, saved.vocabulary)
        else:
            tokens = np.fromiter((numbers[text] for text in _written(part, own, before)), np.int32, len(own))
            own = replace(own, token=tokens)
        places.append(own)
        entries = slice(int(shard.indptr[rows.start]), int(shard.indptr[rows.stop]))
        indptr.append(np.asarray(shard.indptr[rows.start + 1 : rows.stop + 1]) - entries.start + indptr[-1][-1])
        feature.append(np.asarray(shard.feature[entries]))
        value.append(np.asarray(shard.value[entries]))
    joined = Places(*(_joined([getattr(own, column) for own in places]) for column in _COLUMNS))
    stats: dict[str, Any] = dict.fromkeys(("special", "first", "sink", "fvu_tokens"), 0)
    stats |= {"read": len(joined), "as_said": as_said}
    ids = np.concatenate(feature).astype(narrow_ids(saved.features))
    yield name, Shard(np.concatenate(indptr), ids, np.concatenate(value), joined, stats)


_COLUMNS = ("document", "char_end", "order", "token")


def _joined(columns: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate([np.zeros(0, np.int32), *columns]).astype(np.int32)


def _rows_of(saved: SavedCodes, parts: list[Part]) -> Iterator[tuple[Part, Places, int, Shard, slice]]:
    """For each part of a group, the rows of saved codes whose tokens end in it.

    Yields the part, the rows' places, the end of the row before them in the part (or its start), their shard, and their
    numbers there.
    """
    if not parts:
        return
    shards = list(saved.shards_of(parts[0].document, parts[-1].document))
    keys = [_keys(shard.places.document, shard.places.char_end) for shard in shards]
    for part in parts:
        # A token that ends where one part ends and the next begins belongs to the first of the two.
        first = part.start + 1 if part.start else 0
        ends = _keys(np.array([part.document] * 2), np.array([first, part.start + len(part.text) + 1]))
        before = part.start
        for shard, key in zip(shards, keys, strict=True):
            begin, stop = np.searchsorted(key, ends).tolist()
            if stop > begin:
                places = shard.places[np.arange(begin, stop)]
                yield part, places, before, shard, slice(begin, stop)
                before = int(places.char_end[-1])


def _keys(documents: NDArray[Any], ends: NDArray[Any]) -> NDArray[np.int64]:
    return (np.asarray(documents).astype(np.int64) << 32) + np.asarray(ends)


def _written(part: Part, places: Places, last: int) -> list[str]:
    """The texts of tokens of which only the ends are known: from the end of the one before, if that is near."""
    ends = places.char_end.tolist()
    texts = []
    for end, before in zip(ends, [last, *ends[:-1]], strict=True):
        begin = before if 0 < end - before <= _LONGEST else max(end - 1, part.start)
        texts.append(part.text[begin - part.start : end - part.start])
    return texts


def _as_said(part: Part, places: Places, vocabulary: list[str]) -> int:
    """How many tokens are what the text has where they end, whatever their blanks."""
    found = 0
    for end, token in zip(places.char_end.tolist(), places.token.tolist(), strict=True):
        word = vocabulary[token].strip(_MARKS)
        found += part.text[: end - part.start].rstrip(_MARKS).endswith(word)
    return found
