"""Corpora written by hand, and tables of activations at known tokens of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiny import write_text
from unifeat.text.corpus import USUAL_CUT, Corpus, Cut, build_corpus
from unifeat.text.windows import tokenize_part


def corpus_of(folder: Path, documents: list[str], cut: Cut = USUAL_CUT) -> Corpus:
    return build_corpus(
        str(write_text(folder, documents)),
        documents=None,
        tokens=None,
        count_tokens=len,
        tokenizer_digest="characters",
        cut=cut,
    )


def tokens_of(corpus: Corpus, tokenizer: Any) -> pd.DataFrame:
    """All tokens of a corpus in text order: `document`, `char_end`, `token`, and `text` as the tokenizer decodes it."""
    rows = []
    for group in range(corpus.groups):
        for part in corpus.parts(group):
            cut = tokenize_part(tokenizer, part)
            rows += [(part.document, int(e), int(t)) for e, t in zip(cut.char_end, cut.token, strict=True)]
    table = pd.DataFrame(rows, columns=["document", "char_end", "token"])
    return table.assign(text=[tokenizer.decode([t]) for t in table["token"]])


def firing(tokens: pd.DataFrame, where: dict[int, list[int]]) -> pd.DataFrame:
    """A table of strongest activations: feature → rows of `tokens`, strongest first."""
    parts = [
        tokens.iloc[rows][["document", "char_end", "token"]].assign(
            feature=feature, rank=np.arange(len(rows)), activation=np.linspace(2, 1, len(rows))
        )
        for feature, rows in where.items()
    ]
    return pd.concat(parts, ignore_index=True)


def words_by_rank(words: pd.DataFrame) -> dict[tuple[int, int], set[str]]:
    """(feature, rank) → its words."""
    groups = words.groupby(["feature", "rank"])["word"]
    return {(int(feature), int(rank)): set(own.astype(str)) for (feature, rank), own in groups}
