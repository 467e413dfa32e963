"""Provenance: how an SAE's checkpoint was read, and what it claims about itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from unifeat.vocabulary.hook_points import HOOK_KINDS, HookKind, parse_hook

_LAYER = re.compile(r"(?:^|[._/-])(?:(?:blocks|layers?)[._]?|h\.)(\d+)(?=[._/-]|$)")


@dataclass(frozen=True)
class Provenance:
    """How a checkpoint was read, and what it claims about itself. `None` means "not stated".

    Attributes:
        format: name of the format, as in `load_sae(format=…)`.
        architecture: SAELens' name of the architecture: standard, topk, jumprelu, gated, transcoder …
        normalisation: what is done to an activation before encoding: "none", the operation, or the folded factor.
        pre_bias: whether the decoder's bias is subtracted before the encoder.
        gate: which features fire: "relu", "top-k of 32", "threshold per feature" …
        folds: what was folded into the weights, in order, so that the SAE accepts the model's activations unchanged.
        decoder_norms: smallest and largest norm of the decoder rows in the file, before any fold.
        k: features that fire on each token, if that number is fixed.
        model, hook: the model and hook point that it was trained on; the hook with TransformerLens' name.
        hook_out: for a transcoder, where its decoder writes; `None` for an autoencoder.
        bos: whether its training text began with BOS.
        claimed_l0, claimed_variance_explained: the figures in its registry, name or card.
        of_module: for an SAE trained on a module's own output (sparsify), the module's name.
        less_value_biases: whether it was trained on heads without attention's value biases (`fit.fit_to_model`).
        control: how it was changed as a control (`controls.random_directions`); empty otherwise.
    """

    format: str
    architecture: str
    normalisation: str
    pre_bias: bool
    gate: str
    folds: tuple[str, ...]
    decoder_norms: tuple[float, float]
    k: int | None = None
    model: str | None = None
    hook: str | None = None
    hook_out: str | None = None
    bos: bool | None = None
    claimed_l0: float | None = None
    claimed_variance_explained: float | None = None
    of_module: str | None = None
    less_value_biases: bool = False
    control: str = ""

    @property
    def layer(self) -> int | None:
        """The block in the hook's name."""
        return layer_in(self.hook) if self.hook else None

    @property
    def hook_kind(self) -> HookKind | None:
        """The kind of hook point as a study names it, or None if it is not one of those."""
        kind = parse_hook(self.hook)[0]
        return next((known for known in HOOK_KINDS if known == kind), None)


def provenance_of(sae: Any) -> Provenance:
    """The `Provenance` of an SAE from `load_sae`."""
    provenance = sae.unifeat_provenance
    assert isinstance(provenance, Provenance)
    return provenance


def layer_in(name: str) -> int | None:
    """The last layer number in a name: 12 in `layer_12/width_16k`, `blocks.12.hook_resid_post` and `h.12.attn`."""
    found = _LAYER.findall(name)
    return int(found[-1]) if found else None


def describe_gate(sae: Any) -> str:
    """A description of which features of a SAELens object fire."""
    kind = sae.cfg.architecture()
    if kind in ("topk", "groupmax", "abstopk"):
        words = {"topk": "top-k of", "groupmax": "largest of each of the groups, groups:", "abstopk": "top-|k| of"}
        by_norm = ", ranked by pre-activation × decoder norm" if sae.cfg.rescale_acts_by_decoder_norm else ""
        return f"{words[kind]} {sae.cfg.k}{by_norm}"
    if "jumprelu" in kind:
        low, high = (float(value) for value in sae.threshold.detach().float().aminmax())
        return f"one threshold, {low:.4g}" if low == high else f"threshold per feature, {low:.4g} to {high:.4g}"
    return {"gated": "gate network", "matching_pursuit": "matching pursuit"}.get(kind, "relu")
