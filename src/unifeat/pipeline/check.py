"""The check at the start of a study: each space that is not encoded yet is checked on a few thousand tokens.

An SAE that is read wrongly still gives plausible codes, and encoding takes hours. Each result is stored in the cache
under a key made from everything that determines it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.models.activations import GroupActivations, run_group
from unifeat.models.language import LanguageModel
from unifeat.models.placement import ONE_GPU
from unifeat.pipeline.loading import Loader, PlannedSpace
from unifeat.progress import warn
from unifeat.saes.checking.examine import examine
from unifeat.saes.checking.misreadings import neighbours, with_outputs
from unifeat.saes.checking.sample import sample_at
from unifeat.saes.checking.verdict import Finding
from unifeat.saes.protocol import SAE
from unifeat.store import JSON, Piece
from unifeat.text.corpus import Corpus, Part
from unifeat.text.windows import first_parts
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

VERSION = 2  # raised whenever the result of a check changes
CHECK_TOKENS = 3000
_FEWEST_ROWS = 500  # with fewer rows, FVU has little meaning


@dataclass(frozen=True)
class Outcomes:
    """The checks of several spaces of one model, on one pass of it, as the result of a unit of work."""

    spaces: tuple[PlannedSpace, ...]

    def read(self) -> dict[str, dict[str, Any]] | None:
        """What was found, by the spaces' names; None if one of them has not been checked."""
        found = {space.name: piece_of(space).read() for space in self.spaces}
        return None if any(outcome is None for outcome in found.values()) else found  # type: ignore[return-value]

    def write(self, outcomes: dict[str, dict[str, Any]]) -> None:
        """Store what was found."""
        for space in self.spaces:
            piece_of(space).write(outcomes[space.name])


def piece_of(space: PlannedSpace) -> Piece[dict[str, Any]]:
    """Where a check's result is stored. Its key includes the SAE's claims, which are not part of the codes' key."""
    made_from = {
        "version": VERSION,
        "codes": space.store.folder.name,
        "claims": asdict(space.claims),
        "tokens": CHECK_TOKENS,
    }
    return Piece("checks", made_from, JSON, "the check")


def check_unit(loader: Loader, corpus: Corpus, windowing: Windowing) -> Unit[dict[str, dict[str, Any]]]:
    """Checking the loader's spaces on the first tokens of a study's text, as a unit of work.

    The model is loaded with one more block than the spaces need, if it has one, since the neighbouring layer is tried
    too.
    """
    work = partial(_check_spaces, loader, corpus, windowing)
    return Unit(Outcomes(loader.spaces), work, fills_machine=True, model=loader.key, gpu=loader.spec.device in ONE_GPU)


def report_checks(spaces: Iterable[PlannedSpace], *, force: bool) -> None:
    """Say on stderr what the checks found.

    Args:
        spaces: all have been checked.
        force: turn faults into warnings.

    Raises:
        UserError: an SAE whose FVU is above 1, or whose L0 differs from its claim by more than a factor of 3.
    """
    for space in spaces:
        # Finished codes passed the check once: stopping at them now would save nothing.
        findings = _findings(piece_of(space).read())
        _report(space.name, space.sae.name, findings, force or space.store.finished())


def checked_before(space: PlannedSpace) -> bool:
    """Whether a space has been checked, and nothing has changed since."""
    return piece_of(space).read() is not None


def warnings_of(space: PlannedSpace) -> list[str]:
    """What the check of a space found, for `run.json`; empty if it was not checked."""
    return [finding.text for finding in _findings(piece_of(space).read())]


def _check_spaces(loader: Loader, corpus: Corpus, windowing: Windowing) -> dict[str, dict[str, Any]]:
    model, encoders = (loaded := loader.deeper()).model, loaded.encoders
    parts = first_parts(corpus, model.tokenizer, CHECK_TOKENS)
    near: dict[HookPoint, list[HookPoint]] = {}
    for space in loader.spaces:
        stated = space.claims.point
        near[space.point] = list(dict.fromkeys(neighbours(space.point, model, stated) + near.get(space.point, [])))
    # The spaces' own points come first, so that an error about NaN names a layer of the study.
    tried = [
        point for encoder in encoders for point in with_outputs(encoder.sae, [encoder.point, *near[encoder.point]])
    ]
    activations = run_group(model, parts, list(dict.fromkeys([*near, *tried])), windowing)
    outcomes = {}
    for space, encoder in zip(loader.spaces, encoders, strict=True):
        outcomes[space.name] = _check(model, parts, activations, encoder.sae, space, near[space.point], windowing)
    loader.cut()
    return outcomes


def _check(
    model: LanguageModel,
    parts: list[Part],
    activations: GroupActivations,
    sae: SAE,
    space: PlannedSpace,
    near: list[HookPoint],
    windowing: Windowing,
) -> dict[str, Any]:
    rows = len(sample_at(sae, activations, space.point).x)
    if rows < _FEWEST_ROWS:
        return {"tokens": rows, "findings": []}
    found = examine(model, parts, activations, sae, space.claims, space.point, near, windowing, everything=False)
    return found.quality.as_dict() | {"findings": [asdict(finding) for finding in found.findings]}


def _report(space: str, name: str, findings: list[Finding], force: bool) -> None:
    faults = [f.text for f in findings if f.level == "fault"]
    causes = [f.text for f in findings if f.level == "cause"]
    message = "; ".join([" and ".join(faults), *(f"likely {cause}" for cause in causes)])
    if faults and not force:
        raise UserError(f"space {space}, SAE {name}: {message}. `unifeat check` shows more; --force continues anyway")
    if faults:
        warn(f"space {space}: {message}; continuing anyway")
    for finding in findings:
        if finding.level == "warning":
            warn(f"space {space}: {finding.text}")


def _findings(outcome: dict[str, Any] | None) -> list[Finding]:
    return [Finding(**finding) for finding in outcome["findings"]] if outcome else []
