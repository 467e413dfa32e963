"""The text of a study: which documents are read, and how."""

from __future__ import annotations

from pydantic import Field

from unifeat.study.values import Part, Text
from unifeat.vocabulary.bounds import LARGEST_COUNT

ROWS = "rows"  # as a study's source: the text that the rows of its own spaces make


def source_said(source: str) -> str:
    """A text's source as a sentence says it."""
    return {"-": "standard input", ROWS: "the spaces' own rows"}.get(source, source)


class DocumentsSpec(Part):
    """Documents, and how many of them are read."""

    source: Text = Field(
        description="file, folder or glob (.txt .jsonl .csv .parquet …), - for standard input, a dataset's name, or "
        "rows: the text that the rows of your own spaces make (docs/own.md)"
    )
    field: Text = Field("text", description="field or column of rows that holds the text")
    split: Text = Field("train", description="split of a Hugging Face dataset")
    config: Text | None = Field(None, description="configuration of a Hugging Face dataset")
    skip: int = Field(0, ge=0, le=LARGEST_COUNT, description="documents left out at the start")
    documents: int | None = Field(None, gt=0, le=LARGEST_COUNT, description="at most this many documents")
    tokens: int | None = Field(
        None,
        gt=0,
        le=LARGEST_COUNT,
        description="stop after the document that reaches this many tokens of the first model",
    )
    drop_duplicates: bool = Field(
        False, description="leave out documents that repeat an earlier one, before skip, documents and tokens count"
    )


class TrainTextSpec(DocumentsSpec):
    """Text, and how models read it."""

    context: int = Field(128, ge=2, le=2**20, description="window length in tokens, including BOS")
    windows: int | None = Field(
        None, gt=0, le=LARGEST_COUNT, description="at most this many windows of each document, from its start"
    )
    group: int = Field(
        65_536,
        gt=0,
        le=2**24,
        description="characters worked on at once: several documents, or a part of a long one",
    )


class TextSpec(TrainTextSpec):
    """The text that every model reads, and on which pairs are found."""

    elsewhere: DocumentsSpec | None = Field(
        None, description="another kind of text, read in the same way, on which the r of the pairs is read again"
    )
