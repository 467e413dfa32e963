"""Nulls that match again: B's rows are rearranged, and everything is correlated, matched and scored as in the run.

`inference.nulls.AGAIN` lists them. Rearranged text has fewer pairs above the minimum r, and most measures rise as the
number of pairs falls: on a handful of pairs, SVCCA is 1 by construction. So two things are reported: how many pairs
pass the filters and the method, with their mean r; and each measure's score on the strongest pairs of the rearranged
text, beside that of as many of the run's own pairs.

Draws are made in rounds. After each, measures and cells of which every test is settled are left out of the next
(`inference.sequential`). Rounds, and the order of draws, depend on the study alone: not on the engine, nor on what is
in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from unifeat.correlation.rearranged import cycles
from unifeat.engine import Engine, Unit
from unifeat.inference import find_measure
from unifeat.inference.clusters import VERSION as CLUSTERS
from unifeat.inference.nulls import AGAIN, NULLS
from unifeat.matching.by_chance import Arrangement, ByChance
from unifeat.matching.rule import Rule
from unifeat.pipeline.match import Cell, mean
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.rematch_tests import R_BINS, Drawn, Tests, families, summary
from unifeat.pipeline.spaces import role
from unifeat.progress import Advance, track
from unifeat.store import JSON, Piece
from unifeat.study.measures import MetricSpec
from unifeat.study.spec import Study

BATCH = 5  # draws of a unit
_FIRST_ROUND = 20  # draws; each later round doubles them
_STEP = 0.95  # between the numbers of pairs at which scores are compared


@dataclass(frozen=True)
class Asked:
    """One null of a study that matches again.

    Attributes:
        name: its name in `NULLS` and in `run.json`.
        how: how rows are rearranged.
        draws: how often.
    """

    name: str
    how: Arrangement
    draws: int


def again(study: Study) -> list[Asked]:
    """The nulls of a study that match again."""
    inference = study.inference
    asked: dict[str, tuple[Arrangement, int]] = {
        "rematch": (inference.rematch_by, inference.rematches),
        "same_token": ("same_token", inference.same_token),
        "same_two_tokens": ("same_two_tokens", inference.same_two_tokens),
    }
    return [Asked(name, *asked[name]) for name in AGAIN if asked[name][1]]


def rematch_cells(
    study: Study, null: Asked, cells: list[Cell], facts: list[dict[str, Any]], engine: Engine
) -> list[dict[str, Any]]:
    """The facts of each cell under one null, for `run.json`, as `rematch_tests.summary` says.

    Args:
        facts: each cell's facts from matching.
    """
    geometry, enough = study.geometry, study.inference.enough
    asked = [_possible(null, own) for own in facts]
    drawn = [Drawn.none(len(geometry)) for _ in cells]
    roles = [role(cell.a, cell.b) for cell in cells]
    groups = families(roles, asked, null.draws)
    tests = [Tests(own, [drawn[i] for i in own.cells], [facts[i] for i in own.cells], enough) for own in groups]
    with track(f"matching again: {AGAIN[null.name].label}", sum(asked), unit="draws") as advance:
        for low, high in pairwise(rounds(null.draws)):
            # A family's cells share their draws and their open measures.
            going = [(i, range(low, min(high, asked[i]))) for one in tests if not one.settled for i in one.family.cells]
            going = [(i, numbers) for i, numbers in going if numbers]
            if not going:
                break
            _round(cells, null, going, facts, drawn, geometry, engine, advance)
            for one in tests:
                if not one.settled and one.settle():
                    advance(sum(asked[i] - len(drawn[i].draws) for i in one.family.cells))
    found: list[dict[str, Any]] = [{} for _ in cells]
    for one in tests:
        for place, i in enumerate(one.family.cells):
            found[i] = summary(drawn[i], asked[i], one, place)
    return found


def rounds(draws: int) -> list[int]:
    """Where rounds begin, and the last one ends: 0, 20, 40, 80, 160 …, so that no more than half is drawn in vain."""
    ends = [0, min(_FIRST_ROUND, draws)]
    while ends[-1] < draws:
        ends.append(min(2 * ends[-1], draws))
    return ends


def _possible(null: Asked, own: dict[str, Any]) -> int:
    """How many draws a cell can have: a short text has few rotations, and few documents few others to stand beside."""
    if null.how == "rotation":
        return min(null.draws, int(own["shifts"]))
    return min(null.draws, cycles(int(own["documents_fitted"]))) if null.how == "documents" else null.draws


def _round(
    cells: list[Cell],
    null: Asked,
    going: list[tuple[int, range]],
    facts: list[dict[str, Any]],
    drawn: list[Drawn],
    geometry: list[MetricSpec],
    engine: Engine,
    advance: Advance,
) -> None:
    """Make some draws of some cells, and score as many of the run's own pairs as each of them has."""
    batches = [(i, numbers[at : at + BATCH]) for i, numbers in going for at in range(0, len(numbers), BATCH)]

    def scored(i: int) -> list[MetricSpec]:
        return [geometry[number] for number in drawn[i].open]

    units = (_batch_unit(cells[i], null, numbers, facts[i]["kept"], scored(i)) for i, numbers in batches)
    for (i, numbers), found in zip(batches, engine.map(units), strict=True):
        drawn[i].add(found)
        advance(len(numbers))
    own = []
    for i, _ in going:
        sizes = {draw["pairs_scored"] for draw in drawn[i].draws if drawn[i].open}
        own += [(i, n) for n in sorted(sizes - drawn[i].own.keys())]
    results = engine.map(_own_unit(cells[i], n, scored(i)) for i, n in own)
    for (i, n), values in zip(own, results, strict=True):
        drawn[i].own[n] = dict(zip(drawn[i].open, values, strict=True))


