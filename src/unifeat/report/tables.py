"""A run's results as small tables and formatted numbers, for the terminal, the figures and the HTML report."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import pandas as pd
import yaml

from unifeat.errors import UserError
from unifeat.runs.folder import Run
from unifeat.runs.roles import explain_as_much

SIGNIFICANCE_LEVEL = 0.05  # q-values below this are marked

_NAMES = {
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "heldout_cca": "held-out CCA",
    "rsa": "RSA",
    "cka": "CKA",
    "procrustes": "Procrustes",
    "ridge_map": "ridge map",
    "mutual_knn": "mutual kNN",
    "mean_max_cosine": "mean max cosine",
}


class Measure(NamedTuple):
    """A measure with its settings (JSON text, keys sorted), on one subspace."""

    metric: str
    settings: str
    subspace: str

    @property
    def label(self) -> str:
        """`SVCCA (dims 32)`."""
        settings = ", ".join(_setting(*item) for item in json.loads(self.settings).items())
        subspace = "" if self.subspace == "all" else f" · {self.subspace}"
        return _NAMES.get(self.metric, self.metric) + (f" ({settings})" if settings else "") + subspace

    @property
    def short(self) -> str:
        """The label without settings that have their default value."""
        from unifeat.geometry import MEASURES

        defaults = MEASURES[self.metric].defaults() if self.metric in MEASURES else {}
        own = {key: value for key, value in json.loads(self.settings).items() if defaults.get(key, ...) != value}
        return Measure(self.metric, json.dumps(own), self.subspace).label


def _setting(name: str, value: Any) -> str:
    """`dims 32`, or for a switch `debiased` and `not debiased`."""
    if isinstance(value, list):
        return f"{name} {' and '.join(value)}".replace("_", " ")
    return (name if value else f"not {name}") if isinstance(value, bool) else f"{name} {value}"


def cells(run: Run) -> pd.DataFrame:
    """The pairs of spaces that the run compared, one row each, in the run's order.

    Columns: `cell` (0, 1, …), `space_a`, `group_a`, `layer_a`, `width_a` (features), the same for b, and the facts
    in `run.json`: `kept`, `candidates`, `mean_correlation`, `mean_correlation_heldout`, `tokens_aligned`, …
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
    """The rows as named tuples, typed as Any for the type checker."""
    return list(table.itertuples())


def group_of(space: str) -> str:
    """`smollm2` for `smollm2@15`."""
    return space.rsplit("@", 1)[0]


def group_pairs(run: Run) -> list[tuple[str, str]]:
    """The pairs of groups of spaces that were compared, each with one layer × layer grid: different models first."""
    table = cells(run)
    found = dict.fromkeys(zip(table["group_a"], table["group_b"], strict=True))
    return sorted(found, key=lambda pair: bool(role(run, pair)))


def measures(run: Run, subspace: str | None = "all") -> list[Measure]:
    """The measures of a run, in its order: for all kept pairs, for one subspace, or (None) for everything."""
    columns = run.scores[["metric", "settings", "subspace"]].drop_duplicates()
    found = [Measure(*row) for row in columns.itertuples(index=False)]
    return [measure for measure in found if subspace in (None, measure.subspace)]


def subspaces_of(run: Run) -> list[str]:
    """The categories that the run scored, including control lists, in its order."""
    return [name for name in run.scores["subspace"].drop_duplicates() if name != "all"]


def role(run: Run, groups: tuple[str, str]) -> str:
    """The role of a comparison of two groups of spaces: "" for an ordinary one.

    Else `control: …`, `ceiling: …`, `layers of one model`, or two SAEs of one hook point that set no ceiling.
    """
    own = [next(info for name, info in run.info["spaces"].items() if group_of(name) == group) for group in groups]
    controls = [info["control"] for info in own if info.get("control")]
    if controls:
        return f"control: {' and '.join(dict.fromkeys(controls))}"
    if any(own[0][key] != own[1][key] for key in ("model", "hook")):
        return ""
    spaces = run.info["spaces"]
    compared = [(pair["space_a"], pair["space_b"]) for pair in run.info["pairs"]]
    layers = [[spaces[name]["layer"] for name in pair] for pair in compared if tuple(map(group_of, pair)) == groups]
    if not any(a == b for a, b in layers):
        return "layers of one model"
    own_pairs = [pair for pair in compared if tuple(map(group_of, pair)) == groups]
    same = [(a, b) for a, b in own_pairs if spaces[a]["layer"] == spaces[b]["layer"]]
    good = any(explain_as_much(spaces[a], spaces[b]) for a, b in same)
    return "ceiling: two SAEs of one model" if good else "two SAEs of one model, one of which explains much less"


