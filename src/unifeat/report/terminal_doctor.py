"""What a machine has, on the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.console import Console

from unifeat.report.framed import framed


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: what.
        found: what there is.
        advice: what would be faster or is missing; empty if all is well.
    """

    what: str
    found: str
    advice: str = ""


def print_found(findings: list[Finding], *, as_json: bool) -> None:
    """Print what was found, then the advice, a line each."""
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=1))
        return
    console = Console(highlight=False)
    console.print(framed(["", ""], [[finding.what, finding.found] for finding in findings], left=2))
    advice = [finding for finding in findings if finding.advice]
    if advice:
        console.print()
    for finding in advice:
        console.print(f"{finding.what}: {finding.advice}", markup=False, soft_wrap=True)