def comparable(pairs: int, kept: int) -> int:
    """The number of pairs at which scores are compared, where a draw has `pairs` of the `kept` that the run has.

    One of a few numbers, each 5 % below the one before, so that the run's own pairs need not be scored for every draw.
    """
    n = kept
    while n > pairs:
        n = int(n * _STEP) if int(n * _STEP) < n else n - 1
    return n


def _batch_unit(
    cell: Cell, null: Asked, numbers: range, kept: int, geometry: list[MetricSpec]
) -> Unit[list[dict[str, Any]]]:
    """Some draws of one cell."""
    made_from = _made_from(cell, geometry, null.name) | {
        "how": null.how,
        "draws": [numbers.start, numbers.stop],
        "kept": kept,
    }
    large = cell.fills_machine
    work = partial(_batch, cell, null.how, numbers, kept, geometry, None if large else 1)
    gpu = cell.comparison.device == "cuda"
    return Unit(Piece("rematches", made_from, JSON, "the rematches"), work, fills_machine=large or gpu, gpu=gpu)


def _own_unit(cell: Cell, pairs: int, geometry: list[MetricSpec]) -> Unit[list[float]]:
    """The scores of the strongest of the run's own pairs."""
    made_from = _made_from(cell, geometry, "rematch") | {"how": "observed", "pairs": pairs}
    piece = Piece("rematches", made_from, JSON, "the scores of the strongest pairs")
    return Unit(piece, partial(_own, cell, pairs, geometry), fills_machine=cell.fills_machine)


def _made_from(cell: Cell, geometry: list[MetricSpec], null: str) -> dict[str, Any]:
    given = any("given" in spec.settings for spec in geometry)
    grouped = any("groups" in find_measure(spec.metric).row_settings for spec in geometry)
    return {
        "null": [null, NULLS[null].version],
        "candidates": cell.comparison.made_from(),
        "saes": [space.store.settings["sae"] for space in (cell.a, cell.b)],
        "rule": cell.rule.identity(),
        "geometry": [find_measure(spec.metric).identity(spec.settings) for spec in geometry],
        "clusters": [CLUSTERS, *(own.identity for own in cell.near_copies)] if cell.near_copies and grouped else None,
        "given": [space.token_embeddings.identity for space in (cell.a, cell.b)] if given else None,
    }


def _own(cell: Cell, pairs: int, geometry: list[MetricSpec]) -> list[float]:
    strongest = cell.rule.strongest(cell.candidates().table, pairs)
    return PairSet.of(cell, "all", strongest).values(geometry)


def _batch(
    cell: Cell, how: Arrangement, numbers: range, kept: int, geometry: list[MetricSpec], threads: int | None
) -> list[dict[str, Any]]:
    own = pd.MultiIndex.from_frame(cell.kept[["feature_a", "feature_b"]])
    chance, rule = ByChance(cell.comparison, how), cell.rule.for_many()
    tables = (chance.candidates(number, threads=threads) for number in numbers)
    draws = [_facts_of_draw(cell, rule, table, kept, geometry, own) for table in tables]
    if numbers.start == 0:  # the same in all draws
        draws[0] |= chance.rows_alone()
    return draws


def _facts_of_draw(
    cell: Cell, rule: Rule, table: pd.DataFrame, kept: int, geometry: list[MetricSpec], own: pd.MultiIndex
) -> dict[str, Any]:
    chosen = table[rule.keep(table)(table)]
    strongest = rule.strongest(table, kept)
    n = comparable(len(strongest), kept)
    pairs = PairSet.of(cell, "all", strongest.head(n))
    return {
        "kept": len(chosen),
        "mean_correlation": mean(chosen["correlation"]),
        "same": int(pd.MultiIndex.from_frame(chosen[["feature_a", "feature_b"]]).isin(own).sum()),
        "r": np.histogram(chosen["correlation"], R_BINS)[0].tolist(),
        "pairs_scored": n,
        "scores": pairs.values(geometry),
    }
