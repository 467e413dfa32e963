"""Families of features, and what they say of their spaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.multiway import kernels
from unifeat.multiway.graph import READINGS, Graph

FACTS = (
    *("family", "size", "pairs", "r_min", "r_mean"),
    *(f"r_{name}_{how}" for name in READINGS.values() for how in ("min", "mean")),
    *("consistency", "coverage"),
)

_SETS_AT_A_TIME = 1024  # of many spaces there can be as many sets as families


@dataclass(frozen=True, eq=False)
class Families:
    """Families of features over several spaces.

    Attributes:
        method: how they were found, a name in `METHODS`.
        spaces: names of the spaces, in order.
        features: how many features each space has, by name; where that is not known, how many have a kept pair.
        pairs: how many kept pairs there were.
        table: one row a family, the largest first, ties by r_mean: `family` (0, 1, …), `size` (members), `pairs` (kept
            pairs between members), `r_min` and `r_mean` over these; `r_heldout_min`, `r_heldout_mean`,
            `r_within_token_min`, `r_within_token_mean` (NaN where not known); `consistency`, the share of the family's
            triangles in which following partners leads home (triples of members with two pairs or more, whose spaces
            were all compared; NaN if there is none); `coverage`, the share of the pairs of members, of those whose
            spaces were compared, that are kept; and for each space a column of its name, nullable Int32, with the
            feature. The first two are int64, all others float64.
        triangles: one row for every three spaces that were compared with each other: `space_a`, `space_b`, `space_c`;
            `walks`, from a feature to its partner in a second space, from there to its partner in a third, and from
            there back into the first; `home`, how many of them end at the feature where they began; `consistency`,
            their share; `chance`, what it would be if the last step led to any feature that has a partner there.
    """

    method: str
    spaces: tuple[str, ...]
    features: dict[str, int]
    pairs: int
    table: pd.DataFrame = field(repr=False)
    triangles: pd.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def holds(self) -> NDArray[np.bool_]:
        """(families, spaces): which spaces have a member of which family."""
        return self.table[list(self.spaces)].notna().to_numpy(bool)

    @property
    def sets(self) -> pd.DataFrame:
        """How many families each set of spaces has, the most first.

        Columns: `spaces` (tuple of names), `size`, `families` (of exactly these spaces), `at_least` (of these and
        perhaps more).
        """
        return sets_of(self.holds, self.spaces)

    @property
    def presence(self) -> pd.DataFrame:
        """How many features of each space are in families of all spaces, of some, of none.

        Columns: `space`, `features`, `in_all`, `in_some`, `in_none`.
        """
        return self._presence(self.holds)

    def presence_in(self, models: Mapping[str, str]) -> pd.DataFrame:
        """The same of models: features in families of all models, of some besides their own, of no other.

        Args:
            models: the model of each space; two models or more.
        """
        return self._presence(self.in_models(models)[0])

    def in_models(self, models: Mapping[str, str]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
        """(families, models) bool, which models have a member of which family; and the models, in order."""
        of_space = np.array([models[name] for name in self.spaces], object)
        names = tuple(dict.fromkeys(of_space.tolist()))
        return np.stack([self.holds[:, of_space == name].any(axis=1) for name in names], axis=1), names

    def _presence(self, holds: NDArray[np.bool_]) -> pd.DataFrame:
        count, most = holds.sum(axis=1), holds.shape[1]
        rows = []
        for place, name in enumerate(self.spaces):
            own = self.holds[:, place]
            everywhere, somewhere = int((own & (count == most)).sum()), int((own & (count > 1) & (count < most)).sum())
            rows.append([name, self.features[name], everywhere, somewhere])
        table = pd.DataFrame(rows, columns=["space", "features", "in_all", "in_some"])
        return table.assign(in_none=table["features"] - table["in_all"] - table["in_some"])

    @property
    def members(self) -> pd.DataFrame:
        """One row a member: `family`, `space`, `feature`."""
        rows, places = np.nonzero(self.holds)
        features = self.table[list(self.spaces)].to_numpy(np.float64, na_value=np.nan)[rows, places]
        return pd.DataFrame(
            {
                "family": self.table["family"].to_numpy()[rows],
                "space": np.array(self.spaces, object)[places],
                "feature": features.astype(np.int32),
            }
        )

    def of(self, space: str, feature: int) -> pd.Series | None:
        """The family of a feature, a row of `table`; None if it is in none.

        Raises:
            UserError: no such space.
        """
        if space not in self.spaces:
            raise UserError(f"families: no space {space!r}: there are {', '.join(self.spaces)}")
        found = self.table[(self.table[space] == feature).fillna(False).to_numpy(bool)]
        return None if found.empty else found.astype(object).iloc[0]

    @property
    def consistency(self) -> tuple[float, float]:
        """The share of walks around three spaces that lead home, and what chance gives; NaN without walks."""
        made = self.triangles["walks"].sum()
        if not made:
            return np.nan, np.nan
        return (
            float(self.triangles["home"].sum() / made),
            float((self.triangles["chance"] * self.triangles["walks"]).sum() / made),
        )

    def __repr__(self) -> str:
        return "\n".join(f"  {line}" if i else line for i, line in enumerate(self._lines()))

    def _lines(self) -> list[str]:
        lines = [f"{len(self):,} families over {len(self.spaces)} spaces, by {self.method}, from {self.pairs:,} pairs"]
        sizes = self.table["size"].value_counts().sort_index(ascending=False)
        if len(sizes):
            shown = [f"{count:,} of {size}" for size, count in sizes.head(6).items()]
            shown[0] += " spaces"
            lines.append(", ".join(shown) + (", …" if len(sizes) > 6 else ""))
            middle = self.table[["r_min", "r_mean"]].median()
            lines.append(f"median family: least r {middle['r_min']:.2f}, mean r {middle['r_mean']:.2f}")
        share, chance = self.consistency
        if not np.isnan(share):
            lines.append(
                f"following partners around three spaces leads home {share:.0%} of the time, by chance {chance:.1%}"
            )
        return lines

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(str(row.space))}</th><td>{row.features:,}</td><td>{row.in_all:,}</td><td>{row.in_some:,}</td>"
            f"<td>{row.in_none:,}</td></tr>"
            for row in self.presence.itertuples()
        )
        title, *others = (escape(line) for line in self._lines())
        head = "<tr><th>space</th><th>features</th><th>in families of all</th><th>of some</th><th>of none</th></tr>"
        notes = "".join(f"<div>{line}</div>" for line in others)
        return f"<div><b>{title}</b></div>{notes}<table>{head}{rows}</table>"


def sets_of(holds: NDArray[np.bool_], spaces: tuple[str, ...]) -> pd.DataFrame:
    """`Families.sets`, from which spaces each family is of."""
    kinds, counts = np.unique(holds, axis=0, return_counts=True) if len(holds) else (holds, np.zeros(0, np.int64))
    names = np.array(spaces, object)
    table = pd.DataFrame(
        {
            "spaces": [tuple(names[kind]) for kind in kinds],
            "size": kinds.sum(axis=1).astype(np.int64) if len(kinds) else np.zeros(0, np.int64),
            "families": counts.astype(np.int64),
            "at_least": at_least(kinds, counts[:, None])[:, 0].astype(np.int64),
        }
    )
    place = table["spaces"].map(lambda names: [spaces.index(name) for name in names])
    keys = list(zip((-table[["families", "size"]].to_numpy()).tolist(), place, strict=True))
    return table.iloc[sorted(range(len(table)), key=keys.__getitem__)].reset_index(drop=True)


def at_least(kinds: NDArray[np.bool_], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Counts of each set of spaces and of all sets that contain it.

    Args:
        kinds: (sets, spaces), each set once.
        counts: (sets, columns) of exactly these spaces.

    Returns:
        (sets, columns) float64.
    """
    total = np.zeros(counts.shape)
    lacks = (~kinds).astype(np.float32)
    for first in range(0, len(kinds), _SETS_AT_A_TIME):
        some = slice(first, first + _SETS_AT_A_TIME)
        # How many spaces of the one set the other lacks: none where it contains it.
        contained = kinds[some].astype(np.float32) @ lacks.T == 0
        total[some] = contained @ counts.astype(np.float64)
    return total


