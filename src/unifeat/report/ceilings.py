"""How near scores come to their ceiling, and whether controls are shown to be no more alike than chance; as text."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pandas as pd

from unifeat.report.tables import (
    SIGNIFICANCE_LEVEL,
    Measure,
    cells,
    decimal,
    is_missing,
    measures,
    number,
    probability,
    rows_of,
    scores_of,
    span,
)
from unifeat.runs.folder import Run
from unifeat.runs.roles import role_of

_NOTABLE_CHANCE = 0.05  # a share of the ceiling that chance alone gives, and that has to be said


class Beside(NamedTuple):
    """The scores of some cells by each measure, as text.

    Attributes:
        ways: the measures.
        rows: a name, and a text for each measure.
    """

    ways: list[Measure]
    rows: list[tuple[str, list[str]]]


def share(value: Any) -> str:
    """`33 %`, `−2 %`; – if there is no value."""
    return "–" if is_missing(value) else f"{decimal(100 * value, 0)} %"


def share_text(row: Any) -> str:
    """`33 % (28 to 38 %)`: a score's share of its ceiling, with its interval if it has one."""
    if is_missing(getattr(row, "ceiling_share", None)):
        return "–"
    if is_missing(row.ceiling_share_low):
        return share(row.ceiling_share)
    low = share(row.ceiling_share_low).removesuffix(" %")
    return f"{share(row.ceiling_share)} ({low} to {share(row.ceiling_share_high)})"


def chance_text(row: Any) -> str:
    """`, chance 31 %` where chance alone reaches a notable share of the ceiling."""
    chance: Any = getattr(row, "ceiling_share_chance", None)
    return "" if is_missing(chance) or chance < _NOTABLE_CHANCE else f", chance {share(chance)}"


def equivalence_text(row: Any) -> str:
    """Whether a score is shown to be no more than chance, with the margin and p; – if that was not tested."""
    p: Any = getattr(row, "p_equivalent", None)
    if is_missing(p):
        return "–"
    shown = p < SIGNIFICANCE_LEVEL
    words = "no more alike than chance, within" if shown else "not shown to be within"
    return f"{words} {row.equivalence_margin:g}{'' if shown else ' of chance'} (p = {probability(p)})"


def shares_of_ceiling(table: pd.DataFrame) -> str:
    """The shares of several scores as a range, with chance's where that is notable; empty if none has one."""
    if "ceiling_share" not in table or table["ceiling_share"].isna().all():
        return ""
    known = table[table["ceiling_share"].notna()]
    chance = known["ceiling_share_chance"]
    notable = chance.max() >= _NOTABLE_CHANCE
    return span(known["ceiling_share"], share) + (f", chance {span(chance, share)}" if notable else "")


def near_ceilings(run: Run) -> Beside:
    """The share of the ceiling of every cell that has one, by each measure."""
    return _beside(run, lambda row: share_text(row) + chance_text(row), lambda role, row: row.ceiling_of != "")


def controls_at_chance(run: Run) -> Beside:
    """Whether controls are shown to be no more alike than chance, by each measure."""

    def text(row: Any) -> str:
        if is_missing(row.p_equivalent):
            return "no interval to tell by"  # such as of halves that are saturated
        return (
            "yes" if row.p_equivalent < SIGNIFICANCE_LEVEL else "not shown"
        ) + f" (p {probability(row.p_equivalent)})"

    return _beside(run, text, lambda role, row: role == "control" and not is_missing(row.p_equivalent))


def _beside(run: Run, write: Any, wanted: Any) -> Beside:
    ways = measures(run)
    if not {"ceiling_of", "p_equivalent"} <= {*run.scores}:
        return Beside(ways, [])
    texts: dict[str, list[str]] = {}
    shown: set[str] = set()
    for way in ways:
        for row in rows_of(scores_of(run, way)):
            name = f"{row.space_a} × {row.space_b}"
            texts.setdefault(name, []).append(write(row))
            if wanted(cell_role(run, row), row):
                shown.add(name)
    return Beside(ways, [(name, own) for name, own in texts.items() if name in shown])


def cell_role(run: Run, row: Any) -> str:
    """What a cell's two spaces are compared for (see `role_of`)."""
    spaces = run.info["spaces"]
    return role_of(spaces[row.space_a], spaces[row.space_b])


class CellGeometry(NamedTuple):
    """The geometry of one pair of spaces beside its ceiling and chance.

    Attributes:
        ceilings: of whose spaces the study has ceilings: `a`, `b`, `both`, or empty.
        pairs: at how many pairs scores and ceilings are compared.
        kept: a sentence on the number of pairs beside the ceilings'; may be empty.
        lines: for each measure its label, score, mean of shuffles, ceiling, share, chance's share, and what is said of
            equivalence (of controls only); all as text.
    """

    ceilings: str
    pairs: str
    kept: str
    lines: list[dict[str, str]]


