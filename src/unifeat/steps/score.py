"""Pairs → scores: each measure of the geometry with its nulls, its interval and its held-out counterpart.

The units of work (one measure on one set of pairs: its shuffles, its interval; one rematch of one pair of spaces) are
pure functions of decoder rows and settings, each cached under a key made from these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry import heldout_counterpart
from unifeat.inference import SharedRows, false_discovery_rate, family_wise, find_measure, permutation_test
from unifeat.inference.subsampling import subsample_interval
from unifeat.progress import track
from unifeat.spaces import Space
from unifeat.steps.match import Cell
from unifeat.storage import cache_root, key_of, write_json
from unifeat.study import MetricSpec, Study
from unifeat.workers import each

T = TypeVar("T")
R = TypeVar("R")
Floats = NDArray[np.float64]
_OF_PAIRS = ("p_kept", "p_mean_correlation")  # tests of the pairs themselves, see `rematch_cells`
_LARGE = 4_000  # pairs, from which on one measure keeps all cores busy, and takes too much memory to run twice
NAN = float("nan")
COLUMNS = [
    *("space_a", "layer_a", "space_b", "layer_b", "subspace", "metric", "settings", "n_pairs", "score"),
    *("score_heldout", "null_mean", "null_sd", "corrected", "p", "p_family", "q", "ci_low", "ci_high"),
    *("rematch_mean", "rematch_sd", "rematch_p", "rematch_q", "subset_n", "subset_score", "subset_mean", "subset_sd"),
    *("subset_p", "subset_q", "details", "flags"),
]


@dataclass(frozen=True)
class PairSet:
    """Pairs of one pair of spaces that are scored together.

    Attributes:
        subspace: "all", or the name of a category.
        features_a, features_b: (n,) feature ids.
    """

    a: Space
    b: Space
    subspace: str
    features_a: NDArray[np.int64]
    features_b: NDArray[np.int64]

    @classmethod
    def of(cls, cell: Cell, subspace: str, pairs: pd.DataFrame) -> PairSet:
        """The pairs of a table with columns `feature_a` and `feature_b`, in the order of their ids."""
        ordered = pairs.sort_values(["feature_a", "feature_b"])
        a, b = (ordered[f"feature_{side}"].to_numpy(np.int64) for side in "ab")
        return cls(cell.a, cell.b, subspace, a, b)

    @property
    def rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The decoder rows of either side, (n, d_a) and (n, d_b)."""
        return self.a.decoder[self.features_a], self.b.decoder[self.features_b]

    @property
    def shared(self) -> SharedRows:
        """What makes the shuffles of all cells one permutation: a pair is known by its feature of A, or, where one
        feature of A has several partners, by that of B."""
        unique = len(np.unique(self.features_a)) == len(self.features_a)
        ids = self.features_a if unique else self.features_b
        # One size for both, or cells of one grid would not share their permutation.
        return SharedRows(ids, max(len(self.a.decoder), len(self.b.decoder)))

    def key(self, what: str, spec: MetricSpec, *settings: Any) -> str:
        """The name of a cached piece made from these pairs by one measure."""
        saes = [space.store.settings["sae"] for space in (self.a, self.b)]
        pairs = [self.features_a.tolist(), self.features_b.tolist()]
        return key_of(
            {"what": what, "saes": saes, "pairs": pairs, "metric": [spec.metric, spec.settings], "settings": settings}
        )


def score_sets(study: Study, sets: list[PairSet], geometry: list[MetricSpec]) -> pd.DataFrame:
    """Every measure on every set of pairs: one row each, without q (see `with_q`), with a column `null` of arrays."""
    units = [(pairs, spec) for pairs in sets for spec in geometry]
    rows = []
    with track("scoring", len(units), unit="scores") as advance:
        for row in in_parallel(lambda unit: _unit(study, *unit), units, [len(pairs.features_a) for pairs, _ in units]):
            rows.append(row)
            advance(1)
    table = pd.DataFrame(rows, columns=None if rows else [*COLUMNS, "null"])
    return table.assign(p_family=_family(table))


def in_parallel(work: Callable[[T], R], units: list[T], pairs: list[int]) -> Iterator[R]:
    """work(unit) in order: small sets of pairs at the same time, large ones one by one with all of BLAS's threads."""
    if max(pairs, default=0) > _LARGE:
        return map(work, units)
    return each(work, units)


def _unit(study: Study, pairs: PairSet, spec: MetricSpec) -> dict[str, Any]:
    """One measure on one set of pairs."""
    inference = study.inference
    shuffled = cached(
        pairs.key("shuffles/2", spec, inference.permutations, study.seed, pairs.shared.size),
        partial(_shuffles, pairs, spec, inference.permutations, study.seed),
    )
    interval = cached(
        pairs.key("interval/1", spec, inference.subsamples, inference.level, study.seed),
        partial(_interval, pairs, spec, study),
    )
    return _row(pairs, spec, shuffled, interval)


