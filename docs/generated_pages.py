"""Pages of the site that are made from the code: the study's keys, the command line, the Python reference."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

import click
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import unifeat
from docstrings import markdown, page_of
from unifeat.cli import app
from unifeat.study.spec import Study

GROUPS: dict[str, tuple[str, ...]] = {
    "Studies and runs": ("run", "open", "compare", "space", "Run", "Study", "UserError"),
    "Codes and SAEs": ("Codes", "save_codes", "load_sae"),
    "Correlation, matching, families": ("correlate", "pair_correlation", "match", "families"),
    "Geometry": (
        *("rsa", "cka", "svcca", "pwcca", "heldout_cca", "procrustes", "ridge_map", "mutual_knn", "mean_max_cosine"),
    ),
    "Inference": ("permutation_test", "subsample_interval"),
    "Transfer": ("stitch", "carried", "effect_agreement", "transfer_vector"),
    "Planted truth": ("synthetic",),
}
"""Every public name, in the order of the reference."""


def study_page() -> str:
    """Every key of a study, from its types."""
    lines = [
        "# Keys of the study file",
        "",
        "Made from the types that check a study. [The study file](../study.md) shows them in an example.",
    ]
    waiting: list[tuple[str, type[BaseModel]]] = [("", Study)]
    seen: set[type[BaseModel]] = set()
    while waiting:
        place, kind = waiting.pop(0)
        if kind in seen:
            continue
        seen.add(kind)
        about = " ".join((kind.__doc__ or "").split())
        lines += ["", f"## {f'`{place}`' if place else 'The study'}", "", about, "", "| key | type | default | |"]
        lines += ["| --- | --- | --- | --- |"]
        for name, field in kind.model_fields.items():
            inner = _models_in(field.annotation)
            waiting += [(f"{place}.{name}".lstrip("."), model) for model in inner]
            default = _default(field)
            words = _cell(
                field.description or " ".join((inner[0].__doc__ or "").split()) if inner else field.description or ""
            )
            lines.append(f"| `{name}` | {_cell(_type(field.annotation))} | {default} | {words} |")
    return "\n".join(lines) + "\n"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.default_factory()
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        return "see the example"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"`{_cell(text)}`" if len(text) < 60 else "a list"


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(str(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in parts if part is not type(None)) + (
            " or null" if type(None) in parts else ""
        )
    if origin is dict:
        return f"map of {_type(parts[1])}"
    if origin in (list, tuple):
        return f"list of {_type(parts[0])}"
    if parts:  # Annotated
        return _type(parts[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    plain = {str: "text", int: "whole number", float: "number", bool: "true, false"}
    return plain.get(annotation, "any")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def cli_page() -> str:
    """Every command with its arguments and options, from the command line itself."""
    group: Any = typer.main.get_command(app)
    lines = ["# The command line", "", "Made from the commands. Every command has `--help`."]
    for name, command in group.commands.items():
        lines += _command(f"unifeat {name}", command)
        for inner, sub in getattr(command, "commands", {}).items():
            lines += _command(f"unifeat {name} {inner}", sub)
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> list[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join(command.get_usage(context).split()).removeprefix("Usage: ")
    lines = ["", f"## `{name}`", "", " ".join((command.help or "").split()), "", "```text", usage, "```"]
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        record = parameter.get_help_record(context) or (
            parameter.human_readable_name,
            getattr(parameter, "help", "") or "",
        )
        rows.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
    if rows:
        lines += ["", "| | |", "| --- | --- |", *rows]
    return lines


def api_page() -> str:
    """The public names, each from its docstring."""
    lines = ["# Python reference", "", "```python", "import unifeat as uf", "```"]
    for title, names in GROUPS.items():
        lines += ["", f"## {title}"]
        for name in names:
            lines += ["", *_of_name(name)]
    return "\n".join(lines) + "\n"


def _of_name(name: str) -> list[str]:
    thing = getattr(unifeat, name)
    if isinstance(thing, types.ModuleType):
        inner = [part for part in thing.__all__ if callable(getattr(thing, part))]
        return [line for part in inner for line in (*page_of(getattr(thing, part), f"uf.{name}.{part}"), "")]
    if isinstance(thing, type) and issubclass(thing, BaseModel | Exception):
        return [f"### `uf.{name}`", "", *markdown(thing.__doc__ or "")]
    return page_of(thing, f"uf.{name}")


MADE: dict[str, Callable[[], str]] = {
    "reference/study-keys.md": study_page,
    "reference/command-line.md": cli_page,
    "reference/python.md": api_page,
}
"""What makes each page, by its path in `docs/`."""