def cell_geometry(run: Run, cell: Any) -> CellGeometry | None:
    """The geometry of a cell (a row of `cells`); None if it has neither a ceiling nor a test of equivalence."""
    control = cell_role(run, cell) == "control"
    lines, of, pairs = [], "", 0
    for way in measures(run):
        table = scores_of(run, way)
        for row in rows_of(table[table["cell"] == cell.cell]):
            of, pairs = getattr(row, "ceiling_of", "") or of, max(getattr(row, "ceiling_pairs", 0), pairs)
            lines.append(
                {
                    "label": way.short,
                    "score": decimal(row.score, 3),
                    "shuffled": decimal(row.null_mean, 3),
                    "ceiling": decimal(getattr(row, "ceiling", None), 3),
                    "share": share_text(row),
                    "chance": share(getattr(row, "ceiling_share_chance", None)),
                    "equivalence": equivalence_text(row) if control else "–",
                }
            )
    if not of and all(line["equivalence"] == "–" for line in lines):
        return None
    return CellGeometry(of, number(pairs), kept_beside_ceiling(cell), lines)


def kept_beside_ceiling(cell: Any) -> str:
    """A sentence on the number of pairs and the match rates beside the ceilings'; empty without one."""
    facts = getattr(cell, "ceiling", None)
    if not isinstance(facts, dict) or is_missing(facts["kept_share"]):
        return ""
    sentence = f"{cell.kept:,} pairs are {share(facts['kept_share'])} of the {number(facts['kept'])} of its ceiling."
    rates = [
        f"of the features of {getattr(cell, f'space_{side}')} that a second SAE finds again, the other model has "
        f"{share(facts[f'rate_{side}_share'])} as many"
        for side in "ab"
        if not is_missing(facts[f"rate_{side}_share"])
    ]
    return f"{sentence} {_capital('; '.join(rates))}." if rates else sentence


def ceiling_sentence(run: Run, best: int) -> str:
    """How near one pair of spaces comes to its ceiling: the richest if it has one, else another ordinary one.

    By the measure with the shortest interval, of those for which chance alone has no notable share.
    """
    rows: list[tuple[tuple[bool, bool, bool, int, float], Any, Measure]] = []
    for way in measures(run):
        for row in rows_of(scores_of(run, way)):
            if is_missing(getattr(row, "ceiling_share", None)) or cell_role(run, row) != "ordinary":
                continue
            plain = not is_missing(row.ceiling_share_chance) and abs(row.ceiling_share_chance) < _NOTABLE_CHANCE
            length = row.ceiling_share_high - row.ceiling_share_low
            shortest = -math.inf if is_missing(length) else -length
            rows.append(((plain, row.ceiling_of == "both", row.cell == best, row.kept, shortest), row, way))
    if not rows:
        return ""
    _, row, way = max(rows, key=lambda found: found[0])  # the first of equals
    facts = rows_of(cells(run))[row.cell]
    kept = (getattr(facts, "ceiling", None) or {}).get("kept_share")
    pairs = "" if is_missing(kept) else f", and {share(kept)} of its number of pairs"
    sides = {"both": "both spaces’", "a": f"{row.space_a}’s", "b": f"{row.space_b}’s"}[row.ceiling_of]
    return (
        f"In {way.short}, {row.space_a} × {row.space_b} reaches {share_text(row)} of its ceiling, which second SAEs of "
        f"{sides} own activations set{chance_text(row)}{pairs}."
    )


def control_sentence(run: Run) -> str:
    """How many scores of controls are shown to be no more than chance."""
    if "p_equivalent" not in run.scores:
        return ""
    own = [row for way in measures(run) for row in rows_of(scores_of(run, way)) if cell_role(run, row) == "control"]
    tested = [row for row in own if not is_missing(row.p_equivalent)]
    if not tested:
        return ""
    shown = sum(row.p_equivalent < SIGNIFICANCE_LEVEL for row in tested)
    over = [row for row in own if not is_missing(row.q) and row.q < SIGNIFICANCE_LEVEL]
    margin = f"{tested[0].equivalence_margin:g}"
    untested = f", and {len(own) - len(tested)} could not be tested" if len(tested) < len(own) else ""
    exceed = "none exceeds" if not over else f"{len(over)} exceed{'s' if len(over) == 1 else ''}"
    if over:
        most = max(row.score - row.null_mean for row in over)
        exceed += f" (by at most {decimal(most, 3)})"
    return (
        f"Of {len(own)} scores of controls, {exceed} what shuffled pairs reach (q < {SIGNIFICANCE_LEVEL:g}); {shown} "
        f"{'is' if shown == 1 else 'are'} shown to be within {margin} of chance{untested}."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
