"""Facts of a space, for `run.json`."""

from __future__ import annotations

from typing import Any

from unifeat.codes.store import CodeStore
from unifeat.pipeline.loading import PlannedSpace
from unifeat.saes.quality import fvu
from unifeat.study.spec import ModelSpec, SpacesSpec


def facts_of(space: PlannedSpace, counted: dict[str, int]) -> dict[str, Any]:
    """Counts and quality of a space, from its shards."""
    return facts_of_store(space.store, counted, space.codes)


def facts_of_store(store: CodeStore, counted: dict[str, int], encoded_as: str) -> dict[str, Any]:
    """Counts and quality of codes, from their shards."""
    totals = store.totals()
    return {
        "d_sae": store.features,
        "tokens_read": int(totals["read"]),
        "masked": {reason: int(totals[reason]) for reason in ("special", "first", "sink")},
        "padding": int(totals.get("pad", 0)),
        "tokens_kept": store.rows,
        "l0": counted["nonzeros"] / store.rows if store.rows else None,
        "fvu": fvu(totals["fvu_error"], totals["fvu_total"]) if totals.get("fvu_total", 0.0) > 0 else None,
        "alive": counted["alive"],
        "dead_share": float(1 - counted["alive"] / store.features),
        "encoded_as": encoded_as,
        "codes": str(store.folder),
    }


def facts_elsewhere(store: CodeStore | None) -> dict[str, Any] | None:
    """How a space reads the text elsewhere: counts, and whether its SAE still explains the activations there."""
    if store is None:
        return None
    totals, entries = store.totals(), store.manifest["shards"]
    return {
        "tokens_read": int(totals["read"]),
        "tokens_kept": store.rows,
        "l0": sum(entry["nonzeros"] for entry in entries) / store.rows if store.rows else None,
        "fvu": fvu(totals["fvu_error"], totals["fvu_total"]) if totals.get("fvu_total", 0.0) > 0 else None,
        "codes": str(store.folder),
    }


def control_of(model: ModelSpec, spaces: SpacesSpec) -> str | None:
    """What makes these spaces a control; None for ordinary spaces."""
    kinds = {"random weights": model.randomise, "random directions": spaces.random_directions}
    return " and ".join(kind for kind, seed in kinds.items() if seed is not None) or None
