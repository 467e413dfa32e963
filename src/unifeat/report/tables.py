"""What a run found, as small tables and sentences: the terminal, the figures and the HTML report all read these."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import pandas as pd
import yaml

from unifeat.errors import UserError
from unifeat.results import Run

SIGNIFICANT = 0.05  # q below this is marked

_NAMES = {"svcca": "SVCCA", "rsa": "RSA", "cka": "CKA"}
_FOUND = {
    "mutual": "have a mutual best partner in",
    "max": "have a best partner in",
    "one-to-one": "are paired one to one with a feature of",
    "assignment": "are paired one to one with a feature of",
}


class Measure(NamedTuple):
    """One way of scoring: metric, settings (JSON text, keys sorted), subspace."""

    metric: str
    settings: str
    subspace: str

    @property
    def label(self) -> str:
        """`SVCCA (dims 32)`."""
        settings = ", ".join(f"{key} {value}" for key, value in json.loads(self.settings).items())
        subspace = "" if self.subspace == "all" else f" · {self.subspace}"
        return _NAMES.get(self.metric, self.metric) + (f" ({settings})" if settings else "") + subspace


def cells(run: Run) -> pd.DataFrame:
    """The pairs of spaces that the run compared, one row each, in its order.

    Columns: `cell` (0, 1, …), `space_a`, `group_a`, `layer_a`, `width_a` (features), the same for b, and the facts
    of `run.json`: `kept`, `candidates`, `mean_correlation`, `mean_correlation_heldout`, `tokens_aligned`, …
    """
    rows = []
    spaces = run.info["spaces"]
    for number, facts in enumerate(run.info["pairs"]):
        row: dict[str, Any] = {"cell": number}
        for side in "ab":
            name = facts[f"space_{side}"]
            row |= {f"group_{side}": group_of(name), f"layer_{side}": spaces[name]["layer"]}
            row |= {f"width_{side}": spaces[name]["d_sae"]}
        rows.append(row | facts)
    table = pd.DataFrame(rows)
    for column in ("mean_correlation", "mean_correlation_heldout"):
        table[column] = pd.to_numeric(table[column], errors="coerce").astype(float)
    return table


def rows_of(table: pd.DataFrame) -> list[Any]:
    """The rows as named tuples, in a form the type checker leaves alone."""
    return list(table.itertuples())


def group_of(space: str) -> str:
    """`smollm2` of `smollm2@15`."""
    return space.rsplit("@", 1)[0]


def group_pairs(run: Run) -> list[tuple[str, str]]:
    """Which groups of spaces meet: one layer × layer grid each."""
    table = cells(run)
    return list(dict.fromkeys(zip(table["group_a"], table["group_b"], strict=True)))


def measures(run: Run) -> list[Measure]:
    """The measures of a run, in its order."""
    columns = run.scores[["metric", "settings", "subspace"]]
    return [Measure(*row) for row in columns.drop_duplicates().itertuples(index=False)]


def find_measure(run: Run, metric: str, settings: dict[str, Any] | str | None, subspace: str = "all") -> Measure:
    """The measure of a run with this metric and settings; `None` finds the first with this metric.

    Raises:
        UserError: the run has no such scores.
    """
    if isinstance(settings, dict):
        settings = json.dumps(settings, sort_keys=True)
    for measure in measures(run):
        if (measure.metric, measure.subspace) == (metric, subspace) and settings in (None, measure.settings):
            return measure
    known = ", ".join(measure.label for measure in measures(run))
    raise UserError(f"run {run.folder} has no scores by {metric} {settings or ''}: it has {known or 'none'}")


def scores_of(run: Run, measure: Measure) -> pd.DataFrame:
    """Scores by one measure, one row a cell, with the columns of `cells` beside those of `run.scores`."""
    scores = run.scores
    own = (
        (scores["metric"] == measure.metric)
        & (scores["settings"] == measure.settings)
        & (scores["subspace"] == measure.subspace)
    )
    known = cells(run)[["cell", "space_a", "group_a", "space_b", "group_b", "kept"]]
    return known.merge(scores[own], on=["space_a", "space_b"], how="inner", validate="one_to_one")


def layer_grid(table: pd.DataFrame, value: str, groups: tuple[str, str]) -> pd.DataFrame:
    """One column of a table of cells as a grid: layers of A down, layers of B across; NaN where nothing is known."""
    own = table[(table["group_a"] == groups[0]) & (table["group_b"] == groups[1])]
    grid = own.pivot(index="layer_a", columns="layer_b", values=value)
    return grid.sort_index().sort_index(axis=1)


def study_of(run: Run) -> dict[str, Any]:
    """The resolved study as plain data; empty if the folder has none."""
    path = run.folder / "study.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def richest(run: Run) -> int:
    """Number of the pair of spaces that keeps most pairs."""
    return int(cells(run)["kept"].to_numpy().argmax())


def summary(run: Run) -> list[str]:
    """What was found, in a few plain sentences made from the numbers: pairs, their held-out r, the control, scores."""
    table = cells(run)
    matching = study_of(run).get("matching", {})
    best = table.iloc[richest(run)]
    if best["kept"] == 0:
        reasons = pd.DataFrame(table["dropped"].tolist()).sum().sort_values(ascending=False)
        most = (
            f"; most of the {int(table['candidates'].sum()):,} candidates: {reasons.index[0]}" if len(reasons) else ""
        )
        where = "the one pair" if len(table) == 1 else f"any of the {len(table)} pairs"
        return [f"No pair of features was kept in {where} of spaces{most}."]
    return [_pairs_sentence(run, best, matching), _control_sentence(run, best), *_grid_sentences(run, table)]


def _pairs_sentence(run: Run, best: pd.Series, matching: dict[str, Any]) -> str:
    method = matching.get("method", "mutual")
    ours, theirs = ("b", "a") if (method, matching.get("direction")) == ("max", "b_to_a") else ("a", "b")
    kept = run.space_pair(best["space_a"], best["space_b"]).query("kept")
    paired, width = kept[f"feature_{ours}"].nunique(), int(best[f"width_{ours}"])
    above = f" with r > {matching['min_correlation']:g}" if "min_correlation" in matching else ""
    sentence = (
        f"Of the {width:,} features of {best[f'space_{ours}']}, {paired:,} ({percent(paired / width)}) "
        f"{_FOUND.get(method, 'have a partner in')} {best[f'space_{theirs}']}{above}"
    )
    fitted, heldout = best["mean_correlation"], best["mean_correlation_heldout"]
    if math.isnan(heldout):
        return f"{sentence}; their mean r is {decimal(fitted)}, on the same documents that they were found on."
    return (
        f"{sentence}; on held-out documents their mean r is {decimal(heldout)}, "
        f"against {decimal(fitted)} on the documents that they were found on."
    )


def _control_sentence(run: Run, best: pd.Series) -> str:
    """Mutual pairs in aligned and in shifted text, counted alike: at r > 0.1, without filters."""
    chance = best.get("mutual_shifted_over_0.1")
    if chance is None or pd.isna(chance):
        return ""
    candidates = run.space_pair(best["space_a"], best["space_b"]).dropna(subset=["correlation"])
    ordered = candidates.sort_values(
        ["correlation", "feature_a", "feature_b"], ascending=[False, True, True], kind="stable"
    )
    mutual = ~ordered.duplicated("feature_a") & ~ordered.duplicated("feature_b") & (ordered["correlation"] > 0.1)
    reach = "reaches" if mutual.sum() == 1 else "reach"
    return (
        f"Before any filter, {_count(int(mutual.sum()), 'mutual pair')} of these two spaces {reach} r > 0.1; with the "
        f"text of one side shifted, so that no token meets its own counterpart, {int(chance):,} "
        f"{'does' if chance == 1 else 'do'}."
    )


def _grid_sentences(run: Run, table: pd.DataFrame) -> list[str]:
    sentences = []
    if len(table) > 1:
        low, high = int(table["kept"].min()), int(table["kept"].max())
        sentences.append(f"That is the richest of {len(table)} pairs of spaces; they share {low:,} to {high:,} pairs.")
    q = run.scores["q"].dropna()
    if len(q):
        over = int((q < SIGNIFICANT).sum())
        which = f"{over} of {_count(len(q), 'score')}" if over < len(q) else f"All {_count(len(q), 'score')}"
        which = "The one score" if len(q) == over == 1 else which
        verb = "exceeds" if len(q) == 1 else "exceed"
        sentences.append(f"{which} of decoder geometry {verb} what shuffled pairs reach (q < {SIGNIFICANT:g}).")
    return sentences


def _count(n: int, noun: str) -> str:
    return f"1 {noun}" if n == 1 else f"{n:,} {noun}s" if n else f"no {noun}s"


def is_missing(value: Any) -> bool:
    """None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def decimal(value: Any, digits: int = 2) -> str:
    """`0.41`, with a real minus sign; – if there is no value."""
    if is_missing(value):
        return "–"
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def percent(value: Any) -> str:
    """`40 %`; one decimal below 10 %, so that small shares are not 0."""
    if is_missing(value):
        return "–"
    return f"{value:.0%}".replace("%", " %") if value >= 0.1 or value == 0 else f"{value:.1%}".replace("%", " %")


def probability(value: Any) -> str:
    """A p- or q-value: three decimals, or as many as keep it from being 0."""
    return "–" if is_missing(value) else f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def number(value: Any) -> str:
    """`2,048`; – if there is no value."""
    return "–" if is_missing(value) else f"{value:,.0f}"


def span(values: Any, show: Any = number) -> str:
    """`20–24` of several values, or the one value that they all are."""
    shown = [show(v) for v in sorted(v for v in values if not is_missing(v))]
    if not shown:
        return "–"
    low, high = shown[0], shown[-1]
    return low if low == high else f"{low.removesuffix(' %')}–{high}"
