"""The output of `unifeat cache`: what the cache holds, how large it is, and which studies use it."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unifeat.report.terminal_plan import size
from unifeat.store.usage import KINDS, RUNS, Entry, Reason, when


def show_cache(root: Path, entries: list[Entry]) -> None:
    """Print one line per kind of entry, and one line per study."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{root}: {size(sum(entry.size for entry in entries))}", soft_wrap=True)
    if not entries:
        return
    table = _table("", "pieces", "size", "used by kept runs", "last changed")
    kinds = sorted(
        {entry.kind for entry in entries if entry.kind != RUNS},
        key=lambda k: -sum(e.size for e in entries if e.kind == k),
    )
    for kind in kinds:
        own = [entry for entry in entries if entry.kind == kind and not entry.leftover]
        if own:
            used = [entry for entry in own if entry.studies]
            changed = when(max(entry.changed for entry in own))
            table.add_row(KINDS.get(kind, kind), f"{len(own):,}", size(_sum(own)), size(_sum(used)), changed)
    left = [entry for entry in entries if entry.leftover]
    if left:
        table.add_row(
            "left behind by kills", f"{len(left):,}", size(_sum(left)), "", when(max(e.changed for e in left))
        )
    console.print(table)
    studies = sorted({study for entry in entries for study in entry.studies})
    if studies:
        table = _table("study", "pieces", "size", "used by no other study")
        for study in studies:
            used = [entry for entry in entries if study in entry.studies]
            alone = [entry for entry in used if len(entry.studies) == 1]
            table.add_row(study, f"{len(used):,}", size(_sum(used)), size(_sum(alone)))
        console.print(table)
    console.print(
        Text("`unifeat cache prune` removes what kills left behind; --unused also what no kept run uses.", style="dim"),
        soft_wrap=True,
    )


def show_prunable(chosen: list[tuple[Entry, Reason]]) -> None:
    """Print what will be removed, by kind and reason."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not chosen:
        console.print("nothing to remove")
        return
    table = _table("to be removed", "because", "pieces", "size")
    for kind, reason in dict.fromkeys((entry.kind, reason) for entry, reason in chosen):
        own = [entry for entry, why in chosen if (entry.kind, why) == (kind, reason)]
        table.add_row(KINDS.get(kind, kind), reason, f"{len(own):,}", size(_sum(own)))
    table.add_row("in all", "", f"{len(chosen):,}", size(_sum([entry for entry, _ in chosen])), style="bold")
    console.print(table)


def _sum(entries: list[Entry]) -> int:
    return sum(entry.size for entry in entries)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        left = number == 0 or heading == "because"
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    return table
