"""Checking an SAE on activations: its quality, its likely misreadings, the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from unifeat.errors import UserError
from unifeat.models.activations import GroupActivations
from unifeat.models.language import LanguageModel
from unifeat.saes.checking.claims import Claims
from unifeat.saes.checking.misreadings import (
    Reading,
    as_read,
    at_points,
    with_other_bos,
    with_other_input,
    with_other_layout,
)
from unifeat.saes.checking.sample import quality_on, sample_at
from unifeat.saes.checking.verdict import Finding, judge, unvaried, varies
from unifeat.saes.protocol import SAE
from unifeat.saes.quality import Quality
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing


@dataclass(frozen=True)
class Examination:
    """The result of checking an SAE at a hook point.

    Attributes:
        quality: FVU, L0 and dead share on all given tokens.
        own, others: the SAE as loaded and its likely misreadings, all on the same sample of the tokens.
        findings: the verdict.
    """

    quality: Quality
    own: Reading
    others: list[Reading]
    findings: list[Finding]


def examine(
    model: LanguageModel,
    parts: list[Part],
    activations: GroupActivations,
    sae: SAE,
    claims: Claims,
    point: HookPoint,
    near: list[HookPoint],
    windowing: Windowing,
    *,
    everything: bool,
) -> Examination:
    """Measure an SAE and judge it.

    Args:
        parts: the text of the activations; it is run again to try windows with another opening.
        activations: at `point`, at `near`, and where an SAE reading there writes to (`misreadings.with_outputs`).
        claims: what the SAE claims about itself.
        point: where it reads.
        near: other hook points to try (`misreadings.neighbours`).
        everything: try other inputs, layouts and BOS even if there is no fault.

    Raises:
        UserError: all tokens of the text are masked.
    """
    sample = sample_at(sae, activations, point)
    if not len(sample.x):
        raise UserError(
            f"the text leaves no token to check an SAE of {model.name} on: it has {activations.masked.read}, all of "
            "them special tokens, first positions or attention sinks; give more text"
        )
    quality, some = quality_on(sae, sample), sample.spread()
    own, others = as_read(sae, some), at_points(sae, activations, near)

    def verdict() -> list[Finding]:
        if not varies(quality):
            return [unvaried(quality)]
        return judge(quality.fvu, quality.l0, claims, point=point, model=model.name, own=own, others=others)

    if everything or any(finding.level == "fault" for finding in verdict()):
        others += with_other_input(sae, some) + with_other_layout(sae, some)
        others += with_other_bos(model, parts, point, sae, windowing)
    return Examination(quality, own, others, verdict())
