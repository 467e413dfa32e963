"""A run and what the cache holds of its spaces → what the page shows, as two packed texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.activity import AROUND, Activity, activity_unit, partner_unit
from unifeat.explorer.blob import fixed, narrow, packed
from unifeat.explorer.maps import decoder_map, firing_map
from unifeat.explorer.texts import Excerpts, excerpts, tokens_in
from unifeat.explorer.told import categories_of, effects_of, families_of, labels_of
from unifeat.report.figures.categories import categories
from unifeat.report.tables import study_of
from unifeat.runs.folder import Run
from unifeat.runs.opened import OpenedSpace, open_space, open_text
from unifeat.runs.roles import role_of
from unifeat.store import key_of

FORMAT = 1
CONTEXTS = 5
MAPS = ("decoder", "firing")
_FIXED = {  # column of pairs.parquet -> name on the page
    "correlation": "r",
    "correlation_heldout": "heldout",
    "correlation_within_token": "within",
    "correlation_elsewhere": "elsewhere",
    "correlation_low": "low",
    "correlation_high": "high",
    "decoy_fdr": "fdr",
}
_GRID = 65534  # a map's places are whole numbers from 0 to this
_NOWHERE = 65535
_SHADES = 255
Array = NDArray[Any]


@dataclass(frozen=True)
class Gathered:
    """The page's data as packed texts (see `packed`).

    Attributes:
        features: all that maps, lists and filters need.
        contexts: text, and which of its tokens fire what.
    """

    features: str
    contexts: str


@dataclass(frozen=True)
class _Cell:
    """Two of the spaces that were compared: their numbers, and their candidates."""

    a: int
    b: int
    pairs: pd.DataFrame


def gather(
    run: Run, names: list[str], contexts: int = CONTEXTS, labels: Mapping[str, Mapping[int, str]] | None = None
) -> Gathered:
    """Everything that the page shows of some spaces of a run.

    Args:
        names: two or more of its spaces.
        contexts: most contexts of each feature.
        labels: by space, labels of its features in the place of the run's.

    Raises:
        UserError: a space that the run does not have; what is no longer in the cache.
    """
    spaces = [open_space(run, name) for name in names]
    corpus = open_text(run, spaces)
    cells = _cells(run, names)
    found = [activity_unit(space.store, contexts).result() for space in spaces]
    maps = [_maps(space) for space in spaces]
    for cell in cells:  # each pair of maps is turned towards the first of the two; nothing within a map changes
        for kind in MAPS:
            one, other = maps[cell.a].get(kind), maps[cell.b].get(kind)
            if cell.a == 0 and one is not None and other is not None:
                maps[cell.b][kind] = turned(other, one, cell.pairs)
    arrays: dict[str, Array] = {}
    for number, (own, activity) in enumerate(zip(maps, found, strict=True)):
        arrays |= {f"{number}.{name}": array for name, array in _features(own, activity).items()}
    for number, cell in enumerate(cells):
        arrays |= {f"cell{number}.{name}": array for name, array in _candidates(cell.pairs).items()}
    members = categories_of(run, names)
    for number, (feature, category) in enumerate(members):
        arrays |= {f"{number}.member": narrow(feature), f"{number}.category": narrow(category)}
    families = families_of(run, names)
    if families is not None:
        arrays |= {f"families.{name}": narrow(array) for name, array in families.members.items()}
    data = {
        "format": FORMAT,
        "run": {"name": run.info["name"], "created": run.info["created"]},
        "around": AROUND,
        "minimum": study_of(run).get("matching", {}).get("min_correlation"),
        "heldout": bool(study_of(run).get("matching", {}).get("heldout", True)),
        "spaces": [_about(space, own) for space, own in zip(spaces, maps, strict=True)],
        "cells": [_about_cell(run, names, cell) for cell in cells],
        "labels": labels_of(run, names, labels or {}),
        "categories": categories(run),
        "families": None if families is None else families.about,
    }
    shown = excerpts(corpus, [(activity.peaks, AROUND) for activity in found])
    return Gathered(packed(data, arrays), _contexts(spaces, found, cells, shown, contexts))


def _cells(run: Run, names: list[str]) -> list[_Cell]:
    """Those pairs of the spaces that the run compared, the ones with the first space first."""
    place = {name: number for number, name in enumerate(names)}
    cells = []
    for pair in run.info["pairs"]:
        a, b = pair["space_a"], pair["space_b"]
        if a in place and b in place:
            table, one, other = run.space_pair(a, b), place[a], place[b]
            if one > other:
                one, other, table = other, one, _exchanged(table)
            cells.append(_Cell(one, other, table.reset_index(drop=True)))
    return sorted(cells, key=lambda cell: (cell.a, cell.b))


def _exchanged(pairs: pd.DataFrame) -> pd.DataFrame:
    """The same pairs with A and B exchanged."""
    sides = {"a": "b", "b": "a"}
    return pairs.rename(
        columns={name: f"{name[:-1]}{sides[name[-1]]}" for name in map(str, pairs) if name[-2:] in ("_a", "_b")}
    )


def _maps(space: OpenedSpace) -> dict[str, Array]:
    units = {"decoder": decoder_map(space), "firing": firing_map(space)}
    return {kind: unit.result() for kind, unit in units.items() if unit is not None}


def turned(place: Array, towards: Array, pairs: pd.DataFrame) -> Array:
    """A map turned and mirrored so that kept pairs lie alike in both (orthogonal Procrustes on scaled maps).

    Distances within the map stay as they are.

    Args:
        place, towards: (features, 2) the map to turn, and the other space's.
        pairs: `feature_a` of the other space, `feature_b` of this one, `kept`.
    """
    kept = pairs[pairs["kept"].to_numpy(bool)]
    own, other = place[kept["feature_b"]].astype(np.float64), towards[kept["feature_a"]].astype(np.float64)
    known = np.isfinite(own).all(axis=1) & np.isfinite(other).all(axis=1)
    if known.sum() < 3:
        return place
    own, other = own[known], other[known]
    u, _, vt = np.linalg.svd((own - own.mean(0)).T @ (other - other.mean(0)))
    return np.asarray(place @ (u @ vt), np.float32)


def _on_grid(place: Array) -> Array:
    """A map's places as (features · 2,) uint16 in one scale for both directions; `_NOWHERE` for NaN."""
    known = np.isfinite(place).all(axis=1)
    grid = np.full(place.shape, _NOWHERE, np.uint16)
    if known.any():
        own = place[known].astype(np.float64)
        middle, half = (own.max(0) + own.min(0)) / 2, max(float(np.ptp(own, axis=0).max()) / 2, 1e-12)
        grid[known] = np.rint(((own - middle) / half + 1) / 2 * _GRID)
    return grid


