"""`families`: families of features from tables of pairs, or from a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from unifeat.errors import UserError
from unifeat.multiway.find import find_families
from unifeat.multiway.graph import READINGS, Pairs
from unifeat.multiway.result import Families
from unifeat.runs.folder import Run

_COLUMNS = ["feature_a", "feature_b", "correlation", *READINGS]


def families(
    source: Run | Pairs,
    method: str | None = None,
    *,
    spaces: Sequence[str] | None = None,
    features: Mapping[str, int] | None = None,
) -> Families:
    """Group the features of several spaces into families: at most one feature of each, held together by kept pairs.

    Args:
        source: for each two spaces that were compared, their pairs, as from `unifeat.match`:
            `{("a", "b"): table, …}`, tables of pandas, polars or Arrow with columns `feature_a` (of the first space
            named), `feature_b`, `correlation`; optional `correlation_heldout`, `correlation_within_token`, and `kept`
            (other rows are left out). Or a finished run.
        method: `consistent` (partners agree around every triangle), `cliques` (every two are partners) or `components`
            (connected, and split at the weakest links). By default `consistent`, or what the run's study says.
        spaces: which spaces, and their order; of a run also groups of them. By default all; of a run those of its
            study's families, or all that are no controls.
        features: how many features each space has, for the shares of features in families; known for a run.

    Raises:
        UserError: unknown method or space; tables that are not as described (see `multiway.graph.graph_of`); a run that
            compared no two of the spaces.
    """
    if isinstance(spaces, str):
        raise UserError(f"families: spaces={spaces!r} is one name: give a list of them")
    if not isinstance(source, Run):
        return find_families(source, method or "consistent", spaces=spaces, features=features)
    stored = source.info.get("families", {})
    names = stored.get("spaces") or _without_controls(source) if spaces is None else _spaces(source, spaces)
    compared = [(pair["space_a"], pair["space_b"]) for pair in source.info["pairs"]]
    pairs = {key: _kept(source, *key) for key in compared if set(key) <= set(names)}
    if not pairs:
        raise UserError(f"run {source.folder} compared no two of {', '.join(names) or 'its spaces'}")
    known = {name: facts["d_sae"] for name, facts in source.info["spaces"].items()}
    reached = {name for key in pairs for name in key}
    own = names if spaces is not None else [name for name in names if name in reached]
    return find_families(pairs, method or stored.get("method", "consistent"), spaces=own, features=features or known)


def _spaces(run: Run, named: Sequence[str]) -> list[str]:
    """Spaces by their names, or those of groups: smollm2 for smollm2@7, smollm2@15 …"""
    found = []
    for name in named:
        of_group = [space for space in run.info["spaces"] if space.rsplit("@", 1)[0] == name]
        if not of_group:
            run.check_space(name)
        found += of_group or [name]
    return found


def _without_controls(run: Run) -> list[str]:
    return [name for name, facts in run.info["spaces"].items() if not facts.get("control")]


def _kept(run: Run, space_a: str, space_b: str) -> pd.DataFrame:
    table = run.space_pair(space_a, space_b)
    return table.loc[table["kept"], [name for name in _COLUMNS if name in table]]
