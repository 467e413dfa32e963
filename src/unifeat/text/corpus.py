"""The chosen documents, cut into the units of work that every later step maps over.

A corpus is one parquet file in the cache. Each row is a *part*: a document, or a stretch of a long one. Each row group
holds a bounded amount of text and is the unit of work of encoding: shard k of any space's codes comes from row group k.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unifeat.errors import UserError
from unifeat.storage import cache_root, key_of, written_aside
from unifeat.text.sources import find_source, read_documents, source_stamp

GROUP_CHARACTERS = 65_536  # about 16,000 tokens: a shard is a few megabytes and a few seconds of work
PART_CHARACTERS = 65_536  # a longer document is cut, so that no unit of work grows with the text
_SCHEMA = pa.schema([("document", pa.int32()), ("start", pa.int32()), ("text", pa.string())])


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
        digest: SHA-256 over the documents themselves; two sources with the same text share all later work.
        documents, characters, groups: how many there are.
        budget_tokens: tokens counted by the tokenizer the budget refers to, or None for a document budget.
    """

    path: Path
    digest: str
    documents: int
    characters: int
    groups: int
    budget_tokens: int | None

    @classmethod
    def open(cls, path: Path) -> Corpus:
        """Open a corpus file written by `build_corpus`."""
        file = pq.ParquetFile(path)
        meta = {k.decode(): v.decode() for k, v in (file.metadata.metadata or {}).items() if k != b"ARROW:schema"}
        tokens = int(meta["budget_tokens"])
        return cls(
            path,
            meta["digest"],
            int(meta["documents"]),
            int(meta["characters"]),
            file.metadata.num_row_groups,
            tokens if tokens >= 0 else None,
        )

    def parts(self, group: int) -> list[Part]:
        """The parts of one group, in document order."""
        table = pq.ParquetFile(self.path).read_row_group(group, columns=["document", "start", "text"])
        return [Part(row["document"], row["start"], row["text"]) for row in table.to_pylist()]

    @cached_property
    def group_characters(self) -> list[int]:
        """Characters of text in each group: what progress is weighed by."""
        file = pq.ParquetFile(self.path)
        return [
            sum(len(t) for t in file.read_row_group(g, columns=["text"])["text"].to_pylist())
            for g in range(self.groups)
        ]

    @cached_property
    def group_documents(self) -> list[tuple[int, int]]:
        """The first and the last document of each group; a long document may be in several."""
        file = pq.ParquetFile(self.path)
        numbers = [file.read_row_group(g, columns=["document"])["document"] for g in range(self.groups)]
        return [(found[0].as_py(), found[-1].as_py()) for found in numbers]

    def contexts(self, places: list[tuple[int, int]], around: int = 60) -> dict[tuple[int, int], tuple[str, int]]:
        """Text around places (document, character), without reading more than the groups they are in.

        Returns, for each place, the stretch of text within `around` characters before and after it, and
        the offset of the place in that stretch.
        """
        wanted: dict[int, list[int]] = {}
        for document, character in places:
            wanted.setdefault(document, []).append(character)
        found: dict[tuple[int, int], tuple[str, int]] = {}
        file = pq.ParquetFile(self.path)
        for group in range(self.groups):
            stats = file.metadata.row_group(group).column(0).statistics
            if stats is not None and not any(stats.min <= d <= stats.max for d in wanted):
                continue
            for part in self.parts(group):
                for character in wanted.get(part.document, ()):
                    at = character - part.start
                    # A token that ends where a part ends belongs to that part, not to the one that begins there.
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
) -> Corpus:
    """Choose documents from a source up to a budget and store them in the cache; a later call finds them there.

    Args:
        source: file, folder, glob or dataset name (see `sources.find_source`).
        documents: at most so many documents, or None.
        tokens: stop after the document that reaches so many tokens, or None. Documents stay whole.
        count_tokens: tokens in a text, by the tokenizer the token budget refers to.
        tokenizer_digest: identity of that tokenizer.
        skip: documents to leave out at the start.

    Raises:
        UserError: no source, no text in it, or fewer documents than `skip`.
    """
    found = find_source(source)
    settings: dict[str, Any] = {
        "what": "corpus/1",
        "source": source_stamp(found),
        "field": field,
        "split": split,
        "config": config,
        "skip": skip,
        "documents": documents,
        "tokens": [tokens, tokenizer_digest] if tokens is not None else None,
        "cut": [GROUP_CHARACTERS, PART_CHARACTERS],
    }
    path = cache_root() / "text" / f"{key_of(settings)}.parquet"
    if not path.exists():
        chosen = _choose(read_documents(found, field, split, config), skip, documents, tokens, count_tokens)
        _write(path, chosen, source, skip)
    return Corpus.open(path)


def _choose(
    texts: Iterator[str],
    skip: int,
    documents: int | None,
    tokens: int | None,
    count_tokens: Callable[[str], int],
) -> Iterator[tuple[str, int]]:
    """Documents within the budget, each with its number of tokens (−1 when the budget does not count them)."""
    taken = spent = 0
    for number, text in enumerate(texts):
        if number < skip:
            continue
        if (documents is not None and taken >= documents) or (tokens is not None and spent >= tokens):
            return
        cost = count_tokens(text) if tokens is not None else -1
        taken += 1
        spent += max(cost, 0)
        yield text, cost


def _write(path: Path, chosen: Iterator[tuple[str, int]], source: str, skip: int) -> None:
    digest = hashlib.sha256()
    counts = {"documents": 0, "characters": 0, "budget_tokens": -1}
    with written_aside(path) as aside:
        with pq.ParquetWriter(aside, _SCHEMA, compression="zstd") as writer:
            rows: list[dict[str, Any]] = []
            size = 0
            for number, (text, cost) in enumerate(chosen):
                digest.update(len(text).to_bytes(8, "little") + text.encode("utf-8", "surrogatepass"))
                counts["documents"] += 1
                counts["characters"] += len(text)
                if cost >= 0:
                    counts["budget_tokens"] = max(counts["budget_tokens"], 0) + cost
                for start in _cuts(text):
                    piece = text[start : start + PART_CHARACTERS] if len(text) > PART_CHARACTERS else text
                    rows.append({"document": number, "start": start, "text": piece})
                    size += len(piece)
                    if size >= GROUP_CHARACTERS:
                        writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
                        rows, size = [], 0
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
            writer.add_key_value_metadata({"digest": digest.hexdigest(), **{k: str(v) for k, v in counts.items()}})
        if counts["documents"] == 0:
            after = f" after skipping {skip}" if skip else ""
            raise UserError(f"text source {source} holds no text{after}: every document is blank or there is none")


def _cuts(text: str) -> range:
    return range(0, max(len(text), 1), PART_CHARACTERS)
