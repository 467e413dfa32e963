"""Two spaces of a run in the terminal: their scores, and the features that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unifeat.report.ceilings import (
    cell_role,
    equivalence_text,
    kept_beside_ceiling,
)
from unifeat.report.contexts import visible
from unifeat.report.decidable import LEGEND, MARK, draws_of, scores_with_reasons
from unifeat.report.framed import framed
from unifeat.report.labels import labels_sentence, matching, with_labels
from unifeat.report.score_table import score_columns
from unifeat.report.tables import (
    Measure,
    cells,
    decimal,
    is_missing,
    measures,
    percent,
    rows_of,
    study_of,
)
from unifeat.report.uncertainty import pair_table
from unifeat.runs.folder import Run

_LISTED_PAIRS = 20


def show_pair(
    console: Console,
    run: Run,
    space_a: str,
    space_b: str,
    labels: Mapping[str, Mapping[int, str]],
    search: str | None,
) -> None:
    """Print what two spaces share.

    Args:
        labels, search: as for `terminal.show`.
    """
    kept = with_labels(run.space_pair(space_a, space_b).query("kept"), labels)
    table = cells(run)
    cell = rows_of(table[(table["space_a"] == space_a) & (table["space_b"] == space_b)])[0]
    console.print(Text.assemble((f"{space_a} × {space_b}", "bold"), f" in run {run.info['name']}"))
    console.print(
        f"{cell.kept:,} pairs kept of {cell.candidates:,} candidates; mean r {decimal(cell.mean_correlation)}, "
        f"held out {decimal(cell.mean_correlation_heldout)}"
    )
    for line in [*_elsewhere_lines(run, cell), *_beyond_token_lines(cell), labels_sentence(cell)]:
        if line:
            console.print(f"  {line}", soft_wrap=True)
    for reason, count in sorted(cell.dropped.items(), key=lambda item: -item[1]):
        console.print(f"  {count:>8,}  dropped: {reason}")
    console.print()
    headings = ["", *(heading for heading, _, _ in score_columns(run))]
    rows = [line for measure in measures(run) for line in _score_lines(run, measure, cell)]
    _print_scores(console, headings, rows)
    for line in _notes_on_scores(run, cell):
        console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    for flag in sorted({flag for row in rows_of(_own(run.scores, cell)) for flag in row.flags}):
        console.print(Text(f"  {flag}", style="dim"))
    what = "pairs"
    if search:
        kept = matching(kept, search)
        what = f"pairs with “{search}”"
    if not len(kept):
        if search:
            console.print(Text(f"\nno {what}", "dim"))
        return
    named = "label_a" in kept and bool((kept["label_a"] != "").any() or (kept["label_b"] != "").any())
    more = "top tokens, and labels below them" if named else "top tokens"
    listed = min(_LISTED_PAIRS, len(kept))
    console.print(Text(f"\nstrongest {listed} of {len(kept):,} {what}, with their {more}", "dim"))
    pairs = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    within, elsewhere = "correlation_within_token" in kept, "correlation_elsewhere" in kept
    columns = [*(["in token"] if within else []), *(["elsewhere"] if elsewhere else [])]
    for heading in ("r", "held out", *columns, space_a, "top tokens", space_b, "top tokens"):
        words = heading == "top tokens"
        pairs.add_column(
            Text(heading),
            justify="left" if words else "right",
            ratio=1 if words else None,
            no_wrap=True,
            overflow="ellipsis",
            header_style="bold",
        )
    pairs.expand = True
    for row in rows_of(kept.nlargest(_LISTED_PAIRS, "correlation")):
        first, second = (_words(tokens) for tokens in (row.top_tokens_a, row.top_tokens_b))
        r, heldout = decimal(row.correlation), decimal(row.correlation_heldout)
        others = [decimal(row.correlation_within_token)] if within else []
        others += [decimal(row.correlation_elsewhere)] if elsewhere else []
        pairs.add_row(r, heldout, *others, str(row.feature_a), Text(first), str(row.feature_b), Text(second))
        if named and (row.label_a or row.label_b):
            sides = (Text(visible(label), style="dim") for label in (row.label_a, row.label_b))
            pairs.add_row("", "", *("" for _ in others), "", next(sides), "", next(sides))
    console.print(pairs)


def _elsewhere_lines(run: Run, cell: Any) -> list[str]:
    """How many of the pairs hold elsewhere."""
    facts = getattr(cell, "elsewhere", None)
    if not isinstance(facts, dict):
        return []
    if not facts["judged"]:
        return ["elsewhere: the pairs' features fire too seldom there to judge them"]
    least = study_of(run).get("matching", {}).get("min_correlation", 0.0)
    return [
        f"elsewhere: {percent(facts['hold_share'])} of the {facts['judged']:,} pairs that can be judged hold (r above "
        f"pairs at random), {percent(facts['above_min'])} have r ≥ {least:g}; mean r {decimal(facts['mean'])}, here "
        f"{decimal(facts['mean_here'])}"
    ]


def _notes_on_scores(run: Run, cell: Any) -> list[str]:
    """What the ceiling's number of pairs is, whether a control is at chance, and what was undecidable."""
    lines = [kept_beside_ceiling(cell)]
    undecided = []
    for measure in measures(run):
        for row in rows_of(_own(scores_with_reasons(run, measure), cell)):
            if cell_role(run, row) == "control" and not is_missing(getattr(row, "p_equivalent", None)):
                lines.append(f"{measure.short}: {equivalence_text(row)}")
            undecided.append(row.undecidable)
    if draws := draws_of(run):
        lines.append(f"draws of the nulls: {draws}")
    lines += [f"{LEGEND}: {why}" for why in dict.fromkeys(undecided) if why]
    return [line for line in lines if line]


