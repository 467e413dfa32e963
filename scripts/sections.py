"""Pages that several scripts write: each its own section, between two marks, leaving the others' alone."""

from __future__ import annotations

from pathlib import Path

from unifeat.store import written_aside


def put(page: Path, script: str, text: str) -> None:
    """Write a script's section of a page: in the place of its old one, or at the end."""
    first, last = f"<!-- written by {script} -->\n", f"<!-- end of {script} -->\n"
    section = first + text.rstrip("\n") + "\n" + last
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    if first in old:
        before, rest = old.split(first)
        section = before + section + rest.split(last)[1]
    else:
        section = old + ("\n" if old else "") + section
    with written_aside(page) as aside:
        aside.write_text(section, encoding="utf-8")
