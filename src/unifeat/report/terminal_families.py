"""Families of features for the terminal: sets of spaces beside chance, and the largest families with their tokens."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from unifeat.multiway.result import Families
from unifeat.report.contexts import visible
from unifeat.report.framed import framed
from unifeat.report.tables import SIGNIFICANCE_LEVEL, decimal, number, percent, probability
from unifeat.runs.families import families
from unifeat.runs.folder import Run

_SETS = 12  # sets of spaces that are listed


def show_families(
    run: Run, method: str | None = None, spaces: list[str] | None = None, *, top: int = 10, as_json: bool = False
) -> None:
    """Print the families of a run: those that it stored, with their null, or others found in its pairs.

    Args:
        method, spaces: as for `unifeat.families`.
        top: how many families are listed.
        as_json: print every family as a line of JSON instead.

    Raises:
        UserError: as `unifeat.families`.
    """
    stored = run.info.get("families")
    own = stored is not None and spaces is None and method in (None, stored["method"])
    found = families(run, method, spaces=spaces)
    table = run.families if own else None
    words = table["top_tokens"].tolist() if table is not None and len(table) == len(found) else None
    if as_json:
        _print_json(found, words)
        return
    console = Console(highlight=False, markup=False, emoji=False)
    title, *others = repr(found).splitlines()
    console.print(Text(title, style="bold"), soft_wrap=True)
    for line in others:
        console.print(line, soft_wrap=True)
    console.print(Text("\nfeatures of each space in families", style="dim"))
    rows = [
        [row.space, number(row.features), number(row.in_all), number(row.in_some), number(row.in_none)]
        for row in found.presence.itertuples()
    ]
    console.print(framed(["space", "features", "of all spaces", "of some", "of none"], rows, left=1))
    _print_sets(console, found, run.family_sets if own else None, stored or {})
    _print_largest(console, found, words, top)


def _print_sets(console: Console, found: Families, sets: pd.DataFrame | None, stored: dict[str, Any]) -> None:
    beside = sets is not None and stored.get("draws")
    shown = sets if sets is not None else found.sets
    console.print(Text(f"\nfamilies of exactly these spaces{_of(len(shown), _SETS)}", style="dim"))
    headings = ["families", *(["interval", "other text", "p"] if beside else []), "spaces"]
    rows = []
    for row in shown.head(_SETS).to_dict("records"):
        more = []
        if beside:
            known = not np.isnan(row["low"])
            more = [
                f"{number(row['low'])}–{number(row['high'])}" if known else "–",
                decimal(row["null_mean"], 1),
                probability(row["p"]),
            ]
        names = "all" if row["size"] == len(found.spaces) else " ".join(row["spaces"])
        rows.append([number(row["families"]), *more, names])
    table = framed(headings, rows)
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    console.print(table)
    if beside:
        least = probability(1 / (stored["draws"] + 1))
        line = f"other text: documents re-paired in every space, {stored['draws']} draws (no p is below {least})"
        if 1 / (stored["draws"] + 1) >= SIGNIFICANCE_LEVEL:
            line += ", too few to decide anything"
        if (share := stored.get("consistency_draws")) is not None:
            line += f"; partners there lead home {percent(share)} of the time"
        console.print(Text(line, style="dim"), soft_wrap=True)


def _print_largest(console: Console, found: Families, words: list[Any] | None, top: int) -> None:
    if not len(found) or not top:
        return
    console.print(Text(f"\nthe largest families{_of(len(found), top)}", style="dim"))
    headings = ["family", *found.spaces, "least r", "mean r", *(["top tokens"] if words else [])]
    rows = []
    for place, row in enumerate(found.table.head(top).to_dict("records")):
        features = ["–" if pd.isna(row[name]) else str(int(row[name])) for name in found.spaces]
        own = [" ".join(dict.fromkeys(visible(str(w)).strip() or "␣" for w in words[place]))] if words else []
        rows.append([row["family"], *features, decimal(row["r_min"]), decimal(row["r_mean"]), *own])
    table = framed(headings, rows)
    if words:
        table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    console.print(table)


def _of(whole: int, shown: int) -> str:
    return f" ({shown} of {whole:,})" if whole > shown else ""


def _print_json(found: Families, words: list[Any] | None) -> None:
    for place, row in enumerate(found.table.to_dict("records")):
        facts = {k: v for k, v in row.items() if k not in found.spaces}
        own = {name: int(row[name]) for name in found.spaces if not pd.isna(row[name])}
        line = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in facts.items()} | {"members": own}
        if words:
            line["top_tokens"] = [str(word) for word in words[place]]
        print(json.dumps(line, ensure_ascii=False))
