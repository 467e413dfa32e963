"""Pairs → r on the study's text elsewhere: which pairs hold there."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from unifeat.engine import Engine, Unit
from unifeat.matching.candidates import Comparison
from unifeat.matching.elsewhere import FORM, VERSION, Elsewhere, read_elsewhere
from unifeat.pipeline.match import Cell
from unifeat.progress import track
from unifeat.store import Piece


def elsewhere_unit(cell: Cell) -> Unit[Elsewhere] | None:
    """A unit of work: read the r of a cell's pairs on the text elsewhere; None if there is none."""
    there = cell.elsewhere
    if there is None:
        return None
    made_from = {
        "version": VERSION,
        "candidates": cell.comparison.made_from(),
        "rule": cell.rule.identity(),
        "there": [there.a.identity, there.b.identity],
        "draws": cell.inference.bootstraps,
        "level": cell.inference.level,
    }
    piece = Piece("elsewhere", made_from, FORM, "the pairs elsewhere")
    return Unit(piece, partial(_read, cell, there), fills_machine=True)


def read_cells(cells: list[Cell], engine: Engine) -> list[dict[str, Any]]:
    """Read the pairs of every pair of spaces on the text elsewhere; returns each one's facts for `run.json`."""
    units = [unit for unit in map(elsewhere_unit, cells) if unit is not None]
    facts = []
    with track("reading pairs elsewhere", len(units), unit="pairs of spaces") as advance:
        for found in engine.map(units):
            facts.append(found.facts)
            advance(1)
    return facts


def pairs_elsewhere(cell: Cell) -> pd.DataFrame | None:
    """The columns of `pairs.parquet` that a cell's pairs have from the text elsewhere; None if there is none."""
    unit = elsewhere_unit(cell)
    return None if unit is None else unit.result().pairs


def _read(cell: Cell, there: Comparison) -> Elsewhere:
    table = cell.table()
    codes = there.halves()[0]
    return read_elsewhere(
        there.grouped(codes),
        codes.document_starts()[1],
        table[table["kept"]],
        min_correlation=cell.rule.filters.min_correlation,
        draws=cell.inference.bootstraps,
        level=cell.inference.level,
        seed=there.seed,
    )
