"""The step of a run that lets models run on each other's features: which cells, and the tables that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unifeat.engine import Engine, forget
from unifeat.errors import UserError
from unifeat.pipeline.concepts import FEWEST_PLACES, FEWEST_TOKENS
from unifeat.pipeline.effect_comparison import Effects
from unifeat.pipeline.effect_edits import FEWEST_BEFORE
from unifeat.pipeline.effects import effects_unit, strings_of
from unifeat.pipeline.match import Cell
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.steering import COLUMNS as STEERING_COLUMNS
from unifeat.pipeline.steering import steering_unit
from unifeat.pipeline.transfer import Direction, rebuild_unit
from unifeat.pipeline.transfer_loss import loss_unit, summarise_losses
from unifeat.progress import say, track
from unifeat.study.spec import Study
from unifeat.subspaces.categories import load_categories
from unifeat.text.corpus import Corpus

COLUMNS = [
    *("space_a", "space_b", "direction", "variant", "tokens", "fvu", "fvu_low", "fvu_high"),
    *("carried", "carried_low", "carried_high", "null_mean", "null_sd", "p", "flags"),
    *("loss_tokens", "loss", "kl", "recovered", "recovered_low", "recovered_high"),
    *("null_recovered_mean", "null_recovered_sd", "p_recovered"),
]
EFFECT_COLUMNS = [
    *("space_a", "space_b", "feature_a", "feature_b", "correlation", "correlation_within_token", "gain"),
    *("direct", "direct_spearman", "direct_overlap", "direct_rank", "direct_second"),
    *("added", "added_spearman", "added_overlap", "added_rank", "added_second"),
    *("stability_a", "stability_b", "spread_a", "spread_b"),
    *("removed", "removed_control", "contexts", "kl_a", "kl_b", "kl_agreement", "kl_agreement_control"),
    *("promotes_a", "suppresses_a", "promotes_b", "suppresses_b"),
]
PAIR_COLUMNS = [
    *("space_a", "space_b", "direction", "feature_a", "feature_b"),
    *("gain", "offset", "predicted", "lowered", "lowered_own"),
]
_NO_PROBE = f"no judged document has more than {FEWEST_BEFORE} sampled tokens"


@dataclass(frozen=True)
class Transferred:
    """What came of all cells.

    Attributes:
        tables: the rows of `transfer.parquet`, `transfer_pairs.parquet`, `steering.parquet` and `effects.parquet`, by
            name; the last two only where the study asks for them.
        facts: for each pair of spaces, the facts of its effects, for `run.json`.
    """

    tables: dict[str, pd.DataFrame]
    facts: dict[tuple[str, str], dict[str, Any]]


def run_transfer(study: Study, cells: list[Cell], spaces: list[Space], corpus: Corpus, engine: Engine) -> Transferred:
    """Run models on each other's features, and compare what pairs do to the next token.

    Args:
        spaces: all of the study.

    Raises:
        UserError: the study names a cell that it does not compare; two models' tokenizers share no string.
    """
    spec = study.transfer
    assert spec is not None
    level, seed = study.inference.level, study.seed
    directions: list[Direction] = []
    for cell in chosen_cells(study, cells):
        if len(cell.kept):
            directions += Direction.both(cell)
        else:
            say(
                f"transfer: {cell.a.name} × {cell.b.name} has no pairs, so neither model is run on the other's features"
            )
    of_cells = [direction for direction in directions if direction.name == "a_to_b" and spec.pairs]
    for direction in of_cells:  # before hours of work
        strings_of(direction)
    rebuilding = [rebuild_unit(direction, spec, level) for direction in directions]
    with track("running on another's features", 2 * len(directions), unit="directions") as advance:
        rebuilt = []
        for found in engine.map(rebuilding):
            rebuilt.append(found)
            advance(1)
        losses = [pd.DataFrame({"variant": []})] * len(directions)
        if spec.loss_tokens:
            units = [loss_unit(d, fits, corpus, spec) for d, fits in zip(directions, rebuilding, strict=True)]
            by_model = sorted(range(len(units)), key=lambda i: str(units[i].model))  # each model is loaded once
            for number, table in zip(by_model, engine.map(units[i] for i in by_model), strict=True):
                losses[number] = summarise_losses(table, level, seed)
                advance(1)
    steered: list[pd.DataFrame] = []
    if spec.steering and study.subspaces is not None:
        categories = load_categories(study.subspaces.categories, study.subspaces.only)
        both = zip(directions, rebuilding, strict=True)
        steering = [steering_unit(d, fits, corpus, spec, categories, level) for d, fits in both]
        with track("steering with another's directions", len(steering), unit="directions") as advance:
            for direction, own in zip(directions, engine.map(steering), strict=True):
                if not len(own):
                    say(
                        f"steering: {direction.target.name} is not steered by {direction.source.name}: no category has "
                        f"{FEWEST_PLACES} places and {FEWEST_TOKENS} held-out words of one token, or {_NO_PROBE}"
                    )
                steered.append(own.assign(**_names(direction), direction=direction.name))
                advance(1)
    found_effects: list[Effects] = []
    with track("effects on the next token", len(of_cells), unit="pairs of spaces") as advance:
        comparing = (effects_unit(direction, corpus, spec, level, spaces) for direction in of_cells)
        for direction, effects in zip(of_cells, engine.map(comparing), strict=True):
            _say_what_is_missing(direction, effects, spec.pairs)
            found_effects.append(effects)
            advance(1)
    forget()
    rows, pairs = [], []
    for direction, found, lost in zip(directions, rebuilt, losses, strict=True):
        names = _names(direction) | {"direction": direction.name}
        rows.append(_beside(found.rows, lost).assign(**names))
        one, other = ("source_feature", "target_feature")
        features = (one, other) if direction.name == "a_to_b" else (other, one)
        of_pairs = found.pairs.rename(columns=dict(zip(features, ("feature_a", "feature_b"), strict=True)))
        pairs.append(of_pairs.assign(**names))
    table = _table(rows, COLUMNS)
    table["flags"] = [flags if isinstance(flags, list) else [] for flags in table["flags"]]
    counts = {name: table[name].fillna(0).astype(np.int64) for name in ("tokens", "loss_tokens")}
    own_pairs = _table(pairs, PAIR_COLUMNS)
    tables = {"transfer": table.assign(**counts), "transfer_pairs": own_pairs}
    if steered:
        tables["steering"] = _table(steered, ["space_a", "space_b", "direction", *STEERING_COLUMNS])
    facts = {}
    if spec.pairs:
        parts = []
        for direction, effects in zip(of_cells, found_effects, strict=True):
            facts[direction.cell.a.name, direction.cell.b.name] = effects.facts
            parts.append(effects.pairs.rename(columns=_of_sides).assign(**_names(direction)))
        tables["effects"] = _with_gain(_table(parts, EFFECT_COLUMNS), own_pairs)
    return Transferred(tables, facts)


def _names(direction: Direction) -> dict[str, str]:
    return {"space_a": direction.cell.a.name, "space_b": direction.cell.b.name}


def _beside(rebuilt: pd.DataFrame, lost: pd.DataFrame) -> pd.DataFrame:
    """A row for each variant, in their order: those that are rebuilt, then the model unchanged."""
    order = list(dict.fromkeys([*rebuilt["variant"], *lost["variant"]]))
    return rebuilt.merge(lost, on="variant", how="outer").set_index("variant").loc[order].reset_index()


def _say_what_is_missing(direction: Direction, effects: Effects, pairs: int) -> None:
    name = f"{direction.source.name} × {direction.target.name}"
    if len(effects.pairs) < pairs:
        say(f"effects: {name} has {len(effects.pairs)} pairs, not {pairs}")
    if not effects.facts["contexts"]:
        say(f"effects: no dose is added in {name}: {_NO_PROBE}")


def _of_sides(column: str) -> str:
    """`promotes_source` is `promotes_a`, and `target_feature` is `feature_b`."""
    for name, side in (("source", "a"), ("target", "b")):
        column = f"feature_{side}" if column == f"{name}_feature" else column.replace(f"_{name}", f"_{side}")
    return column


def _with_gain(effects: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    keys = ["space_a", "space_b", "feature_a", "feature_b"]
    gains = pairs.loc[pairs["direction"] == "a_to_b", [*keys, "gain"]]
    merged = effects.drop(columns="gain").merge(gains, on=keys, how="left")[EFFECT_COLUMNS]
    return merged.astype(dict.fromkeys(("feature_a", "feature_b"), np.int32))


def _table(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return whole.reindex(columns=columns)


def chosen_cells(study: Study, cells: list[Cell]) -> list[Cell]:
    """The cells that the study asks for: those it names, or of each comparison the one with the most pairs.

    Raises:
        UserError: a cell that the study does not compare.
    """
    spec = study.transfer
    assert spec is not None
    if spec.cells == "best":
        best: dict[tuple[str, str], Cell] = {}
        for cell in cells:
            groups = cell.a.group, cell.b.group
            if groups not in best or len(cell.kept) > len(best[groups].kept):
                best[groups] = cell
        return list(best.values())
    by_name: dict[Any, Cell] = {frozenset((cell.a.name, cell.b.name)): cell for cell in cells}
    found = []
    for names in spec.cells:
        asked = by_name.get(frozenset(names))
        if asked is None:
            compared = ", ".join(f"{cell.a.name} × {cell.b.name}" for cell in cells)
            raise UserError(f"transfer.cells: {' × '.join(names)} is not compared; the study compares {compared}")
        found.append(asked)
    return found
