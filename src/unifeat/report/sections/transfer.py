"""The section on running one model on another's features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from unifeat.report.figures.style import Drawn
from unifeat.report.figures.transfer import FROM_A, MATCHED, MEAN, MIXED, OWN, ZERO, transfer_figure
from unifeat.report.tables import cells, role, rows_of, study_of
from unifeat.runs.folder import Run

LABELS = {
    "clean": "the model unchanged",
    OWN: "its own SAE",
    MIXED: "its own SAE, matched features from the other model",
    ZERO: "its own SAE, matched features at their mean",
    MATCHED: "matched features alone",
    FROM_A: "matched features alone, from the other model",
    MEAN: "all features at their mean",
    "ridge_of_all_codes": "a linear map from all codes of the other model",
    "affine": "a linear map of the other model’s activations",
    "rotation": "a scaled rotation of them",
    "map_and_back": "its own activations, mapped to the other model and back",
    "sae_through_map": "the same through the other model’s SAE",
    "sae_as_it_is": "the other model’s SAE without a map",
}
_QUANTILES = 4
_BY = {
    "correlation_heldout": "r on held-out documents",
    "correlation_within_token": "r within token",
    "frequency": "how often the pair fires",
}


def transfer(run: Run, drawn: Drawn) -> dict[str, Any] | None:
    """Both directions of every cell that was run; None without `transfer`."""
    table = run.transfer
    if table is None or not len(table):
        return None
    roles = {
        (row.space_a, row.space_b): role(run, (row.group_a, row.group_b)) for row in rows_of(cells(run))
    }  # fmt: skip
    shown = []
    for number, ((a, b, direction), own) in enumerate(table.groupby(["space_a", "space_b", "direction"], sort=False)):
        source, target = (a, b) if direction == "a_to_b" else (b, a)
        by_variant = own.set_index("variant")
        mixed = by_variant.loc[MIXED]
        key = f"transfer-{number}"
        drawn[key] = transfer_figure(by_variant)
        order = [name for name in LABELS if name in by_variant.index]
        shown.append(
            {
                "source": source,
                "target": target,
                "role": roles.get((a, b), ""),
                "key": key,
                "carried": mixed.to_dict(),
                "at_stake": _at_stake(by_variant),
                "rows": [{"label": LABELS[name], **by_variant.loc[name].to_dict()} for name in order],
                "with_loss": bool(by_variant["loss"].notna().any()),
                "quantiles": _by_quantile(run, str(a), str(b), str(direction)),
            }
        )
    asked = study_of(run).get("transfer") or {}
    return {"transfers": shown, "transfer_draws": (asked.get("draws", 100), asked.get("loss_draws", 19))}


def _at_stake(table: pd.DataFrame) -> dict[str, float]:
    """What matched features are worth in all: from their mean to the SAE's own codes."""
    both = ZERO in table.index and OWN in table.index
    return {name: float(table[name][ZERO] - table[name][OWN]) if both else np.nan for name in ("fvu", "loss")}


def _by_quantile(run: Run, a: str, b: str, direction: str) -> list[dict[str, Any]]:
    """Which shared features carry the load: the share carried by quarters of the pairs."""
    table = run.transfer_pairs
    if table is None:
        return []
    own = table[(table["space_a"] == a) & (table["space_b"] == b) & (table["direction"] == direction)]
    pairs = run.space_pair(a, b).query("kept")
    pairs = pairs.assign(frequency=np.sqrt(pairs["count_a"] * pairs["count_b"].astype(float)))
    merged = own.merge(pairs, on=["feature_a", "feature_b"], suffixes=("", "_"))
    found = []
    for column, label in _BY.items():
        known = merged.dropna(subset=[column]) if column in merged else merged.iloc[:0]
        if len(known) < 4 * _QUANTILES:
            continue
        quarter = pd.qcut(known[column].rank(method="first"), _QUANTILES, labels=False)
        parts = []
        for number in range(_QUANTILES):
            part = known[quarter == number]
            below = part["lowered_own"].sum()
            parts.append(
                {
                    "from": part[column].min(),
                    "to": part[column].max(),
                    "carried": part["lowered"].sum() / below if below > 0 else np.nan,
                    "load": below / known["lowered_own"].sum(),
                }
            )
        found.append({"label": label, "counts": column == "frequency", "parts": parts})
    return found
