"""The check at the start of a study: a few thousand tokens for each space that is not encoded yet.

An SAE that is read wrongly gives codes that look like any others, hours of them. Each outcome is kept in the cache
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

VERSION = 2  # raised whenever a check comes out otherwise than before
CHECK_TOKENS = 3000
_FEWEST = 500  # rows: fewer vary less than a text does, so that their FVU says little


@dataclass(frozen=True, eq=False)
class Checkable:
    """An encoder with its SAE's name."""

    encoder: Encoder
    name: str

    @property
    def piece(self) -> Piece[dict[str, Any]]:
        """Where the outcome is kept. What an SAE says of itself is no part of its codes' key."""
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
    """Check SAEs of one model on the first tokens of a study's text; what is odd is said on stderr.

    Args:
        model: with one block more than the spaces need, if it has one: the neighbouring layer is tried too. None
            when all spaces were checked before.
        spaces: those checked before are not measured again.
        force: take faults for warnings.

    Raises:
        UserError: an SAE whose FVU is above 1, or whose L0 is off by a factor of 3 from what it says of itself.
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
        # The spaces' own points first: NaN is then told of a layer that the study names.
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
        # Codes that are there already were let pass once: nothing is saved by stopping at them now.
        _tell(space.encoder.space, space.name, _findings(outcome), force or space.encoder.store.finished())


def checked_before(space: Checkable) -> bool:
    """Whether a space was checked, and nothing in it has changed since."""
    return space.piece.read() is not None


def warnings_of(space: Checkable) -> list[str]:
    """What the check of a space found wrong, for `run.json`; nothing if it was not checked."""
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
    if rows < _FEWEST:
        return {"tokens": rows, "findings": []}
    claims = claims_of(sae, space.name)
    found = examine(model, parts, activations, sae, claims, point, near, windowing, everything=False)
    return found.quality.as_dict() | {"findings": [asdict(finding) for finding in found.findings]}


def _tell(space: str, name: str, findings: list[Finding], force: bool) -> None:
    faults = [f.text for f in findings if f.level == "fault"]
    causes = [f.text for f in findings if f.level == "cause"]
    said = "; ".join([" and ".join(faults), *(f"likely {cause}" for cause in causes)])
    if faults and not force:
        raise UserError(f"space {space}, SAE {name}: {said}. `unifeat check` tells more, --force goes on")
    if faults:
        say(f"warning: space {space}: {said}; going on all the same")
    for finding in findings:
        if finding.level == "warning":
            say(f"warning: space {space}: {finding.text}")


def _findings(outcome: dict[str, Any] | None) -> list[Finding]:
    return [Finding(**finding) for finding in outcome["findings"]] if outcome else []
