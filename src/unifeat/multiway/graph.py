"""The graph of kept pairs over many spaces: a node is a feature of a space, an edge is a pair, with its r."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError, did_you_mean
from unifeat.vocabulary.feature_ids import feature_ids
from unifeat.vocabulary.tables import as_frame, column_names

Ids = NDArray[np.int32]
Places = NDArray[np.int64]
Values = NDArray[np.float64]
Pairs = Mapping[tuple[str, str], Any]  # tables: pandas, polars or Arrow

# Other readings of r that a table of pairs may have, and what they are called in a family.
READINGS = {"correlation_heldout": "heldout", "correlation_within_token": "within_token"}


@dataclass(frozen=True, eq=False)
class Graph:
    """Kept pairs over many spaces. Memory is bounded by the number of pairs.

    Attributes:
        spaces: their names, in order.
        compared: (spaces, spaces) bool, symmetric: which two were compared, also where no pair was kept.
        first: (spaces + 1,) int64, the first node of each space; nodes are ordered by space, then feature.
        feature: (nodes,) int32, the feature that each node is.
        low, high: (edges,) int32, the nodes of each edge, low < high. The strongest edge is the first; ties go to the
            lower nodes.
        r: (edges,) float64.
        readings: (edges,) float64 each, by name (`READINGS`): r on held-out documents, within token; NaN where unknown.
        start: (nodes + 1,) int64; `neighbour[start[v]:start[v + 1]]` are the nodes paired with v, ascending.
        neighbour: (2 · edges,) int32.
        strength: (2 · edges,) float64, the r of each of these.
    """

    spaces: tuple[str, ...]
    compared: NDArray[np.bool_]
    first: Places
    feature: Ids
    low: Ids
    high: Ids
    r: Values
    readings: dict[str, Values]
    start: Places
    neighbour: Ids
    strength: Values

    @property
    def nodes(self) -> int:
        """Features with a kept pair."""
        return len(self.feature)

    @property
    def edges(self) -> int:
        """Kept pairs."""
        return len(self.r)

    @property
    def space(self) -> Ids:
        """(nodes,) int32, the number of each node's space."""
        return np.repeat(np.arange(len(self.spaces), dtype=np.int32), np.diff(self.first))


def graph_of(pairs: Pairs, spaces: Sequence[str] | None = None) -> Graph:
    """The graph of tables of pairs.

    Args:
        pairs: for each two spaces that were compared, their pairs, one row each: `feature_a` (of the first space
            named), `feature_b`, `correlation`, and optionally `correlation_heldout`, `correlation_within_token` and
            `kept`; rows that are not kept are left out. An empty table says that nothing was kept.
        spaces: the spaces to use, in this order; by default all, as they appear.

    Raises:
        UserError: fewer than two spaces, or none compared; a space compared with itself; two tables for the same two
            spaces; a missing column; ids that are none; a correlation that is none; a pair given twice; a space without
            a table.
    """
    for key in pairs:
        if not (isinstance(key, tuple) and len(key) == 2 and all(isinstance(name, str) for name in key)):
            raise UserError(f"families: {key!r} does not name two spaces: give {{('a', 'b'): pairs, …}}")
        if key[0] == key[1]:
            raise UserError(f"families: {key[0]} is compared with itself; leave out this table")
    seen = list(dict.fromkeys(name for key in pairs for name in key))
    names = seen if spaces is None else list(spaces)
    for name in names:
        if name not in seen:
            raise UserError(
                f"families: no pairs of a space {name!r}{did_you_mean(name, seen)}: there are {_list(seen)}"
            )
    if len(set(names)) < max(len(names), 2):
        raise UserError(f"families need two or more different spaces, not {_list(names)}")
    number = {name: i for i, name in enumerate(names)}
    compared = np.zeros((len(names), len(names)), bool)
    tables = []
    for (a, b), table in pairs.items():
        if a not in number or b not in number:
            continue
        i, j = number[a], number[b]
        if compared[i, j]:
            raise UserError(f"families: there are two tables of {a} and {b}; give one")
        compared[i, j] = compared[j, i] = True
        own = _checked(table, a, b)
        if i > j:
            own = own._replace(feature_a=own.feature_b, feature_b=own.feature_a)
        tables.append((min(i, j), max(i, j), own))
    if not tables:
        raise UserError(f"families: no two of {_list(names)} were compared with each other")
    return _assembled(tuple(names), compared, tables)


