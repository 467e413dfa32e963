"""The output of `unifeat cache`: what the cache holds, how large it is, and which studies use it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from unifeat.report.framed import framed
from unifeat.report.terminal_plan import size
from unifeat.store.usage import KINDS, RUNS, Entry, Reason, when


def show_cache(root: Path, entries: list[Entry]) -> None:
    """Print one line per kind of entry, and one line per study."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{root}: {size(sum(entry.size for entry in entries))}", soft_wrap=True)
    if not entries:
        return
    rows = []
    kinds = sorted(
        {entry.kind for entry in entries if entry.kind != RUNS},
        key=lambda k: -sum(e.size for e in entries if e.kind == k),
    )
    for kind in kinds:
        own = [entry for entry in entries if entry.kind == kind and not entry.leftover]
        if own:
            used = [entry for entry in own if entry.studies]
            changed = when(max(entry.changed for entry in own))
            rows.append([KINDS.get(kind, kind), f"{len(own):,}", size(_sum(own)), size(_sum(used)), changed])
    left = [entry for entry in entries if entry.leftover]
    if left:
        changed = when(max(entry.changed for entry in left))
        rows.append(["left behind by kills", f"{len(left):,}", size(_sum(left)), "", changed])
    console.print(framed(["", "pieces", "size", "used by kept runs", "last changed"], rows, left=1))
    studies = sorted({study for entry in entries for study in entry.studies})
    if studies:
        rows = []
        for study in studies:
            used = [entry for entry in entries if study in entry.studies]
            alone = [entry for entry in used if len(entry.studies) == 1]
            rows.append([study, f"{len(used):,}", size(_sum(used)), size(_sum(alone))])
        console.print()
        console.print(framed(["study", "pieces", "size", "used by no other study"], rows, left=1))
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
    rows = []
    for kind, reason in dict.fromkeys((entry.kind, reason) for entry, reason in chosen):
        own = [entry for entry, why in chosen if (entry.kind, why) == (kind, reason)]
        rows.append([KINDS.get(kind, kind), reason, f"{len(own):,}", size(_sum(own))])
    rows.append(["in all", "", f"{len(chosen):,}", size(_sum([entry for entry, _ in chosen]))])
    console.print(framed(["to be removed", "because", "pieces", "size"], rows, left=2))


def _sum(entries: list[Entry]) -> int:
    return sum(entry.size for entry in entries)
