"""Types of single values in a study: whole numbers within bounds, text without NUL bytes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from unifeat.vocabulary.bounds import LARGEST_SEED


class Part(BaseModel):
    """A part of a study."""

    # Strict: `true` is not a number, "5" is not 5, and 4.0 is not an integer.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("text cannot hold a NUL byte")
    return value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Text = Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(_no_nul)]
"""A name, a path or another text setting."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""A seed of random numbers."""
Pair = Annotated[tuple[Text, Text], BeforeValidator(_tuple)]
"""Two names, written as a list in YAML."""


def memory(value: Any) -> Any:
    """Read `max_memory`: CUDA device numbers (text, if they come from JSON) or cpu, each with an amount of memory."""
    if not isinstance(value, dict):
        return value
    found: dict[int | str, int | str] = {}
    for place, size in value.items():
        numbered = isinstance(place, int) and not isinstance(place, bool) and place >= 0
        if not (numbered or place == "cpu" or (isinstance(place, str) and place.isdecimal())):
            raise ValueError(f"{place!r}: give the numbers of CUDA devices, and cpu")
        if isinstance(size, bool) or not isinstance(size, int | str) or (isinstance(size, int) and size < 0):
            raise ValueError(f"{place}: {size!r} is not an amount of memory; write bytes or 20GiB")
        device = place if place == "cpu" else int(place)
        if device in found:
            raise ValueError(f"{place} is given twice: drop one")
        found[device] = size
    return found
