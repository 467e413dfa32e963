"""The chosen documents, divided into the groups that every later step maps over.

A corpus is one parquet file in the cache. Each row is a *part*: a document, or a stretch of a long one. Each row group
holds a bounded amount of text and is encoded at once: shard k of any space's codes comes from row group k.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.progress import say, warn
from unifeat.store import Form, Piece, cache_root, machine_error
from unifeat.store.keys import DamagedError
from unifeat.store.pieces import read_about
from unifeat.text.choosing import SeenDocuments, within_budget
from unifeat.text.sources import find_source, read_documents, source_stamp

VERSION = 3  # raised whenever the documents chosen from a source change
_SCHEMA = pa.schema([("document", pa.int32()), ("start", pa.int32()), ("text", pa.string())])


class Cut(NamedTuple):
    """How text is divided into groups and parts.

    Attributes:
        group: characters at which a group of documents is full. The default is about 16,000 tokens, so that a shard of
            codes is a few megabytes and takes a few seconds.
        part: characters above which a document is divided, so that the size of a group does not depend on the text.
    """

    group: int = 65_536
    part: int = 65_536


USUAL_CUT = Cut()


@dataclass(frozen=True)
class Part:
    """A stretch of one document: `text` begins at character `start` of document number `document`."""

    document: int
    start: int
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents on disk, in order, in bounded groups.

    Attributes:
        path: the parquet file.
        digest: SHA-256 of the documents themselves; two sources with the same text share all later work.
        documents, characters, groups: how many there are.
        budget_tokens: tokens counted by the tokenizer that the budget refers to; None for a document budget.
        cut: how the text is divided into groups and parts.
        duplicates: how many documents repeat an earlier one. With `drop_duplicates`, that many were left out; without,
            they are in the corpus.
    """

    path: Path
    digest: str
    documents: int
    characters: int
    groups: int
    budget_tokens: int | None
    cut: Cut = USUAL_CUT
    duplicates: int = 0

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path)
        except (OSError, pa.ArrowException) as error:
            told = machine_error(error, f"reading {self.path}")
            raise told or UserError(f"text {self.path} was whole and is not: run the same command again") from error

    def parts(self, group: int) -> list[Part]:
        """The parts of one group, in document order.

        Raises:
            UserError: the file was damaged or removed since it was verified.
        """
        table = self._open().read_row_group(group, columns=["document", "start", "text"])
        return [Part(row["document"], row["start"], row["text"]) for row in table.to_pylist()]

    def parts_of(self, documents: Collection[int]) -> Iterator[Part]:
        """The parts of some documents, in text order; only the groups that have any of them are read.

        Raises:
            UserError: as `parts`.
        """
        file = self._open()
        for group in range(self.groups):
            stats = file.metadata.row_group(group).column(0).statistics
            if stats is None or any(stats.min <= document <= stats.max for document in documents):
                yield from (part for part in self.parts(group) if part.document in documents)

    @cached_property
    def group_characters(self) -> list[int]:
        """Characters of text in each group; progress is weighted by them."""
        file = self._open()
        return [
            sum(len(t) for t in file.read_row_group(g, columns=["text"])["text"].to_pylist())
            for g in range(self.groups)
        ]

    @cached_property
    def group_documents(self) -> list[tuple[int, int]]:
        """The first and last document of each group; a long document may be in several groups."""
        file = self._open()
        numbers = [file.read_row_group(g, columns=["document"])["document"] for g in range(self.groups)]
        return [(found[0].as_py(), found[-1].as_py()) for found in numbers]

    def contexts(self, places: list[tuple[int, int]], around: int = 60) -> dict[tuple[int, int], tuple[str, int]]:
        """Text around places (document, character), reading only the groups they are in.

        Returns, for each place, the text within `around` characters before and after it, and the offset of the place in
        that text.
        """
        wanted: dict[int, list[int]] = {}
        for document, character in places:
            wanted.setdefault(document, []).append(character)
        found: dict[tuple[int, int], tuple[str, int]] = {}
        for part in self.parts_of(wanted):
            for character in wanted[part.document]:
                at = character - part.start
                # A token that ends where one part ends and the next begins belongs to the first of the two.
                if 0 <= at <= len(part.text) and (part.document, character) not in found:
                    left = max(0, at - around)
                    found[part.document, character] = (part.text[left : at + around], at - left)
        return found


