"""What two spaces of a run are compared for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
