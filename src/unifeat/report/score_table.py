"""The table of scores: the figures shown for each score, and their format."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from unifeat.inference.nulls import NULLS, Null
from unifeat.report.ceilings import cell_role, share, share_text
from unifeat.report.decidable import MARK, least_p, scores_with_reasons, undecidable
from unifeat.report.figures.style import Drawn
from unifeat.report.tables import SIGNIFICANCE_LEVEL, decimal, is_missing, measures, number, probability, rows_of
from unifeat.runs.folder import Run

Show = Callable[[dict[str, Any]], str]


def score_columns(run: Run) -> list[tuple[str, str, Show]]:
    """The figures shown for each score, if the run has them: (heading, column to sort by, how to write it)."""

    def plain(name: str, digits: int = 3) -> Show:
        return lambda row: decimal(row[name], digits)

    def count(name: str) -> Show:
        return lambda row: number(row[name])

    why, least = undecidable(run), least_p(run)

    def odds(null: Null, name: str) -> Show:
        """A p or q; marked if it could not have been below 0.05."""

        def show(row: dict[str, Any]) -> str:
            at, text = row["row"], probability(row[name])
            if name == null.q:
                could_not = null.q in why and why[null.q][at] != ""
            else:
                could_not = null.p in least and bool(least[null.p][at] >= SIGNIFICANCE_LEVEL)
            return text + (MARK if could_not and text != "–" else "")

        return show

    def of_controls(row: dict[str, Any]) -> str:
        control = cell_role(run, SimpleNamespace(**row)) == "control"
        return probability(row["p_equivalent"]) if control else "–"

    columns: list[tuple[str, str, Show]] = [
        ("pairs", "n_pairs", lambda row: number(row["n_pairs"])),
        ("score", "score", plain("score")),
        ("interval", "ci_low", _interval),
        ("of the ceiling", "ceiling_share", lambda row: share_text(SimpleNamespace(**row))),
        ("chance’s share", "ceiling_share_chance", lambda row: share(row["ceiling_share_chance"])),
        ("p equivalent", "p_equivalent", of_controls),
        ("held out", "score_heldout", plain("score_heldout")),
    ]
    own = run.scores[run.scores["subspace"] == "all"]
    # Where no pairs are near-copies, shuffles of clusters are those of pairs.
    clustered = "clusters" in own and bool((own["clusters"] < own["n_pairs"]).any())
    for kind, null in NULLS.items():
        if kind == "cluster" and not clustered:
            continue
        for heading, name in null.headings:
            is_probability = name in (null.p, null.q) or name.startswith(("p_", "q_")) or name.endswith("_p_family")
            is_count = name in ("clusters", "effective_pairs")
            show = odds(null, name) if is_probability else count(name) if is_count else plain(name)
            columns.append((heading, name, show))
    controls = any(info.get("control") for info in run.info["spaces"].values())
    columns = [column for column in columns if controls or column[1] != "p_equivalent"]
    always = {"n_pairs", "score", "null_mean", "null_sd", "corrected", "p", "q"}
    shown = [column for column in columns if column[1] in always or (column[1] in own and own[column[1]].notna().any())]
    if own["details"].str.contains("dims_a").any():
        shown.append(("components", "dims_a", _components))
    return shown


def _interval(row: dict[str, Any]) -> str:
    return "–" if is_missing(row["ci_low"]) else f"{decimal(row['ci_low'])} to {decimal(row['ci_high'])}"


def _components(row: dict[str, Any]) -> str:
    details = json.loads(row["details"])
    return f"{details['dims_a']}, {details['dims_b']}" if "dims_a" in details else ""


def score_rows(run: Run) -> list[dict[str, Any]]:
    """Every score of all kept pairs, with its cells ready to show."""
    rows, columns = [], score_columns(run)
    for measure in measures(run):
        for row in rows_of(scores_with_reasons(run, measure)):
            row = row._asdict()
            shown = [{"value": row.get(name), "text": show(row)} for _, name, show in columns]
            rows.append(row | {"label": measure.label, "flags": list(row["flags"]), "cells": shown})
    return rows


def _flags(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each kind of flag (the word before its colon) and metric, the first score with it."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        for flag in row["flags"]:
            first.setdefault(f"{flag.split(':')[0]} {row['metric']}", row | {"flag": flag})
    return first


def score_table(run: Run, drawn: Drawn) -> dict[str, Any]:
    """All scores, and the first case of each kind of flag."""
    rows = score_rows(run)
    return {
        "scores": rows,
        "flags": _flags(rows),
        "columns": [("A", ""), ("B", ""), ("measure", ""), *((label, "n") for label, _, _ in score_columns(run))],
        "used": run.scores["details"].str.contains("dims_a").any(),
        "intervals": bool(run.scores["ci_low"].notna().any()),
        "heldout_scores": bool(run.scores["score_heldout"].notna().any()),
    }
