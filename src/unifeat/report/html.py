"""The HTML report: a single file, including figures, that opens without a network.

The page is `templates/report.html.j2`, with its style and script beside it; `SECTIONS` lists its sections. The template
escapes all text, and the page's content policy forbids any request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unifeat.inference.nulls import AGAIN
from unifeat.report.decidable import LEGEND, MARK, any_undecidable, draws_of, stopped_early, tally, undecidable
from unifeat.report.figures.controls import controls_figure
from unifeat.report.figures.style import COLOURS, SCALE, Drawn
from unifeat.report.overview import group_overview
from unifeat.report.score_table import score_table
from unifeat.report.sections.categories import subspaces
from unifeat.report.sections.compared import compared
from unifeat.report.sections.effects import effects
from unifeat.report.sections.families import families
from unifeat.report.sections.latents import latents
from unifeat.report.sections.layers import layers
from unifeat.report.sections.one_pair import one_pair
from unifeat.report.sections.published import published
from unifeat.report.sections.steering import steering
from unifeat.report.sections.transfer import transfer
from unifeat.report.some_pairs import some_pairs
from unifeat.report.summary import summary
from unifeat.report.tables import (
    SIGNIFICANCE_LEVEL,
    cells,
    decimal,
    group_pairs,
    number,
    percent,
    probability,
    role,
    span,
    study_of,
)
from unifeat.runs.folder import Run
from unifeat.store import write_text

if TYPE_CHECKING:
    import jinja2


_EXPLORERS = re.compile(r'<p id="explorers".*?</p>', re.DOTALL)
_HEAD = 2000  # characters of an explorer's file in which it says of which run it is


class Section(NamedTuple):
    """One section of the page.

    Attributes:
        id: the id of its element, and the name of its template: `templates/<id>.html.j2`.
        title: its heading, and its name in the page's navigation.
        gather: from a run to the data of its template; adds figures to its second argument. None leaves the section
            out.
        fold: what is inside, of a section that is folded away; its template has no heading.
    """

    id: str
    title: str
    gather: Callable[[Run, Drawn], dict[str, Any] | None]
    fold: str = ""


# The answer before the evidence: comparisons, features, what they have to do with each other; then, folded away, what
# was done to get them.
SECTIONS = (
    Section("layers", "Every comparison", layers),
    Section("cell", "Shared features", one_pair),
    Section("families", "Families over many spaces", families),
    Section("subspaces", "Subspaces", subspaces),
    Section("transfer", "One model on another’s features", transfer),
    Section("effects", "What pairs do to the next token", effects),
    Section("steering", "Steering across models", steering),
    Section("published", "Published beside measured", published),
    Section("latents", "Activations, codes and directions", latents, "the same measures of each, beside each other"),
    Section("compared", "What was compared", compared, "models, SAEs, text, tokens read, masked and aligned"),
    Section("scores", "All scores", score_table, "each with its nulls, p, q and flags, in a table to sort"),
)


def write_report(run: Run) -> Path:
    """Write a run's `report.html` whole or not at all; returns its path."""
    write_text(run.report, render(run))
    return run.report


