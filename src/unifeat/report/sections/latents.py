"""The section on activations, codes and directions: the same measures of all three."""

from __future__ import annotations

from typing import Any

from unifeat.report.figures.style import Drawn
from unifeat.report.tables import cells, role, rows_of
from unifeat.runs.folder import Run

_OF = {"activations": "activations", "codes": "codes of the pairs", "directions": "decoder rows of the pairs"}
_NAMES = {"cka": "CKA", "svcca": "SVCCA", "heldout_cca": "held-out CCA"}


def latents(run: Run, drawn: Drawn) -> dict[str, Any] | None:
    """One row for each pair of spaces; None if the run has no activations."""
    facts = [own for own in run.info["pairs"] if own.get("latents")]
    if not facts:
        return None
    roles = [role(run, (row.group_a, row.group_b)) for row in rows_of(cells(run))]
    rows = []
    for own, part in zip(run.info["pairs"], roles, strict=True):
        if found := own.get("latents"):
            values = [found[what][name] for name in _NAMES for what in _OF]
            shown = {"space_a": own["space_a"], "space_b": own["space_b"], "role": part}
            rows.append(shown | {"rows": found["rows"], "values": values})
    return {
        "latents": rows,
        "latents_of": list(_OF.values()),
        "latents_by": [
            name if name == "CKA" else f"{name}, {facts[0]['latents']['dims']} components" for name in _NAMES.values()
        ],
    }