def build_corpus(
    source: str,
    *,
    documents: int | None,
    tokens: int | None,
    count_tokens: Callable[[str], int],
    tokenizer_digest: str,
    skip: int = 0,
    field: str = "text",
    split: str = "train",
    config: str | None = None,
    cut: Cut = USUAL_CUT,
    drop_duplicates: bool = False,
) -> Corpus:
    """Choose documents from a source up to a budget and store them in the cache; a later call finds them there.

    Duplicate documents are counted, and their number is reported once on stderr.

    Args:
        source: file, folder, glob or dataset name (see `sources.find_source`).
        documents: at most this many documents, or None.
        tokens: stop after the document that reaches this many tokens, or None. Documents stay whole.
        count_tokens: number of tokens in a text, by the tokenizer that the token budget refers to.
        tokenizer_digest: identity of that tokenizer.
        skip: documents to leave out at the start.
        field, split, config: see `sources.read_documents`.
        cut: see `Cut`.
        drop_duplicates: leave out documents identical to an earlier one, before `skip`, `documents` and `tokens` apply.

    Raises:
        UserError: no source, no text in it, fewer documents than `skip`, or the source cannot be read.
    """
    found = find_source(source)
    made_from: dict[str, Any] = {
        "version": VERSION,
        "source": source_stamp(found),
        "field": field,
        "split": split,
        "config": config,
        "skip": skip,
        "documents": documents,
        "tokens": [tokens, tokenizer_digest] if tokens is not None else None,
        "cut": list(cut),
        "drop_duplicates": drop_duplicates,
    }

    def choose() -> _Chosen:
        seen = SeenDocuments()
        texts = read_documents(found, field, split, config)
        if drop_duplicates:
            texts = seen.first_ones(texts)
        return _Chosen(
            within_budget(texts, skip, documents, tokens, count_tokens), cut, source, skip, seen, drop_duplicates
        )

    corpus: Corpus = Unit(_piece(made_from), choose).result()
    return corpus


def stored_corpus(digest: str, cut: Sequence[int]) -> Corpus | None:
    """The documents with this digest, if the cache holds them: they are found without the source they came from.

    Args:
        digest: `Corpus.digest`.
        cut: how they are divided into groups and parts.
    """
    for about in sorted((cache_root() / "text").glob("*/piece.json")):
        try:
            content = read_about(about)
            same = content["value"]["digest"] == digest and content["made_from"]["cut"] == list(cut)
        except (DamagedError, OSError, LookupError, TypeError):
            continue  # (whoever builds a corpus from the same source removes it and makes it again)
        if same and (found := _piece(content["made_from"]).read()) is not None:
            return found
    return None


def _piece(made_from: dict[str, Any]) -> Piece[Corpus]:
    form: Form[Corpus] = Form(_write, partial(_read, Cut(*made_from["cut"])))
    return Piece("text", made_from, form, "the text")


class _Chosen(NamedTuple):
    """Documents to be written, each with its number of tokens, and how to write them."""

    documents: Iterator[tuple[str, int]]
    cut: Cut
    source: str
    skip: int
    seen: SeenDocuments
    dropping: bool


def _read(cut: Cut, facts: dict[str, Any], folder: Path) -> Corpus:
    return Corpus(folder / "text.parquet", cut=cut, **facts)


def _write(chosen: _Chosen, folder: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    documents = characters = groups = 0
    budget: int | None = None
    with pq.ParquetWriter(folder / "text.parquet", _SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for number, (text, cost) in enumerate(chosen.documents):
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text.encode("utf-8", "surrogatepass"))
            if not chosen.dropping:
                chosen.seen.is_new(text)
            documents += 1
            characters += len(text)
            if cost >= 0:
                budget = (budget or 0) + cost
            for start in range(0, max(len(text), 1), chosen.cut.part):
                piece = text[start : start + chosen.cut.part] if len(text) > chosen.cut.part else text
                rows.append({"document": number, "start": start, "text": piece})
                size += len(piece)
                if size >= chosen.cut.group:
                    writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
                    rows, size, groups = [], 0, groups + 1
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
            groups += 1
    if not documents:
        after = f" after skipping {chosen.skip}" if chosen.skip else ""
        raise UserError(f"text source {chosen.source} holds no text{after}: it has no documents, or all are blank")
    if chosen.seen.again:
        _tell_duplicates(chosen, documents)
    return {
        "digest": digest.hexdigest(),
        "documents": documents,
        "characters": characters,
        "groups": groups,
        "budget_tokens": budget,
        "duplicates": chosen.seen.again,
    }


def _tell_duplicates(chosen: _Chosen, documents: int) -> None:
    again = chosen.seen.again
    if chosen.dropping:
        say(f"text source {chosen.source}: {again:,} documents that repeat an earlier one are left out")
    else:
        warn(
            f"text source {chosen.source}: {again:,} of {documents:,} documents repeat an earlier one, so "
            "that held-out documents may not be new; set text.drop_duplicates: true to leave them out"
        )
