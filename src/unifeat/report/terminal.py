"""The short version of a run for the terminal: what was compared, layer × layer tables, where the report is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unifeat.report.ceilings import (
    Beside,
    cell_role,
    controls_at_chance,
    equivalence_text,
    kept_beside_ceiling,
    near_ceilings,
)
from unifeat.report.contexts import visible
from unifeat.report.decidable import LEGEND, MARK, any_undecidable, draws_of, mark, scores_with_reasons
from unifeat.report.labels import labels_sentence, matching, with_labels
from unifeat.report.overview import group_overview
from unifeat.report.score_table import score_columns
from unifeat.report.sections.categories import of_cell
from unifeat.report.tables import (
    SIGNIFICANCE_LEVEL,
    Measure,
    cells,
    decimal,
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
from unifeat.report.uncertainty import pair_table
from unifeat.runs.folder import Run

_LISTED_PAIRS = 20  # pairs listed for two spaces
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
        _show_cell(console, run, space_a, space_b, labels or {}, search)
    else:
        _show_run(console, run)
    if run.report.is_file():
        console.print(f"\nevery feature: unifeat explore {shlex.quote(str(run.folder))}", soft_wrap=True)
        console.print(f"report: {run.report}", soft_wrap=True)


def _show_run(console: Console, run: Run) -> None:
    info, table = run.info, cells(run)
    text = info["text"]
    console.print(
        Text.assemble((info["name"], "bold"), f": {text['documents']:,} documents of {text['source']}"), soft_wrap=True
    )
    rows = []
    for model, own in pd.DataFrame(info["spaces"]).T.groupby("model", sort=False):
        row = [model, _ranges(own["layer"]), span(own["d_sae"]), span(own["l0"]), span(own["fvu"], decimal)]
        used = span(own["tokens_kept"] / own["tokens_read"], percent)
        rows.append([*row, span(own["dead_share"], percent), span(own["tokens_read"]), used])
    headings = ["model", "layers", "features", "L0", "FVU", "dead", "tokens", "used"]
    console.print(framed(headings, rows, left=2))
    for groups in group_pairs(run):
        own = _of(table, groups)
        shares = " and ".join(span(own[name], percent) for name in ("share_a", "share_b"))
        heldout = f", {span(own['tokens_heldout'])} held out" if own["tokens_heldout"].any() else ""
        console.print(f"{' × '.join(groups)}: {span(own['tokens_aligned'])} tokens in both ({shares})")
        console.print(f"  pairs found on {span(own['tokens_fitted'])}{heldout}")
    if "elsewhere" in info:
        there = info["elsewhere"]
        console.print(
            f"pairs read again elsewhere: {there['documents']:,} documents of {there['source']}", soft_wrap=True
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


def framed(headings: list[Any], rows: list[list[Any]], left: int = 0) -> Table:
    """A plain table whose first `left` columns are text, wrapped if the terminal is narrow."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(str(h) for h in headings))
    for place, heading in enumerate(headings):
        words = place < left
        table.add_column(Text(str(heading)), justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


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


def _show_cell(
    console: Console,
    run: Run,
    space_a: str,
    space_b: str,
    labels: Mapping[str, Mapping[int, str]],
    search: str | None,
) -> None:
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
