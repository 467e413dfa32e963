"""The check at the start of a study: each space that is not encoded yet is checked on a few thousand tokens.

An SAE that is read wrongly still gives plausible codes, and encoding takes hours. Each result is stored in the cache
under a key made from everything that determines it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from unifeat.codes.encode import Encoder
from unifeat.errors import UserError
from unifeat.models.activations import GroupActivations, run_group
from unifeat.models.language import LanguageModel
from unifeat.progress import say
from unifeat.saes.checking.claims import claims_of
from unifeat.saes.checking.examine import examine
from unifeat.saes.checking.misreadings import neighbours, with_outputs
from unifeat.saes.checking.sample import sample_at
from unifeat.saes.checking.verdict import Finding
from unifeat.store import JSON, Piece
from unifeat.text.corpus import Corpus, Part
from unifeat.text.windows import first_parts
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

VERSION = 2  # raised whenever the result of a check changes
CHECK_TOKENS = 3000
_FEWEST_ROWS = 500  # with fewer rows, FVU has little meaning


@dataclass(frozen=True, eq=False)
class Checkable:
    """An encoder with its SAE's name."""

    encoder: Encoder
    name: str

    @property
    def piece(self) -> Piece[dict[str, Any]]:
        """Where the result is stored. Its key includes the SAE's claims, which are not part of the codes' key."""
        made_from = {
            "version": VERSION,
            "codes": self.encoder.store.folder.name,
            "claims": asdict(claims_of(self.encoder.sae, self.name)),
            "tokens": CHECK_TOKENS,
        }
        return Piece("checks", made_from, JSON, "the check")


def check_spaces(
    model: LanguageModel | None, corpus: Corpus, spaces: list[Checkable], windowing: Windowing, *, force: bool
) -> None:
    """Check the SAEs of one model on the first tokens of a study's text; warnings go to stderr.

    Args:
        model: with one more block than the spaces need, if it has one, since the neighbouring layer is tried too. None
            if all spaces have been checked before.
        spaces: those checked before are not measured again.
        force: turn faults into warnings.

    Raises:
        UserError: an SAE whose FVU is above 1, or whose L0 differs from its claim by more than a factor of 3.
    """
    outcomes = {space: space.piece.read() for space in spaces}
    new = [space for space, outcome in outcomes.items() if outcome is None]
    if new:
        assert model is not None
        parts = first_parts(corpus, model.tokenizer, CHECK_TOKENS)
        near: dict[HookPoint, list[HookPoint]] = {}
        for space in new:
            point, stated = space.encoder.point, claims_of(space.encoder.sae, space.name).point
            near[point] = list(dict.fromkeys(neighbours(point, model, stated) + near.get(point, [])))
        # The spaces' own points come first, so that an error about NaN names a layer of the study.
        tried = [
            point
            for space in new
            for point in with_outputs(space.encoder.sae, [space.encoder.point, *near[space.encoder.point]])
        ]
        points = list(dict.fromkeys([*near, *tried]))
        activations = run_group(model, parts, points, windowing)
        for space in new:
            measured = _check(model, parts, activations, space, near[space.encoder.point], windowing)
            space.piece.write(measured)
            outcomes[space] = measured
    for space, outcome in outcomes.items():
        # Finished codes passed the check once: stopping at them now would save nothing.
        _report(space.encoder.space, space.name, _findings(outcome), force or space.encoder.store.finished())


def checked_before(space: Checkable) -> bool:
    """Whether a space has been checked, and nothing has changed since."""
    return space.piece.read() is not None


def warnings_of(space: Checkable) -> list[str]:
    """What the check of a space found, for `run.json`; empty if it was not checked."""
    return [finding.text for finding in _findings(space.piece.read())]


def _check(
    model: LanguageModel,
    parts: list[Part],
    activations: GroupActivations,
    space: Checkable,
    near: list[HookPoint],
    windowing: Windowing,
) -> dict[str, Any]:
    sae, point = space.encoder.sae, space.encoder.point
    rows = len(sample_at(sae, activations, point).x)
    if rows < _FEWEST_ROWS:
        return {"tokens": rows, "findings": []}
    claims = claims_of(sae, space.name)
    found = examine(model, parts, activations, sae, claims, point, near, windowing, everything=False)
    return found.quality.as_dict() | {"findings": [asdict(finding) for finding in found.findings]}


def _report(space: str, name: str, findings: list[Finding], force: bool) -> None:
    faults = [f.text for f in findings if f.level == "fault"]
    causes = [f.text for f in findings if f.level == "cause"]
    message = "; ".join([" and ".join(faults), *(f"likely {cause}" for cause in causes)])
    if faults and not force:
        raise UserError(f"space {space}, SAE {name}: {message}. `unifeat check` shows more; --force continues anyway")
    if faults:
        say(f"warning: space {space}: {message}; continuing anyway")
    for finding in findings:
        if finding.level == "warning":
            say(f"warning: space {space}: {finding.text}")


def _findings(outcome: dict[str, Any] | None) -> list[Finding]:
    return [Finding(**finding) for finding in outcome["findings"]] if outcome else []