def _features(maps: dict[str, Array], activity: Activity) -> dict[str, Array]:
    shown = np.bincount(activity.feature, minlength=len(activity.count))
    return {
        "count": narrow(activity.count),
        "mean": np.nan_to_num(activity.mean),
        "low": activity.low,
        "high": activity.high,
        "histogram": narrow(activity.histogram.reshape(-1)),
        "contexts": narrow(shown),
        **{kind: _on_grid(place) for kind, place in maps.items()},
    }


def _candidates(pairs: pd.DataFrame) -> dict[str, Array]:
    reason = pd.Categorical(pairs["dropped_because"].where(~pairs["kept"], ""), categories=_reasons(pairs))
    return {
        "a": narrow(pairs["feature_a"].to_numpy()),
        "b": narrow(pairs["feature_b"].to_numpy()),
        "cofiring": narrow(pairs["cofiring"].to_numpy()),
        "reason": narrow(np.asarray(reason.codes, np.int64)),
        **{
            name: fixed(pairs[column].to_numpy(np.float64))
            for column, name in _FIXED.items()
            if column in pairs and pairs[column].notna().any()
        },
    }


def _reasons(pairs: pd.DataFrame) -> list[str]:
    """Why candidates were dropped; the first, an empty text, is for those that were kept."""
    return ["", *sorted({str(reason) for reason in pairs.loc[~pairs["kept"], "dropped_because"]} - {""})]


