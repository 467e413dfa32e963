"""What commands have in common: their usual options, and what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyPath = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where to put the result.")]
Repair = Annotated[bool, typer.Option("--repair", hidden=True, help="Not needed: damage is repaired automatically.")]
Force = Annotated[bool, typer.Option("--force", help="Continue with SAEs that fail the check at the start.")]
EngineName = Annotated[
    str, typer.Option("--engine", help="local: this machine; ray: a Ray cluster (pip install 'unifeat[ray]').")
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="For ray: its head. By default the one here, or a new one."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, max=4096, help="Cores of one unit of work; by default a machine's.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress: only results, warnings and errors.")]


def folder_named(out: Path | None) -> Path | None:
    """The folder that --out names, checked that it can be written."""
    from unifeat.store.paths import new_folder

    return None if out is None else new_folder(out, "--out")


def set_quiet(quiet: bool) -> None:
    """Show progress, or not."""
    from unifeat.progress import set_mode

    set_mode("quiet" if quiet else "auto")