def described(graph: Graph, labels: NDArray[np.int64], method: str, features: Mapping[str, int]) -> Families:
    """Families from what a method gives: one number a node.

    Args:
        features: how many features each space has, as far as that is known.
    """
    clash = [name for name in graph.spaces if name in FACTS]
    if clash:
        raise UserError(f"families: a space cannot be called {clash[0]!r}, which is a column of the table of families")
    space = graph.space
    _, family, size = np.unique(labels, return_inverse=True, return_counts=True)
    number = np.where(size >= 2, np.cumsum(size >= 2) - 1, -1)[family]  # −1: a feature in no family
    count = int(number.max(initial=-1)) + 1
    columns = _numbers(graph, number, count)
    member = np.full((count, len(graph.spaces)), -1, np.int64)
    inside = number >= 0
    member[number[inside], space[inside]] = graph.feature[inside]
    columns |= _triangles_of(graph, number, count)
    columns["coverage"] = columns["pairs"] / np.maximum(_comparable(member >= 0, graph.compared), 1)
    r_mean = columns["r_mean"]
    ids = np.where(member < 0, np.iinfo(np.int64).max, member)
    order = np.lexsort((*ids.T[::-1], -r_mean, -columns["size"])) if count else np.zeros(0, np.int64)
    table = pd.DataFrame({"family": np.arange(count)} | {name: columns[name][order] for name in FACTS[1:]})
    wide = {
        name: pd.array(np.where(member[order, i] < 0, 0, member[order, i]), dtype="Int32")
        for i, name in enumerate(graph.spaces)
    }
    for i, name in enumerate(graph.spaces):
        wide[name][member[order, i] < 0] = pd.NA
    known = {
        name: int(features.get(name, number)) for name, number in zip(graph.spaces, np.diff(graph.first), strict=True)
    }
    table = pd.concat([table, pd.DataFrame(wide)], axis=1)
    return Families(method, graph.spaces, known, graph.edges, table, triangles(graph))


