"""The short version of a run for the terminal: what was compared, layer × layer tables, where the report is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from unifeat.report.ceilings import (
    Beside,
    controls_at_chance,
    near_ceilings,
)
from unifeat.report.decidable import LEGEND, any_undecidable, draws_of, mark, scores_with_reasons
from unifeat.report.framed import framed
from unifeat.report.overview import group_overview
from unifeat.report.sections.categories import of_cell
from unifeat.report.tables import (
    SIGNIFICANCE_LEVEL,
    cells,
    decimal,
    group_of,
    group_pairs,
    is_missing,
    layer_grid,
    measures,
    number,
    percent,
    probability,
    richest,
    role,
    rows_of,
    span,
    study_of,
)
from unifeat.report.terminal_pair import show_pair
from unifeat.runs.folder import Run
from unifeat.study.text import source_said

_LONGEST_LIST = 15  # rows of the list shown instead of a grid that is too wide for the terminal

Write = Callable[[Any], str]


def show(
    run: Run,
    space_a: str | None = None,
    space_b: str | None = None,
    *,
    labels: Mapping[str, Mapping[int, str]] | None = None,
    search: str | None = None,
) -> None:
    """Print a run's results to stdout; with two spaces, their scores and strongest shared features.

    Args:
        labels: by space, words for features that are shown in the place of the run's.
        search: only list pairs of which a label or a top token contains this, whatever its case.

    Raises:
        UserError: spaces that the run did not compare.
    """
    # No emoji codes and no markup, since the words come from the text.
    console = Console(highlight=False, markup=False, emoji=False)
    if space_a is not None and space_b is not None:
        show_pair(console, run, space_a, space_b, labels or {}, search)
    else:
        _show_run(console, run)
    if run.report.is_file():
        console.print(f"\nevery feature: unifeat explore {shlex.quote(str(run.folder))}", soft_wrap=True)
        console.print(f"report: {run.report}", soft_wrap=True)


def _show_run(console: Console, run: Run) -> None:
    info, table = run.info, cells(run)
    text = info["text"]
    console.print(
        Text.assemble((info["name"], "bold"), f": {text['documents']:,} documents of {source_said(text['source'])}"),
        soft_wrap=True,
    )
    rows = []
    spaces = pd.DataFrame(info["spaces"]).T
    for group, own in spaces.groupby([group_of(name) for name in spaces.index], sort=False):
        row = [group, _ranges(own["layer"]), span(own["d_sae"]), span(own["l0"]), span(own["fvu"], decimal)]
        used = span(own["tokens_kept"] / own["tokens_read"], percent)
        rows.append([*row, span(own["dead_share"], percent), span(own["tokens_read"]), used])
    headings = ["spaces", "layers", "features", "L0", "FVU", "dead", "tokens", "used"]
    console.print(framed(headings, rows, left=1))
    for groups in group_pairs(run):
        own = _of(table, groups)
        shares = " and ".join(span(own[name], percent) for name in ("share_a", "share_b"))
        heldout = f", {span(own['tokens_heldout'])} held out" if own["tokens_heldout"].any() else ""
        console.print(f"{' × '.join(groups)}: {span(own['tokens_aligned'])} tokens in both ({shares})")
        console.print(f"  pairs found on {span(own['tokens_fitted'])}{heldout}")
    if "elsewhere" in info:
        there = info["elsewhere"]
        console.print(
            f"pairs read again elsewhere: {there['documents']:,} documents of {source_said(there['source'])}",
            soft_wrap=True,
        )
    _overview(console, run)
    _ceilings_and_controls(console, run)
    ordinary = [groups for groups in group_pairs(run) if not role(run, groups)]
    for groups in ordinary or group_pairs(run):
        console.print(Text(f"\n{groups[0]} (down) × {groups[1]} (across)", style="bold"))
        _grid(console, "pairs kept", table, groups, [(_counts, ", mean r → held out"), (_kept, "")])
        for measure in measures(run):
            _grid(console, measure.label, scores_with_reasons(run, measure), groups, _SCORE_WAYS)
    _categories(console, run)
    marked = f"* q < {SIGNIFICANCE_LEVEL:g}. The null shuffles which decoder row goes with which, among the pairs kept."
    if draws := draws_of(run):
        marked += f" Draws of the nulls: {draws}."
    if any_undecidable(run):
        marked += f" {LEGEND}."
    console.print(Text(f"\n{marked}", style="dim"))


def _overview(console: Console, run: Run) -> None:
    """One line for each pair of groups of spaces, including controls and ceilings."""
    ways, lines = group_overview(run)
    if len(lines) == 1 and not lines[0].kept_again and lines[0].hold_elsewhere is None:
        return
    console.print(Text("\nat a glance: ranges over the layers; scores corrected for chance", style="dim"))
    nulls = lines[0].kept_again
    elsewhere = ["hold elsewhere"] if lines[0].hold_elsewhere is not None else []
    headings = ["", "pairs", *nulls, "held-out r", "within token", "again", *elsewhere, *(way.short for way in ways)]
    rows: list[list[Any]] = []
    for line in lines:
        name = " × ".join(line.groups) + (f" ({line.role})" if line.role else "")
        again = (line.kept_again.get(null, "–") for null in nulls)
        hold = [line.hold_elsewhere] if elsewhere else []
        rows.append([name, line.kept, *again, line.heldout, line.within, line.found_again, *hold, *line.scores])
    _fitting(console, headings, rows)


def _ceilings_and_controls(console: Console, run: Run) -> None:
    """How near each pair of spaces comes to its ceiling, and whether controls are shown to be at chance."""
    near, controls = near_ceilings(run), controls_at_chance(run)
    if near.rows:
        title = "share of the ceiling that second SAEs of the same activations set (interval), on as many pairs"
        _beside(console, title, near)
    if controls.rows:
        margin = study_of(run)["inference"]["equivalence"]
        _beside(console, f"controls: no more alike than chance, within {margin:g}?", controls)


def _beside(console: Console, title: str, found: Beside) -> None:
    more = f" (the first {_LONGEST_LIST} of {len(found.rows)})" if len(found.rows) > _LONGEST_LIST else ""
    console.print(Text(f"\n{title}{more}", style="dim"))
    rows = [[name, *texts] for name, texts in found.rows[:_LONGEST_LIST]]
    _fitting(console, ["", *(way.short for way in found.ways)], rows)


def _fitting(console: Console, headings: list[str], rows: list[list[Any]]) -> None:
    """Print a table or, if the terminal is too narrow for its columns, one paragraph per row."""
    table = framed(headings, rows, 1)
    if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
        console.print(table)
        return
    for row in rows:
        console.print(Text(str(row[0]), style="bold"))
        facts = zip(headings[1:], row[1:], strict=True)
        console.print("  " + "; ".join(f"{what} {value}" for what, value in facts))


def _categories(console: Console, run: Run) -> None:
    """The categories of the pair of spaces with the most pairs: how many features are matched, and their scores."""
    table = cells(run)
    cell = rows_of(table)[richest(run)]
    found = of_cell(run, cell)
    if found is None:
        return
    console.print(Text(f"\nsubspaces of {cell.space_a} × {cell.space_b}: score (random subsets)", style="dim"))
    headings = ["", "features", "matched / expected", "pairs", *found["measures"]]
    rows = [
        [
            line["name"],
            " × ".join(rate["features"] for rate in line["rates"]),
            line["rates"][0]["rate"],
            line["n"],
            *(f"{score['score']} ({score['subsets']})" for score in line["scores"]),
        ]
        for line in found["lines"]
    ]
    _fitting(console, headings, rows)


def _of(table: pd.DataFrame, groups: tuple[str, str]) -> pd.DataFrame:
    return table[(table["group_a"] == groups[0]) & (table["group_b"] == groups[1])]


def _ranges(layers: Any) -> str:
    """`7, 15, 22`, or `0 to 10` for consecutive layers."""
    values = sorted(layers)
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))


def _grid(
    console: Console, title: str, table: pd.DataFrame, groups: tuple[str, str], ways: list[tuple[Write, str]]
) -> None:
    """Print a layer × layer table, with as much detail as fits the terminal's width, or else a list.

    Args:
        ways: how to write a cell, and what the title says about it; the most detailed first.
    """
    own = _of(table, groups)
    if "score" in own and own["score"].isna().all():
        console.print(Text(f"\n{title}: undefined everywhere, mostly because there are too few pairs", style="dim"))
        return
    for write, legend in ways:
        texts = own.assign(text=[write(row) for row in rows_of(own)])
        grid = layer_grid(texts, "text", groups).fillna("")
        if 6 + sum(max(len(str(layer)), int(grid[layer].str.len().max())) + 2 for layer in grid) <= console.width:
            console.print(Text(f"\n{title}{legend}", style="dim"))
            console.print(framed(["", *grid.columns], [[row, *grid.loc[row]] for row in grid.index]))
            return
    write, legend = ways[0]
    order = own.sort_values("kept", ascending=False, kind="stable").head(_LONGEST_LIST)
    more = f" (the {_LONGEST_LIST} of {len(own)} with the most pairs)" if len(own) > _LONGEST_LIST else ""
    console.print(Text(f"\n{title}{legend}{more}", style="dim"))
    console.print(framed(["", ""], [[f"{row.space_a} × {row.space_b}", write(row)] for row in rows_of(order)], 1))


def _counts(row: Any) -> str:
    heldout = decimal(row.mean_correlation_heldout)
    return f"{row.kept:,}  {decimal(row.mean_correlation)} → {heldout}" if row.kept else "0"


def _kept(row: Any) -> str:
    return number(row.kept)


def _score(row: Any) -> str:
    return decimal(row.score) + (mark(row.q, row.undecidable) or " ")


def _with_null(row: Any) -> str:
    return "–" if is_missing(row.score) else f"{_score(row)} ({decimal(row.null_mean)})"


def _with_p(row: Any) -> str:
    return "–" if is_missing(row.score) else f"{_with_null(row)} {probability(row.p)}"


_SCORE_WAYS: list[tuple[Write, str]] = [
    (_with_p, ": score (null), p"),
    (_with_null, ": score (null)"),
    (_score, ": score"),
]
