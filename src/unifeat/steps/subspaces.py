"""Categories of words → subspaces: who belongs to them, their pairs, their scores, and how often they are matched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.progress import track
from unifeat.spaces import Space
from unifeat.steps.match import Cell
from unifeat.steps.score import NAN, PairSet, score_sets
from unifeat.storage import cache_root, key_of, write_json
from unifeat.study import MetricSpec, Study, SubspacesSpec
from unifeat.subspaces.categories import load_categories
from unifeat.subspaces.control import control_lists, word_counts
from unifeat.subspaces.membership import members
from unifeat.subspaces.rates import matched_more_often
from unifeat.subspaces.within import within
from unifeat.subspaces.words import landed_words
from unifeat.text.corpus import Corpus

RATES = [
    *("space_a", "layer_a", "space_b", "layer_b", "subspace", "side", "features", "matched", "rate", "rate_others"),
    *("odds_ratio", "p"),
]


@dataclass(frozen=True)
class Subspaces:
    """What the categories of a study are in its spaces.

    Attributes:
        members: `space`, `subspace`, `feature`, `hits`.
        sets: the pairs of each cell and category, matched within the category.
        pools: for each of `sets` all kept pairs of its cell and their firing counts: what random subsets are drawn
            from; None for control lists.
        rates: one row for each cell, category and side (see `RATES`).
    """

    members: pd.DataFrame
    sets: list[PairSet]
    pools: list[pd.DataFrame | None]
    rates: pd.DataFrame


def find_subspaces(study: Study, cells: list[Cell], corpus: Corpus, tops: dict[str, pd.DataFrame]) -> Subspaces:
    """Categories, their control lists, members and pairs; nothing of it where the study asks for none."""
    spec = study.subspaces
    if spec is None:
        empty = pd.DataFrame({"space": [], "subspace": [], "feature": [], "hits": []})
        return Subspaces(empty, [], [], pd.DataFrame(columns=RATES))
    lists = load_categories(spec.categories, spec.only)
    controls = control_lists(word_counts(corpus), lists, spec.control_lists, study.seed) if spec.control_lists else {}
    spaces = {space.name: space for cell in cells for space in (cell.a, cell.b)}
    belongs: dict[str, pd.DataFrame] = {}
    with track("finding subspaces", len(spaces), unit="spaces") as advance:
        for name, space in spaces.items():
            belongs[name] = _members(spec, space, corpus, tops[name], {**lists, **controls})
            advance(1)
    sets: list[PairSet] = []
    pools: list[pd.DataFrame | None] = []
    rates: list[dict[str, Any]] = []
    for cell in cells:
        for category in [*lists, *controls]:
            ids = {side: _ids(belongs[space.name], category) for side, space in (("a", cell.a), ("b", cell.b))}
            own = cell.rule.decide(cell.found.table[within(cell.found.table, ids["a"], ids["b"])])
            sets.append(PairSet.of(cell, category, own[own["kept"]]))
            pools.append(cell.kept if category in lists else None)
            rates += [_rate(cell, category, side, ids[side], study.matching.min_count) for side in "ab"]
    table = pd.concat([frame.assign(space=name) for name, frame in belongs.items()], ignore_index=True)
    return Subspaces(table[["space", "subspace", "feature", "hits"]], sets, pools, pd.DataFrame(rates)[RATES])


def score_subspaces(study: Study, subspaces: Subspaces) -> pd.DataFrame:
    """Every measure on every category's pairs, beside random subsets of all pairs."""
    if study.subspaces is None or not subspaces.sets:
        return pd.DataFrame()
    geometry = study.subspaces.geometry or study.geometry
    scores = score_sets(study, subspaces.sets, geometry)
    if not study.subspaces.subsets:
        return scores
    found = []
    with track("random subsets", len(scores), unit="scores") as advance:
        for pairs, pool in zip(subspaces.sets, subspaces.pools, strict=True):
            for spec in geometry:
                found.append(_against_subsets(study, pairs, pool, spec))
                advance(1)
    return scores.assign(**pd.DataFrame(found, index=scores.index))


def _members(
    spec: SubspacesSpec, space: Space, corpus: Corpus, tops: pd.DataFrame, lists: dict[str, tuple[str, ...]]
) -> pd.DataFrame:
    words = landed_words(tops, corpus, space.tokenizer, top_tokens=spec.top_tokens, window=spec.window)
    return members(words, lists, top_tokens=spec.top_tokens, at_least=spec.at_least).rename(
        columns={"category": "subspace"}
    )


def _ids(belongs: pd.DataFrame, category: str) -> NDArray[np.int64]:
    return belongs.loc[belongs["subspace"] == category, "feature"].to_numpy(np.int64)


def _rate(cell: Cell, category: str, side: str, ids: NDArray[np.int64], min_count: int) -> dict[str, Any]:
    """Are the category's features of one side matched more often than others that fire as often?"""
    space = cell.a if side == "a" else cell.b
    count = cell.found.count_a if side == "a" else cell.found.count_b
    eligible = np.flatnonzero(count >= max(min_count, 1))
    inside = np.isin(eligible, ids)
    matched = np.isin(eligible, cell.kept[f"feature_{side}"].to_numpy())
    found = matched_more_often(inside, matched, count[eligible])
    return {
        "space_a": cell.a.name,
        "layer_a": cell.a.layer,
        "space_b": cell.b.name,
        "layer_b": cell.b.layer,
        "subspace": category,
        "side": space.name,
        "features": int(inside.sum()),
        "matched": int((inside & matched).sum()),
        "rate": found.rate_inside,
        "rate_others": found.rate_outside,
        "odds_ratio": found.odds_ratio,
        "p": found.p,
    }


def _against_subsets(study: Study, pairs: PairSet, pool: pd.DataFrame | None, spec: MetricSpec) -> dict[str, float]:
    nothing = {"subset_mean": NAN, "subset_sd": NAN, "subset_p": NAN}
    assert study.subspaces is not None
    draws = study.subspaces.subsets
    if pool is None or len(pairs.features_a) < 3:
        return nothing
    everything = pool[["feature_a", "feature_b", "count_a", "count_b"]]
    path = (
        cache_root()
        / "scores"
        / f"{pairs.key('subsets/1', spec, draws, study.seed, key_of(everything.to_numpy().tolist()))}.json"
    )
    if not path.exists():
        try:
            write_json(path, _subsets(pairs, everything, spec, draws, study.seed))
        except UserError:
            return nothing
    return json.loads(path.read_text(encoding="utf-8"))
