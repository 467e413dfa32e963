"""Mistakes in a study, each as one line that names the key."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from unifeat.errors import did_you_mean

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
    # (Of several types that a key may have, the one that was tried is named like a list: no key of the study's.)
    keys = [str(part) for part in first["loc"] if not (isinstance(part, str) and part.startswith("list["))]
    place = ".".join(keys)
    place = " ".join(place.split()) if len(place) <= 200 else f"{place[:150]}…{place[-30:]}"
    if first["type"] == "extra_forbidden":
        near = did_you_mean(str(first["loc"][-1]), _known_keys(model, first["loc"][:-1]))
        return f"unknown key {place!r}{near}"
    message = first["msg"].removeprefix("Value error, ") + _HINTS.get(first["type"], "")
    if first["type"] == "missing":
        return f"the key {place!r} is missing"
    return " ".join(f"{place}: {message}".split()) if place else " ".join(message.split())


def _known_keys(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """Keys allowed at a place in the study, found by following the types."""
    for part in place:
        # List indices and the user's own model names are not fields.
        if part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
