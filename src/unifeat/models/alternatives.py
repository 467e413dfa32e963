"""Other ways to read an SAE, each measured: another hook point, another input scale, weights laid out otherwise, BOS.

An SAE that is read wrongly still gives codes. What gives it away is that some other reading explains more of the
variance; which one it is says what went wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from unifeat.models.activations import GroupActivations, run_group
from unifeat.models.hooks import HookKind, HookPoint
from unifeat.models.language import LanguageModel
from unifeat.models.opening import Opening
from unifeat.models.quality import ENCODE_ROWS, Quality
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


def quality_on(sae: Any, x: Tensor, prepare: Prepare | None = None) -> Quality:
    """Quality on (rows, d_in) float32 activations.

    Args:
        prepare: from rows to (what the SAE is given, the way back for its reconstruction).
    """
    quality = Quality()
    with torch.inference_mode():
        for rows in x.split(ENCODE_ROWS):
            given, back = prepare(rows) if prepare else (rows, None)
            codes = sae.encode(given)
            made = sae.decode(codes)
            quality.add(rows, codes, back(made) if back else made)
    return quality


def spread_rows(x: Tensor) -> Tensor:
    """At most `ROWS` rows, evenly spread."""
    return x[:: max(1, math.ceil(len(x) / ROWS))]


def neighbours(point: HookPoint, n_layers: int) -> list[HookPoint]:
    """The hook points that are easily taken for this one, in a model (or what is left of it) of so many blocks."""
    layer, kind = point
    kinds: dict[HookKind, tuple[HookKind, ...]] = {
        "resid_post": ("attn_out", "mlp_out"),
        "resid_pre": ("attn_out", "mlp_out"),
        "attn_out": ("resid_post", "mlp_out"),
        "mlp_out": ("resid_post", "attn_out"),
    }
    # A block's input is the output of the one before: `resid_pre` and `resid_post` are not tried for each other.
    near = [HookPoint(other, kind) for other in (layer - 1, layer + 1) if 0 <= other < n_layers]
    return near + [HookPoint(layer, other) for other in kinds[kind]]


def at_points(sae: Any, activations: GroupActivations, points: list[HookPoint]) -> list[Alternative]:
    """The SAE on activations from other hook points."""
    found = []
    for point in points:
        x, _, _ = activations.without_sinks(point)
        found.append(_measured("hook", f"layer {point.layer}, {point.kind}", quality_on(sae, spread_rows(x))))
    return found


def with_other_input(sae: Any, x: Tensor) -> list[Alternative]:
    """The SAE on activations that are scaled, by one factor or token by token, or layer-normalised.

    Args:
        x: (rows, d_in) float32, at most `ROWS` of them.
    """
    d = x.shape[-1]

    def token_norm(rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        factor = math.sqrt(d) / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return rows * factor, lambda y: y / factor

    def layer_norm(rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        mean, spread = rows.mean(-1, keepdim=True), rows.std(-1, keepdim=True) + 1e-5
        return (rows - mean) / spread, lambda y: y * spread + mean

    factor, quality = best_scale(sae, x)
    usual = math.sqrt(d) / float(x.norm(dim=-1).mean().clamp(min=1e-12))
    return [
        _measured("scale", f"× {factor:.3g} (√d over the mean norm is {usual:.3g})", quality, factor),
        _measured("token norm", "each token scaled to norm √d", quality_on(sae, x, token_norm)),
        _measured("layer norm", "each token to mean 0, variance 1", quality_on(sae, x, layer_norm)),
    ]


def best_scale(sae: Any, x: Tensor) -> tuple[float, Quality]:
    """The factor on the input at which the FVU is least, and the quality there.

    FVU as a function of the factor is not unimodal: first all octaves are tried, then ever finer steps about the best.
    """

    def at(exponent: float) -> Quality:
        return quality_on(sae, x, lambda rows: (rows * 2**exponent, lambda y: y / 2**exponent))

    def least(exponents: list[float]) -> float:
        tried.update({e: at(e) for e in exponents if e not in tried})
        return min(tried, key=lambda e: tried[e].fvu if tried[e].fvu == tried[e].fvu else math.inf)

    tried: dict[float, Quality] = {}
    best = least([float(e) for e in range(-_OCTAVES, _OCTAVES + 1)])
    for step in (0.5, 0.25, 0.125):
        best = least([best - step, best + step])
    return 2**best, tried[best]


def with_other_layout(sae: Any, x: Tensor) -> list[Alternative]:
    """The SAE with its decoder, its encoder, or both taken for matrices that were stored the other way round."""
    found = []
    for names in (("W_dec",), ("W_enc",), ("W_dec", "W_enc")):
        if all(hasattr(sae, name) for name in names):
            with _transposed(sae, names):
                found.append(_measured("layout", f"{' and '.join(names)} transposed", quality_on(sae, x)))
    return found


def with_other_bos(
    model: LanguageModel, parts: list[Part], point: HookPoint, sae: Any, *, context: int, bos: Opening
) -> list[Alternative]:
    """The SAE on windows that begin with BOS if they did not, or without it if they did."""
    other = model.tokenizer.bos_token_id if bos is None else None
    if bos is None and other is None:
        return []
    activations = run_group(model, parts, [point], context=context, bos=other)
    x, _, _ = activations.without_sinks(point)
    what = "windows without BOS" if other is None else "windows that begin with BOS"
    return [_measured("bos", what, quality_on(sae, spread_rows(x)))]


def as_read(sae: Any, x: Tensor) -> Alternative:
    """The SAE as it was loaded, on the rows that the others are tried on."""
    return _measured("as read", "as loaded", quality_on(sae, x))


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