def render(run: Run) -> str:
    """The report as HTML text."""
    from plotly.offline import get_plotlyjs

    environment = _environment()
    assert environment.loader is not None
    css, js = (environment.loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    drawn: Drawn = {"dots": controls_figure(run)}
    shown, context = [], _page(run)
    for section in SECTIONS:
        found = section.gather(run, drawn)
        if found is not None:
            shown.append(section)
            context |= found
    # The figures are JSON in a script element, which must not contain "<".
    page = {"elsewhere": context["elsewhere"], "folder": str(context["folder"])}
    data = json.dumps({"colours": {v: f"--{k}" for k, v in COLOURS.items()}, "figures": drawn} | page)
    return environment.get_template("report.html.j2").render(
        context,
        sections=shown,
        scale=_css_scale(),
        css=css,
        js=js,
        plotly=get_plotlyjs(),
        data=data.replace("<", "\\u003c"),
    )


@cache
def _environment() -> jinja2.Environment:
    """The templates, compiled once a process."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unifeat.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "decimal": decimal,
        "probability": probability,
        "unbroken": _unbroken,
    }
    return environment


def _page(run: Run) -> dict[str, Any]:
    """The data above and below the sections, and what several sections use."""
    study = study_of(run)
    inference = study.get("inference", {})
    return {
        "run": run,
        "folder": run.goes_to or run.folder,
        "info": run.info,
        "explorers": explorers(run),
        "groups": _title_groups(run),
        "summary": summary(run),
        "headline": _headline(run),
        "some_pairs": some_pairs(run),
        "groups_overview": dict(zip(("measures", "lines"), group_overview(run), strict=True)),
        "nulls": _nulls(run, inference),
        "level": inference.get("level", 0.95),
        "permutations": inference.get("permutations"),
        "minimum": study.get("matching", {}).get("min_correlation"),
        "heldout": bool(study.get("matching", {}).get("heldout", True)),
        "significant": SIGNIFICANCE_LEVEL,
        "undecidable_mark": MARK,
        "ceilings": "ceiling_share" in run.scores and bool(run.scores["ceiling_share"].notna().any()),
        "equivalence": _margin(run),
        "draws": draws_of(run),
        "stopped_early": stopped_early(run),
        "undecidable": LEGEND if any_undecidable(run) else "",
        "study": (run.folder / "study.yaml").read_text(encoding="utf-8") if study else "",
    }


def link_explorers(run: Run) -> None:
    """Name the explorer's files in a report that was written before them, if there is one."""
    if run.report.is_file():
        text = run.report.read_text(encoding="utf-8")
        shown = _environment().get_template("explorers.html.j2").render(explorers=explorers(run))
        write_text(run.report, _EXPLORERS.sub(lambda _: shown.strip(), text, count=1))


def explorers(run: Run) -> list[str]:
    """The names of the explorer's files in the run's folder that were made of this run, not of an earlier one there."""
    made_of = f'<meta name="unifeat-run" content="{escape(str(run.info["created"]))}">'
    found = []
    for path in sorted(run.folder.glob("explorer*.html")):
        with path.open(encoding="utf-8", errors="replace") as file:
            if made_of in file.read(_HEAD):
                found.append(path.name)
    return found


def _margin(run: Run) -> str:
    """The margin of equivalence, if controls were tested; else empty."""
    margin = study_of(run).get("inference", {}).get("equivalence")
    controls = any(info.get("control") for info in run.info["spaces"].values())
    return f"{margin:g}" if margin and controls else ""


def _nulls(run: Run, inference: dict[str, Any]) -> list[tuple[str, str, int]]:
    """The nulls that match again: (label, what is rearranged, draws: those made, which may be fewer than asked for)."""
    asked = {"rematch": inference.get("rematches")} | {name: inference.get(name) for name in AGAIN if name != "rematch"}
    found = []
    for name, draws in asked.items():
        facts = [own[name] for own in run.info["pairs"] if isinstance(own.get(name), dict)]
        made = [own.get("draws") or len(own["kept"]) for own in facts]
        if draws:
            found.append((AGAIN[name].label, AGAIN[name].what, max(made, default=draws)))
    return found


def _title_groups(run: Run) -> list[str]:
    """The groups of spaces in the title; ceilings and controls only if there are no others."""
    ordinary = [pair for pair in group_pairs(run) if not role(run, pair)]
    return list(dict.fromkeys(name for pair in ordinary or group_pairs(run) for name in pair))


def _headline(run: Run) -> list[tuple[str, str]]:
    """A few figures for the top of the page: (label, value)."""
    every, whole = cells(run), run.scores[run.scores["subspace"] == "all"]
    ordinary = [not role(run, pair) for pair in zip(every["group_a"], every["group_b"], strict=True)]
    table = every[ordinary] if any(ordinary) else every
    shown = [
        ("documents", number(run.info["text"]["documents"])),
        ("tokens compared", span(table["tokens_aligned"])),
        ("pairs of spaces", number(len(table))),
        ("feature pairs kept", number(table["kept"].sum())),
    ]
    compared = set(zip(table["space_a"], table["space_b"], strict=True))
    own = whole[[pair in compared for pair in zip(whole["space_a"], whole["space_b"], strict=True)]]
    if "q" in own and own["q"].notna().any():
        why = undecidable(run)["q"].loc[own.index]
        shown.append((f"scores with q < {SIGNIFICANCE_LEVEL:g}", str(tally(own.assign(undecidable=why)))))
    if len(table) < len(every):
        shown.append(("ceilings and controls beside them", number(len(every) - len(table))))
    return shown


def _css_scale() -> str:
    from plotly.colors import get_colorscale

    return ", ".join(colour for _, colour in get_colorscale(SCALE))


def _unbroken(sentence: str) -> str:
    """A sentence in which a number stays on the line of its sign."""
    return sentence.replace(" %", "\u00a0%").replace(" ≤ ", "\u00a0≤\u00a0").replace("p = ", "p\u00a0=\u00a0")
