"""Two toy language models on disk that share features to a known degree: where these fire, and what they do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.store import written_aside
from unifeat.store.paths import new_folder
from unifeat.synthetic._directions import random_rotation
from unifeat.synthetic._settings import check_ranges, check_whole
from unifeat.synthetic._toy_models import (
    Reading,
    Writing,
    draw_reading,
    draw_writing,
    sample_text,
    some_words,
    write_model,
    write_sae,
)

Ids = NDArray[np.int64]
Matrix = NDArray[np.float64]
_SPECIALS = (1, 3)  # special tokens of A's and of B's tokenizer
_THRESHOLD = 0.35  # below what a word carries, above what attention and MLP add


@dataclass(frozen=True, eq=False)
class PlantedModels:
    """Two toy models, their SAEs, a text and a study in one folder, and what is true of them."""

    study: Path
    """The study file, ready for `unifeat.run`: the spaces `a@LAYER` and `b@LAYER`, with `transfer`."""
    pairs: Ids
    """(concepts, 2) the feature of A and the feature of B of each concept, in ascending order of A's."""
    words: list[str]
    """The words of both vocabularies."""
    carries_a: Matrix
    """(features, words) how strongly a word carries the concept of each feature of A; 0 for most. A feature fires on
    the words that carry its concept, about that strongly."""
    carries_b: Matrix
    """The same for B."""
    effects_a: Matrix
    """(features, words) what a feature of A adds to the logit of each word, directly, when it is 1 and the final norm
    scales the stream by 1."""
    effects_b: Matrix
    """The same for B."""
    directions_a: Matrix
    """(features, d) unit rows: what each feature of A is read from and written to."""
    directions_b: Matrix
    """The same for B: `directions_a @ rotation`, in the order of `pairs`."""
    rotation: Matrix
    """(d, d) orthogonal: takes A's residual stream to B's."""
    settings: dict[str, Any]
    """All settings but the folder; `plant_models(folder, **settings)` makes the same files again."""


def plant_models(
    folder: str | Path,
    *,
    same_firing: bool = True,
    same_effect: bool = True,
    concepts: int = 24,
    words: int = 160,
    d: int = 64,
    layers: int = 2,
    layer: int = 0,
    mixing: float = 0.3,
    documents: int = 120,
    context: int = 64,
    seed: int = 0,
) -> PlantedModels:
    """Write two toy Llamas of which it is known what their features share: where they fire, what they do, or both.

    Each word carries one or two concepts: it puts their directions into the residual stream. At the planted layer an
    SAE reads these directions, one feature a concept, and writes them back. From there they act on the next word,
    directly by planted effects on the logits, and through the blocks above, which have random weights. B's
    coordinates, tokens and order of features are others than A's.

    With the same firing and the same effect, B is A turned by a rotation: it computes the same function. Without the
    same firing, B's embeddings and the blocks up to the planted layer are drawn anew: the features of a pair do the
    same and fire on other words. Without the same effect, the blocks above and the unembedding are: they fire alike
    and do something else. The text is what B writes by itself, so that B's features lower its loss.

    Args:
        folder: a new folder.
        same_firing, same_effect: what B's features share with A's.
        concepts: features of each SAE, at most d.
        words: words of the vocabulary, one of them the full stop, which carries no concept.
        d: width of the residual stream, a multiple of 8.
        layers: blocks of the models.
        layer: the planted one, counted from 0. (At a higher one, the check of a run warns that the concepts can be read
            below it as well.)
        mixing: how long that is what attention and MLP add, beside a concept's direction.
        documents, context: the text: so many documents of so many words, each one window.
        seed: the same settings and seed give the same files.

    Raises:
        UserError: a setting out of its range, a folder that is there already or cannot be written.
    """
    settings = {name: value for name, value in locals().items() if name != "folder"}
    _check(settings)
    target = new_folder(folder, "folder")
    if target.exists():
        raise UserError(f"folder {target} is there already: name a new one")
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(8)]
    word_rng, id_rng, turn_rng, order_rng, *drawn = streams
    vocabulary = some_words(words, word_rng)
    ids = [specials + id_rng.permutation(words) for specials in _SPECIALS]
    turns = [random_rotation(d, turn_rng) for _ in _SPECIALS]
    orders = [order_rng.permutation(concepts) for _ in _SPECIALS]  # the concept of each feature
    readings = [draw_reading(words, concepts, d, layer + 1, mixing, rng) for rng in drawn[:2]]
    writings = [draw_writing(words, concepts, d, layers - layer - 1, mixing, rng) for rng in drawn[2:]]
    sides = [(readings[0], writings[0]), (readings[0 if same_firing else 1], writings[0 if same_effect else 1])]
    with written_aside(target) as aside:
        aside.mkdir()
        model: Any = None
        for name, own_ids, turn, order, side in zip("ab", ids, turns, orders, sides, strict=True):
            model = write_model(aside / f"model-{name}", vocabulary, own_ids, context, *side, turn)
            write_sae(aside / f"sae-{name}", turn[order], _THRESHOLD, layer)
        text = sample_text(model, vocabulary, ids[1], documents, context, seed)
        _write_text_and_study(aside, text, layer, context, concepts)
    of_feature = [_by_feature(*side, order) for side, order in zip(sides, orders, strict=True)]
    where_b = np.argsort(orders[1])
    return PlantedModels(
        study=target / "study.yaml",
        pairs=np.stack([np.arange(concepts), where_b[orders[0]]], axis=1).astype(np.int64),
        words=vocabulary,
        carries_a=of_feature[0][0],
        carries_b=of_feature[1][0],
        effects_a=of_feature[0][1],
        effects_b=of_feature[1][1],
        directions_a=turns[0][orders[0]],
        directions_b=turns[1][orders[1]],
        rotation=turns[0].T @ turns[1],
        settings=settings,
    )


