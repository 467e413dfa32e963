"""Other ways to read an SAE, each measured: another hook point, another input scale, weights laid out otherwise, BOS.

An SAE that is read wrongly still gives codes. What gives it away is that some other reading explains more of the
variance; which one it is says what went wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unifeat.models.activations import GroupActivations, run_group
from unifeat.models.hooks import HookKind, HookPoint
from unifeat.models.language import LanguageModel
from unifeat.models.opening import Opening
from unifeat.models.quality import ENCODE_ROWS, Quality
from unifeat.models.saes import reconstruct, writes_at
from unifeat.text.corpus import Part

ROWS = 1024  # rows that each reading is tried on
_OCTAVES = 8  # input scales from 2⁻⁸ to 2⁸

Kind = Literal["as read", "hook", "scale", "layer norm", "token norm", "layout", "bos"]
Prepare = Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


@dataclass(frozen=True)
class Alternative:
    """One way to read the SAE.

    Attributes:
        kind: what it changes; "as read" is the way it was loaded.
        what: in words, such as "layer 14, resid_post".
        fvu, l0: what the SAE does then, on at most `ROWS` tokens.
        factor: of the kind "scale", what the activations are multiplied by.
    """

    kind: Kind
    what: str
    fvu: float
    l0: float
    factor: float | None = None


class Sample(NamedTuple):
    """Activations of some tokens, float32.

    Attributes:
        x: (rows, d_in) what an SAE reads.
        y: (rows, d_out) what its decoder is to make: x again, but for transcoders.
    """

    x: Tensor
    y: Tensor

    def spread(self) -> Sample:
        """At most `ROWS` of the rows, evenly spread."""
        step = max(1, math.ceil(len(self.x) / ROWS))
        return Sample(self.x[::step], self.y[::step])


def sample_at(sae: Any, activations: GroupActivations, point: HookPoint) -> Sample:
    """What an SAE reads at a point and is to make of it, attention sinks left out."""
    return Sample(activations.without_sinks(point)[0], activations.beside(point, writes_at(sae, point)))


def quality_on(sae: Any, sample: Sample, prepare: Prepare | None = None) -> Quality:
    """An SAE's quality on some activations.

    Args:
        prepare: from rows to (what the SAE is given, the way back for its reconstruction).
    """
    quality = Quality()
    with torch.inference_mode():
        for rows, wanted in zip(sample.x.split(ENCODE_ROWS), sample.y.split(ENCODE_ROWS), strict=True):
            given, back = prepare(rows) if prepare else (rows, None)
            codes = sae.encode(given)
            made = reconstruct(sae, given, codes)
            quality.add(wanted, codes, back(made) if back else made)
    return quality


def neighbours(point: HookPoint, model: LanguageModel, stated: HookPoint | None = None) -> list[HookPoint]:
    """The hook points that are easily taken for this one, of those that a model (or what is left of it) has.

    Args:
        stated: the one that the SAE names, to be tried first if it is another.
    """
    layer, kind = point
    kinds: dict[HookKind, tuple[HookKind, ...]] = {
        "resid_post": ("attn_out", "mlp_out"),
        "resid_pre": ("attn_out", "mlp_out"),
        "attn_out": ("resid_post", "mlp_out"),
        "mlp_out": ("resid_post", "attn_out"),
        "attn_z": ("attn_out",),
        "resid_mid": ("resid_pre", "mlp_in"),
        "ln2_normalized": ("mlp_in", "resid_mid"),
        "mlp_in": ("ln2_normalized", "resid_mid"),
    }
    # A block's input is the output of the one before: `resid_pre` and `resid_post` are not tried for each other.
    near = [HookPoint(other, kind) for other in (layer - 1, layer + 1)]
    near += [HookPoint(layer, other) for other in kinds[kind]]
    if stated is not None and stated != point:
        near = list(dict.fromkeys([stated, *near]))
    return [other for other in near if model.has(other) and model.width(other) == model.width(point)]


def with_outputs(sae: Any, points: list[HookPoint]) -> list[HookPoint]:
    """Some points and those that an SAE reading there writes to, each once."""
    return list(dict.fromkeys([*points, *(writes_at(sae, point) for point in points)]))


def at_points(sae: Any, activations: GroupActivations, points: list[HookPoint]) -> list[Alternative]:
    """The SAE on activations from other hook points."""
    found = []
    for point in points:
        sample = sample_at(sae, activations, point).spread()
        found.append(_measured("hook", f"layer {point.layer}, {point.kind}", quality_on(sae, sample)))
    return found


def with_other_input(sae: Any, sample: Sample) -> list[Alternative]:
    """The SAE on activations that are scaled, by one factor or token by token, or layer-normalised.

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


def best_scale(sae: Any, sample: Sample) -> tuple[float, Quality]:
    """The factor on the input at which the FVU is least, and the quality there.

    FVU as a function of the factor is not unimodal: first all octaves are tried, then ever finer steps about the best.
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


def with_other_layout(sae: Any, sample: Sample) -> list[Alternative]:
    """The SAE with its decoder, its encoder, or both taken for matrices that were stored the other way round."""
    found = []
    for names in (("W_dec",), ("W_enc",), ("W_dec", "W_enc")):
        if all(hasattr(sae, name) for name in names):
            with _transposed(sae, names):
                found.append(_measured("layout", f"{' and '.join(names)} transposed", quality_on(sae, sample)))
    return found


def with_other_bos(
    model: LanguageModel, parts: list[Part], point: HookPoint, sae: Any, *, context: int, bos: Opening
) -> list[Alternative]:
    """The SAE on windows that begin with BOS if they began with nothing, or on windows without what they began with."""
    other = model.tokenizer.bos_token_id if bos is None else None
    if bos is None and other is None:
        return []
    activations = run_group(model, parts, with_outputs(sae, [point]), context=context, bos=other)
    sample = sample_at(sae, activations, point).spread()
    without = "BOS" if isinstance(bos, int) else "the chat template"
    what = f"windows without {without}" if other is None else "windows that begin with BOS"
    return [_measured("bos", what, quality_on(sae, sample))]


def as_read(sae: Any, sample: Sample) -> Alternative:
    """The SAE as it was loaded, on the rows that the others are tried on."""
    return _measured("as read", "as loaded", quality_on(sae, sample))


def _measured(kind: Kind, what: str, quality: Quality, factor: float | None = None) -> Alternative:
    return Alternative(kind, what, quality.fvu, quality.l0, factor)


@contextmanager
def _transposed(sae: Any, names: tuple[str, ...]) -> Iterator[None]:
    """While open, each (a, b) matrix holds what its memory says when taken for (b, a) and transposed."""
    kept = {name: getattr(sae, name).data for name in names}
    try:
        for name, matrix in kept.items():
            getattr(sae, name).data = matrix.contiguous().reshape(matrix.shape[1], matrix.shape[0]).T.contiguous()
        yield
    finally:
        for name, matrix in kept.items():
            getattr(sae, name).data = matrix
