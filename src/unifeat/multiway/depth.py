"""Families along the depth of models: where a feature first appears, how long it lasts, where its partners stand.

A *stream* is the spaces of one model at several layers, from the first on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.multiway.graph import Pairs
from unifeat.multiway.result import Families


class Layer(NamedTuple):
    """Where a space stands: its model, and its layer, counted from 0."""

    model: str
    layer: int


def streams(layers: Mapping[str, Layer]) -> dict[str, list[str]]:
    """The spaces of each model, by layer, of models with two layers or more. Of two spaces at one layer, the first."""
    found: dict[str, dict[int, str]] = {}
    for name, (model, layer) in layers.items():
        found.setdefault(model, {}).setdefault(layer, name)
    return {model: [own[layer] for layer in sorted(own)] for model, own in found.items() if len(own) > 1}


def spans(found: Families, layers: Mapping[str, Layer]) -> pd.DataFrame:
    """How long features last: one row for each family and model whose stream it has members in.

    Columns: `family`, `model`, `first`, `last` (layers), `layers` (how many have a member), `missing` (layers of the
    stream in between that have none).
    """
    tables = [pd.DataFrame(columns=["family", "model", "first", "last", "layers", "missing"])]
    own = {name: layers[name] for name in found.spaces if name in layers}
    for model, names in streams(own).items():
        holds = found.table[names].notna().to_numpy(bool)
        rows = np.flatnonzero(holds.any(axis=1))
        if not len(rows):
            continue
        first = holds[rows].argmax(axis=1)
        last = len(names) - 1 - holds[rows][:, ::-1].argmax(axis=1)
        at, count = np.array([layers[name].layer for name in names]), holds[rows].sum(axis=1)
        table = {"family": found.table["family"].to_numpy()[rows], "model": model, "first": at[first], "last": at[last]}
        tables.append(pd.DataFrame(table | {"layers": count, "missing": last - first + 1 - count}))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def passages(found: Families, layers: Mapping[str, Layer]) -> pd.DataFrame:
    """What becomes of features from layer to layer: one row for each layer of a stream and its next.

    Columns: `model`, `space`, `next`, and how many families have a member in both (`stay`), in the first and in no
    later layer (`end`), in the next and in no earlier one (`begin`).
    """
    rows = []
    own = {name: layers[name] for name in found.spaces if name in layers}
    for model, names in streams(own).items():
        holds = found.table[names].notna().to_numpy(bool)
        for place in range(len(names) - 1):
            here, there = holds[:, place], holds[:, place + 1]
            end = here & ~holds[:, place + 1 :].any(axis=1)
            begin = there & ~holds[:, : place + 1].any(axis=1)
            counts = [int(kind.sum()) for kind in (here & there, end, begin)]
            rows.append([model, names[place], names[place + 1], *counts])
    return pd.DataFrame(rows, columns=["model", "space", "next", "stay", "end", "begin"])


def partner_depths(pairs: Pairs, layers: Mapping[str, Layer], model_a: str, model_b: str) -> pd.DataFrame:
    """Where in the stream of B the partner of each feature of A stands: the strongest one, if there are several.

    Args:
        pairs: kept pairs of two spaces each, as for `find_families`.
        layers: where each space stands.

    Returns:
        One row for each feature of A with a partner in B: `space_a`, `feature_a`, `layer_a`, `space_b`, `layer_b`, `r`.
    """
    of = {model: set(streams(layers).get(model, ())) for model in (model_a, model_b)}
    tables = []
    for (one, other), table in pairs.items():
        sides = {"a": one, "b": other}
        for near, far in (("a", "b"), ("b", "a")):
            if sides[near] in of[model_a] and sides[far] in of[model_b]:
                kept = table[table["kept"].to_numpy(bool)] if "kept" in table else table
                own = pd.DataFrame({"feature_a": kept[f"feature_{near}"].to_numpy(np.int64)})
                own["r"] = kept["correlation"].to_numpy(np.float64)
                places = {f"layer_{name}": layers[sides[end]].layer for name, end in (("a", near), ("b", far))}
                tables.append(own.assign(space_a=sides[near], space_b=sides[far], **places))
    columns = ["space_a", "feature_a", "layer_a", "space_b", "layer_b", "r"]
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    by, ascending = ["layer_a", "feature_a", "r", "layer_b"], [True, True, False, True]
    order = whole.sort_values(by, ascending=ascending, kind="stable")
    return order.drop_duplicates(["space_a", "feature_a"])[columns].reset_index(drop=True)


class Correspondence(NamedTuple):
    """How the depths of two models correspond.

    Attributes:
        layers: one row for each layer of A: `layer_a`, `features` with a partner, `mean` layer of the partners with its
            interval `low` and `high`, and `mode`, the layer that most of them stand at.
        order: Spearman's correlation of the layers of features and of their partners: 1 if deeper features have deeper
            partners; NaN where either does not vary.
        low, high: its interval.
    """

    layers: pd.DataFrame
    order: float
    low: float
    high: float


def correspondence(
    depths: pd.DataFrame,
    unit: NDArray[np.int64] | None = None,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Correspondence:
    """The ridge of the layer pairs: at which layers of B the features of each layer of A have their partners.

    Intervals are percentiles of a bootstrap over features, or over `unit`: a feature that lasts for several layers
    counts once for each, and these are not independent, so whole families should be drawn.

    Args:
        depths: from `partner_depths`.
        unit: (rows,) int64, rows that are drawn together; each row by itself if left out.
        draws, level, seed: of the bootstrap.
    """
    a, b = (depths[f"layer_{side}"].to_numpy(np.float64) for side in "ab")
    unit = np.arange(len(depths)) if unit is None else np.unique(unit, return_inverse=True)[1]
    units = int(unit.max(initial=-1)) + 1
    of_a = np.unique(a)
    place = np.searchsorted(of_a, a)
    count, total = np.zeros((units, len(of_a))), np.zeros((units, len(of_a)))
    np.add.at(count, (unit, place), 1.0)
    np.add.at(total, (unit, place), b)
    rng = np.random.default_rng([seed, 12])
    means, orders_ = np.full((draws, len(of_a)), np.nan), np.full(draws, np.nan)
    for draw in range(draws if units > 1 else 0):
        weight = rng.multinomial(units, np.full(units, 1 / units)).astype(np.float64)
        n = weight @ count
        means[draw] = np.divide(weight @ total, n, out=np.full(len(n), np.nan), where=n > 0)
        orders_[draw] = _spearman(a, b, weight[unit])
    ends = (1 - level) / 2, (1 + level) / 2
    rows = []
    for i, layer in enumerate(of_a):
        own, drawn = b[place == i], means[:, i][~np.isnan(means[:, i])]
        low, high = np.quantile(drawn, ends) if len(drawn) > draws / 2 > 0 else (np.nan, np.nan)
        values, times = np.unique(own, return_counts=True)
        rows.append([int(layer), len(own), own.mean(), low, high, int(values[times.argmax()])])
    table = pd.DataFrame(rows, columns=["layer_a", "features", "mean", "low", "high", "mode"])
    known = orders_[~np.isnan(orders_)]
    low, high = np.quantile(known, ends) if len(known) > draws / 2 > 0 else (np.nan, np.nan)
    return Correspondence(table, _spearman(a, b, np.ones(len(a))), float(low), float(high))


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Spearman's correlation where each row counts `weight` times."""
    if not weight.sum() or len(np.unique(a[weight > 0])) < 2 or len(np.unique(b[weight > 0])) < 2:
        return float("nan")
    x, y = _ranks(a, weight), _ranks(b, weight)
    x, y = x - np.average(x, weights=weight), y - np.average(y, weights=weight)
    return float((weight * x * y).sum() / np.sqrt((weight * x**2).sum() * (weight * y**2).sum()))


def _ranks(values: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ranks of tied values, each row repeated `weight` times."""
    _, place = np.unique(values, return_inverse=True)
    own = np.bincount(place, weights=weight)
    return (np.cumsum(own) - own / 2)[place]
