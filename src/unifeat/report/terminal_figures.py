"""The figures that a run has, on the terminal."""

from __future__ import annotations

from rich.console import Console

from unifeat.report.figures.named import FIGURES
from unifeat.report.framed import framed
from unifeat.runs.folder import Run


def print_figures(run: Run) -> None:
    """Print the names of the figures that a run has, what each shows, and how to save one."""
    rows = [[name, named.what] for name, named in FIGURES.items() if named.there(run)]
    console = Console(highlight=False)
    console.print(framed(["figure", "shows"], rows, left=2))
    console.print(f"\nunifeat figure {run.folder} {rows[0][0]} --out {rows[0][0]}.svg", markup=False, soft_wrap=True)
