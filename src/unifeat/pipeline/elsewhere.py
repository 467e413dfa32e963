"""Pairs → r on the study's text elsewhere: which pairs hold there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from unifeat.engine import Engine, Unit
from unifeat.matching.candidates import Comparison
from unifeat.matching.elsewhere import FORM, VERSION, Elsewhere, read_elsewhere
from unifeat.progress import track
from unifeat.store import Piece

if TYPE_CHECKING:
    from unifeat.pipeline.match import Cell


def elsewhere_unit(cell: Cell, there: Comparison) -> Unit[Elsewhere]:
    """A unit of work: read the r of a cell's pairs on the text elsewhere.

    Args:
        there: the two spaces on that text.
    """
    inference = cell.inference
    made_from = {
        "version": VERSION,
        "candidates": cell.comparison.made_from(),
        "rule": cell.rule.identity(),
        "there": [there.a.identity, there.b.identity],
        "draws": inference.bootstraps,
        "level": inference.level,
    }
    piece = Piece("elsewhere", made_from, FORM, "the pairs elsewhere")
    return Unit(piece, partial(_read, cell, there), fills_machine=True)


def read_cells(cells: list[Cell], engine: Engine) -> list[dict[str, Any]]:
    """Read the pairs of every pair of spaces on the text elsewhere; returns each one's facts for `run.json`."""
    units = [elsewhere_unit(cell, cell.elsewhere) for cell in cells if cell.elsewhere is not None]
    facts = []
    with track("reading pairs elsewhere", len(units), unit="pairs of spaces") as advance:
        for found in engine.map(units):
            facts.append(found.facts)
            advance(1)
    return facts


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
