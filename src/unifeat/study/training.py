"""How the SAEs that a study names and that do not exist yet are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from unifeat.study.text import TrainTextSpec
from unifeat.study.values import Part, Seed
from unifeat.vocabulary.bounds import LARGEST_COUNT, LARGEST_WIDTH

Architecture = Literal["topk", "batchtopk", "matryoshka", "jumprelu", "relu"]


class TrainOverride(Part):
    """Settings of `train` that differ for one group of spaces. All SAEs of a model see the same activations."""

    architecture: Architecture | None = None
    features: int | None = Field(None, gt=0, le=LARGEST_WIDTH)
    k: int | None = Field(None, gt=0, le=LARGEST_WIDTH)
    tokens: int | None = Field(None, gt=0, le=LARGEST_COUNT)
    lr: float | None = Field(None, gt=0)
    auxiliary: float | None = Field(None, ge=0)
    dead_after: int | None = Field(None, gt=0, le=LARGEST_COUNT)
    sparsity: float | None = Field(None, gt=0)
    levels: list[int] | None = None
    seed: Seed | None = None


class TrainSpec(Part):
    """How to train the SAEs that the study names and that do not exist yet."""

    text: TrainTextSpec = Field(description="training text: not the study's own documents")
    architecture: Architecture = Field("topk", description="topk, batchtopk, matryoshka, jumprelu or relu")
    features: int = Field(4096, gt=0, le=LARGEST_WIDTH, description="width of the dictionaries")
    k: int = Field(
        32,
        gt=0,
        le=LARGEST_WIDTH,
        description="active features per token: exactly (topk), on average, or as a target (jumprelu); not for relu",
    )
    tokens: int = Field(
        1_000_000, gt=0, le=LARGEST_COUNT, description="activations to train on; the text is reread if it is shorter"
    )
    batch: int = Field(1024, gt=0, le=2**20, description="activations per step")
    lr: float = Field(3e-3, gt=0, description="peak learning rate: warmed up, held, then lowered to zero")
    auxiliary: float = Field(1.0, ge=0, description="weight of the loss that makes dead features explain the residual")
    dead_after: int = Field(
        50_000, gt=0, le=LARGEST_COUNT, description="activations without firing that make a feature dead"
    )
    sparsity: float | None = Field(
        None,
        gt=0,
        description="weight of the penalty: on L1 (relu), or, times d_in, on L0's distance from k (jumprelu)",
    )
    levels: list[int] | None = Field(
        None, description="matryoshka: widths of the nested dictionaries, without the whole one"
    )
    seed: Seed | None = Field(None, description="seed of the initial weights; the study's seed if left out")
    buffer: int = Field(131_072, gt=0, le=LARGEST_WIDTH, description="activations held for shuffling")
    store: bool = Field(False, description="keep the activations in the cache for later trainings over the same text")
    heldout_documents: int = Field(
        64, gt=0, le=LARGEST_COUNT, description="documents of the text held out to measure the SAEs on"
    )
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _fits(self) -> TrainSpec:
        if self.k > self.features:
            raise ValueError(f"k = {self.k} features cannot be active of {self.features}")
        if self.buffer < self.batch:
            raise ValueError(f"buffer = {self.buffer} activations cannot fill a batch of {self.batch}")
        if self.levels is not None:
            if self.architecture != "matryoshka":
                raise ValueError(f"levels are for architecture matryoshka, not {self.architecture}")
            if not self.levels or sorted({*self.levels, self.features}) != [*self.levels, self.features]:
                raise ValueError(
                    f"levels {self.levels}: give widths that grow and stay below features = {self.features}"
                )
            if self.levels[0] < 1:
                raise ValueError(f"levels {self.levels}: a width is at least 1")
        if self.sparsity is not None and self.architecture not in ("jumprelu", "relu"):
            raise ValueError(f"sparsity is for architecture jumprelu or relu; {self.architecture} is set by k")
        return self

    def overridden(self, by: TrainOverride | None) -> TrainSpec:
        """These settings, with those of a group of spaces replacing them where given.

        Raises:
            pydantic.ValidationError: the combined settings do not fit together.
        """
        if by is None:
            return self
        own = self.model_dump()
        if by.architecture not in (None, self.architecture):
            own |= {"levels": None, "sparsity": None}  # these were set for another architecture
        return TrainSpec.model_validate(own | by.model_dump(exclude_none=True))
