"""What two spaces of a run are compared for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd


def role_of(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What two spaces are compared for, from their facts (`spaces` in `run.json`).

    `ceiling` (two SAEs of one hook point: one model, layer and kind of value), `one model` (two layers of one model),
    `control` or `ordinary`. Ceilings and layers of one model are alike for certain, so their tests are families of
    their own.
    """
    if a.get("control") or b.get("control"):
        return "control"
    if any(a[key] != b[key] for key in ("model", "hook")):
        return "ordinary"
    return "ceiling" if a["layer"] == b["layer"] else "one model"


def questions(scores: pd.DataFrame, role: Callable[[str, str], str]) -> list[str]:
    """The question that each score answers, within which q-values are computed: all pairs or categories, of which role.

    Args:
        scores: `space_a`, `space_b`, `subspace`.
        role: the role of two spaces, by their names.
    """
    parts = zip(scores["space_a"], scores["space_b"], scores["subspace"], strict=True)
    return [f"{'all' if subspace == 'all' else 'categories'} {role(a, b)}" for a, b, subspace in parts]
