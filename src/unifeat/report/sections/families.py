"""The section on families of features over many spaces."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unifeat.report.contexts import visible
from unifeat.report.figures.families import MOST_SETS, correspondence_figure, passages_figure, upset_figure
from unifeat.report.figures.style import Drawn
from unifeat.report.labels import label_of_family
from unifeat.report.tables import depths_of, rows_of
from unifeat.runs.folder import Run

_LISTED = 15
_MEASURES = {
    "r_mean": "mean r",
    "r_min": "least r",
    "r_heldout_mean": "held out",
    "r_within_token_mean": "within token",
}


def families(run: Run, drawn: Drawn) -> dict[str, Any] | None:
    """Sets of spaces beside chance, the largest and random families; None without `families`."""
    table, sets, facts = run.families, run.family_sets, run.info.get("families")
    if table is None or sets is None or facts is None:
        return None
    spaces = facts["spaces"]
    drawn["families"] = upset_figure(sets, spaces)
    labels = {name: run.labels_of(name) for name in spaces}
    known = [name for name in _MEASURES if table[name].notna().any()]
    largest = table.head(_LISTED)
    rest = table.iloc[_LISTED:]
    random = rest.sample(min(_LISTED, len(rest)), random_state=run.info["seed"]).sort_index()
    whole = next((row for row in sets.to_dict("records") if row["size"] == len(spaces)), None)
    return {
        "families_of": facts,
        "family_sets_left": max(int((sets["families"] > 0).sum()) - MOST_SETS, 0),
        "family_whole": whole,
        "family_models": next(iter(facts.get("models") or []), None),  # (older runs have none)
        "family_presence": _presence(facts),
        "family_measures": [_MEASURES[name] for name in known],
        "family_lists": [
            (title, [_family(row, spaces, known, labels) for row in own.to_dict("records")])
            for title, own in (("The largest, strongest first", largest), ("Random others", random))
            if len(own)
        ],
        "family_depth": _depth(run, facts, drawn),
        "sharedness_lists": _sharedness(run),
    }


def _presence(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """What `presence` says of each space, with `in_models`: its features in families of every model, if that is more
    than a matter of spaces."""
    of_models = facts.get("presence_in_models") if facts.get("models") else None
    shares = {row["space"]: row["in_all"] for row in of_models or []}
    return [row | {"in_models": shares.get(row["space"])} for row in facts["presence"]]


def _family(
    row: dict[Any, Any], spaces: list[str], measures: list[str], labels: dict[str, dict[int, str]]
) -> dict[str, Any]:
    members = {name: int(row[name]) for name in spaces if not pd.isna(row[name])}
    return {
        "number": row["family"],
        "label": visible(label_of_family(labels, members)),
        "members": [members.get(name) for name in spaces],
        "values": [row[name] for name in measures],
        "consistency": row["consistency"],
        "coverage": row["coverage"],
        "words": _words(row["top_tokens"]),
    }


def _words(tokens: Any) -> list[str]:
    return list(dict.fromkeys(visible(str(token)).strip(" ") or "␣" for token in tokens))


def _depth(run: Run, facts: dict[str, Any], drawn: Drawn) -> dict[str, Any] | None:
    """Figures of the streams, if there are any."""
    depth = facts["depth"]
    if depth is None:
        return None
    keys = []
    for number, own in enumerate(depth["lasting"]):
        rows = [row for row in depth["passages"] if row["model"] == own["model"]]
        drawn[f"passages-{number}"] = passages_figure(rows)
        keys.append((own["model"], f"passages-{number}", own.get("compared", True)))
    ridge = None
    if depth["correspondence"]:
        drawn["family-depths"] = correspondence_figure(depth["correspondence"], depths_of(run))
        ridge = "family-depths"
    return {"streams": keys, "ridge": ridge, "orders": depth["correspondence"]}


def _sharedness(run: Run) -> list[tuple[str, str, list[Any]]]:
    """For every two groups, the features that the models of the first share most and those of the other least."""
    table = run.sharedness
    if table is None or table.empty:
        return []
    lists = []
    for (group, other), own in table.groupby(["group", "other"], sort=False):
        best = own[own["sharedness"] > 0].nlargest(_LISTED, "sharedness")
        rows = [row._replace(top_tokens=_words(row.top_tokens)) for row in rows_of(best)]
        lists.append((str(group), str(other), rows))
    return [(group, other, rows) for group, other, rows in lists if rows]
