"""Spaces and the text of a study, as passed from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from unifeat.codes.store import CodeStore
from unifeat.codes.top_activations import TopTokens
from unifeat.engine import Engine, Held
from unifeat.models.language import load_tokenizer, tokenizer_digest
from unifeat.runs.roles import role_of
from unifeat.saes.weights import Decoder
from unifeat.study.spec import ModelSpec, Study, TextSpec
from unifeat.text.corpus import Corpus, Cut, build_corpus

_TOKENIZERS = Held(8)


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a model, loaded when it is needed."""

    spec: ModelSpec

    def __call__(self) -> Any:
        spec = self.spec
        return _TOKENIZERS.get(
            (spec.name, spec.dtype, spec.revision, spec.trust_remote_code),
            lambda: load_tokenizer(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code),
        )


@dataclass(frozen=True)
class Space:
    """One model, one hook point, one SAE, with its codes on disk. Light: what is large is read when it is needed.

    Attributes:
        name: `model@layer`.
        tokenizer: loads the model's tokenizer.
        decoder: rows of unit norm.
        tokens: the texts of each feature's strongest tokens, for the token filters.
        info: its facts in the report.
    """

    name: str
    group: str
    layer: int
    store: CodeStore
    tokenizer: Tokenizer = field(repr=False)
    decoder: Decoder = field(repr=False)
    tokens: TopTokens = field(repr=False)
    info: dict[str, Any] = field(repr=False)

    @property
    def tops(self) -> pd.DataFrame:
        """The strongest activations of each feature (see `top_activations`)."""
        return self.tokens.tops.result()


def role(a: Space, b: Space) -> str:
    """What two spaces are compared for: `ordinary`, `ceiling`, `one model` or `control` (see `role_of`)."""
    return role_of(a.info, b.info)


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


def with_types(study: Study, engine: Engine) -> Study:
    """The study with the models' dtypes, where they are chosen by the machines that the models will run on."""
    if not engine.remote:
        return study
    models = {
        name: spec.model_copy(update={"dtype": "bfloat16" if engine.gpus and spec.device != "cpu" else "float32"})
        if spec.dtype == "auto"
        else spec
        for name, spec in study.models.items()
    }
    return study.model_copy(update={"models": models})
