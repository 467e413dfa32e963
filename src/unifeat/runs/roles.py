"""What two spaces of a run are compared for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

LEAST_EXPLAINED = 0.9  # of what the better of two SAEs explains, for the other to set a ceiling with it


def role_of(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What two spaces are compared for, from their facts (`spaces` in `run.json`).

    `ceiling` (two SAEs of one hook point, that is one model, layer and kind of value, which explain about as much of
    it), `one model` (two layers of one model, or two SAEs that explain unlike shares), `control` or `ordinary`.
    Ceilings and layers of one model are alike for certain, so their tests are families of their own.
    """
    if a.get("control") or b.get("control"):
        return "control"
    if any(a[key] != b[key] for key in ("model", "hook")):
        return "ordinary"
    return "ceiling" if a["layer"] == b["layer"] and explain_as_much(a, b) else "one model"


def explain_as_much(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two SAEs of one hook point explain about as much of its variance, so far as that is known.

    An undertrained SAE sets no ceiling: what it shares with a good one is what it has learned so far.
    """
    explained = [1 - own["fvu"] for own in (a, b) if own.get("fvu") is not None]
    return len(explained) < 2 or min(explained) >= LEAST_EXPLAINED * max(explained)


def questions(scores: pd.DataFrame, role: Callable[[str, str], str]) -> list[str]:
    """The question that each score answers, within which q-values are computed: all pairs or categories, of which role.

    Args:
        scores: `space_a`, `space_b`, `subspace`.
        role: the role of two spaces, by their names.
    """
    parts = zip(scores["space_a"], scores["space_b"], scores["subspace"], strict=True)
    return [f"{'all' if subspace == 'all' else 'categories'} {role(a, b)}" for a, b, subspace in parts]
