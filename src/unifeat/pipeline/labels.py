"""Words for the features of every space: those that the study names, and plain ones from contexts for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from unifeat.engine import Engine, Unit
from unifeat.labels.agreement import agreement
from unifeat.labels.automatic import VERSION, automatic_labels
from unifeat.labels.contexts import Context
from unifeat.labels.files import read_labels
from unifeat.labels.lines import MARK
from unifeat.pipeline.examples import CONTEXT_CHARACTERS, around_token
from unifeat.pipeline.match import Cell
from unifeat.pipeline.spaces import Space
from unifeat.store import JSON, Piece
from unifeat.study.spec import Study
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.json_values import number_or_none


@dataclass(frozen=True)
class Labelled:
    """The labels of one space.

    Attributes:
        words: by feature.
        facts: for `run.json`: `source` (the file, or automatic), `given` and `automatic` (features with such a label),
            `fire` (features that fire at all), and `by_chance`, the share of features that an automatic label would
            have if contexts were dealt to the features at random.
    """

    words: dict[int, str]
    facts: dict[str, Any]


def check_labels(study: Study) -> None:
    """Read all files of labels once, so that a mistake is told before hours of work.

    Raises:
        UserError: as `read_labels` does.
    """
    for name, source in _sources(study).items():
        if source not in (None, "off"):
            read_labels(source, what=f"labels of {name}")


def given_labels(study: Study, spaces: list[Space]) -> dict[str, dict[int, str]]:
    """The labels that the study's files give to each space, by its name; spaces whose `labels` are off are left out.

    Raises:
        UserError: as `read_labels` does; labels of features that the SAE does not have.
    """
    found, sources = {}, _sources(study)
    for space in spaces:
        source = sources[space.name]
        if source != "off":
            what = f"labels of {space.name}"
            found[space.name] = read_labels(source, features=space.store.features, what=what) if source else {}
    return found


def label_spaces(
    study: Study, spaces: list[Space], given_to: Mapping[str, dict[int, str]], corpus: Corpus, engine: Engine
) -> dict[str, Labelled]:
    """The labels of each space, by its name: those given, and automatic ones for the other features.

    Args:
        given_to: of `given_labels`.
    """
    sources = _sources(study)
    own = [space for space in spaces if space.name in given_to]
    found = {}
    for space, made in zip(own, engine.map(_unit(space, corpus) for space in own), strict=True):
        source, given = sources[space.name], given_to[space.name]
        words = dict(zip(made["features"], made["labels"], strict=True))
        facts = {
            "source": source or "automatic",
            "given": len(given),
            "automatic": len(words.keys() - given.keys()),
            "fire": made["fire"],
            "by_chance": made["by_chance"],
        }
        found[space.name] = Labelled(dict(sorted((words | given).items())), facts)
    return found


def _sources(study: Study) -> dict[str, str | None]:
    """By the name of each space, where its labels are; None if they are made from contexts."""
    return {
        f"{group.prefix}@{layer}": "off" if group.labels == "off" else group.labels_at(layer)
        for group in study.spaces
        for layer in group.layers
    }


def _unit(space: Space, corpus: Corpus) -> Unit[dict[str, Any]]:
    """A unit of work: automatic labels of one space."""
    made_from = {"version": VERSION, "tokens": space.tokens.identity, "text": corpus.digest}
    return Unit(Piece("labels", made_from, JSON, "the labels"), partial(_made, space, corpus))


def _made(space: Space, corpus: Corpus) -> dict[str, Any]:
    contexts = contexts_of(space, corpus)
    labels, by_chance = automatic_labels(contexts)
    found = {"features": list(labels), "labels": list(labels.values())}
    return found | {"fire": len(contexts), "by_chance": by_chance}


def contexts_of(space: Space, corpus: Corpus) -> dict[int, list[Context]]:
    """The contexts of each feature's strongest activations, strongest first."""
    tops, tokenizer = space.tops, space.tokenizer()
    written = {token: tokenizer.decode([int(token)]) for token in tops["token"].unique()}
    places = list(zip(tops["document"].tolist(), tops["char_end"].tolist(), strict=True))
    texts = corpus.contexts(places, around=CONTEXT_CHARACTERS)
    contexts: dict[int, list[Context]] = {}
    for feature, place, token in zip(tops["feature"].tolist(), places, tops["token"], strict=True):
        parts = around_token(*texts[place], written[token])
        contexts.setdefault(feature, []).append(Context(*parts, place[0]))
    return contexts


def words_of(cell: Cell, labels: Mapping[str, Labelled]) -> tuple[dict[int, str], dict[int, str]]:
    """The labels of both spaces of a pair; empty for one that has none."""
    a, b = (labels[space.name].words if space.name in labels else {} for space in (cell.a, cell.b))
    return a, b


def agree(cell: Cell, labels: Mapping[str, Labelled], seed: int) -> dict[str, Any] | None:
    """How well the labels of partners agree, for `run.json`; None where none can be judged.

    `automatic` says whether any of them were made from contexts: then both sides' come from the same text, and agree
    where partners fire on the same tokens.
    """
    kept = cell.kept
    pairs = list(zip(kept["feature_a"].tolist(), kept["feature_b"].tolist(), strict=True))
    words = words_of(cell, labels)
    found = agreement(pairs, *words, seed=seed)
    if not found.pairs:
        return None
    own = [side.get(feature, "") for pair in pairs for side, feature in zip(words, pair, strict=True)]
    return {
        "pairs": found.pairs,
        "mean": found.mean,
        "chance": number_or_none(found.chance),
        "p": found.p,
        "draws": found.draws,
        "automatic": any(label.startswith(MARK) for label in own),
    }


def label_table(labels: Mapping[str, Labelled]) -> pd.DataFrame:
    """`labels.parquet`: one row for each feature with a label."""
    rows = [(space, feature, label) for space, own in labels.items() for feature, label in own.words.items()]
    table = pd.DataFrame(rows, columns=["space", "feature", "label"]).astype({"feature": "int32"})
    return table.assign(automatic=[label.startswith(MARK) for label in table["label"]]).astype({"automatic": bool})
