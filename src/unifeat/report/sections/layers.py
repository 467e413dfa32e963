"""The section with one heatmap of all comparisons: what it shows is chosen on the page."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple

from unifeat.report.figures.heatmaps import (
    COUNTS,
    SAME_TOKEN,
    VALUES,
    Panel,
    count_bounds,
    count_panel,
    panel_figure,
    score_bounds,
    score_panel,
)
from unifeat.report.figures.style import Drawn
from unifeat.report.score_table import score_rows
from unifeat.report.tables import Measure, cells, decimal, group_pairs, measures, number, role, rows_of, scores_of
from unifeat.runs.folder import Run

_GLOSSES = {
    "kept": "Features of one space with a partner in the other, after all filters.",
    "mean_correlation": "Mean r of the kept pairs on the documents that they were found on.",
    "mean_correlation_heldout": "Mean r of the kept pairs on documents that took no part in finding them.",
    "svcca": "Mean canonical correlation of the leading principal components of the paired decoder rows.",
    "rsa": "Correlation between the two sides’ distances between features.",
    "cka": "Linear centred kernel alignment of the paired decoder rows; unless debiased, inflated when pairs are few.",
}
_ONE_COMPONENT = "Only the first principal component of each side: the setting of the first published results."
_ROW, _COMPANION_ROW = 52, 32  # pixels
VIEWS = {
    "score": "value",
    "null_mean": "by chance",
    "corrected": "chance-corrected",
    SAME_TOKEN: "by the token alone",
}
_VIEW_GLOSSES = {
    "score": "",
    "null_mean": "Here: what chance gives, on average.",
    "corrected": "Here: 0 at the 5 % level of chance, 1 for a perfect score.",
    SAME_TOKEN: "Here: of the pairs found when rows of one model are permuted within a token. Where this is as high as "
    "the value, the token explains it.",
}
_NULLS = {"null_mean": "rematch", SAME_TOKEN: "same_token"}

Groups = tuple[str, str] | None


class Choice(NamedTuple):
    """What the heatmaps can show.

    Attributes:
        label, gloss: its name and one sentence on it.
        views: those of `VIEWS` that it has.
        bounds: of the colour scale, the same in every view.
    """

    label: str
    gloss: str
    views: tuple[str, ...]
    bounds: tuple[float, float]
    of: str | Measure

    def panel(self, run: Run, groups: Groups, view: str) -> Panel:
        """The heatmap of two groups of spaces, or of all spaces."""
        if isinstance(self.of, str):
            return count_panel(run, groups, self.of, null=_NULLS.get(view))
        return score_panel(run, self.of, groups, view)

    def show(self, value: float) -> str:
        """A bound of the colour scale."""
        return number(value) if self.of == "kept" else decimal(value)


def layers(run: Run, drawn: Drawn) -> dict[str, Any]:
    """One heatmap of all ordinary pairs of spaces, those of ceilings and controls beside it; a table for two spaces."""
    table = cells(run)
    if len(table) == 1:
        return {"heat": None, "only": rows_of(table)[0], "only_scores": score_rows(run)}
    options = _choices(run)
    main, beside = _grids(run)
    shown: dict[str, list[dict[str, Any]]] = {"main": [], "beside": []}
    for kind, grids, row in (("main", main, _ROW), ("beside", beside, _COMPANION_ROW)):
        for groups in grids:
            key = f"heat-{len(shown['main']) + len(shown['beside'])}"
            for place, choice in enumerate(options):
                for view in choice.views:
                    figure = panel_figure(choice.panel(run, groups, view), groups, choice.bounds, row)
                    drawn[f"{key}-{place}-{view}"] = figure
            shown[kind].append({"key": key, "title": _title(groups), "role": role(run, groups) if groups else ""})
    return {
        "heat": shown,
        "only": None,
        "heat_glosses": _VIEW_GLOSSES,
        "heat_views": {view: label for view, label in VIEWS.items() if any(view in choice.views for choice in options)},
        "heat_choices": [
            {
                "label": choice.label,
                "gloss": choice.gloss,
                "views": choice.views,
                "low": choice.show(choice.bounds[0]),
                "high": choice.show(choice.bounds[1]),
            }
            for choice in options
        ],
    }


def _choices(run: Run) -> list[Choice]:
    table = cells(run)
    options = []
    for name, label in COUNTS.items():
        if table[name].isna().all():
            continue
        nulls = _NULLS if name == "kept" else {}
        drawn = [view for view, null in nulls.items() if null in table and any(map(_is_known, table[null]))]
        options.append(Choice(label, _GLOSSES[name], ("score", *drawn), count_bounds(run, name), name))
    for measure in measures(run):
        known = SAME_TOKEN in run.scores and bool(scores_of(run, measure)[SAME_TOKEN].notna().any())
        views = (*VALUES, *([SAME_TOKEN] if known else []))
        options.append(Choice(measure.label, _gloss(measure), views, score_bounds(run, measure), measure))
    return options


def _is_known(facts: Any) -> bool:
    return isinstance(facts, dict) and bool(facts["kept"])


def _grids(run: Run) -> tuple[list[Groups], list[Groups]]:
    """Ordinary comparisons, and the others: pairs of groups, or None for one grid of spaces of a layer each."""
    pairs = group_pairs(run)
    ordinary: list[Groups] = [groups for groups in pairs if not role(run, groups)]
    beside: list[Groups] = [groups for groups in pairs if role(run, groups)]
    if not ordinary:  # a run of ceilings and controls alone
        return beside, []
    table = cells(run)
    cells_of = Counter(zip(table["group_a"], table["group_b"], strict=True))
    if len(ordinary) > 1 and all(cells_of[groups] == 1 for groups in ordinary if groups):
        return [None], beside
    return ordinary, beside


def _title(groups: Groups) -> str:
    return " × ".join(groups) if groups else "all spaces"


def _gloss(measure: Measure) -> str:
    one = measure.metric == "svcca" and json.loads(measure.settings).get("dims") == 1
    return _ONE_COMPONENT if one else _GLOSSES.get(measure.metric, "")