class _Columns(NamedTuple):
    """The kept rows of one table."""

    feature_a: Places
    feature_b: Places
    r: Values
    readings: dict[str, Values]


def _checked(given: Any, a: str, b: str) -> _Columns:
    what = f"families: the pairs of {a} and {b}"
    if column_names(given) is None:
        raise UserError(f"{what} are no table, but {type(given).__name__}")
    table = as_frame(given)
    missing = [name for name in ("feature_a", "feature_b", "correlation") if name not in table]
    if missing:
        raise UserError(f"{what} have no column {missing[0]}")
    if "kept" in table:
        table = table[table["kept"].to_numpy(bool)]
    ids = [feature_ids(table[name], f"{what}: {name}") for name in ("feature_a", "feature_b")]
    r = pd.to_numeric(table["correlation"], errors="coerce").to_numpy(np.float64)
    if not (np.abs(r) <= 1 + 1e-6).all():
        raise UserError(f"{what} have a correlation that is NaN, or none from -1 to 1; leave such pairs out")
    if len(r) and len(np.unique(ids[0] * (ids[1].max() + 1) + ids[1])) < len(r):
        raise UserError(f"{what} have a pair twice")
    unknown = np.full(len(r), np.nan)
    readings = {
        name: table[column].to_numpy(np.float64) if column in table else unknown for column, name in READINGS.items()
    }
    return _Columns(ids[0], ids[1], r, readings)


def _assembled(names: tuple[str, ...], compared: NDArray[np.bool_], tables: list[tuple[int, int, _Columns]]) -> Graph:
    none = np.zeros(0, np.int64)
    of_space = [[none] for _ in names]
    for i, j, own in tables:
        of_space[i].append(own.feature_a)
        of_space[j].append(own.feature_b)
    features = [np.unique(np.concatenate(parts)) for parts in of_space]
    first = np.concatenate([[0], np.cumsum([len(own) for own in features])]).astype(np.int64)
    if first[-1] > np.iinfo(np.int32).max:
        raise UserError(f"families: {first[-1]:,} features are too many; compare fewer spaces, or raise the minimum r")
    low = np.concatenate([none, *(first[i] + np.searchsorted(features[i], own.feature_a) for i, _, own in tables)])
    high = np.concatenate([none, *(first[j] + np.searchsorted(features[j], own.feature_b) for _, j, own in tables)])
    r = np.concatenate([np.zeros(0), *(own.r for *_, own in tables)])
    strongest = np.lexsort((high, low, -r))
    low, high, r = (values[strongest] for values in (low, high, r))
    readings = {
        name: np.concatenate([np.zeros(0), *(own.readings[name] for *_, own in tables)])[strongest]
        for name in READINGS.values()
    }
    source, target = np.concatenate([low, high]), np.concatenate([high, low])
    order = np.lexsort((target, source))
    return Graph(
        spaces=names,
        compared=compared,
        first=first,
        feature=np.concatenate([none, *features]).astype(np.int32),
        low=low.astype(np.int32),
        high=high.astype(np.int32),
        r=r,
        readings=readings,
        start=np.concatenate([[0], np.cumsum(np.bincount(source, minlength=int(first[-1])))]).astype(np.int64),
        neighbour=target[order].astype(np.int32),
        strength=np.concatenate([r, r])[order],
    )


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} …" if len(names) > 6 else shown or "none"