def _by_feature(reading: Reading, writing: Writing, order: Ids) -> tuple[Matrix, Matrix]:
    return reading.carries.T[order], writing.effects[order]


def _write_text_and_study(folder: Path, text: list[str], layer: int, context: int, concepts: int) -> None:
    import json

    import yaml

    lines = (json.dumps({"text": document}) + "\n" for document in text)
    (folder / "text.jsonl").write_text("".join(lines), encoding="utf-8")
    study = {
        "name": "planted",
        "text": {"source": "text.jsonl", "context": context},
        "models": {name: {"name": f"./model-{name}", "dtype": "float32"} for name in "ab"},
        "spaces": [{"model": name, "layers": layer, "sae": f"./sae-{name}"} for name in "ab"],
        "geometry": ["rsa"],
        "transfer": {"pairs": concepts},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")


# Whole numbers with their smallest values.
_LEAST = {"concepts": 3, "words": 8, "d": 8, "layers": 1, "layer": 0, "documents": 2, "context": 8, "seed": 0}
_MOST_WORDS = 4000  # there are 4,900 words of two syllables


def _check(settings: dict[str, Any]) -> None:
    check_whole(settings, _LEAST)
    check_ranges(settings, {"mixing": (0, 1)})
    for name in ("same_firing", "same_effect"):
        if not isinstance(settings[name], bool | np.bool_):
            raise UserError(f"{name}={settings[name]!r}: give True or False")
    d, concepts, words = (settings[name] for name in ("d", "concepts", "words"))
    if d % 8:
        raise UserError(f"d={d}: give a multiple of 8")
    if concepts > d:
        raise UserError(f"concepts={concepts} do not fit into d={d} dimensions: lower concepts or raise d")
    if not concepts < words <= _MOST_WORDS:
        raise UserError(f"words={words}: give more than the {concepts} concepts, and {_MOST_WORDS} at most")
    if settings["layer"] >= settings["layers"]:
        raise UserError(f"layer={settings['layer']}: there are {settings['layers']} layers, counted from 0")
