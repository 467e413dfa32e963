"""The pages of the documentation, and what is in them: blocks of code, code in the prose, command lines, links."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import unifeat

ROOT = Path(__file__).parents[1]
SOURCE = Path(unifeat.__file__).parent
sys.path.insert(0, str(ROOT / "docs"))
from generated_pages import MADE  # noqa: E402

GENERATED = {ROOT / "docs" / name: make for name, make in MADE.items()}  # not in a clone until the site is built
GUIDES = [ROOT / "README.md"]
GUIDES += [path for path in sorted((ROOT / "docs").rglob("*.md")) if path not in GENERATED]
PAGES = [path for path in (*GUIDES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md") if path.exists()]
PAGES += [*sorted((ROOT / "studies").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
_LISTED = re.compile(r"\s{2,}")  # what follows a command in a list of commands is what it does


def named(paths: list[Path]) -> Any:
    """A test for each page."""
    return pytest.mark.parametrize("page", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


def read(path: Path | str) -> str:
    """A page's text; a name is taken from the root."""
    return (ROOT / path).read_text(encoding="utf-8")


@dataclass
class Block:
    """A block of code.

    Attributes:
        language: that of its fence: "" if it says none, "indented" for a block without a fence.
        line: the number of its first line, from 1.
        before: the line before the block.
    """

    language: str
    line: int
    text: str
    before: str


def blocks(text: str) -> Iterator[Block]:
    """The blocks of code of a Markdown text."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line, before = lines[at], lines[at - 1] if at else ""
        if line.startswith("```"):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].startswith("```"))
            yield Block(line[3:].strip(), at + 2, "\n".join(lines[at + 1 : end]), before)
            at = end + 1
        elif line.startswith("    ") and not before.strip():
            end = next((i for i in range(at, len(lines)) if not lines[i].startswith("    ")), len(lines))
            yield Block("indented", at + 1, "\n".join(part[4:] for part in lines[at:end]), before)
            at = end
        else:
            at += 1


def inline(text: str) -> list[str]:
    """What stands between backticks in the prose of a Markdown text."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def commands(text: str) -> Iterator[tuple[str, str, bool]]:
    """The command lines in a Markdown text's blocks and prose.

    Yields:
        The line, what a list of commands says of it, and whether prose only names a command: `unifeat run`.
    """
    for block in blocks(text):
        if block.language in ("", "indented", "bash", "sh", "console"):
            for line in block.text.splitlines():
                if re.match(r"(\$ )?unifeat\b", line):
                    command, *said = _LISTED.split(line.removeprefix("$ ").split(" #")[0], maxsplit=1)
                    yield command, said[0] if said else "", False
    for code in inline(text):
        if re.match(r"unifeat [a-z]+", code):
            yield code, "", code.count(" ") == 1


def broken_links(text: str, folder: Path) -> list[str]:
    """The relative links of a Markdown text that lead nowhere: no file, or no such heading in it."""
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (folder / path).resolve() if path else None
        if target is not None and target not in GENERATED and not target.exists():
            lost.append(link)
        elif heading:
            made = GENERATED.get(target) if target else None
            held = made() if made else target.read_text(encoding="utf-8") if target else text
            titles = [re.sub(r"[^\w -]", "", t).strip().lower() for t in re.findall(r"^#+ (.+)$", held, re.M)]
            if heading not in [title.replace(" ", "-") for title in titles]:
                lost.append(link)
    return lost


def resolves(name: str) -> bool:
    """Whether `unifeat.store.written_aside` or `uf.rsa` is there."""
    found: Any = unifeat
    parts = name.split(".")[1:]
    for i, part in enumerate(parts):
        try:
            found = (
                getattr(found, part)
                if hasattr(found, part)
                else importlib.import_module(".".join(["unifeat", *parts[: i + 1]]))
            )
        except ImportError:
            return False
    return True


def is_there(path: str) -> bool:
    """Whether a file is, called from the repository's root, from the package, or by its bare name."""
    if any((base / path).exists() for base in (ROOT, SOURCE)):
        return True
    return "/" not in path and any(found for base in (SOURCE, ROOT / "tests") for found in base.rglob(path))
