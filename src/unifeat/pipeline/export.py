"""Two spaces of a finished run in Neuronpedia's layout, each feature with its partners in the other space."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from unifeat.codes.activity import activity_unit
from unifeat.codes.peaks import Passage, passages
from unifeat.errors import UserError
from unifeat.labels.neuronpedia import (
    Source,
    activation_record,
    feature_record,
    shared_list,
    write_source,
)
from unifeat.pipeline.reopen import reopen
from unifeat.pipeline.spaces import Space
from unifeat.runs.folder import Run
from unifeat.runs.given import by_space
from unifeat.store import write_json, written_aside
from unifeat.store.paths import exists, new_folder

_PASSAGES, _AROUND = 5, 32  # of a feature; tokens on either side
_LISTED = 500  # pairs of a list


def export_neuronpedia(run: Run, space_a: str, space_b: str, out: str | Path, model_ids: Iterable[str] = ()) -> Path:
    """Write two spaces of a run, and the list of what they share, for Neuronpedia.

    `correlated_features_indices` and `_pearson` of a feature are its candidates in the *other* space, kept pairs first.

    Args:
        out: the folder, which must not exist.
        model_ids: `SPACE=ID`, where Neuronpedia calls the model otherwise than its folder, file or repository is
            called.

    Returns:
        The folder.

    Raises:
        UserError: the folder exists, the run did not compare these spaces, its codes are no longer in the cache, or a
            model's id is none that Neuronpedia can have, or is of another space.
    """
    folder = new_folder(out, "--out")
    if exists(folder):
        raise UserError(f"--out {folder} exists: name a new folder")
    candidates = run.space_pair(space_a, space_b)
    ids = _model_ids(run, (space_a, space_b), model_ids)
    opened = reopen(run)
    spaces = opened.space(space_a), opened.space(space_b)
    release = f"Features of {space_a} and {space_b}, compared in run {run.info['name']} of unifeat"
    sources = _source(run, spaces[0], ids, release), _source(run, spaces[1], ids, release)
    with written_aside(folder) as aside:
        aside.mkdir()
        for side, space, source in zip("ab", spaces, sources, strict=True):
            # Of a file that only this machine has, no more than its name.
            read_from = Path(str((run.info["spaces"][space.name].get("labels") or {}).get("source", ""))).name
            features = _features(space, source, candidates, side)
            write_source(aside, source, features, run.labels_of(space.name), read_from)
        kept = candidates[candidates["kept"]].nlargest(_LISTED, "correlation")
        columns = (kept[name].tolist() for name in ("feature_a", "feature_b", "correlation"))
        pairs = list(zip(*columns, strict=True))
        name = f"{space_a} and {space_b}: shared features"
        about = f"The {len(pairs)} strongest pairs of features of {space_a} and {space_b} in the run {run.info['name']}"
        said = [f"r = {r:.3f}" for _, _, r in pairs]
        (aside / "lists").mkdir()
        write_json(aside / "lists" / "shared.json", shared_list(name, about, sources, pairs, said))
    return folder


def _model_ids(run: Run, spaces: tuple[str, str], given: Iterable[str]) -> dict[str, str]:
    """Neuronpedia's ids of the models, by space, as far as they are given."""
    found = by_space(run, given, "--model-id", "ID", "gemma-3-270m")
    for space, name in found.items():
        if space not in spaces:
            raise UserError(f"--model-id {space}={name}: the export has {spaces[0]} and {spaces[1]}")
        if name != _id(name):
            raise UserError(
                f"--model-id {space}={name}: ids have small letters, digits, dots and dashes, such as {_id(name)}"
            )
    return found


def _source(run: Run, space: Space, ids: dict[str, str], release_about: str) -> Source:
    info, text = space.info, run.info["text"]
    model = str(run.info["models"][info["model"]]["name"]) if info["model"] in run.info["models"] else info["model"]
    return Source(
        model=ids.get(space.name) or _id(Path(model).name.removesuffix(".gguf")),
        layer=int(info["layer"]),
        set_name=_id(f"{run.info['name']}-{space.name.rpartition('@')[0]}"),
        hook=f"blocks.{info['layer']}.hook_{info['hook']}",
        release=_id(f"unifeat-{run.info['name']}"),
        release_about=release_about,
        dataset=_last(text["source"]),
        documents=int(text["documents"]),
        context=int(text["context"]),
        about=f"{_last(info['sae'])}, layer {info['layer']} of {info['model']}, in run {run.info['name']} of unifeat",
    )


def _last(name: str) -> str:
    """A name as it is, or the last part of a path on this machine."""
    return Path(name).name if Path(name).is_absolute() else name


def _id(text: str) -> str:
    """A name as Neuronpedia writes them: small letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.casefold()).strip("-.") or "model"


def _features(space: Space, source: Source, candidates: pd.DataFrame, side: str) -> Iterator[dict[str, Any]]:
    """Every feature of a space, dead ones too."""
    found = activity_unit(space.store, _PASSAGES).result()
    shown: dict[int, list[Passage]] = {}
    for at, passage in zip(found.feature.tolist(), passages(space.store, found.peaks, _AROUND), strict=True):
        shown.setdefault(at, []).append(passage)
    tokenizer, written = space.tokenizer(), dict[int, str]()

    def text(token: int) -> str:
        if token not in written:
            written[token] = tokenizer.decode([token])
        return written[token]

    partners: dict[int, list[tuple[int, float]]] = {}
    known = candidates.dropna(subset=["correlation"])
    other = f"feature_{'b' if side == 'a' else 'a'}"
    for feature, partner, r in zip(known[f"feature_{side}"], known[other], known["correlation"], strict=True):
        partners.setdefault(int(feature), []).append((int(partner), float(r)))
    for feature in range(space.store.features):
        low, high = float(min(found.low[feature], 0)), float(max(found.high[feature], 0))
        yield feature_record(
            source,
            feature,
            fires=float(found.count[feature] / max(space.store.rows, 1)),
            heights=found.histogram[feature].tolist(),
            reach=(low, high),
            partners=partners.get(feature, []),
            activations=[
                activation_record([text(t) for t in passage.token.tolist()], passage.value.tolist(), passage.at, high)
                for passage in shown.get(feature, [])
            ],
        )
