"""What a study will take, as `unifeat plan` prints it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PlannedModel:
    """One model's part.

    Attributes:
        tokens: read by it, opening tokens included.
        flops: of all forward passes, and of encoding with its SAEs.
        model_bytes: its weights, as far as it is read.
        sae_bytes: all its SAEs; they are in memory together if they fit, else in batches.
        largest_sae: bytes of the largest one.
        code_bytes: on disk.
        spaces: how many.
        tokens_elsewhere: read by it of the study's text elsewhere; 0 if it has none, or no space of this model is
            compared.
    """

    name: str
    tokens: float
    flops: float
    model_bytes: float
    sae_bytes: float
    largest_sae: float
    code_bytes: float
    spaces: int
    tokens_elsewhere: float = 0.0


@dataclass(frozen=True)
class Step:
    """A step of the run: its units of work, and its seconds here and with a GPU."""

    name: str
    units: int
    seconds: float
    gpu_seconds: float


@dataclass(frozen=True)
class StudyPlan:
    """What a study will take.

    Attributes:
        cells: pairs of spaces.
        products: multiplications of two activations in all correlations.
        memory: bytes that a worker needs at most, beyond Python itself.
        rates: what was measured, in words.
        assumptions: what was not.
    """

    models: list[PlannedModel]
    cells: int
    products: float
    steps: list[Step]
    memory: float
    free: float
    gpu: str
    rates: list[str]
    assumptions: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of all steps, on this machine."""
        return sum(step.seconds for step in self.steps)

    @property
    def gpu_seconds(self) -> float:
        """Of all steps, with one such GPU and this machine's cores."""
        return sum(step.gpu_seconds for step in self.steps)
