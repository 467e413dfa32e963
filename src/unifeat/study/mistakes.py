"""Mistakes in a study, each as one line that names the key."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from unifeat.errors import did_you_mean
from unifeat.study.brought import BroughtSpec
from unifeat.vocabulary.hook_points import HOOK_KINDS, parse_hook

TYPES_OF_SPACES = ("encoded", "brought")
_HINTS = {
    "bool_type": " (write true or false)",
    "string_type": " (put it in quotes if it is one)",
    "int_type": " (a whole number, without quotes or a point)",
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """A validation error as one line.

    Args:
        model: the type that was validated.
    """
    # A misspelt key also leaves the right one missing: report the unknown key first.
    first = min(error.errors(include_url=False, include_context=False), key=lambda e: e["type"] != "extra_forbidden")
    place = tuple(part for part in first["loc"] if not _names_a_type(part))
    keys = [str(part) for part in place]
    path = ".".join(keys)
    path = " ".join(path.split()) if len(path) <= 200 else f"{path[:150]}…{path[-30:]}"
    if first["type"] == "extra_forbidden":
        near = did_you_mean(str(first["loc"][-1]), _known_keys(model, first["loc"][:-1]))
        return f"unknown key {path!r}{near}"
    message = first["msg"].removeprefix("Value error, ") + (_right_form(first) or _HINTS.get(first["type"], ""))
    if first["type"] == "missing":
        return f"the key {path!r} is missing"
    return " ".join(f"{path}: {message}".split()) if path else " ".join(message.split())


def _right_form(error: Any) -> str:
    """How a value that is meant well is written: ` (write 100_000)`; empty if that cannot be told."""
    value = error["input"]
    if error["type"] == "int_type" and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f" (write {int(value):_})"
    kind, layer = parse_hook(value)
    if error["type"] == "literal_error" and layer is not None and kind in HOOK_KINDS:
        return f" (write {kind}; the layer, {layer}, is for layers)"
    return ""


def _names_a_type(part: Any) -> bool:
    """Whether a part of an error's place is no key, but names the type that was tried where there are several."""
    return isinstance(part, str) and (part.startswith("list[") or part in TYPES_OF_SPACES)


def _known_keys(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """Keys allowed at a place in the study, found by following the types."""
    for part in place:
        if part == "brought":
            model = BroughtSpec
        # List indices and the user's own model names are not fields.
        if part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