def _beyond_token_lines(cell: Any) -> list[str]:
    """What of the pairs the token explains, and how many the nulls that match again keep."""
    lines = []
    facts = getattr(cell, "beyond_token", None)
    if isinstance(facts, dict) and not is_missing(facts["mean_correlation_within_token"]):
        lines.append(
            f"within token: mean r {decimal(facts['mean_correlation_within_token'])}; "
            f"{percent(facts['more_than_a_token'])} of the pairs are more than a token"
        )
    table = pair_table(cell)
    own = next((line for line in table.lines if line["what"] == "pairs kept"), None)
    same = next((line for line in table.lines if line["what"] == "of them, pairs of this run"), None)
    if own is not None and same is not None:
        for (label, _, draws, least), kept, again in zip(table.nulls, own["nulls"], same["nulls"], strict=True):
            lines.append(
                f"matched again, {label}: {kept['mean']} pairs, {again['mean']} of them this run's; "
                + (
                    f"undecidable ({draws} draws: p cannot be below {least})"
                    if kept["p"].endswith(MARK)
                    else f"p {kept['p']} ({draws} draws, at least {least})"
                )
            )
    return lines


def _print_scores(console: Console, headings: list[str], rows: list[list[str]]) -> None:
    """Print one line per measure if the terminal is wide enough, else one column per measure."""
    width = sum(max(len(line[i]) for line in [headings, *rows]) + 2 for i in range(len(headings)))
    if width <= console.width or not rows:
        console.print(framed(headings, rows, 1))
        return
    names = max(map(len, headings)) + 2
    side_by_side = max(1, (console.width - names) // (max(len(cell) for row in rows for cell in row) + 2))
    for start in range(0, len(rows), side_by_side):
        shown = rows[start : start + side_by_side]
        lines = [[heading, *(row[i] for row in shown)] for i, heading in enumerate(headings) if i]
        console.print(framed(["", *(row[0] for row in shown)], lines, 1))
        console.print()


def _own(scores: pd.DataFrame, cell: Any) -> pd.DataFrame:
    return scores[(scores["space_a"] == cell.space_a) & (scores["space_b"] == cell.space_b)]


def _score_lines(run: Run, measure: Measure, cell: Any) -> list[list[str]]:
    columns = score_columns(run)
    own = rows_of(_own(scores_with_reasons(run, measure), cell))
    return [[measure.short, *(write(row._asdict()) for _, _, write in columns)] for row in own]


def _words(tokens: Any) -> str:
    return " · ".join(dict.fromkeys(visible(str(token)).strip(" ") or "␣" for token in tokens))
