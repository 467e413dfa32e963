"""What a study says of running models on each other's features."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unifeat.study.values import Pair, Part
from unifeat.vocabulary.bounds import LARGEST_WIDTH


class TransferSpec(Part):
    """What shared features do: one model run on another's features."""

    cells: Literal["best"] | list[Pair] = Field(
        "best", description="pairs of spaces, or best: of each comparison the pair of spaces that shares most"
    )
    draws: int = Field(100, ge=1, le=10_000, description="exchanges of partners: the null of what is carried")
    loss_draws: int = Field(19, ge=0, le=1000, description="exchanges of partners that are spliced into the model")
    loss_tokens: int = Field(
        2048, ge=0, le=LARGEST_WIDTH, description="tokens at which activations are replaced to measure the loss"
    )
    pairs: int = Field(200, ge=0, le=100_000, description="pairs whose effects on the next token are compared")
    contexts: int = Field(16, ge=1, le=1000, description="contexts of each pair, and probe contexts of all of them")
    steering: int = Field(
        16, ge=0, le=1000, description="probe contexts that are steered to the study's categories of words; 0: none"
    )
    steering_draws: int = Field(
        19, ge=0, le=1000, description="exchanges of partners, and random directions, that steer"
    )