def find_measure(run: Run, metric: str, settings: dict[str, Any] | str | None, subspace: str = "all") -> Measure:
    """The measure of a run with this metric and settings; with `None`, the first one with this metric.

    Raises:
        UserError: the run has no such scores.
    """
    if isinstance(settings, dict):
        settings = json.dumps(settings, sort_keys=True)
    for measure in measures(run, None):
        if (measure.metric, measure.subspace) == (metric, subspace) and settings in (None, measure.settings):
            return measure
    known = ", ".join(measure.label for measure in measures(run, subspace))
    asked = f"{metric} {settings}" if settings else metric
    raise UserError(f"run {run.folder} has no scores by {asked}: it has {known or 'none'}")


def scores_of(run: Run, measure: Measure) -> pd.DataFrame:
    """Scores by one measure, one row per cell.

    Columns: some of `cells`, those of `run.scores`, and `row`, the index there.
    """
    scores = run.scores
    own = (
        (scores["metric"] == measure.metric)
        & (scores["settings"] == measure.settings)
        & (scores["subspace"] == measure.subspace)
    )
    known = cells(run)[["cell", "space_a", "group_a", "space_b", "group_b", "kept"]]
    found = scores[own].assign(row=scores.index[own])
    return known.merge(found, on=["space_a", "space_b"], how="inner", validate="one_to_one")


def layer_grid(table: pd.DataFrame, value: str, groups: tuple[str, str]) -> pd.DataFrame:
    """One column of a table of cells as a grid: layers of A down, layers of B across; NaN where there is no value."""
    own = table[(table["group_a"] == groups[0]) & (table["group_b"] == groups[1])]
    grid = own.pivot(index="layer_a", columns="layer_b", values=value)
    return grid.sort_index().sort_index(axis=1)


def space_grid(run: Run, table: pd.DataFrame, value: str) -> pd.DataFrame:
    """One column of a table of ordinary cells as a grid of spaces, the same above and below its diagonal."""
    known = {
        pair: found
        for pair, groups, found in zip(
            zip(table["space_a"], table["space_b"], strict=True),
            zip(table["group_a"], table["group_b"], strict=True),
            table[value],
            strict=True,
        )
        if not role(run, groups)
    }
    names = [name for name in run.info["spaces"] if any(name in pair for pair in known)]
    rows = [[known.get((a, b), known.get((b, a))) for b in names] for a in names]
    return pd.DataFrame(rows, index=names, columns=names)


def depths_of(run: Run) -> dict[str, int]:
    """How many layers the model of each group of spaces has."""
    models = {group_of(name): info["model"] for name, info in run.info["spaces"].items()}
    return {group: run.info["models"][model]["layers"] for group, model in models.items()}


def study_of(run: Run) -> dict[str, Any]:
    """The resolved study as plain data; empty if the folder has none."""
    path = run.folder / "study.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def richest(run: Run) -> int:
    """Number of the pair of spaces with the most kept pairs; ceilings and controls only if there are no others."""
    table = cells(run)
    ordinary = [not role(run, (row.group_a, row.group_b)) for row in rows_of(table)]
    among = table[ordinary] if any(ordinary) else table
    return int(among["cell"].to_numpy()[among["kept"].to_numpy().argmax()])


def is_missing(value: Any) -> bool:
    """None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def decimal(value: Any, digits: int = 2) -> str:
    """`0.41`, with a typographic minus sign; – if there is no value."""
    if is_missing(value):
        return "–"
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def percent(value: Any) -> str:
    """`40 %`; with one decimal below 10 %, so that small shares do not show as 0."""
    if is_missing(value):
        return "–"
    return f"{value:.0%}".replace("%", " %") if value >= 0.1 or value == 0 else f"{value:.1%}".replace("%", " %")


def probability(value: Any) -> str:
    """A p- or q-value: three decimals, or one significant digit if it is below 0.001."""
    return "–" if is_missing(value) else f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def number(value: Any) -> str:
    """`2,048`; – if there is no value."""
    return "–" if is_missing(value) else f"{value:,.0f}"


def span(values: Any, show: Any = number) -> str:
    """`20–24` for several values, or a single value if all are equal."""
    shown = [show(v) for v in sorted(v for v in values if not is_missing(v))]
    if not shown:
        return "–"
    low, high = shown[0], shown[-1]
    return low if low == high else f"{low.removesuffix(' %')}–{high}"
