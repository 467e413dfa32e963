"""Families of features for the terminal: sets of spaces beside chance, and the largest families with their tokens."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from unifeat.multiway.result import Families
from unifeat.report.contexts import visible
from unifeat.report.framed import framed
from unifeat.report.labels import label_of_family
from unifeat.report.tables import SIGNIFICANCE_LEVEL, decimal, number, percent, probability
from unifeat.runs.families import families
from unifeat.runs.folder import Run

_SETS = 12  # sets of spaces that are listed
_FEWEST_WORDS = 16  # columns of the terminal for a family's tokens


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
    labels = {name: run.labels_of(name) for name in found.spaces}
    if as_json:
        _print_json(found, words, labels)
        return
    console = Console(highlight=False, markup=False, emoji=False)
    title, *others = repr(found).splitlines()
    console.print(Text(title, style="bold"), soft_wrap=True)
    for line in others:
        console.print(line, soft_wrap=True)
    _print_models(console, stored if own else None)
    console.print(Text("\nfeatures of each space in families", style="dim"))
    rows = [
        [row.space, number(row.features), number(row.in_all), number(row.in_some), number(row.in_none)]
        for row in found.presence.itertuples()
    ]
    console.print(framed(["space", "features", "of all spaces", "of some", "of none"], rows, left=1))
    _print_sets(console, found, run.family_sets if own else None, stored or {})
    _print_largest(console, found, words, labels, top)


def _print_sets(console: Console, found: Families, sets: pd.DataFrame | None, stored: dict[str, Any]) -> None:
    beside = sets is not None and stored.get("draws")
    shown = sets if sets is not None else found.sets
    intervals = "low" in shown and shown["low"].notna().any()
    console.print(Text(f"\nfamilies of exactly these spaces{_of(len(shown), _SETS)}", style="dim"))
    headings = ["families", *(["interval"] if intervals else []), *(["other text", "p"] if beside else []), "spaces"]
    rows = []
    for row in shown.head(_SETS).to_dict("records"):
        more = []
        if intervals:
            more.append("–" if np.isnan(row["low"]) else f"{number(row['low'])}–{number(row['high'])}")
        if beside:
            more += [decimal(row["null_mean"], 1), probability(row["p"])]
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
    else:
        line = "what chance would make is not known: no documents were re-paired (families.draws in the study)"
        console.print(Text(line, style="dim"), soft_wrap=True)


def _print_models(console: Console, stored: dict[str, Any] | None) -> None:
    """How many families have a member in every model."""
    whole = next(iter((stored or {}).get("models") or []), None)
    if stored is None or whole is None or len(whole["models"]) < 2:
        return
    count = len(whole["models"])
    line = f"{number(whole['families'])} have a member in {'both' if count == 2 else f'each of the {count}'} models"
    if stored["draws"]:
        line += f"; with documents re-paired {decimal(whole['null_mean'], 1)} (p {probability(whole['p'])})"
    console.print(line, soft_wrap=True)


def _print_largest(
    console: Console, found: Families, words: list[Any] | None, labels: dict[str, dict[int, str]], top: int
) -> None:
    if not len(found) or not top:
        return
    console.print(Text(f"\nthe largest families{_of(len(found), top)}", style="dim"))
    worded = bool(words) or any(labels.values())
    headings = ["family", *found.spaces, "least r", "mean r", *(["top tokens" if words else "label"] if worded else [])]
    rows = []
    for place, row in enumerate(found.table.head(top).to_dict("records")):
        features = ["–" if pd.isna(row[name]) else str(int(row[name])) for name in found.spaces]
        tokens = " ".join(dict.fromkeys(visible(str(w)).strip() or "␣" for w in words[place])) if words else ""
        said = [text for text in (tokens, visible(label_of_family(labels, _members(found, row)))) if text]
        own = [" · ".join(said)] if worded else []
        rows.append([row["family"], *features, decimal(row["r_min"]), decimal(row["r_mean"]), *own])
    fixed = [row[:-1] for row in rows] if worded else rows
    width = sum(max(len(str(line[i])) for line in [headings, *fixed]) + 2 for i in range(len(fixed[0])))
    if width + (_FEWEST_WORDS if worded else 0) > console.width:
        _print_narrow(console, found, rows, worded)
        return
    table = framed(headings, rows)
    if worded:
        table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    console.print(table)


def _print_narrow(console: Console, found: Families, rows: list[list[Any]], words: bool) -> None:
    """Each family in two lines, where a table would not fit."""
    for row in rows:
        family, *features = row[: 1 + len(found.spaces)]
        least, mean, *own = row[1 + len(found.spaces) :]
        head = f"{family}: r {least}, on average {mean}" + (f"  {own[0]}" if words else "")
        members = [f"{name}/{feature}" for name, feature in zip(found.spaces, features, strict=True) if feature != "–"]
        console.print(Text(head))
        console.print(Padding(Text(" ".join(members), style="dim"), (0, 0, 0, 3)))


def _of(whole: int, shown: int) -> str:
    return f" ({shown} of {whole:,})" if whole > shown else ""


def _members(found: Families, row: dict[Any, Any]) -> dict[str, int]:
    return {name: int(row[name]) for name in found.spaces if not pd.isna(row[name])}


def _print_json(found: Families, words: list[Any] | None, labels: dict[str, dict[int, str]]) -> None:
    for place, row in enumerate(found.table.to_dict("records")):
        facts = {k: v for k, v in row.items() if k not in found.spaces}
        own = _members(found, row)
        line = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in facts.items()} | {"members": own}
        if label := label_of_family(labels, own):
            line["label"] = label
        if words:
            line["top_tokens"] = [str(word) for word in words[place]]
        print(json.dumps(line, ensure_ascii=False))
