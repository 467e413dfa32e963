"""What a study says of families of features over many spaces, and of comparing one space with all others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from unifeat.study.values import Pair, Part, Text


class Star(Part):
    """Compare one group of spaces, or one space, with all others, where all with all is too much."""

    star: Text = Field(description="the group of spaces (or the single space) that all others are compared with")

    def compares(self, a: tuple[str, str], b: tuple[str, str]) -> bool:
        """Whether two spaces are compared; each by its name and its group's."""
        return (self.star in a) != (self.star in b)


def _kind(value: Any) -> str:
    return "list[star]" if isinstance(value, dict | Star) else "list[pairs]"


# (Chosen before either is checked, so that a mistake is told once. `explain` leaves out the tags.)
Compared = Annotated[
    Annotated[list[Pair], Tag("list[pairs]")] | Annotated[Star, Tag("list[star]")], Discriminator(_kind)
]
"""What is compared: pairs of names, or one with all others."""


class FamiliesSpec(Part):
    """Families of features: at most one of each space, held together by kept pairs."""

    method: Literal["consistent", "cliques", "components"] = Field(
        "consistent",
        description="consistent: partners agree around every triangle; cliques: every two are partners; components: "
        "connected, split at the weakest links",
    )
    spaces: list[Text] | None = Field(
        None, description="groups of spaces or single spaces; by default all that are compared, without controls"
    )
    draws: int = Field(
        39, ge=0, le=10_000, description="times that documents are re-paired in every space and matched again: the null"
    )
    bootstraps: int = Field(
        50, ge=0, le=10_000, description="resampled documents, for intervals of the number of families"
    )
    groups: dict[Text, list[Text]] = Field(
        {},
        description="named groups of models (groups of spaces or single spaces), for comparative sharedness: "
        "{chat: [a, b], base: [c]}",
    )

    @field_validator("groups")
    @classmethod
    def _each_of_some(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        if len(value) == 1:
            raise ValueError("there is only one group: name another to compare it with")
        for name, members in value.items():
            if not members or len(set(members)) < len(members):
                raise ValueError(f"the group {name} names no model, or one twice")
        return value

    @property
    def named(self) -> list[str]:
        """All names of spaces and groups of spaces in it."""
        return [*(self.spaces or ()), *(name for members in self.groups.values() for name in members)]
