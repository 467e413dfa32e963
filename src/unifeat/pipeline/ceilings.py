"""Scores as a share of their ceiling: what two SAEs of one model's activations reach in the same study.

Measures rise or fall with the number of pairs. So the score and its ceilings are compared on a like number: the least
that any of these cells kept. Where a cell kept more, its score there is the mean over seeded draws of its pairs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from unifeat.engine import Engine, Unit
from unifeat.errors import UserError
from unifeat.inference.ceiling import VERSION, Estimate, score_at, share_of_ceiling
from unifeat.inference.nulls import NAN
from unifeat.pipeline.match import Cell
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.spaces import role
from unifeat.progress import track
from unifeat.study.measures import MetricSpec
from unifeat.study.spec import Study

COLUMNS: dict[str, Any] = {  # with their values where there is no ceiling
    **dict.fromkeys(("ceiling", "ceiling_share", "ceiling_share_low", "ceiling_share_high"), NAN),
    "ceiling_share_chance": NAN,
    "ceiling_pairs": 0,
    "ceiling_of": "",
}
_FEWEST_PAIRS = 8  # of which halves can be scored
_ALPHA = 0.05  # a score that chance reaches more often is no ceiling
Row = tuple[str, str, str, str, str]  # both spaces, subspace, metric, settings
Key = tuple[str, str, str, str, str, int]  # of a score: its row, and the number of pairs


@dataclass(frozen=True)
class _Compared:
    """The pairs of a cell, or of one of its categories, beside the ceilings of its spaces, by one measure.

    Attributes:
        sides: `a` and `b`, or one of them: the same category's pairs in the ceilings of that space.
    """

    own: PairSet
    sides: dict[str, list[PairSet]]
    spec: MetricSpec

    @property
    def pairs(self) -> int:
        """The number of pairs at which all are scored."""
        return min(len(pairs.features_a) for pairs in (self.own, *self.ceilings))

    @property
    def ceilings(self) -> list[PairSet]:
        return [pairs for side in self.sides.values() for pairs in side]

    def units(self, study: Study) -> dict[Key, Unit[dict[str, Any]]]:
        """The scores of the cell and of each ceiling, in their order."""
        n = self.pairs
        own = {(*_row(self.own, self.spec), n): _unit(study, self.own, self.spec, n, chance=True)}
        return own | {
            (*_row(pairs, self.spec), n): _unit(study, pairs, self.spec, n, chance=False) for pairs in self.ceilings
        }


def add_ceilings(
    study: Study,
    scores: pd.DataFrame,
    cells: list[Cell],
    categories: Callable[[Cell], Iterable[PairSet]],
    engine: Engine,
) -> pd.DataFrame:
    """The scores with `COLUMNS`, and with a flag where a ceiling is not fit to be one.

    Rows of cells without a ceiling, and of ceilings themselves, get the empty values.

    Args:
        scores: all rows, with `p`.
        categories: the pairs of each category in a cell.
    """
    scores = scores.assign(**COLUMNS)
    rows = {key: number for number, key in enumerate(_rows(scores))}
    p = scores["p"].to_numpy(np.float64)
    compared = [one for one in _compared(study, cells, categories) if _row(one.own, one.spec) in rows]
    if not compared:
        return scores
    flags = [_unfit(one, [float(p[rows[_row(pairs, one.spec)]]) for pairs in one.ceilings]) for one in compared]
    asked = [{} if unfit else one.units(study) for one, unfit in zip(compared, flags, strict=True)]
    units = {key: unit for of_one in asked for key, unit in of_one.items()}  # cells may share that of a ceiling
    found: dict[Key, dict[str, Any]] = {}
    with track("scoring ceilings", len(units), unit="scores") as advance:
        for key, result in zip(units, engine.map(iter(units.values())), strict=True):
            found[key] = result
            advance(1)
    columns = {name: scores[name].tolist() for name in COLUMNS}
    row_flags = [list(own) for own in scores["flags"]]
    for one, unfit, keys in zip(compared, flags, asked, strict=True):
        row = rows[_row(one.own, one.spec)]
        values, more = _values(study, one, [found[key] for key in keys])
        row_flags[row] += [*unfit, *more]
        for name, value in values.items():
            columns[name][row] = value
    return scores.assign(**columns, flags=pd.Series(row_flags, index=scores.index, dtype=object))


def ceiling_facts(cells: list[Cell], facts: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """For each cell, the number of pairs and the match rates as shares of the ceilings', for `run.json`.

    `of`; `kept`, the ceiling's number (the geometric mean if there are ceilings of both spaces); `kept_share`;
    `rate_a_share`, the features of A that have a partner, as a share of those that have one in a second SAE of A's
    activations; `rate_b_share`. None for cells without a ceiling.

    Args:
        facts: each cell's facts from matching.
    """
    of_space = _ceilings_of(cells)
    found: list[dict[str, Any] | None] = []
    for number, cell in enumerate(cells):
        sides = _sides(cell, of_space)
        if not sides:
            found.append(None)
            continue
        kept = [float(np.mean([facts[i]["kept"] for i in several])) for several in sides.values()]
        ceiling = math.prod(kept) ** (1 / len(kept))
        rates: dict[str, float | None] = {"rate_a_share": None, "rate_b_share": None}
        for side, several in sides.items():
            name = getattr(cell, side).name
            there = float(np.mean([_paired(cells[i], name) for i in several]))
            rates[f"rate_{side}_share"] = _paired(cell, name) / there if there else None
        share = facts[number]["kept"] / ceiling if ceiling else None
        found.append({"of": _of(sides), "kept": ceiling, "kept_share": share, **rates})
    return found


def _paired(cell: Cell, space: str) -> int:
    """How many features of one of its spaces have a partner."""
    return int(cell.kept["feature_a" if cell.a.name == space else "feature_b"].nunique())


def _ceilings_of(cells: list[Cell]) -> dict[str, list[int]]:
    """For each space that has any, the numbers of the cells that are its ceilings."""
    found: dict[str, list[int]] = {}
    for number, cell in enumerate(cells):
        if role(cell.a, cell.b) == "ceiling":
            for space in (cell.a, cell.b):
                found.setdefault(space.name, []).append(number)
    return found


def _sides(cell: Cell, of_space: dict[str, list[int]]) -> dict[str, list[int]]:
    """The ceilings of a cell's spaces; none for a cell that is a ceiling."""
    if role(cell.a, cell.b) == "ceiling":
        return {}
    return {side: of_space[space.name] for side, space in (("a", cell.a), ("b", cell.b)) if space.name in of_space}


