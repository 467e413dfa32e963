"""Trying the likely misreadings of an SAE: another hook point, input scale, layout of the weights, or BOS.

An SAE that is read wrongly still gives codes. But then another reading explains more of the variance, and that reading
shows what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from unifeat.models.activations import GroupActivations, run_group
from unifeat.models.language import LanguageModel
from unifeat.models.opening import bos_of
from unifeat.models.selftest import can_read
from unifeat.saes.checking.sample import Sample, quality_on, sample_at
from unifeat.saes.decoding import writes_at
from unifeat.saes.protocol import SAE
from unifeat.saes.quality import Quality
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HOOKS, HookPoint
from unifeat.vocabulary.windowing import Windowing

_OCTAVES = 8  # input scales from 2⁻⁸ to 2⁸

Kind = Literal["as read", "hook", "scale", "layer norm", "token norm", "layout", "bos"]


@dataclass(frozen=True)
class Reading:
    """One way to read the SAE.

    Attributes:
        kind: what it changes; "as read" is the SAE as loaded.
        what: the same in words, such as "layer 14, resid_post".
        fvu, l0: the SAE's figures when read in this way, on at most `ROWS` tokens.
        factor: for the kind "scale", the factor on the activations.
    """

    kind: Kind
    what: str
    fvu: float
    l0: float
    factor: float | None = None


def neighbours(point: HookPoint, model: LanguageModel, stated: HookPoint | None = None) -> list[HookPoint]:
    """Hook points that may be mistaken for this one, if the model (or what was kept of it) has them.

    Args:
        stated: the hook point that the SAE names; it is tried first if it differs.
    """
    layer, kind = point
    # A block's input is the previous block's output, so `resid_pre` and `resid_post` are not tried for each other.
    near = [HookPoint(other, kind) for other in (layer - 1, layer + 1)]
    near += [HookPoint(layer, other) for other in HOOKS[kind].mistaken_for]
    if stated is not None and stated != point:
        near = list(dict.fromkeys([stated, *near]))
    return [other for other in near if can_read(model, other) and model.width(other) == model.width(point)]


def with_outputs(sae: SAE, points: list[HookPoint]) -> list[HookPoint]:
    """The given points, and the points that an SAE reading there writes to, each once."""
    return list(dict.fromkeys([*points, *(writes_at(sae, point) for point in points)]))


def at_points(sae: SAE, activations: GroupActivations, points: list[HookPoint]) -> list[Reading]:
    """The SAE on activations from other hook points."""
    found = []
    for point in points:
        sample = sample_at(sae, activations, point).spread()
        found.append(_measured("hook", f"layer {point.layer}, {point.kind}", quality_on(sae, sample)))
    return found


def with_other_input(sae: SAE, sample: Sample) -> list[Reading]:
    """The SAE on activations that are scaled by one factor, scaled token by token, or layer-normalised.

    Args:
        sample: at most `ROWS` rows.
    """
    x, d = sample.x, sample.x.shape[-1]

    def token_norm(rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        factor = math.sqrt(d) / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return rows * factor, lambda y: y / factor

    def layer_norm(rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        mean, spread = rows.mean(-1, keepdim=True), rows.std(-1, keepdim=True) + 1e-5
        return (rows - mean) / spread, lambda y: y * spread + mean

    factor, quality = best_scale(sae, sample)
    usual = math.sqrt(d) / float(x.norm(dim=-1).mean().clamp(min=1e-12))
    return [
        _measured("scale", f"× {factor:.3g} (√d over the mean norm is {usual:.3g})", quality, factor),
        _measured("token norm", "each token scaled to norm √d", quality_on(sae, sample, token_norm)),
        _measured("layer norm", "each token to mean 0, variance 1", quality_on(sae, sample, layer_norm)),
    ]


def best_scale(sae: SAE, sample: Sample) -> tuple[float, Quality]:
    """The factor on the input with the lowest FVU, and the quality at that factor.

    FVU is not a unimodal function of the factor. So all octaves are tried first, then finer and finer steps around the
    best.
    """

    def at(exponent: float) -> Quality:
        return quality_on(sae, sample, lambda rows: (rows * 2**exponent, lambda y: y / 2**exponent))

    def least(exponents: list[float]) -> float:
        tried.update({e: at(e) for e in exponents if e not in tried})
        return min(tried, key=lambda e: tried[e].fvu if tried[e].fvu == tried[e].fvu else math.inf)

    tried: dict[float, Quality] = {}
    best = least([float(e) for e in range(-_OCTAVES, _OCTAVES + 1)])
    for step in (0.5, 0.25, 0.125):
        best = least([best - step, best + step])
    return 2**best, tried[best]


def with_other_layout(sae: SAE, sample: Sample) -> list[Reading]:
    """The SAE with its decoder, its encoder or both read as if they were stored transposed."""
    found = []
    for names in (("W_dec",), ("W_enc",), ("W_dec", "W_enc")):
        if all(hasattr(sae, name) for name in names):
            with _transposed(sae, names):
                found.append(_measured("layout", f"{' and '.join(names)} transposed", quality_on(sae, sample)))
    return found


def with_other_bos(
    model: LanguageModel, parts: list[Part], point: HookPoint, sae: SAE, windowing: Windowing
) -> list[Reading]:
    """The SAE on windows with BOS if they had no opening, else on windows without their opening."""
    bos = windowing.opening
    other = model.tokenizer.bos_token_id if bos is None else None
    if bos is None and other is None:
        return []
    activations = run_group(model, parts, with_outputs(sae, [point]), replace(windowing, opening=other))
    sample = sample_at(sae, activations, point).spread()
    own = isinstance(bos, int) or bos == bos_of(model.tokenizer, "auto")
    without = "BOS" if own else "the chat template"
    what = f"windows without {without}" if other is None else "windows that begin with BOS"
    return [_measured("bos", what, quality_on(sae, sample))]


def as_read(sae: SAE, sample: Sample) -> Reading:
    """The SAE as loaded, on the same rows as the others."""
    return _measured("as read", "as loaded", quality_on(sae, sample))


def _measured(kind: Kind, what: str, quality: Quality, factor: float | None = None) -> Reading:
    return Reading(kind, what, quality.fvu, quality.l0, factor)


@contextmanager
def _transposed(sae: SAE, names: tuple[str, ...]) -> Iterator[None]:
    """Inside this context, each (a, b) matrix has its memory reread as (b, a) and transposed."""
    kept = {name: getattr(sae, name).data for name in names}
    try:
        for name, matrix in kept.items():
            getattr(sae, name).data = matrix.contiguous().reshape(matrix.shape[1], matrix.shape[0]).T.contiguous()
        yield
    finally:
        for name, matrix in kept.items():
            getattr(sae, name).data = matrix
