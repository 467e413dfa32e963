"""Pairs that are scored together: their decoder rows, what may be shuffled with what, and the keys of results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from unifeat.codes.near_copies import NearCopies
from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.geometry import Measure, Score
from unifeat.geometry.measure import Nested
from unifeat.inference import SharedRows, find_clusters, find_measure, strata_of, with_settings
from unifeat.inference.clusters import VERSION as CLUSTERS
from unifeat.inference.strata import pair_frequency
from unifeat.pipeline.match import Cell
from unifeat.pipeline.spaces import Space
from unifeat.store import JSON, Piece
from unifeat.store.keys import digest_of
from unifeat.study.measures import MetricSpec

Floats = NDArray[np.float64]
_COUNTS, _TOKEN_SHARES = ("count_a", "count_b"), ("token_share_a", "token_share_b")
_UNITS = 1  # raised whenever it changes how pairs that share a feature are tested
# Above this, one measure keeps all cores busy and takes too much memory to run twice at a time.
_PAIRS_TO_FILL_MACHINE = 4_000


@dataclass(frozen=True)
class PairSet:
    """A set of pairs of two spaces that are scored together.

    Attributes:
        subspace: "all", or the name of a category.
        features_a, features_b: (n,) feature ids.
        traits: what strata can be made of: those columns of the pairs' table that it has, in their order.
        near: the near-copies among the features of either space; None if every pair counts as independent.
    """

    a: Space
    b: Space
    subspace: str
    features_a: NDArray[np.int64]
    features_b: NDArray[np.int64]
    traits: dict[str, Floats] = field(default_factory=dict, repr=False)
    near: tuple[NearCopies, NearCopies] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, cell: Cell, subspace: str, pairs: pd.DataFrame) -> PairSet:
        """The pairs of a table with columns `feature_a` and `feature_b`, in the order of their ids."""
        ordered = pairs.sort_values(["feature_a", "feature_b"])
        a, b = (ordered[f"feature_{side}"].to_numpy(np.int64) for side in "ab")
        known = [name for name in (*_COUNTS, *_TOKEN_SHARES) if name in ordered]
        traits = {name: ordered[name].to_numpy(np.float64) for name in known}
        return cls(cell.a, cell.b, subspace, a, b, traits, cell.near_copies)

    @cached_property
    def units(self) -> NDArray[np.intp] | None:
        """Labels, (n,), of pairs that share a feature, directly or through others; None if no two pairs do.

        Matching by `max` gives features of one side several partners. The decoder row of such a feature is there
        several times, so these pairs are shuffled together.
        """
        ids_a, row = np.unique(self.features_a, return_inverse=True)
        ids_b, column = np.unique(self.features_b, return_inverse=True)
        if len(ids_a) == len(ids_b) == len(row):
            return None
        size = len(ids_a) + len(ids_b)
        graph = csr_array((np.ones(len(row)), (row, len(ids_a) + column)), shape=(size, size))
        return connected_components(graph, directed=False)[1][row].astype(np.intp)

    @cached_property
    def clusters(self) -> NDArray[np.intp] | None:
        """Labels, (n,), of pairs that are near-copies of each other or share a feature; None if no two pairs do.

        Near-copies are those of `find_clusters`: by their decoder rows or by their codes, on either side. They are held
        out together, and drawn together for intervals.
        """
        n, units = len(self.features_a), self.units
        if self.near is None or n < 2:
            return units
        links = [own.links(ids) for own, ids in zip(self.near, (self.features_a, self.features_b), strict=True)]
        if units is not None:
            first = np.unique(units, return_index=True)[1][units]
            links.append(coo_array((np.ones(n, bool), (np.arange(n), first)), shape=(n, n)))
        labels = find_clusters(*self.rows, min_cosine=self.near[0].min_correlation, links=links)
        return labels.astype(np.intp) if labels.max() + 1 < n else None

    def measure(self, spec: MetricSpec) -> tuple[Measure, dict[str, Any]]:
        """The measure with its settings, and those settings that have a row for each of these pairs.

        Held-out measures get `clusters` as groups. What is `given` by name becomes two arrays, one of either side.
        """
        known = find_measure(spec.metric)
        plain = {name: value for name, value in spec.settings.items() if name not in known.row_settings}
        of_rows: dict[str, Any] = {}
        if "groups" in known.row_settings and self.clusters is not None:
            of_rows["groups"] = self.clusters
        if "given" in spec.settings:
            sides = (self.a, self.features_a), (self.b, self.features_b)
            of_rows["given"] = [space.token_embeddings.rows(ids) for space, ids in sides]
        return with_settings(known, plain), of_rows

    def value(self, spec: MetricSpec) -> Score:
        """The score of these pairs.

        Raises:
            UserError: as the measure does: too few pairs, for instance.
        """
        measure, of_rows = self.measure(spec)
        return measure.function(*self.rows, **of_rows)

    def strata(self, kind: str) -> NDArray[np.intp]:
        """The stratum of each pair, (n,).

        Pairs that share a feature have one stratum, by their mean. Such units are only exchanged with others as large,
        so each size has its own strata.

        Args:
            kind: frequency (the geometric mean of both features' counts), token_share (the mean of both features' token
                shares), or both. A pair without a token share counts as having the least.

        Raises:
            UserError: the pairs lack the columns that this needs.
        """
        needed = {"frequency": _COUNTS, "token_share": _TOKEN_SHARES, "both": (*_COUNTS, *_TOKEN_SHARES)}[kind]
        if missing := [name for name in needed if name not in self.traits]:
            raise UserError(
                f"inference.strata: {kind} needs the columns {', '.join(missing)} of the pairs, which this run lacks; "
                "use strata: frequency"
            )
        variables = []
        if kind != "token_share":
            variables.append(pair_frequency(*(self.traits[name] for name in _COUNTS)))
        if kind != "frequency":
            share = np.mean([self.traits[name] for name in _TOKEN_SHARES], axis=0)
            variables.append(np.nan_to_num(share, nan=-1.0))
        return strata_of(*variables) if self.units is None else _strata_of_units(variables, self.units)

    def values(self, specs: list[MetricSpec]) -> list[float]:
        """The values of several measures on these pairs, NaN where there are too few of them.

        A measure at several numbers of components is prepared once, with the most.
        """
        found, widest = [float("nan")] * len(specs), dict[str, Nested]()
        dims = [spec.settings["dims"] if list(spec.settings) == ["dims"] else 0 for spec in specs]
        for number in sorted(range(len(specs)), key=lambda i: -(dims[i] or 0)):
            spec, fewer = specs[number], None
            if dims[number] and spec.metric in widest:
                fewer = widest[spec.metric].with_fewer(dims[number])
            if fewer is not None:
                found[number] = fewer
                continue
            try:
                measure, of_rows = self.measure(spec)
                prepared = measure.prepare(*self.rows, **of_rows)
                found[number] = prepared.score().value
            except UserError:
                continue
            if dims[number] and isinstance(prepared, Nested):
                widest.setdefault(spec.metric, prepared)
        return found

    @property
    def rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The decoder rows of both sides, (n, d_a) and (n, d_b)."""
        return self.a.decoder.rows(self.features_a), self.b.decoder.rows(self.features_b)

    @property
    def shared(self) -> SharedRows:
        """The ids by which cells share permutations: the pairs' features of A or, if one has several partners, of B."""
        unique = len(np.unique(self.features_a)) == len(self.features_a)
        ids = self.features_a if unique else self.features_b
        # The same size in both cases; otherwise the cells of a grid would not share their permutation.
        return SharedRows(ids, max(self.a.store.features, self.b.store.features))

    @property
    def fills_machine(self) -> bool:
        """Whether one measure on these pairs keeps all cores busy and takes too much memory to run twice at a time."""
        return len(self.features_a) > _PAIRS_TO_FILL_MACHINE

    def unit(self, what: str, version: int, spec: MetricSpec, compute: Callable[[], Any], **settings: Any) -> Unit[Any]:
        """A unit of work: one measure on these pairs.

        Args:
            what, version: what is computed, and the version of the code.
            settings: everything else that determines the result.
        """
        made_from: dict[str, Any] = {
            "what": [what, version],
            "saes": [space.store.settings["sae"] for space in (self.a, self.b)],
            "pairs": digest_of([self.features_a.tolist(), self.features_b.tolist()]),
            "measure": find_measure(spec.metric).identity(spec.settings),
            "settings": settings,
        }
        if self.units is not None:
            made_from |= {"units": _UNITS}
        if self.near is not None:
            made_from |= {"clusters": [CLUSTERS, *(own.identity for own in self.near)]}
        if "given" in spec.settings:
            made_from |= {"given": [space.token_embeddings.identity for space in (self.a, self.b)]}
        gpu = "device" in settings
        return Unit(Piece("scores", made_from, JSON, "the scores"), compute, self.fills_machine, gpu=gpu)


def _strata_of_units(variables: list[Floats], units: NDArray[np.intp]) -> NDArray[np.intp]:
    """Strata of units that are equally large, by the mean of each variable over their pairs: (n,)."""
    sizes = np.bincount(units)
    means = [np.bincount(units, values) / sizes for values in variables]
    strata = np.zeros(len(sizes), np.intp)
    for size in np.unique(sizes):
        own = np.flatnonzero(sizes == size)
        strata[own] = strata.max(initial=0) + 1 + strata_of(*(mean[own] for mean in means))
    return strata[units]
