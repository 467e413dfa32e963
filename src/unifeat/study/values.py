"""What single values of a study may be: whole numbers within bounds, text that can be passed on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

# numpy's RandomState, which pandas draws with, takes no larger seed; torch and numpy's SeedSequence do.
LARGEST_SEED = 2**32 - 1
MANY = 10**12  # documents, tokens, activations: more than there are, and nothing is allocated by them
WIDEST = 2**24  # features of a dictionary, activations held at once


class Part(BaseModel):
    """A part of a study."""

    # Strict: `true` is no number, "5" no 5, and 4.0 no count of anything.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("text with a NUL byte")
    return value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Text = Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(_no_nul)]
"""A name, a path, a setting."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""Of everything random."""
Pair = Annotated[tuple[Text, Text], BeforeValidator(_tuple)]
"""Two names; YAML has lists only."""


def memory(value: Any) -> Any:
    """`max_memory` as it may be written: numbers of CUDA devices (as text after JSON) and cpu, each with an amount."""
    if not isinstance(value, dict):
        return value
    found: dict[int | str, int | str] = {}
    for place, size in value.items():
        numbered = isinstance(place, int) and not isinstance(place, bool) and place >= 0
        if not (numbered or place == "cpu" or (isinstance(place, str) and place.isdecimal())):
            raise ValueError(f"{place!r}: give the numbers of CUDA devices, and cpu")
        if isinstance(size, bool) or not isinstance(size, int | str) or (isinstance(size, int) and size < 0):
            raise ValueError(f"{place}: {size!r} is no amount of memory; write bytes or 20GiB")
        device = place if place == "cpu" else int(place)
        if device in found:
            raise ValueError(f"{place} stands there twice")
        found[device] = size
    return found
