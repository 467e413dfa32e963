"""MPPC, weighted MPPC and comparative sharedness of a study's spaces: from the best partner of every feature."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.store import CodeStore
from unifeat.engine import Engine, Unit
from unifeat.multiway.sharedness import comparative_sharedness, cycle_matches, mppc, wmppc, wmppc_over_layers
from unifeat.pipeline.match import Cell
from unifeat.pipeline.spaces import Space
from unifeat.store import TABLE, Piece
from unifeat.vocabulary.json_values import number_or_none

Values = NDArray[np.float64]
_VERSION = 1
_WORDS = 5  # tokens that a feature is shown with


def totals_unit(store: CodeStore) -> Unit[pd.DataFrame]:
    """A unit of work: the sum of every feature's activations over the text, `total`, one row a feature."""
    piece = Piece("totals", {"version": _VERSION, "codes": store.identity}, TABLE, "total activations")
    return Unit(piece, partial(_totals, store))


def _totals(store: CodeStore) -> pd.DataFrame:
    total = np.zeros(store.features)
    for shard in store.shards():
        total += np.bincount(shard.feature, weights=np.asarray(shard.value, np.float64), minlength=store.features)
    return pd.DataFrame({"total": total})


def share(
    groups: dict[str, list[str]], spaces: list[Space], cells: list[Cell], engine: Engine
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """How much of each space others share, for `run.json`; and the rows of `sharedness.parquet` if there are groups.

    The first holds, for both directions of every pair of spaces, `spaces`: `of`, `in`, `mppc`, `wmppc`; for both
    directions of every pair of models (groups of spaces), `models`: `of`, `in`, `wmppc`, over layers weighted by width;
    and `circle` (None where a space and the next were not compared): `spaces` in order and how many `features` lead
    home when best partners are followed around them (see `cycle_matches`).
    """
    total = {
        space.name: found["total"].to_numpy()
        for space, found in zip(spaces, engine.map(totals_unit(space.store) for space in spaces), strict=True)
    }
    best: dict[tuple[str, str], Values] = {}
    partners: dict[tuple[str, str], NDArray[np.int64]] = {}
    for cell in cells:
        # Of equal r, the partner of the lower number.
        table = (
            cell.candidates()
            .table.sort_values(["feature_a", "feature_b"])
            .sort_values("correlation", ascending=False, kind="stable")
        )
        for side, far, own, other in (("a", "b", cell.a, cell.b), ("b", "a", cell.b, cell.a)):
            strongest = table.drop_duplicates(f"feature_{side}")
            feature = strongest[f"feature_{side}"].to_numpy()
            r, partner = np.full(own.store.features, np.nan), np.full(own.store.features, -1)
            r[feature], partner[feature] = strongest["correlation"], strongest[f"feature_{far}"]
            best[own.name, other.name], partners[own.name, other.name] = r, partner
    weighted = all((own >= 0).all() for own in total.values())  # (codes of both signs have no total activation)
    of_spaces = [
        {
            "of": of,
            "in": there,
            "mppc": number_or_none(mppc(own)),
            "wmppc": number_or_none(wmppc(own, total[of])) if weighted else None,
        }
        for (of, there), own in best.items()
    ]
    models = list(dict.fromkeys(space.group for space in spaces))
    of_models = []
    for of, there in permutations(models, 2) if weighted else ():
        layers = [
            (_over(best, space, [o for o in spaces if o.group == there]), total[space.name])
            for space in spaces
            if space.group == of
        ]
        compared = [(own, weight) for own, weight in layers if own is not None]
        if compared:
            value = wmppc_over_layers([own for own, _ in compared], [weight for _, weight in compared])
            of_models.append({"of": of, "in": there, "wmppc": number_or_none(value)})
    sharedness = _sharedness(groups, spaces, best, total) if groups and weighted else None
    circle = _around([space.name for space in spaces], partners)
    return {"spaces": of_spaces, "models": of_models, "circle": circle}, sharedness


def _around(names: list[str], partners: dict[tuple[str, str], NDArray[np.int64]]) -> dict[str, Any] | None:
    """How many features lead home when best partners are followed around all spaces; None if that is not possible."""
    steps = list(zip(names, [*names[1:], names[0]], strict=True))
    if len(names) < 3 or any(step not in partners for step in steps):
        return None
    return {"spaces": names, "features": len(cycle_matches([partners[step] for step in steps]))}


def _over(best: dict[tuple[str, str], Values], space: Space, others: list[Space]) -> Values | None:
    """r of each feature with its best partner in any of some spaces; None if the space was compared with none."""
    found = [best[space.name, other.name] for other in others if (space.name, other.name) in best]
    return np.fmax.reduce(found) if found else None


def _sharedness(
    groups: dict[str, list[str]], spaces: list[Space], best: dict[tuple[str, str], Values], total: dict[str, Values]
) -> pd.DataFrame:
    """Comparative sharedness of every feature for every two groups, where its space was compared with all their models.

    (Its own model is left out of the groups. Of a group that it was only compared with in part, it could not be said
    that every model has the feature.)
    """
    columns = ["space", "feature", "group", "other", "total", "r_group", "r_other", "sharedness", "top_tokens"]
    tables = [pd.DataFrame({name: [] for name in columns})]
    for space in spaces:
        of_models: dict[str, Values | None] = {}
        words = space.tokens.texts()
        for name in dict.fromkeys(name for members in groups.values() for name in members):
            members = [o for o in spaces if name in (o.name, o.group)]
            if all(o.group != space.group for o in members):
                of_models[name] = _over(best, space, members)
        for group, other in permutations(groups, 2):
            sides = [[of_models[name] for name in groups[side] if name in of_models] for side in (group, other)]
            compared = [[values for values in side if values is not None] for side in sides]
            if not all(sides) or [*map(len, compared)] != [*map(len, sides)]:
                continue
            near, far = (np.stack(side) for side in compared)
            shared = comparative_sharedness(total[space.name], near, far)
            known = np.flatnonzero(~np.isnan(shared))
            tokens = pd.Series([words.get(feature, [])[:_WORDS] for feature in known.tolist()], dtype=object)
            own = {"feature": known.astype(np.int32), "total": total[space.name][known], "sharedness": shared[known]}
            own |= {"r_group": np.abs(near).min(axis=0)[known], "r_other": np.abs(far).max(axis=0)[known]}
            named = pd.DataFrame(own).assign(space=space.name, group=group, other=other, top_tokens=tokens)
            tables.append(named[columns])
    whole = pd.concat(tables[1:] or tables, ignore_index=True)
    kinds: dict[str, Any] = dict.fromkeys(columns[4:-1], np.float64) | {"feature": np.int32}
    return whole.astype(kinds | dict.fromkeys(("space", "group", "other"), object))
