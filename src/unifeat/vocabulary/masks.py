"""Which tokens are left out of the codes, and how many were left out for each reason."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

SINK_RATIO = 5.0  # an attention sink's activation norm is above this many times the median


class Mask(BaseModel):
    """Which tokens are left out of the codes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    special: bool = Field(True, description="leave out special tokens, including a BOS that the study adds")
    first: bool = Field(True, description="leave out the first position of each window")
    sinks: bool = Field(True, description="leave out attention sinks: activation norm above 5 × the median")
    pads: bool = Field(True, description="no padding; false pads every window to `context` and keeps the pads")


DEFAULT_MASK = Mask()


@dataclass
class Masked:
    """How many tokens were read, and how many were left out for each reason.

    Attributes:
        pad: how many of those read are padding. They are not masked: a study has pads only if it asks for them.
    """

    read: int = 0
    special: int = 0
    first: int = 0
    sink: int = 0
    pad: int = 0
