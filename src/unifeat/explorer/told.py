"""What other steps say of features: their labels, categories, families, and effects of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.report.figures.categories import categories
from unifeat.runs.folder import Run

_EFFECTS = ("direct", "added", "removed")
_STRINGS = ("promotes_a", "suppresses_a", "promotes_b", "suppresses_b")


def labels_of(run: Run, names: list[str], given: Mapping[str, Mapping[int, str]]) -> list[dict[int, str]]:
    """Of each space, the labels of its features: those that are given for it, else the run's own."""
    return [dict(given.get(name, run.labels_of(name))) for name in names]


def categories_of(run: Run, names: list[str]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Of each space, which features belong to which of the run's categories: two arrays (members,)."""
    table, known = run.members, categories(run)
    if table is None or not known:
        return [(np.zeros(0, np.int64), np.zeros(0, np.int64)) for _ in names]
    number = {category: place for place, category in enumerate(known)}
    table = table[table["subspace"].isin(known)]
    return [
        (own["feature"].to_numpy(np.int64), own["subspace"].map(number).to_numpy(np.int64))
        for own in (table[table["space"] == name] for name in names)
    ]


def effects_of(run: Run, space_a: str, space_b: str, pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Of the pairs of two spaces whose effects on the next token were compared: what they do, and how alike it is.

    Returns:
        JSON data, one for each: `pair` (row of `pairs`), how alike effects are (None where unknown), and the strings
        that either feature promotes and suppresses.
    """
    table = run.effects
    if table is None:
        return []
    one = table[(table["space_a"] == space_a) & (table["space_b"] == space_b)]
    other = table[(table["space_a"] == space_b) & (table["space_b"] == space_a)]
    row = {pair: at for at, pair in enumerate(zip(pairs["feature_a"], pairs["feature_b"], strict=True))}
    told = []
    for found, a, b in ((one, "a", "b"), (other, "b", "a")):
        for effect in found.to_dict("records"):
            at = row.get((effect[f"feature_{a}"], effect[f"feature_{b}"]))
            if at is None:
                continue
            alike = {name: _number(effect.get(name)) for name in _EFFECTS}
            strings = {name: _strings(effect.get(f"{name[:-1]}{a if name[-1] == 'a' else b}")) for name in _STRINGS}
            told.append({"pair": at, **alike, **strings})
    return told


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)


def _strings(value: Any) -> list[str]:
    return [] if value is None else [str(string) for string in value]


@dataclass(frozen=True)
class Families:
    """Families of features over the spaces of a run.

    Attributes:
        about: JSON data: `spaces`, names of the spaces that families have members in; `facts`, of each family by name
            (`r_min`, `r_mean`, `consistency`; None where unknown); and `labels`, by space and feature, of those members
            that lie in other spaces than the shown ones.
        members: `family`, `space` (number in `spaces`) and `feature`, whole numbers (members,) each.
    """

    about: dict[str, Any]
    members: dict[str, NDArray[np.int64]]


_FACTS = ("r_min", "r_mean", "consistency")


def families_of(run: Run, names: list[str]) -> Families | None:
    """The families of a run that have a member in the shown spaces, with all their members; None if it has none.

    `families.parquet` has a row for each family, and for each space a column of its name with the feature.
    """
    table = run.families
    if table is None:
        return None
    spaces = [str(name) for name in table if name in run.info["spaces"]]
    shown = [name for name in names if name in spaces]
    if not shown:
        return None
    table = table[table[shown].notna().any(axis=1)]
    holds = table[spaces].notna().to_numpy(bool)
    row, space = np.nonzero(holds)
    feature = table[spaces].to_numpy(np.float64, na_value=np.nan)[row, space].astype(np.int64)
    facts = {name: [_number(value) for value in table[name]] for name in _FACTS if name in table}
    labels = {}
    for number, name in enumerate(spaces):
        if name not in names:
            known = run.labels_of(name)
            labels[name] = {f: known[f] for f in feature[space == number].tolist() if f in known}
    about = {"spaces": spaces, "facts": facts, "labels": labels}
    return Families(about, {"family": row, "space": space, "feature": feature})
