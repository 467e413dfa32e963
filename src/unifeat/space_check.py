"""The check at the start of a study: a few thousand tokens for each space that is not encoded yet.

An SAE that is read wrongly gives codes that look like any others, hours of them. Each outcome is kept in the cache
under a key made from everything that determines it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unifeat.codes.encode import Encoder
from unifeat.errors import UserError
from unifeat.models.activations import GroupActivations, run_group
from unifeat.models.alternatives import (
    as_read,
    at_points,
    neighbours,
    quality_on,
    sample_at,
    with_other_bos,
    with_other_input,
    with_other_layout,
    with_outputs,
)
from unifeat.models.check import first_parts
from unifeat.models.claims import claims_of
from unifeat.models.hooks import HookPoint
from unifeat.models.language import LanguageModel
from unifeat.models.opening import Opening
from unifeat.models.verdict import Finding, judge
from unifeat.progress import say
from unifeat.storage import cache_root, key_of, write_json
from unifeat.text.corpus import Corpus, Part

CHECK_TOKENS = 3000
_FEWEST = 500  # rows: fewer vary less than a text does, so that their FVU says little
Checkable = tuple[Encoder, str]  # an encoder with its SAE's name


def check_spaces(
    model: LanguageModel | None,
    corpus: Corpus,
    spaces: list[Checkable],
    *,
    context: int,
    bos: Opening,
    force: bool,
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
    new = [space for space in spaces if not _path(*space).exists()]
    if new:
        assert model is not None
        parts = first_parts(corpus, model.tokenizer, CHECK_TOKENS)
        near: dict[HookPoint, list[HookPoint]] = {}
        for encoder, name in new:
            stated = claims_of(encoder.sae, name).point
            near[encoder.point] = list(
                dict.fromkeys(neighbours(encoder.point, model, stated) + near.get(encoder.point, []))
            )
        # The spaces' own points first: NaN is then told of a layer that the study names.
        tried = [
            point for encoder, _ in new for point in with_outputs(encoder.sae, [encoder.point, *near[encoder.point]])
        ]
        points = list(dict.fromkeys([*near, *tried]))
        activations = run_group(model, parts, points, context=context, bos=bos)
        for encoder, name in new:
            outcome = _check(model, parts, activations, encoder, name, near[encoder.point], context, bos)
            write_json(_path(encoder, name), outcome)
    for encoder, name in spaces:
        _tell(encoder.space, name, _findings(encoder, name), force)


def checked_before(encoder: Encoder, name: str) -> bool:
    """Whether a space was checked, and nothing in it has changed since."""
    return _path(encoder, name).exists()


def warnings_of(encoder: Encoder, name: str) -> list[str]:
    """What the check of a space found wrong, for `run.json`; nothing if it was not checked."""
    return [finding.text for finding in _findings(encoder, name)]


def _check(
    model: LanguageModel,
    parts: list[Part],
    activations: GroupActivations,
    encoder: Encoder,
    name: str,
    near: list[HookPoint],
    context: int,
    bos: Opening,
) -> dict[str, Any]:
    sae, point, claims = encoder.sae, encoder.point, claims_of(encoder.sae, name)
    sample = sample_at(sae, activations, point)
    if len(sample.x) < _FEWEST:
        return {"tokens": len(sample.x), "findings": []}
    quality, some = quality_on(sae, sample), sample.spread()
    own, others = as_read(sae, some), at_points(sae, activations, near)

    def verdict() -> list[Finding]:
        return judge(quality.fvu, quality.l0, claims, point=point, model=model.name, own=own, others=others)

    if any(finding.level == "fault" for finding in verdict()):
        others += with_other_input(sae, some) + with_other_layout(sae, some)
        others += with_other_bos(model, parts, point, sae, context=context, bos=bos)
    return quality.as_dict() | {"findings": [asdict(f) for f in verdict()]}


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


def _findings(encoder: Encoder, name: str) -> list[Finding]:
    path = _path(encoder, name)
    if not path.exists():
        return []
    return [Finding(**finding) for finding in json.loads(path.read_text(encoding="utf-8"))["findings"]]


def _path(encoder: Encoder, name: str) -> Path:
    # What an SAE says of itself is no part of its codes' key.
    settings = {
        "what": "check/1",
        "codes": encoder.store.folder.name,
        "claims": asdict(claims_of(encoder.sae, name)),
        "tokens": CHECK_TOKENS,
    }
    return cache_root() / "checks" / f"{key_of(settings)}.json"