def _of(sides: dict[str, Any]) -> str:
    return "both" if len(sides) == 2 else next(iter(sides))


def _compared(study: Study, cells: list[Cell], categories: Callable[[Cell], Iterable[PairSet]]) -> Iterator[_Compared]:
    of_space = _ceilings_of(cells)
    sets = {i: _sets(cells[i], categories) for several in of_space.values() for i in several}
    in_subspaces = (study.subspaces.geometry if study.subspaces else None) or study.geometry
    for cell in cells:
        sides = _sides(cell, of_space)
        for subspace, own in _sets(cell, categories).items() if sides else ():
            theirs = {side: [sets[i][subspace] for i in several] for side, several in sides.items()}
            for spec in study.geometry if subspace == "all" else in_subspaces:
                yield _Compared(own, theirs, spec)


def _sets(cell: Cell, categories: Callable[[Cell], Iterable[PairSet]]) -> dict[str, PairSet]:
    """All pairs of a cell, and those of each category, by the name of the subspace."""
    return {own.subspace: own for own in (PairSet.of(cell, "all", cell.kept), *categories(cell))}


def _row(pairs: PairSet, spec: MetricSpec) -> Row:
    return pairs.a.name, pairs.b.name, pairs.subspace, spec.metric, json.dumps(spec.settings, sort_keys=True)


def _rows(scores: pd.DataFrame) -> Iterator[Row]:
    names = ["space_a", "space_b", "subspace", "metric", "settings"]
    return scores[names].itertuples(index=False, name=None)


def _unfit(one: _Compared, p: list[float]) -> list[str]:
    """Why no share can be given: a flag for too few pairs, or one for each ceiling that is none.

    Args:
        p: of each ceiling, against shuffles.
    """
    if one.pairs < _FEWEST_PAIRS:
        return [f"ceiling: fewer than {_FEWEST_PAIRS} pairs to compare it at"]
    flags = []
    for pairs, own in zip(one.ceilings, p, strict=True):
        name = f"{pairs.a.name} × {pairs.b.name}"
        if math.isnan(own):
            flags.append(f"ceiling: {name} was not compared with a null, so it may be none")
        elif own > _ALPHA:
            flags.append(f"ceiling: {name} is not clearly above its own null (p = {own:.2g})")
    return flags


def _values(study: Study, one: _Compared, found: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The columns of one row, and flags.

    Args:
        found: what `_at_number` gave for the cell and each ceiling; empty if no share can be given.
    """
    values = COLUMNS | {"ceiling_of": _of(one.sides), "ceiling_pairs": one.pairs}
    if not found:
        return values, []
    own, *theirs = found
    results = iter([Estimate(result["score"], result["sd"]) for result in theirs])
    sides = [[next(results) for _ in side] for side in one.sides.values()]
    df = max(study.inference.subsamples - 1, 1)
    share = share_of_ceiling(Estimate(own["score"], own["sd"]), sides, level=study.inference.level, df=df)
    values |= {
        "ceiling": share.ceiling,
        "ceiling_share": share.share,
        "ceiling_share_low": share.low,
        "ceiling_share_high": share.high,
        "ceiling_share_chance": own["chance"] / share.ceiling if not math.isnan(share.share) else NAN,
    }
    names = [f"{pairs.a.name} × {pairs.b.name}" for pairs in one.ceilings]
    flags = [
        f"ceiling: {name} is not above 0 at {one.pairs} pairs"
        for name, result in zip(names, theirs, strict=True)
        if not result["score"] > 0
    ]
    if not flags and study.inference.subsamples and math.isnan(share.low):
        flags = [f"ceiling: {flag}" for result in found for flag in result["flags"]]
        flags = list(dict.fromkeys(flags)) or ["ceiling: its interval reaches 0, so the share has none"]
    return values, flags


def _unit(study: Study, pairs: PairSet, spec: MetricSpec, n: int, *, chance: bool) -> Unit[dict[str, Any]]:
    subsamples, seed = study.inference.subsamples, study.seed
    work = partial(_at_number, pairs, spec, n, subsamples, seed, chance=chance)
    settings = {"pairs": n, "chance": chance, "subsamples": subsamples, "seed": seed}
    return pairs.unit("at a number of pairs", VERSION, spec, work, **settings)


def _at_number(pairs: PairSet, spec: MetricSpec, n: int, subsamples: int, seed: int, *, chance: bool) -> dict[str, Any]:
    """The fields of `score_at`; NaN where there are too few pairs for the measure."""
    try:
        fixed, by_row = pairs.measure(spec)
        found = score_at(
            fixed, *pairs.rows, n, subsamples=subsamples, seed=seed, units=pairs.clusters, chance=chance, **by_row
        )
    except UserError as error:
        return {"score": NAN, "sd": NAN, "chance": NAN, "flags": [f"no score: {error}"]}
    return found._asdict() | {"flags": list(found.flags)}
