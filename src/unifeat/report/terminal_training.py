"""The table at the end of `unifeat train`."""

from __future__ import annotations

from unifeat.report.tables import decimal
from unifeat.saes.training.run import Trained


def trained_table(trained: list[Trained]) -> list[list[str]]:
    """Headings, and one row per SAE with its figures on held-out documents."""
    rows = [["SAE", "features", "FVU", "L0", "dead", "loss recovered", "held-out tokens"]]
    for one in trained:
        quality, recovered = one.quality, one.loss.recovered
        rows.append(
            [
                one.folder.name,
                f"{one.about['settings']['features']:,}",
                decimal(quality.fvu, 3),
                decimal(quality.l0, 1),
                f"{quality.dead_share:.1%}",
                decimal(recovered, 3),
                f"{quality.tokens:,}",
            ]
        )
    return rows


def print_trained(trained: list[Trained]) -> None:
    """Print the table, and where the SAEs are, on stdout."""
    rows = trained_table(trained)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        print(first[0].ljust(first[1]), *(text.rjust(width) for text, width in others), sep="  ")
    print()
    for folder in sorted({str(one.folder.parent) for one in trained}):
        print(f"saved in {folder}; each SAE's README.md says how it was trained, its training.json has the curve")
