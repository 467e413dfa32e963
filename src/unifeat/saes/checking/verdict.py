"""The verdict on an SAE: whether it is read correctly and, if not, what is likely to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unifeat.saes.checking.claims import Claims
from unifeat.saes.checking.misreadings import Reading
from unifeat.saes.quality import Quality
from unifeat.vocabulary.hook_points import HookPoint

L0_FACTOR = 3.0  # a different text does not change L0 by more than this factor; if it differs more, the codes are wrong
# Another reading is clearly better if its FVU is below this share of the SAE's own, and lower by more than this gain.
# The demo's six SAEs explain most at their own layer, on two texts; at neighbouring layers, their FVU is 1.16 to 92
# times as large.
_CLEARLY_BETTER_SHARE = 0.9
_SMALLEST_FVU_GAIN = 0.01
_LARGEST_SHORTFALL = 0.15  # on another text, variance explained may be this much below what is stated
_HIGH_FVU = 0.5  # few SAEs in use have a higher FVU
# Below this share of Σ‖x‖², the variance is only rounding: the text is one token, or one token repeated.
_ROUNDING_SHARE = 1e-10
_SHRINKAGE_FACTOR = 1.3  # a best scale closer to 1 than this is due to shrinkage, not to a missing factor

_CAUSES = {
    "hook": "wrong layer or hook point (off by one?)",
    "scale": "a scale on the activations is missing (normalisation)",
    "token norm": "each token's activation has to be normalised first",
    "layer norm": "a layer norm on the activations is missing",
    "layout": "weights are read transposed",
    "bos": "the windows' opening (BOS) differs from training",
}


@dataclass(frozen=True)
class Finding:
    """One line of the verdict.

    Attributes:
        level: `fault` stops a study, `warning` is worth a look, `cause` is the likely cause of either.
        text: the line.
    """

    level: Literal["fault", "warning", "cause"]
    text: str


def judge(
    fvu: float,
    l0: float,
    claims: Claims,
    *,
    point: HookPoint,
    model: str,
    own: Reading | None = None,
    others: Sequence[Reading] = (),
) -> list[Finding]:
    """Faults, warnings and their likely cause, in this order.

    Args:
        fvu, l0: figures of the SAE at `point` of the model.
        own: the SAE as loaded, on the same rows as `others`.
        others: other ways to read the SAE.
    """
    found = _faults(fvu, l0, claims)
    faulty = bool(found)
    if claims.point is not None and claims.point != point:
        found.append(
            Finding("warning", f"the SAE says it reads {claims.point.saelens_name}, but is given {point.saelens_name}")
        )
    short = _shortfall(fvu, claims)
    found += short
    better = clearly_better(own, others) if own is not None else []
    if own is not None and better:
        best = better[0]
        text = f"{_CAUSES[best.kind]}: FVU {best.fvu:.3f} with {best.what}, {own.fvu:.3f} as loaded"
        found.append(Finding("cause" if faulty else "warning", text))
    elif faulty or short:
        text = _likely_causes(claims, model, bool(others))
        found.append(
            Finding("cause", text if faulty else f"another kind of text than in training; if not that, {text}")
        )
    return found


def varies(quality: Quality) -> bool:
    """Whether the targets differ between tokens at all. If they do not, FVU has no meaning."""
    variance = quality.variance
    return not variance.about_mean <= _ROUNDING_SHARE * variance.squares  # true for NaN, which the text does not cause


def unvaried(quality: Quality) -> Finding:
    """The finding for activations that do not vary."""
    tokens = "the one token" if quality.tokens == 1 else f"all {quality.tokens:,} tokens"
    return Finding(
        "fault", f"the SAE cannot be judged: the activations are the same on {tokens} of the text; give more text"
    )


def clearly_better(own: Reading, others: Sequence[Reading]) -> list[Reading]:
    """Other readings that explain clearly more variance, best first."""
    kept = [
        o
        for o in others
        if o.fvu < _CLEARLY_BETTER_SHARE * own.fvu
        and own.fvu - o.fvu > _SMALLEST_FVU_GAIN
        and not _is_shrinkage(o.factor)
    ]
    return sorted(kept, key=lambda o: o.fvu)


def _is_shrinkage(factor: float | None) -> bool:
    return factor is not None and 1 / _SHRINKAGE_FACTOR < factor < _SHRINKAGE_FACTOR


def _faults(fvu: float, l0: float, claims: Claims) -> list[Finding]:
    found = []
    if not fvu <= 1:  # NaN too
        found.append(Finding("fault", f"FVU is {fvu:.3g}: the mean activation would be a better reconstruction"))
    expected = claims.expected_l0
    if expected and not expected / L0_FACTOR <= l0 <= expected * L0_FACTOR:
        said = claims.source if claims.l0 is not None else "its k"
        found.append(Finding("fault", f"L0 is {l0:.1f}, but {said} says {expected:.4g}"))
    return found


def _shortfall(fvu: float, claims: Claims) -> list[Finding]:
    if not fvu <= 1:
        return []
    stated = claims.variance_explained
    if stated is not None and 1 - fvu < stated - _LARGEST_SHORTFALL:
        return [Finding("warning", f"variance explained is {1 - fvu:.2f}, but {claims.source} says {stated:.2f}")]
    if stated is None and fvu > _HIGH_FVU:
        return [Finding("warning", f"FVU is {fvu:.2f}: most of the variance is left unexplained")]
    return []


def _likely_causes(claims: Claims, model: str, tried: bool) -> str:
    said = f", and the SAE names {claims.model!r}" if claims.model and not same_model(claims.model, model) else ""
    if not tried:
        return f"layer off by one, missing normalisation, BOS, or another model of the same width{said}"
    return (
        "no neighbouring hook point, scale, layout or BOS helps: another model of the same width"
        f"{said}, a more distant layer, or damaged weights"
    )


def same_model(one: str, other: str) -> bool:
    """Whether two names probably mean the same model: by the last part of the path, without case and file ending."""

    def short(name: str) -> str:
        return Path(name).name.casefold().removesuffix(".gguf").replace("gpt2-small", "gpt2").replace("_", "-")

    a, b = short(one), short(other)
    return a.startswith(b) or b.startswith(a)
