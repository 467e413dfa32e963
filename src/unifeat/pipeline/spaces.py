"""Spaces and the text of a study, as passed from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pandas as pd

from unifeat.codes.imported import TokenTexts
from unifeat.codes.store import CodeStore
from unifeat.codes.top_activations import TopTokens
from unifeat.engine import Engine, Held
from unifeat.errors import UserError
from unifeat.matching.elsewhere import FEWEST_DOCUMENTS
from unifeat.models.language import load_tokenizer, tokenizer_digest
from unifeat.pipeline.loading import Loader
from unifeat.pipeline.token_embeddings import TokenEmbeddings
from unifeat.runs.roles import role_of
from unifeat.saes.weights import Decoder
from unifeat.study.spec import ModelSpec, Study
from unifeat.study.text import DocumentsSpec, TextSpec, TrainTextSpec
from unifeat.text.corpus import Corpus, Cut, build_corpus
from unifeat.text.sources import find_source
from unifeat.vocabulary.windowing import Windowing

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
        tokenizer: loads the model's tokenizer or, of a brought space, the texts of its tokens.
        decoder: rows of unit norm.
        tokens: the texts of each feature's strongest tokens, for the token filters.
        info: its facts in the report.
        loader: loads its model and its SAE.
        activations: a sample of the activations that its SAE reconstructs, if the study asks for it.
        windowing: how its model reads the text.
        elsewhere: its codes on the text elsewhere; None if the study has none, or compares this space with no other.
    """

    name: str
    group: str
    layer: int
    store: CodeStore
    tokenizer: Tokenizer | TokenTexts = field(repr=False)
    decoder: Decoder = field(repr=False)
    tokens: TopTokens = field(repr=False)
    info: dict[str, Any] = field(repr=False)
    loader: Loader | None = field(default=None, repr=False)
    activations: CodeStore | None = field(default=None, repr=False)
    windowing: Windowing | None = field(default=None, repr=False)
    elsewhere: CodeStore | None = field(default=None, repr=False)

    @property
    def tops(self) -> pd.DataFrame:
        """The strongest activations of each feature (see `top_activations`)."""
        return self.tokens.tops.result()

    @property
    def token_embeddings(self) -> TokenEmbeddings:
        """The input embeddings of each feature's strongest tokens."""
        assert self.loader is not None
        return TokenEmbeddings(self.tokens, self.store.features, self.loader)


def role(a: Space, b: Space) -> str:
    """What two spaces are compared for: `ordinary`, `ceiling`, `one model` or `control` (see `role_of`)."""
    return role_of(a.info, b.info)


def check_compares(study: Study) -> None:
    """Raise a UserError if a study compares no two spaces."""
    if not any(study.compares(a, b) for a, b in combinations(study.space_names, 2)):
        few = "it has one space: add another" if len(study.space_names) == 1 else "check its compare key"
        raise UserError(f"the study compares no two spaces: {few}")


def compared_spaces(study: Study) -> set[str]:
    """The names of the spaces that the study compares with any other."""
    return {name for pair in combinations(study.space_names, 2) if study.compares(*pair) for name in pair}


def study_corpus(text: TrainTextSpec, tokenizer: Any) -> Corpus:
    """The documents of a study, or those that it trains on; this tokenizer counts a token budget, if there is one."""
    return _corpus(text, text.group, tokenizer)


def elsewhere_corpus(text: TextSpec, own: Corpus, tokenizer: Any) -> Corpus | None:
    """The other documents of a study, on which r is read again; None if it has none.

    Args:
        own: the documents on which pairs are found.
        tokenizer: counts a token budget.

    Raises:
        UserError: documents of the study's own text; too few to judge any pair; as `build_corpus`.
    """
    other = text.elsewhere
    if other is None:
        return None
    corpus = _corpus(other, text.group, tokenizer)
    first, end = max(text.skip, other.skip), min(text.skip + own.documents, other.skip + corpus.documents)
    again = first < end and _same_source(text, other)
    if again or corpus.digest == own.digest:
        more = f", or skip: {text.skip + own.documents} to read on after them" if again else ""
        raise UserError(f"text.elsewhere: {other.source} gives documents of the study's own text: name another{more}")
    if corpus.documents < FEWEST_DOCUMENTS:
        raise UserError(
            f"text.elsewhere: {other.source} gives {corpus.documents} documents, and a pair is judged where its "
            f"features fire in at least {FEWEST_DOCUMENTS}: give more"
        )
    return corpus


def _same_source(one: DocumentsSpec, other: DocumentsSpec) -> bool:
    """Whether both count documents in the same list."""
    same = all(getattr(one, name) == getattr(other, name) for name in ("field", "split", "config", "drop_duplicates"))
    return same and find_source(one.source) == find_source(other.source)


def _corpus(text: DocumentsSpec, group: int, tokenizer: Any) -> Corpus:
    return build_corpus(
        text.source,
        documents=text.documents,
        tokens=text.tokens,
        count_tokens=lambda t: len(tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"]),
        tokenizer_digest="" if tokenizer is None else tokenizer_digest(tokenizer),
        skip=text.skip,
        field=text.field,
        split=text.split,
        config=text.config,
        cut=Cut(group, group),
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
