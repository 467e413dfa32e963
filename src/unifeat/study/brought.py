"""A space whose codes, or activations, are on the disk: unifeat runs no model for it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from unifeat.study.values import Part, Text
from unifeat.vocabulary.hook_points import HookKind

KINDS_OF_CODES = ("output", "pre_activation", "before_topk")
"""What `codes` says of a space whose SAE encodes; anything else is a path."""


NO_FILE = ("automatic", "off")  # values of `labels` that name no file
Labels = Annotated[Text, BeforeValidator(lambda value: "off" if value is False else value)]
"""Where names of features are. (In YAML, `off` is false.)"""


class BroughtSpec(Part):
    """One space with codes or activations that are there already."""

    name: Text = Field(description="prefix of the space's name")
    codes: Text | None = Field(None, description="a folder written by `save_codes`")
    activations: Text | None = Field(
        None,
        description=".npy, .safetensors, .pt or .zarr: an array (rows, width) that `sae` encodes, or a folder of them",
    )
    places: Text | None = Field(
        None,
        description="for activations: .csv, .tsv, .parquet or .npz with `document` of each row and, where they are "
        "known, `char_end` and `token`; without, row i is row i",
    )
    sae: Text | None = Field(None, description="for activations: the SAE, as of other spaces")
    format: Text = Field("auto", description="format of the SAE's files (docs/saes.md); auto recognises it")
    decoder: Text | None = Field(
        None,
        description=".npy, .safetensors, .pt or .zarr with a row for each feature, or an SAE; else that of the codes",
    )
    model: Text | None = Field(
        None, description="the model that they are of: spaces of one model are layers or ceilings of one another"
    )
    layer: int = Field(0, ge=0, le=10_000, description="the block that they are of, counted from 0")
    hook: HookKind = Field("resid_post", description="what of the block they are of")
    labels: Labels = Field("automatic", description="names of features, as of other spaces; off: none")

    @model_validator(mode="after")
    def _codes_or_activations(self) -> BroughtSpec:
        if (self.codes is None) == (self.activations is None):
            raise ValueError("give codes, a folder written by save_codes, or activations and an sae")
        if self.activations is not None and self.sae is None:
            raise ValueError("activations need an sae that encodes them")
        if self.codes is not None and (self.sae is not None or self.places is not None):
            raise ValueError("codes are encoded and have their places: leave out sae and places")
        return self

    @property
    def prefix(self) -> str:
        """The group of spaces that it is."""
        return self.name

    @property
    def layers(self) -> list[int]:
        """Its layer, as of other entries of a study, which may have several."""
        return [self.layer]

    @property
    def of_model(self) -> str:
        """The model that it is of."""
        return self.model or self.name

    def labels_at(self, layer: int) -> str | None:
        """Where the names of its features are; None if none are given."""
        return None if self.labels in NO_FILE else self.labels


def is_brought(entry: Any) -> bool:
    """Whether an entry of a study's spaces, as data, is one of these."""
    if not isinstance(entry, dict):
        return isinstance(entry, BroughtSpec)
    return "activations" in entry or ("codes" in entry and entry["codes"] not in (*KINDS_OF_CODES, None))
