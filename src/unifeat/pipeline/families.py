"""Pairs → families of features over all spaces, beside their null, with intervals and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from unifeat.engine import Engine, Unit
from unifeat.errors import UserError
from unifeat.multiway.chance import beside_chance, with_intervals
from unifeat.multiway.depth import Layer
from unifeat.multiway.drawn import VERSION, Text, repaired_pairs, resampled_pairs, text_blocks
from unifeat.multiway.find import find_families
from unifeat.multiway.graph import READINGS
from unifeat.multiway.result import Families
from unifeat.pipeline.family_depth import depth_facts
from unifeat.pipeline.match import Cell
from unifeat.pipeline.sharing import share
from unifeat.pipeline.spaces import Space
from unifeat.progress import track
from unifeat.store import TABLE, Piece
from unifeat.study.spec import Study
from unifeat.vocabulary.json_values import number_or_none, records

_BATCH = 10  # draws of a unit
_WORDS = 5  # tokens that a family is shown with


@dataclass(frozen=True)
class Found:
    """What came of the families.

    Attributes:
        tables: the rows of `families.parquet`, `family_sets.parquet` and, with groups, `sharedness.parquet`, by name.
        facts: for `run.json`.
    """

    tables: dict[str, pd.DataFrame]
    facts: dict[str, Any]


def family_cells(study: Study, cells: list[Cell]) -> tuple[list[Space], list[Cell]]:
    """The spaces whose features are grouped into families, and the pairs of them that were compared.

    Raises:
        UserError: fewer than two of the spaces are compared with each other; a group of others.
    """
    spec = study.families
    assert spec is not None
    spaces = {space.name: space for cell in cells for space in (cell.a, cell.b)}
    if spec.spaces is None:
        chosen = [space for space in spaces.values() if not space.info.get("control")]
    else:
        chosen = [space for space in spaces.values() if {space.name, space.group} & set(spec.spaces)]
    names = {space.name for space in chosen}
    own = [cell for cell in cells if cell.a.name in names and cell.b.name in names]
    if not own:
        raise UserError("families: the study compares no two of their spaces: name others, or add them to compare")
    reached = {space.name for cell in own for space in (cell.a, cell.b)}
    found = [space for space in chosen if space.name in reached]
    known = {name for space in found for name in (space.name, space.group)}
    for name in (name for members in spec.groups.values() for name in members):
        if name not in known:
            raise UserError(f"families: groups name {name}, which is none of the spaces: add it to families.spaces")
    return found, own


def run_families(study: Study, cells: list[Cell], documents: int, engine: Engine) -> Found:
    """Group the features of a study's spaces into families.

    Args:
        cells: all pairs of spaces, matched.
        documents: how many the text has.

    Raises:
        UserError: as `family_cells`.
    """
    spec = study.families
    assert spec is not None
    spaces, own = family_cells(study, cells)
    names = [space.name for space in spaces]
    pairs = {(cell.a.name, cell.b.name): kept_pairs(cell) for cell in own}
    features = {space.name: space.store.features for space in spaces}
    group = partial(find_families, method=spec.method, spaces=names, features=features)
    found = group(pairs)
    text = Text(spaces[0].store, documents, study.matching.heldout, study.seed)
    draws = min(spec.draws, text.read(len(names))[0].arrangements(len(names)))
    models = {space.name: str(space.info["model"]) for space in spaces}
    repaired = _drawn(own, _repaired(text, names, own, draws), draws, engine)
    beside = beside_chance(found, map(group, repaired), models)
    resampled = _drawn(own, _resampled(text, own, spec.bootstraps), spec.bootstraps, engine)
    blocks = len(text_blocks(text)) - 1
    sets = with_intervals(beside.sets, map(group, resampled), blocks, study.inference.level)
    sharing, sharedness = share(spec.groups, spaces, own, engine)
    consistency, chance = found.consistency
    in_draws = [value for value in beside.consistency if not np.isnan(value)]
    layers = {space.name: Layer(space.group, space.layer) for space in spaces}
    facts: dict[str, Any] = {
        "method": spec.method,
        "spaces": names,
        "families": len(found),
        "pairs": found.pairs,
        "sizes": records(beside.sizes),
        "presence": records(found.presence),
        "models": records(beside.models) if 1 < len(set(models.values())) < len(names) else None,
        "presence_in_models": records(found.presence_in(models)) if len(set(models.values())) > 1 else None,
        "walks": int(found.triangles["walks"].sum()),
        "consistency": number_or_none(consistency),
        "consistency_chance": number_or_none(chance),
        "consistency_draws": float(np.mean(in_draws)) if in_draws else None,
        "draws": draws,
        "bootstraps": spec.bootstraps,
        "blocks": blocks,
        "sharing": sharing,
        "depth": depth_facts(found, pairs, layers, study.inference.level, study.seed),
    }
    tables = {
        "families": _with_words(found, spaces),
        "family_sets": sets.assign(spaces=sets["spaces"].map(list)),
    }
    if sharedness is not None:
        tables["sharedness"] = sharedness
    return Found(tables, facts)


def kept_pairs(cell: Cell) -> pd.DataFrame:
    """The kept pairs of two spaces, with their r on held-out documents and within token."""
    return cell.kept_with_token[["feature_a", "feature_b", "correlation", *READINGS]]


@dataclass(frozen=True)
class _Draws:
    """Some draws of one cell: the unit whose result has them, and perhaps more."""

    low: int
    high: int
    unit: Unit[pd.DataFrame]


def _drawn(
    cells: list[Cell], of_cells: list[list[_Draws]], draws: int, engine: Engine
) -> Iterator[dict[tuple[str, str], pd.DataFrame]]:
    """The pairs of all cells in one draw after the other. Only some draws are in memory at a time.

    Args:
        of_cells: for each cell, the units that have all its draws.
    """
    units = [part.unit for own in of_cells for part in own]
    with track("families in draws", len(units), unit="units") as advance:
        for _ in engine.map(units):
            advance(1)
    for low in range(0, draws, _BATCH):
        numbers = range(low, min(low + _BATCH, draws))
        tables = []
        for own in of_cells:
            parts = [part.unit.result() for part in own if part.low < numbers.stop and part.high > low]
            tables.append(pd.concat(parts, ignore_index=True).query("draw >= @low and draw < @numbers.stop"))
        for number in numbers:
            yield {
                (cell.a.name, cell.b.name): table[table["draw"] == number]
                for cell, table in zip(cells, tables, strict=True)
            }


def _repaired(text: Text, names: list[str], cells: list[Cell], draws: int) -> list[list[_Draws]]:
    """For each cell, units that match it with documents re-paired in every space."""
    batches = [(low, min(low + _BATCH, draws)) for low in range(0, draws, _BATCH)]
    found = []
    for cell in cells:
        places = [names.index(space.name) for space in (cell.a, cell.b)]
        what = {"how": "repaired", "places": places, "spaces": len(names)}
        found.append([_Draws(*own, _unit(cell, text, what | {"draws": list(own)})) for own in batches])
    return found


def _resampled(text: Text, cells: list[Cell], draws: int) -> list[list[_Draws]]:
    """For each cell, a unit that matches it on resampled documents."""
    what = {"how": "resampled", "draws": [0, draws]}
    return [[_Draws(0, draws, _unit(cell, text, what))] if draws else [] for cell in cells]


def _unit(cell: Cell, text: Text, what: dict[str, Any]) -> Unit[pd.DataFrame]:
    made_from = {
        "version": VERSION,
        "candidates": cell.comparison.made_from(),
        "rule": cell.rule.identity(),
        "text": text.identity(),
        **what,
    }
    piece = Piece("families", made_from, TABLE, "pairs in draws, for families")
    large = cell.fills_machine or what["how"] == "resampled"
    gpu = cell.comparison.device == "cuda" and what["how"] == "repaired"
    return Unit(piece, partial(_draw, cell, text, what, None if large else 1), fills_machine=large or gpu, gpu=gpu)


def _draw(cell: Cell, text: Text, what: dict[str, Any], threads: int | None) -> pd.DataFrame:
    low, high = what["draws"]
    if what["how"] == "resampled":
        return resampled_pairs(text, cell.comparison, cell.rule, cell.candidates().table, high)
    places = what["places"][0], what["places"][1]
    return repaired_pairs(text, cell.comparison, cell.rule, places, what["spaces"], range(low, high), threads)


def _with_words(found: Families, spaces: list[Space]) -> pd.DataFrame:
    """The table of families, with the tokens that most of their members have among their strongest."""
    texts = {space.name: space.tokens.texts() for space in spaces}
    words: list[list[str]] = []
    columns = {name: found.table[name].to_numpy(object) for name in found.spaces}
    for row in range(len(found)):
        count: dict[str, int] = {}
        for name, own in texts.items():
            feature = columns[name][row]
            for word in dict.fromkeys(own.get(int(feature), []) if not pd.isna(feature) else []):
                count[word] = count.get(word, 0) + 1
        words.append(sorted(count, key=lambda word: -count[word])[:_WORDS])
    return found.table.assign(top_tokens=pd.Series(words, dtype=object))
