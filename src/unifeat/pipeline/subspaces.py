"""Categories of words → subspaces: their members, their pairs, their scores, and how often they are matched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.engine import Engine, Unit
from unifeat.errors import UserError
from unifeat.inference.nulls import NULLS
from unifeat.pipeline.match import Cell
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.score import score_sets
from unifeat.pipeline.spaces import Space
from unifeat.progress import track
from unifeat.store.keys import digest_of
from unifeat.study.measures import MetricSpec
from unifeat.study.spec import Study, SubspacesSpec
from unifeat.subspaces import (
    control_lists,
    load_categories,
    members,
    pair_frequency,
    rate_test,
    subset_test,
    within,
    word_counts,
    words_at,
)
from unifeat.text.corpus import Corpus

RATES = [
    *("space_a", "layer_a", "space_b", "layer_b", "subspace", "side", "features", "matched", "rate", "rate_expected"),
    *("odds_ratio", "odds_ratio_low", "odds_ratio_high", "p", "least_p", "flags"),
]
_NO_SUBSETS = {name: value for name, value in NULLS["subset"].columns.items() if name != NULLS["subset"].q}
_NO_SUBSETS |= {"subset_flags": []}
_PAIR_COLUMNS, _COUNT_COLUMNS = ["feature_a", "feature_b"], ["count_a", "count_b"]
Lists = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Subspaces:
    """The categories of a study in its spaces.

    Attributes:
        members: `space`, `subspace`, `feature`, `hits`.
        rates: one row for each cell, category and side (see `RATES`).
        categories: with their control lists.
        controls: the control lists among them.
    """

    members: pd.DataFrame
    rates: pd.DataFrame
    categories: list[str]
    controls: frozenset[str]

    def ids(self, space: Space, category: str) -> NDArray[np.int64]:
        """The features of a space that belong to a category."""
        own = (self.members["space"] == space.name) & (self.members["subspace"] == category)
        return self.members.loc[own, "feature"].to_numpy(np.int64)

    def of_cell(self, cell: Cell) -> Iterator[PairSet]:
        """The pairs of each category in a cell, as `sets` gives them."""
        return (pairs for pairs, _ in self.sets([cell]))

    def sets(self, cells: Iterable[Cell]) -> Iterator[tuple[PairSet, pd.DataFrame | None]]:
        """For each cell and category: its pairs, matched within the category, and its pool.

        The pool is all kept pairs of the cell, and whether they are `inside` the category. Random subsets are drawn
        from these and compared with those inside. None for control lists.
        """
        for cell in cells:
            table, kept = cell.candidates().table, cell.kept
            for category in self.categories:
                ids = self.ids(cell.a, category), self.ids(cell.b, category)
                own = cell.rule.decide(table[within(table, *ids)]).query("kept")
                # Some pairs matched within the category are weaker than those matched among all features, so comparing
                # them with random subsets would make p far too small. Instead, kept pairs inside it are compared.
                pool = kept.assign(inside=within(kept, *ids)) if category not in self.controls else None
                yield PairSet.of(cell, category, cell.with_token_shares(own)), pool


def find_subspaces(study: Study, cells: list[Cell], corpus: Corpus) -> Subspaces:
    """Categories, their control lists, members and match rates; empty if the study has no subspaces."""
    spec = study.subspaces
    if spec is None:
        empty = pd.DataFrame({"space": [], "subspace": [], "feature": [], "hits": []})
        return Subspaces(empty, pd.DataFrame(columns=RATES), [], frozenset())
    lists = load_categories(spec.categories, spec.only)
    controls = _controls(spec, corpus, lists, study.seed)
    spaces = {space.name: space for cell in cells for space in (cell.a, cell.b)}
    belongs: list[pd.DataFrame] = []
    with track("finding subspaces", len(spaces), unit="spaces") as advance:
        for name, space in spaces.items():
            belongs.append(_members(spec, space, corpus, {**lists, **controls}).assign(space=name))
            advance(1)
    members = pd.concat(belongs, ignore_index=True)[["space", "subspace", "feature", "hits"]]
    found = Subspaces(members, pd.DataFrame(columns=RATES), [*lists, *controls], frozenset(controls))
    rates: list[dict[str, Any]] = []
    for cell in cells:
        table, kept = cell.table(), cell.kept
        matchable = {side: cell.rule.matchable_features(table, side) for side in "ab"}
        matched = {side: own["feature"].isin(kept[f"feature_{side}"]).to_numpy(bool) for side, own in matchable.items()}
        for name in found.categories:
            for side, space in (("a", cell.a), ("b", cell.b)):
                rates.append(_rate(cell, name, side, found.ids(space, name), matchable[side], matched[side]))
    return replace(found, rates=pd.DataFrame(rates)[RATES])


def score_subspaces(study: Study, subspaces: Subspaces, cells: list[Cell], engine: Engine) -> pd.DataFrame:
    """Score every category's pairs by every measure, and compare them with random subsets of all pairs."""
    if study.subspaces is None:
        return score_sets(study, [], 0, [], engine)
    geometry = study.subspaces.geometry or study.geometry
    number = len(cells) * len(subspaces.categories)
    scores = score_sets(study, (pairs for pairs, _ in subspaces.sets(cells)), number, geometry, engine)
    if not study.subspaces.subsets or scores.empty:
        return scores
    compared: deque[bool] = deque()

    def units() -> Iterator[Unit[dict[str, Any]]]:
        for pairs, pool in subspaces.sets(cells):
            for spec in geometry:
                unit = _subset_unit(study, pairs, pool, spec)
                compared.append(unit is not None)
                if unit is not None:
                    yield unit

    found: list[dict[str, Any]] = []

    def without_subsets() -> None:
        while compared and not compared[0]:
            compared.popleft()
            found.append(dict(_NO_SUBSETS))
            advance(1)

    with track("random subsets", len(scores), unit="scores") as advance:
        for result in engine.map(units()):
            without_subsets()
            compared.popleft()
            found.append(result)
            advance(1)
        without_subsets()
    table = pd.DataFrame(found, index=scores.index)
    flags = [[*own, *more] for own, more in zip(scores["flags"], table.pop("subset_flags"), strict=True)]
    return scores.assign(**table, flags=pd.Series(flags, index=scores.index, dtype=object))


