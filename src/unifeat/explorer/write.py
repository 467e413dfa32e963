"""The explorer's file: the page, its code and its data in one."""

from __future__ import annotations

import html
import os
import re
import sys
import webbrowser
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from unifeat.errors import UserError
from unifeat.explorer.gather import CONTEXTS, gather
from unifeat.runs.folder import Run
from unifeat.runs.roles import role_of
from unifeat.store import written_aside
from unifeat.store.usage import RunNote

PAGE = "explorer.html"
_MOST_SPACES = 3


def write_explorer(
    run: Run,
    names: list[str] | None = None,
    *,
    contexts: int = CONTEXTS,
    labels: Mapping[str, Mapping[int, str]] | None = None,
) -> Path:
    """Write the explorer of some spaces of a run into the run's folder.

    Args:
        names: two or three of its spaces; by default, the two with the most shared features.
        contexts: most contexts of each feature.
        labels: by space, labels of its features in the place of the run's.

    Returns:
        The file: `explorer.html`, or `explorer-A-B.html` of named spaces.

    Raises:
        UserError: other than two or three different spaces; spaces that the run does not have or did not compare;
            what the cache no longer holds.
    """
    chosen = _chosen(run, names)
    path = run.folder / (PAGE if not names else f"explorer-{'-'.join(map(_file_name, chosen))}.html")
    note = RunNote(run.folder, run.info["name"], path.name)
    with note.under_way():
        gathered = gather(run, chosen, contexts, labels)
    page = files("unifeat.explorer") / "page"
    text = (page / "explorer.html").read_text(encoding="utf-8")
    parts = {
        "title": html.escape(f"{' × '.join(chosen)} · unifeat explorer"),
        "run": html.escape(str(run.info["created"])),
        "css": (page / "explorer.css").read_text(encoding="utf-8"),
        "js": (page / "explorer.js").read_text(encoding="utf-8"),
        "licences": html.escape((page / "LICENCES.txt").read_text(encoding="utf-8")),
        "contexts_shown": str(contexts),
        "features": gathered.features,
        "contexts": gathered.contexts,
    }
    with written_aside(path) as aside:
        aside.write_text(re.sub(r"\{\{ (\w+) \}\}", lambda at: parts[at[1]], text), encoding="utf-8")
    note.finish(run.info["created"])
    return path


def show_page(page: Path) -> bool:
    """Open a page in the browser; returns False where nobody would see it: no terminal, or no screen."""
    screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not screen or not sys.stdout.isatty():
        return False
    return webbrowser.open(page.resolve().as_uri())


def _chosen(run: Run, names: list[str] | None) -> list[str]:
    pairs = run.info["pairs"]
    if not names:
        return _richest(run)
    if not 2 <= len(names) <= _MOST_SPACES or len(set(names)) < len(names):
        raise UserError(f"name two or three different spaces, such as {' '.join(_richest(run))}, or none")
    compared = {frozenset((pair["space_a"], pair["space_b"])) for pair in pairs}
    for name in names if all(name in run.info["spaces"] for name in names) else ():  # (others are reported later)
        if not any(frozenset((name, other)) in compared for other in names):
            others = " or ".join(other for other in names if other != name)
            raise UserError(f"run {run.folder} did not compare {name} with {others}")
    return list(names)


def _richest(run: Run) -> list[str]:
    """The two spaces that share the most features; ceilings and controls only if there are no others."""
    spaces, pairs = run.info["spaces"], run.info["pairs"]
    ordinary = [pair for pair in pairs if role_of(spaces[pair["space_a"]], spaces[pair["space_b"]]) == "ordinary"]
    if not pairs:
        raise UserError(f"run {run.folder} compared no spaces")
    most = max(ordinary or pairs, key=lambda pair: int(pair["kept"]))
    return [most["space_a"], most["space_b"]]


def _file_name(space: str) -> str:
    """A space's name as part of a file's name."""
    return re.sub(r"[^\w@.+=-]+", "_", space)
