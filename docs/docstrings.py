"""Docstrings as Markdown: sections and lists of arguments become lists, all else is Markdown already."""

from __future__ import annotations

import inspect
import re
from typing import Any

_SECTIONS = {
    "Args": "Arguments",
    "Returns": "Returns",
    "Raises": "Raises",
    "Attributes": "Attributes",
    "Yields": "Yields",
}
_ITEM = re.compile(r"^([A-Za-z_`*][\w`]*(?:, [\w`]+)*): +(\S.*)$")
_SMALL_ITEM = re.compile(r"^([a-z_][\w]*(?:, [a-z_]\w*)*): +(\S.*)$")
_TERM = re.compile(r"^`[^`]+`\s{1,}\S")


def markdown(doc: str) -> list[str]:
    """A docstring's lines as Markdown."""
    lines = inspect.cleandoc(doc).splitlines()
    out: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        section = re.fullmatch(r"(\w+):", line.strip())
        if section and section[1] in _SECTIONS and not line.startswith(" "):
            body, number = _indented(lines, number + 1)
            out += ["", f"**{_SECTIONS[section[1]]}**", "", *_items(body, _ITEM), ""]
            continue
        if _SMALL_ITEM.match(line):
            body = [line]
            number += 1
            while number < len(lines) and (lines[number].startswith(" ") or _SMALL_ITEM.match(lines[number])):
                body.append(lines[number])
                number += 1
            out += ["", *_items(body, _SMALL_ITEM), ""]
            continue
        out.append(line)
        number += 1
    return out


def _indented(lines: list[str], start: int) -> tuple[list[str], int]:
    """The indented block that begins at a line, without its indent, and where it ends."""
    end = start
    while end < len(lines) and (lines[end].startswith(" ") or not lines[end].strip()):
        end += 1
    return [line[4:] for line in lines[start:end]], end


def _items(body: list[str], item: re.Pattern[str]) -> list[str]:
    """A list of `name: text`, each with what is indented below it; or paragraphs, if there are no names."""
    if not any(item.match(line) for line in body):
        return [line.strip() for line in body]
    out: list[str] = []
    for line in body:
        text = line.strip()
        if match := item.match(line):
            names = ", ".join(f"`{name.strip('`')}`" for name in match[1].split(", "))
            out.append(f"- {names}: {match[2]}")
        elif not text:
            out.append("")
        elif _TERM.match(text):
            out.append(f"  - {re.sub(r'  +', ' ', text)}")
        elif text.startswith(("* ", "| ")):
            out.append(f"  {text}")
        else:
            out.append(f"    {text}" if out and out[-1].startswith(("  - ", "    ")) else f"  {text}")
    return out


def signature(thing: Any) -> str:
    """`name(a, b=1)`, without types where they would not fit on a line."""
    name = thing.__name__
    try:
        own = inspect.signature(thing)
    except (TypeError, ValueError):
        return f"{name}(…)"
    parameters = [p for p in own.parameters.values() if p.name not in ("self", "cls") and not p.name.startswith("_")]
    shown = own.replace(parameters=parameters)
    whole = f"{name}{shown}"
    if len(whole) <= 100:
        return whole
    plain = shown.replace(
        parameters=[p.replace(annotation=inspect.Parameter.empty) for p in parameters],
        return_annotation=inspect.Signature.empty,
    )
    return f"{name}{plain}"


def page_of(thing: Any, shown: str, level: str = "###") -> list[str]:
    """A heading, the signature and the docstring; of a class also its public methods."""
    if isinstance(thing, property):
        return [f"{level} `{shown}`", "", *markdown(thing.__doc__ or "")]
    lines = [f"{level} `{shown}`", "", "```python", signature(thing), "```", "", *markdown(thing.__doc__ or "")]
    if isinstance(thing, type):
        for name in _members(thing):
            member = inspect.getattr_static(thing, name)
            inner = member.func if hasattr(member, "func") and not isinstance(member, property) else member
            inner = inner.__func__ if isinstance(inner, classmethod | staticmethod) else inner
            if isinstance(inner, property) or (callable(inner) and inner.__doc__):
                lines += ["", *page_of(inner, f"{shown}.{name}", f"{level}#")]
    return lines


def _members(kind: type) -> list[str]:
    """Public methods and properties with a docstring, in the order in which they are written; the own ones first."""
    found: dict[str, None] = {}
    for owner in kind.__mro__:
        if owner.__module__.startswith("unifeat"):
            for name, value in vars(owner).items():
                inner = getattr(value, "func", value)
                if not name.startswith("_") and (callable(inner) or isinstance(value, property)) and inner.__doc__:
                    found.setdefault(name)
    return list(found)