def _numbers(graph: Graph, number: NDArray[np.int64], count: int) -> dict[str, Any]:
    """Size, pairs, and least and mean r of each family."""
    inside = (number[graph.low] == number[graph.high]) & (number[graph.low] >= 0)
    of_edge = number[graph.low[inside]]
    pairs = np.bincount(of_edge, minlength=count)
    found: dict[str, Any] = {"size": np.bincount(number[number >= 0], minlength=count), "pairs": pairs}
    for name, values in {"": graph.r, **{f"{name}_": values for name, values in graph.readings.items()}}.items():
        own = values[inside]
        known = ~np.isnan(own)
        least = np.full(count, np.inf)
        np.minimum.at(least, of_edge[known], own[known])
        n = np.bincount(of_edge[known], minlength=count)
        total = np.bincount(of_edge[known], weights=own[known], minlength=count)
        found[f"r_{name}min"] = np.where(n > 0, least, np.nan)
        found[f"r_{name}mean"] = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return found


def _triangles_of(graph: Graph, number: NDArray[np.int64], count: int) -> dict[str, Any]:
    member = np.argsort(number, kind="stable")[int((number < 0).sum()) :]
    begin = np.searchsorted(number[member], np.arange(count + 1))
    made, closed = kernels.close_triangles(begin, member, graph.space, graph.compared, graph.start, graph.neighbour)
    return {"consistency": np.where(made > 0, closed / np.maximum(made, 1), np.nan)}


def _comparable(holds: NDArray[np.bool_], compared: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(families,): how many pairs of members are of spaces that were compared."""
    as_number = holds.astype(np.float64)
    return ((as_number @ compared) * as_number).sum(axis=1) / 2


def triangles(graph: Graph) -> pd.DataFrame:
    """`Families.triangles`."""
    spaces = len(graph.spaces)
    # Of a feature's partners in one space, the strongest is followed.
    node = np.repeat(np.arange(graph.nodes), np.diff(graph.start))
    into = node * spaces + graph.space[graph.neighbour]
    order = np.lexsort((graph.neighbour, -graph.strength, into))
    followed = order[np.flatnonzero(np.diff(into[order], prepend=-1))]
    start = np.concatenate([[0], np.cumsum(np.bincount(node[followed], minlength=graph.nodes))]).astype(np.int64)
    paired = np.zeros((spaces, spaces), np.int64)
    np.add.at(paired, (graph.space[node[followed]], into[followed] % spaces), 1)
    made, home, chance = kernels.walks(
        graph.space, graph.first, graph.compared, start, graph.neighbour[followed], paired
    )
    rows = []
    for i, j, k in combinations(range(spaces), 3):
        if graph.compared[i, j] and graph.compared[i, k] and graph.compared[j, k]:
            n = int(made[i, j, k])
            shares = (home[i, j, k] / n, chance[i, j, k] / n) if n else (np.nan, np.nan)
            rows.append([*(graph.spaces[x] for x in (i, j, k)), n, int(home[i, j, k]), *map(float, shares)])
    return pd.DataFrame(
        rows, columns=["space_a", "space_b", "space_c", "walks", "home", "consistency", "chance"]
    ).astype({"walks": np.int64, "home": np.int64, "consistency": np.float64, "chance": np.float64})