def with_q(
    scores: pd.DataFrame, rates: pd.DataFrame, rematched: list[dict[str, Any]]
) -> tuple[pd.DataFrame, pd.DataFrame, list[dict[str, Any]]]:
    """All three with q-values: Benjamini–Hochberg over every test of the run, whichever null it is against.

    rematched: facts of each cell's rematches; `p_kept` and `p_mean_correlation` get `q_kept` and `q_mean_correlation`.
    """
    facts = pd.DataFrame({name: [cell[name] for cell in rematched] for name in _OF_PAIRS}, dtype=np.float64)
    places = [(scores, "p"), (scores, "rematch_p"), (scores, "subset_p"), (rates, "p")]
    places += [(facts, name) for name in _OF_PAIRS]
    tests = [table[name].to_numpy(np.float64) for table, name in places]
    q = np.split(false_discovery_rate(np.concatenate(tests)), np.cumsum([len(test) for test in tests])[:-1])
    scores = scores.assign(q=q[0], rematch_q=q[1], subset_q=q[2])[COLUMNS]
    told = []
    for place, cell in enumerate(rematched):
        own = {f"q{name[1:]}": float(values[place]) for name, values in zip(_OF_PAIRS, q[4:], strict=True)}
        told.append(cell | {name: None if np.isnan(value) else value for name, value in own.items()})
    return scores, rates.assign(q=q[3]), told


def _family(table: pd.DataFrame) -> Floats:
    """Family-wise p over each grid: the cells that one measure scores on one kind of subspace."""
    p = np.full(len(table), NAN)
    for _, own in table.groupby(["metric", "settings", "subspace"], sort=False):
        nulls = list(own["null"])
        if len(nulls[0]):
            at = table.index.get_indexer(own.index)
            p[at] = family_wise(own["score"].to_numpy(np.float64), np.array(nulls, np.float64))
    return p


def _row(pairs: PairSet, spec: MetricSpec, shuffled: dict[str, Any], interval: dict[str, Any]) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(
        ("rematch_mean", "rematch_sd", "rematch_p", "subset_score", "subset_mean", "subset_sd", "subset_p"), NAN
    )
    nothing["subset_n"] = 0
    return {
        "space_a": pairs.a.name,
        "layer_a": pairs.a.layer,
        "space_b": pairs.b.name,
        "layer_b": pairs.b.layer,
        "subspace": pairs.subspace,
        "metric": spec.metric,
        "settings": json.dumps(spec.settings, sort_keys=True),
        "n_pairs": len(pairs.features_a),
        **nothing,
        **shuffled,
        "null": np.array(shuffled["null"], np.float64),
        "ci_low": interval["low"],
        "ci_high": interval["high"],
        "flags": [*shuffled["flags"], *interval["flags"]],
    }


def _shuffles(pairs: PairSet, spec: MetricSpec, permutations: int, seed: int) -> dict[str, Any]:
    """The score, its shuffle null and its held-out counterpart."""
    x, y = pairs.rows
    nothing = dict.fromkeys(("null_mean", "null_sd", "corrected", "p"), NAN)
    try:
        if permutations and find_measure(spec.metric).sees_pairing:
            test = permutation_test(
                spec.metric, x, y, permutations=permutations, seed=seed, rows=pairs.shared, **spec.settings
            )
            observed, flags = test.observed, list(test.flags)
            found = {"null_mean": test.null_mean, "null_sd": test.null_sd, "corrected": test.corrected, "p": test.p}
            null = test.null.tolist()
        else:
            observed = find_measure(spec.metric).function(x, y, **spec.settings)
            flags, found, null = list(observed.flags), nothing, []
        used = {k: v for k, v in observed.details.items() if isinstance(v, (int, float))}
        return {
            "score": observed.value,
            "score_heldout": _heldout(x, y, spec, observed.value),
            **found,
            "details": json.dumps(used),
            "flags": flags,
            "null": null,
        }
    except UserError as error:
        # Too few pairs for a measure is a result, not a mistake: the cell says so, and the others go on.
        empty = {"score": NAN, "score_heldout": NAN, **nothing, "details": "{}"}
        return {**empty, "flags": [f"undefined: {error}"], "null": [NAN] * permutations}


def _heldout(x: Any, y: Any, spec: MetricSpec, value: float) -> float:
    """The score's counterpart read on pairs that had no part in any fit; the score itself where nothing is fitted."""
    counterpart = heldout_counterpart(spec.metric, spec.settings)
    if counterpart is None:
        return NAN
    if counterpart == (spec.metric, spec.settings):
        return value
    try:
        return find_measure(counterpart[0]).function(x, y, **counterpart[1]).value
    except UserError:
        return NAN


def _interval(pairs: PairSet, spec: MetricSpec, study: Study) -> dict[str, Any]:
    inference = study.inference
    if not inference.subsamples:
        return {"low": NAN, "high": NAN, "flags": []}
    x, y = pairs.rows
    try:
        found = subsample_interval(
            spec.metric,
            x,
            y,
            subsamples=inference.subsamples,
            level=inference.level,
            seed=study.seed,
            **spec.settings,
        )
    except UserError:
        return {"low": NAN, "high": NAN, "flags": []}
    return {"low": found.low, "high": found.high, "flags": list(found.flags)}


def cached(key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A piece of work by its key, from the cache or done now."""
    path = cache_root() / "scores" / f"{key}.json"
    if not path.exists():
        write_json(path, compute())
    return json.loads(path.read_text(encoding="utf-8"))
