"""The section on categories of words: an overview of all pairs of spaces, and a table for each pair."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from unifeat.report.decidable import mark, undecidable, undecidable_rates
from unifeat.report.drawing import Drawn
from unifeat.report.figures import Panel, panel_figure
from unifeat.report.tables import (
    Measure,
    cells,
    decimal,
    is_missing,
    measures,
    number,
    percent,
    probability,
    role,
    rows_of,
    study_of,
    subspaces_of,
)
from unifeat.runs.folder import Run

_CONTROL_SUFFIX = " · random words"
_MOST_COLUMNS = 16
_FEWEST_PAIRS = 5


def categories(run: Run) -> list[str]:
    """The categories of a run, without their control lists."""
    return [name for name in subspaces_of(run) if _CONTROL_SUFFIX not in name]


def subspaces(run: Run, drawn: Drawn) -> dict[str, Any] | None:
    """One heatmap per measure, with categories down and pairs of spaces across; None if the run has no categories."""
    panels = _overview(run)
    for place, panel in enumerate(panels):
        panel["key"] = f"categories-{place}"
        drawn[panel["key"]] = panel.pop("figure")
    return {"overview": panels, "asked": study_of(run)["subspaces"]} if panels else None


def _overview(run: Run) -> list[dict[str, Any]]:
    """One heatmap per measure, with its title and legend."""
    if not categories(run):
        return []
    table = cells(run)
    ordinary = [not role(run, (row.group_a, row.group_b)) for row in rows_of(table)]
    shown = table[ordinary].head(_MOST_COLUMNS)
    found = []
    for measure in measures(run, categories(run)[0]):
        panel = _panel(run, measure, shown)
        known = panel.z.to_numpy(float)
        high = max(float(pd.DataFrame(known).max().max()), 0.01) if pd.notna(known).any() else 1.0
        figure = panel_figure(panel, ("", ""), (0.0, high))
        figure["layout"] |= {
            "height": 70 + 34 * len(panel.z),
            "margin": {"l": 130, "r": 8, "t": 8, "b": 60},
            "xaxis": figure["layout"]["xaxis"] | {"tickangle": 0 if len(shown) < 7 else -30},
        }
        title = measure._replace(subspace="all").short
        found.append({"title": title, "figure": figure, "high": decimal(high), "more": len(table) - len(shown)})
    return found


def of_cell(run: Run, cell: Any) -> dict[str, Any] | None:
    """The categories of one pair of spaces, as headings and lines; None if the run has none."""
    names = categories(run)
    if not names or run.rates is None:
        return None
    ways = measures(run, names[0])
    scores = _own(run.scores, cell)
    rates = _own(run.rates, cell)
    lines = []
    for name in names:
        own = scores[scores["subspace"] == name]
        control = scores[scores["subspace"] == f"{name}{_CONTROL_SUFFIX}"]
        lines.append(
            {
                "name": name,
                "rates": [_rate(run, rates[(rates["subspace"] == name) & (rates["side"] == side)]) for side in "ab"],
                "n": number(int(own["n_pairs"].iloc[0])) if len(own) else "–",
                "scores": [_score(run, _by(own, way), _by(control, way)) for way in ways],
            }
        )
    return {"measures": [way._replace(subspace="all").short for way in ways], "lines": lines}


def _panel(run: Run, measure: Measure, shown: pd.DataFrame) -> Panel:
    rows = []
    for name in categories(run):
        own = run.scores[
            (run.scores["subspace"] == name)
            & (run.scores["metric"] == measure.metric)
            & (run.scores["settings"] == measure.settings)
        ]
        at = {(a, b): i for i, a, b in zip(own.index, own["space_a"], own["space_b"], strict=True)}
        for cell in rows_of(shown):
            row = own.loc[at[cell.space_a, cell.space_b]]
            why = _why_not(run, "q", row)
            hover = [
                f"<b>{escape(name)}</b>, {escape(cell.space_a)} × {escape(cell.space_b)}",
                f"score {decimal(row['score'], 3)}, {row['n_pairs']:,} pairs",
                f"shuffled {decimal(row['null_mean'], 3)}, q {probability(row['q'])}",
                f"its {row['subset_n']:,} of all pairs {decimal(row['subset_score'], 3)}, random subsets "
                f"{decimal(row['subset_mean'], 3)}, q {probability(row['subset_q'])}",
                *([f"° undecidable: {escape(why)}"] if why else []),
            ]
            # Scores of very few pairs are meaningless, so the number of pairs is shown instead.
            few = row["n_pairs"] < _FEWEST_PAIRS
            text = f"n={row['n_pairs']}" if few else decimal(row["score"]) + mark(row["q"], why)
            place = {"category": name, "cell": f"{cell.layer_a}×{cell.layer_b}", "number": cell.cell}
            rows.append(place | {"z": float("nan") if few else row["score"], "text": text, "hover": "<br>".join(hover)})
    table = pd.DataFrame(rows)
    order = list(reversed(categories(run)))

    def grid(value: str) -> pd.DataFrame:
        wide = table.pivot(index="category", columns="number", values=value).loc[order]
        return wide.set_axis([table.loc[table["number"] == n, "cell"].iloc[0] for n in wide.columns], axis=1)

    return Panel(measure.label, *(grid(value) for value in ("z", "text", "hover", "number")))


def _own(table: pd.DataFrame, cell: Any) -> pd.DataFrame:
    return table[(table["space_a"] == cell.space_a) & (table["space_b"] == cell.space_b)]


def _by(table: pd.DataFrame, measure: Measure) -> Any:
    own = table[(table["metric"] == measure.metric) & (table["settings"] == measure.settings)]
    return own.iloc[0] if len(own) else None


def _why_not(run: Run, q: str, row: Any) -> str:
    """Why a score's q could not have been below 0.05; empty where it could.

    Args:
        row: a row of `run.scores`, with its index there.
    """
    found = undecidable(run)
    return _at(found[q], row) if q in found else ""


def _at(reasons: pd.Series, row: Any) -> str:
    return str(reasons.loc[row.name])


def _rate(run: Run, table: pd.DataFrame) -> dict[str, str]:
    if table.empty or not table["features"].iloc[0]:
        return {"features": "0", "rate": "–", "odds": "–"}
    row = table.iloc[0]
    sign = mark(row["q"], _at(undecidable_rates(run), row))
    spread = (
        ""
        if is_missing(row["odds_ratio_low"])
        else f" ({decimal(row['odds_ratio_low'], 1)}–{decimal(row['odds_ratio_high'], 1)})"
    )
    return {
        "features": number(row["features"]),
        "rate": f"{percent(row['rate'])} / {percent(row['rate_expected'])}",
        "odds": "–" if is_missing(row["odds_ratio"]) else f"{decimal(row['odds_ratio'], 1)}{spread}{sign}",
    }


def _score(run: Run, row: Any, control: Any) -> dict[str, str]:
    if row is None or is_missing(row["score"]):
        return dict.fromkeys(("score", "shuffled", "subsets", "control"), "–")
    return {
        "score": decimal(row["score"]) + mark(row["q"], _why_not(run, "q", row)),
        "shuffled": decimal(row["null_mean"]),
        "subsets": f"{decimal(row['subset_score'])} / {decimal(row['subset_mean'])}"
        + mark(row["subset_q"], _why_not(run, "subset_q", row)),
        "control": "–"
        if control is None or is_missing(control["score"])
        else f"{decimal(control['score'])} ({control['n_pairs']})",
    }
