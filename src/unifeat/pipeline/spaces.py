"""Spaces and the text of a study, as passed from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unifeat.codes.store import CodeStore
from unifeat.models.language import tokenizer_digest
from unifeat.study.spec import TextSpec
from unifeat.text.corpus import Corpus, Cut, build_corpus


@dataclass(frozen=True)
class Space:
    """One model, one hook point, one SAE, with its codes on disk.

    Attributes:
        name: `model@layer`.
        decoder: (d_sae, d_in) float32, rows of unit norm.
        info: its facts in the report.
    """

    name: str
    group: str
    layer: int
    store: CodeStore
    tokenizer: Any = field(repr=False)
    decoder: np.ndarray = field(repr=False)
    info: dict[str, Any] = field(repr=False)


def study_corpus(text: TextSpec, tokenizer: Any) -> Corpus:
    """The documents of a study; this tokenizer counts a token budget."""
    return build_corpus(
        text.source,
        documents=text.documents,
        tokens=text.tokens,
        count_tokens=lambda t: len(tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"]),
        tokenizer_digest=tokenizer_digest(tokenizer),
        skip=text.skip,
        field=text.field,
        split=text.split,
        config=text.config,
        cut=Cut(text.group, text.group),
        drop_duplicates=text.drop_duplicates,
    )
