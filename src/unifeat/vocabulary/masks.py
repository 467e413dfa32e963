"""Which tokens give no row of codes, and how many were left out for which reason."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

SINK_RATIO = 5.0  # an attention sink's activation norm is above so many times the median


class Mask(BaseModel):
    """Which tokens are left out of the codes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    special: bool = Field(True, description="leave out special tokens, a BOS that the study adds among them")
    first: bool = Field(True, description="leave out the first position of each window")
    sinks: bool = Field(True, description="leave out attention sinks: activation norm above 5 × the median")
    pads: bool = Field(True, description="no padding; false fills every window up to `context` and keeps the pads")


DEFAULT_MASK = Mask()


@dataclass
class Masked:
    """How many tokens were read, and how many left out for which reason.

    Attributes:
        pad: how many of those read are padding. Nothing masks them as such: a study that has pads wants them.
    """

    read: int = 0
    special: int = 0
    first: int = 0
    sink: int = 0
    pad: int = 0