def _about(space: OpenedSpace, maps: dict[str, Array]) -> dict[str, Any]:
    info = space.info
    return {
        "name": space.name,
        "features": space.features,
        "tokens": space.store.rows,
        "maps": [kind for kind in MAPS if kind in maps],
        "model": info["model"],
        "layer": info["layer"],
        "hook": info["hook"],
        "control": info.get("control"),
    }


def _about_cell(run: Run, names: list[str], cell: _Cell) -> dict[str, Any]:
    spaces = run.info["spaces"]
    a, b = names[cell.a], names[cell.b]
    return {
        "a": cell.a,
        "b": cell.b,
        "role": role_of(spaces[a], spaces[b]),
        "reasons": _reasons(cell.pairs),
        "effects": effects_of(run, a, b, cell.pairs),
    }


def _best_partners(pairs: pd.DataFrame, side: str, features: int) -> Array:
    """Each feature's kept partner, (features,) int64, −1 where there is none; of several, the one of highest r."""
    other = "b" if side == "a" else "a"
    kept = pairs[pairs["kept"]]
    # In the order of the page, which knows r to 1/32,000: highest first, of equals the one of the first row.
    order = np.argsort(-fixed(kept["correlation"].to_numpy(np.float64)).astype(np.int64), kind="stable")
    best = kept.iloc[order].drop_duplicates(f"feature_{side}")
    partner = np.full(features, -1, np.int64)
    partner[best[f"feature_{side}"]] = best[f"feature_{other}"]
    return partner


def _contexts(
    spaces: list[OpenedSpace], found: list[Activity], cells: list[_Cell], shown: Excerpts, contexts: int
) -> str:
    part = int(spaces[0].store.settings["cut"][1])
    arrays: dict[str, Array] = {
        "text": np.frombuffer(shown.text.encode("utf-16-le", "surrogatepass"), "<u2"),
        "stretch": np.diff(shown.units(shown.at), prepend=0).astype(np.uint32),
        "document": narrow(shown.document),
    }
    for number, (space, activity) in enumerate(zip(spaces, found, strict=True)):
        tokens, peaks = tokens_in(space.store, shown), activity.peaks
        place = peaks.document.astype(np.int64) << 32
        at, low = shown.where(place + peaks.char_end), peaks.reach(AROUND, part)[0]
        first = at - (peaks.char_end - low)
        arrays |= {
            f"{number}.end": narrow(np.diff(shown.units(tokens.end), prepend=0)),
            f"{number}.cut": narrow(tokens.cut),
            f"{number}.peak": shown.units(at).astype(np.uint32),
            f"{number}.back": narrow(shown.units(at) - shown.units(first)),
            f"{number}.value": np.asarray(activity.value, np.float32),
            f"{number}.fires": narrow(np.asarray(activity.fires)),
            f"{number}.token": narrow(np.asarray(activity.token)),
            f"{number}.shade": _shades(activity.activation, np.repeat(activity.feature, activity.fires), activity.high),
        }
    for number, cell in enumerate(cells):
        for side, own, other in (("a", cell.a, cell.b), ("b", cell.b, cell.a)):
            partner = _best_partners(cell.pairs, side, spaces[own].features)
            told = {"partner": key_of(partner.tolist())}
            unit = partner_unit(spaces[own].store, spaces[other].store, partner, contexts, told)
            fired = unit.result()
            who = np.repeat(partner[found[own].feature], fired.count)
            arrays |= {
                f"cell{number}.{side}.fires": narrow(fired.count),
                f"cell{number}.{side}.token": narrow(fired.token),
                f"cell{number}.{side}.shade": _shades(fired.value, who, found[other].high),
            }
    return packed({}, arrays)


def _shades(value: Array, feature: Array, high: Array) -> Array:
    """Activations as shares of the feature's largest, in steps of 1/255; at least one step for whatever fires."""
    share = value / np.maximum(high[feature], np.finfo(np.float32).tiny)
    return np.clip(np.rint(share * _SHADES), 1, _SHADES).astype(np.uint8)