def _controls(spec: SubspacesSpec, corpus: Corpus, lists: Lists, seed: int) -> Lists:
    """The control lists with their names: `Time · random words`, then `Time · random words 2` …"""
    if not spec.control_lists:
        return {}
    drawn = control_lists(word_counts(corpus), lists, spec.control_lists, seed)
    return {
        f"{name} · random words{f' {number}' if number > 1 else ''}": words
        for name, several in drawn.items()
        for number, words in enumerate(several, start=1)
    }


def _members(spec: SubspacesSpec, space: Space, corpus: Corpus, lists: Lists) -> pd.DataFrame:
    words = words_at(space.tops, corpus, space.tokenizer(), top_tokens=spec.top_tokens, window=spec.window)
    found = members(words, lists, top_tokens=spec.top_tokens, at_least=spec.at_least)
    return found.rename(columns={"category": "subspace"}).astype({"subspace": str})


def _rate(
    cell: Cell,
    category: str,
    side: str,
    ids: NDArray[np.int64],
    matchable: pd.DataFrame,
    matched: NDArray[np.bool_],
) -> dict[str, Any]:
    """Whether the category's features on one side are matched more often than others that fire as often.

    Only features that could be matched are compared: those that fire often enough and whose top tokens the filters do
    not exclude. (Otherwise a filter on full stops would make every category of words look matched more often.)
    """
    inside = matchable["feature"].isin(ids).to_numpy(bool)
    found = rate_test(matched, inside, matchable["count"].to_numpy())
    return {
        "space_a": cell.a.name,
        "layer_a": cell.a.layer,
        "space_b": cell.b.name,
        "layer_b": cell.b.layer,
        "subspace": category,
        "side": side,
        "features": found.n_inside,
        "matched": int((inside & matched).sum()),
        "rate": found.rate_inside,
        "rate_expected": found.expected_inside,
        "odds_ratio": found.odds_ratio,
        "odds_ratio_low": found.ci_low,
        "odds_ratio_high": found.ci_high,
        "p": found.p,
        "least_p": found.least_p,
        "flags": list(found.flags),
    }


def _subset_unit(
    study: Study, pairs: PairSet, pool: pd.DataFrame | None, spec: MetricSpec
) -> Unit[dict[str, Any]] | None:
    """Compare the kept pairs inside the category with random sets of as many pairs that fire as often; two-sided."""
    assert study.subspaces is not None
    if pool is None or not pool["inside"].any():
        return None
    everything = pool[[*_PAIR_COLUMNS, *_COUNT_COLUMNS, "inside"]].sort_values(_PAIR_COLUMNS, ignore_index=True)
    draws, seed = study.subspaces.subsets, study.seed
    work = partial(_subsets, pairs, everything, spec, draws, seed)
    pool_digest = digest_of(everything.to_numpy().tolist())
    return pairs.unit("subset", NULLS["subset"].version, spec, work, draws=draws, seed=seed, pool=pool_digest)


def _subsets(pairs: PairSet, everything: pd.DataFrame, spec: MetricSpec, draws: int, seed: int) -> dict[str, Any]:
    chosen = np.flatnonzero(everything["inside"])
    ids_a, ids_b = (everything[name].to_numpy(np.int64) for name in _PAIR_COLUMNS)
    pool = replace(pairs, features_a=ids_a, features_b=ids_b)
    try:
        measure, of_rows = pool.measure(spec)
        test = subset_test(
            measure,
            *pool.rows,
            chosen,
            pair_frequency(everything["count_a"], everything["count_b"]),
            draws=draws,
            seed=seed,
            **of_rows,
        )
    except UserError:
        return dict(_NO_SUBSETS)  # too few pairs for the measure, which its flags say already
    p = min(1.0, 2 * min(test.p_low, test.p_high))
    return {
        "subset_n": len(chosen),
        "subset_score": test.score,
        "subset_mean": test.null_mean,
        "subset_sd": test.null_sd,
        "subset_p": p,
        "subset_flags": [f"subsets, {flag}" for flag in test.flags if flag not in test.observed.flags],
    }
