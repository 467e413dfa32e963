"""The figures of a run by their names, as plotly figures for notebooks and papers: `Run.figure`, `unifeat figure`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from unifeat.errors import UserError, did_you_mean
from unifeat.report.figures import distributions
from unifeat.report.figures.categories import categories, categories_figure
from unifeat.report.figures.controls import controls_figure
from unifeat.report.figures.families import correspondence_figure, passages_figure, upset_figure
from unifeat.report.figures.heatmaps import COUNTS, counts_figure, heatmap_figure
from unifeat.report.figures.style import COLOURS
from unifeat.report.figures.transfer import effects_figure, transfer_figure
from unifeat.report.tables import cells, depths_of, find_measure, measures, richest, rows_of
from unifeat.runs.folder import Run

if TYPE_CHECKING:
    import plotly.graph_objects as go

Spaces = tuple[str, str]
_SEED = 0
_MOST_POINTS = 20_000


class Named(NamedTuple):
    """A figure that a run can have.

    Attributes:
        what: what it shows, in a line.
        draw: from the run and options to the figure.
        there: whether a run has what it shows.
    """

    what: str
    draw: Callable[..., Any]
    there: Callable[[Run], bool]


def figure(run: Run, name: str, **options: Any) -> go.Figure:
    """A figure of a run (see `Run.figure`).

    Raises:
        UserError: no figure of this name, an option that it does not take, or nothing in the run to show.
    """
    import plotly.graph_objects as go

    if name not in FIGURES:
        raise UserError(f"no figure {name!r}{did_you_mean(name, list(FIGURES))}: there are {', '.join(FIGURES)}")
    named = FIGURES[name]
    takes = list(inspect.signature(named.draw).parameters)[1:]
    if wrong := [option for option in options if option not in takes]:
        raise UserError(f"figure {name!r} takes no {wrong[0]!r}: it takes {' and '.join(takes) or 'no options'}")
    if not named.there(run):
        raise UserError(
            f"run {run.folder} has nothing to show as {name!r} ({named.what}): its study did not ask for it"
        )
    drawn = go.Figure(named.draw(run, **options))
    return drawn.update_layout(template="none", paper_bgcolor=COLOURS["surface"], plot_bgcolor=COLOURS["surface"])


def _heatmap(
    run: Run, metric: str | None = None, value: str | None = None, settings: Any = None, subspace: str = "all"
) -> Any:
    if metric in COUNTS:
        return counts_figure(run, metric)
    if metric is None:
        ways = measures(run)
        if not ways:
            raise UserError(f"run {run.folder} has no scores: name one of {', '.join(COUNTS)} as the metric")
        metric = next((way for way in ways if way.metric == "rsa"), ways[0]).metric
    return heatmap_figure(run, metric, settings, subspace=subspace, value=value)


def _spaces(run: Run, spaces: Spaces | None) -> Spaces:
    """The two spaces named; by default those with the most pairs."""
    if spaces is None:
        best = cells(run).iloc[richest(run)]
        return best["space_a"], best["space_b"]
    if isinstance(spaces, str) or len(spaces) != 2:
        raise UserError(f"spaces: {spaces!r} are not two, such as ('smollm2@15', 'gemma3@9')")
    return spaces[0], spaces[1]


def _kept(run: Run, spaces: Spaces | None) -> pd.DataFrame:
    return run.space_pair(*_spaces(run, spaces)).query("kept")


def _of_pairs(draw: Callable[..., Any], *columns: str) -> Callable[..., Any]:
    """A figure of the kept pairs of two spaces, which must have some columns."""

    def figure_of(run: Run, spaces: Spaces | None = None) -> Any:
        kept = _kept(run, spaces)
        if not all(column in kept and kept[column].notna().any() for column in columns):
            raise UserError(f"the pairs of {' and '.join(_spaces(run, spaces))} have no {', '.join(columns)}")
        return draw(kept, _MOST_POINTS, _SEED)

    return figure_of


def _has(column: str) -> Callable[[Run], bool]:
    return lambda run: column in (kept := _kept(run, None)) and bool(kept[column].notna().any())


def _correlation(run: Run, spaces: Spaces | None = None) -> Any:
    return distributions.correlation_figure(_kept(run, spaces))


def _partners(run: Run, spaces: Spaces | None = None) -> Any:
    return distributions.partner_figure(_row(run, _spaces(run, spaces)))


def _row(run: Run, spaces: Spaces) -> Any:
    run.space_pair(*spaces)  # (says what is wrong with a name)
    return next(row for row in rows_of(cells(run)) if (row.space_a, row.space_b) == spaces)


def _families(run: Run) -> Any:
    return upset_figure(_table(run.family_sets), run.info["families"]["spaces"])


def _depth(run: Run) -> dict[str, Any]:
    return (run.info.get("families") or {}).get("depth") or {}


def _passages(run: Run, model: str | None = None) -> Any:
    models = [own["model"] for own in _depth(run)["lasting"]]
    if model is not None and model not in models:
        raise UserError(f"no layers of {model!r}{did_you_mean(model, models)}: there are those of {', '.join(models)}")
    wanted = model or models[0]
    return passages_figure([row for row in _depth(run)["passages"] if row["model"] == wanted])


def _depths(run: Run) -> Any:
    return correspondence_figure(_depth(run)["correspondence"], depths_of(run))


def _transfer(run: Run, spaces: Spaces | None = None) -> Any:
    """From the first space to the second, whichever way round they were compared."""
    table = _table(run.transfer)
    to = table["direction"] == "a_to_b"
    source, target = (
        table[one].where(to, table[other]) for one, other in (("space_a", "space_b"), ("space_b", "space_a"))
    )
    if spaces is None:
        spaces = source.iloc[0], target.iloc[0]
    own = table[(source == spaces[0]) & (target == spaces[1])]
    if own.empty:
        known = dict.fromkeys(f"{a} → {b}" for a, b in zip(source, target, strict=True))
        raise UserError(f"nothing was carried from {spaces[0]} to {spaces[1]}: it was for {', '.join(known)}")
    return transfer_figure(own.set_index("variant"))


def _effects(run: Run, spaces: Spaces | None = None) -> Any:
    table = _table(run.effects)
    a, b = spaces or (table["space_a"].iloc[0], table["space_b"].iloc[0])
    own = table[(table["space_a"] == a) & (table["space_b"] == b)].dropna(subset=["removed"])
    if own.empty:
        known = dict.fromkeys(f"{x} × {y}" for x, y in zip(table["space_a"], table["space_b"], strict=True))
        raise UserError(f"no effects of {a} × {b} were compared: there are those of {', '.join(known)}")
    return effects_figure(own)


def _categories(run: Run, metric: str | None = None, settings: Any = None) -> Any:
    names = categories(run)
    first = measures(run, names[0])[0]
    return categories_figure(run, first if metric is None else find_measure(run, metric, settings, names[0]))


def _table(table: pd.DataFrame | None) -> pd.DataFrame:
    assert table is not None
    return table


def _always(run: Run) -> bool:
    return True


FIGURES: dict[str, Named] = {
    "controls": Named("every comparison beside chance, ceilings and controls", controls_figure, _always),
    "heatmap": Named("layer × layer: a measure, its null, the corrected score, or pairs kept", _heatmap, _always),
    "correlation": Named("r of the pairs of two spaces, fitted and held out", _correlation, _always),
    "heldout": Named(
        "held-out r against fitted r",
        _of_pairs(distributions.heldout_figure, "correlation_heldout"),
        _has("correlation_heldout"),
    ),
    "elsewhere": Named(
        "r on another kind of text against r here",
        _of_pairs(distributions.elsewhere_figure, "correlation_elsewhere"),
        _has("correlation_elsewhere"),
    ),
    "within_token": Named(
        "r within token against r",
        _of_pairs(distributions.beyond_token_figure, "correlation_within_token"),
        _has("correlation_within_token"),
    ),
    "partners": Named("r of every feature's best partner, in aligned and in shifted text", _partners, _always),
    "families": Named(
        "how many families each set of spaces has (UpSet)", _families, lambda run: run.family_sets is not None
    ),
    "passages": Named("families from layer to layer of a model (Sankey)", _passages, lambda run: bool(_depth(run))),
    "depths": Named(
        "at which depth of the other model partners stand",
        _depths,
        lambda run: bool(_depth(run).get("correspondence")),
    ),
    "categories": Named("how alike the features of each category lie", _categories, lambda run: bool(categories(run))),
    "transfer": Named(
        "what one model's features carry of another's activations and loss",
        _transfer,
        lambda run: run.transfer is not None and len(run.transfer) > 0,
    ),
    "effects": Named(
        "how alike the effects of pairs are, against r",
        _effects,
        lambda run: run.effects is not None and len(run.effects) > 0,
    ),
}
