"""Nulls that match again: B's rows are rearranged, and everything is correlated, matched and scored as in the run.

`inference.nulls.AGAIN` lists them. Rearranged text has fewer pairs above the minimum r, and most measures rise as the
number of pairs falls: on a handful of pairs, SVCCA is 1 by construction. So two things are reported: how many pairs
pass the filters and the method, with their mean r; and each measure's score on the strongest pairs of the rearranged
text, beside that of as many of the run's own pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from unifeat.engine import Engine, Unit
from unifeat.inference import find_measure
from unifeat.inference.clusters import VERSION as CLUSTERS
from unifeat.inference.nulls import AGAIN, NULLS
from unifeat.matching.by_chance import Arrangement, ByChance
from unifeat.pipeline.match import Cell, mean
from unifeat.pipeline.rematch_tests import R_BINS, summary, with_family
from unifeat.pipeline.score import PairSet
from unifeat.progress import track
from unifeat.store import JSON, Piece
from unifeat.study.spec import MetricSpec, Study

_BATCH = 10  # draws of a unit
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
    """The facts of each cell under one null, for `run.json`.

    `draws`, `least_p`; over the draws `kept`, `mean_correlation`, `same` (how many of the run's very pairs are kept
    again), `pairs_scored`; `p_kept`, `p_mean_correlation` and the same over the whole grid, `p_kept_family` and
    `p_mean_correlation_family`; `r` (a histogram of r of the pairs that the method chooses, summed over the draws); and
    for each measure of the geometry, in order, `scores` and `observed`: its values over the draws, and of as many of
    the run's own pairs.

    Args:
        facts: each cell's facts from matching.
    """
    geometry = study.geometry
    # A short text may have fewer rotations, and a single document cannot be beside another.
    draws = [min(null.draws, own["shifts"]) if null.how == "rotation" else null.draws for own in facts]
    draws = [
        0 if null.how == "documents" and own["documents_fitted"] < 2 else n for own, n in zip(facts, draws, strict=True)
    ]
    batches = [[range(low, min(low + _BATCH, n)) for low in range(0, n, _BATCH)] for n in draws]

    def units() -> Iterator[Unit[list[dict[str, Any]]]]:
        for cell, own, ranges in zip(cells, facts, batches, strict=True):
            yield from (_draws_unit(cell, null, numbers, own["kept"], geometry) for numbers in ranges)

    found: list[list[dict[str, Any]]] = []
    with track(f"matching again: {AGAIN[null.name].label}", sum(draws), unit="draws") as advance:
        results = engine.map(units())
        for ranges in batches:
            found.append([])
            for _ in ranges:
                batch = next(results)
                found[-1] += batch
                advance(len(batch))
    observed = _own_scores(cells, found, geometry, engine)
    summaries = [summary(*of_cell, geometry) for of_cell in zip(facts, found, observed, strict=True)]
    return with_family(summaries, facts, null.draws)


def _own_scores(
    cells: list[Cell], found: list[list[dict[str, Any]]], geometry: list[MetricSpec], engine: Engine
) -> list[dict[int, list[float]]]:
    """For each cell, the scores of the run's own strongest pairs, by how many."""
    numbers = [sorted({draw["pairs_scored"] for draw in draws}) for draws in found]
    units = (_own_unit(cell, n, geometry) for cell, own in zip(cells, numbers, strict=True) for n in own)
    results = engine.map(units)
    return [{n: next(results) for n in own} for own in numbers]


def comparable(pairs: int, kept: int) -> int:
    """The number of pairs at which scores are compared, where a draw has `pairs` of the `kept` that the run has.

    One of a few numbers, each 5 % below the one before, so that the run's own pairs need not be scored for every draw.
    """
    n = kept
    while n > pairs:
        n = int(n * _STEP) if int(n * _STEP) < n else n - 1
    return n


def _draws_unit(
    cell: Cell, null: Asked, numbers: range, kept: int, geometry: list[MetricSpec]
) -> Unit[list[dict[str, Any]]]:
    """Some draws of one cell."""
    made_from = _made_from(cell, geometry, null.name) | {
        "how": null.how,
        "draws": [numbers.start, numbers.stop],
        "kept": kept,
    }
    large = cell.fills_machine
    work = partial(_draws, cell, null.how, numbers, kept, geometry, None if large else 1)
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


def _draws(
    cell: Cell, how: Arrangement, numbers: range, kept: int, geometry: list[MetricSpec], threads: int | None
) -> list[dict[str, Any]]:
    own = pd.MultiIndex.from_frame(cell.kept[["feature_a", "feature_b"]])
    chance = ByChance(cell.comparison, how)
    return [_draw(cell, chance.candidates(number, threads=threads), kept, geometry, own) for number in numbers]


def _draw(cell: Cell, table: pd.DataFrame, kept: int, geometry: list[MetricSpec], own: pd.MultiIndex) -> dict[str, Any]:
    chosen = table[cell.rule.decide(table)["kept"]]
    strongest = cell.rule.strongest(table, kept)
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
