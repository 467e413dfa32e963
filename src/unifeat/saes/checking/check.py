"""`unifeat check`: an SAE on real activations, compared with its own claims and with other ways to read it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from unifeat.errors import UserError, did_you_mean
from unifeat.models.activations import run_group
from unifeat.models.language import check_layers, load_language_model, read_config, tokenizer_digest
from unifeat.models.opening import describe_opening, opening_of
from unifeat.saes.checking.claims import Claims, claims_of
from unifeat.saes.checking.examine import examine
from unifeat.saes.checking.loss import Loss, measure_loss
from unifeat.saes.checking.misreadings import Reading, neighbours, with_outputs
from unifeat.saes.checking.verdict import Finding
from unifeat.saes.fit import check_fits, fit_to_model
from unifeat.saes.load import load_sae
from unifeat.saes.protocol import SAE
from unifeat.saes.provenance import Provenance, provenance_of
from unifeat.saes.quality import Quality
from unifeat.text.corpus import build_corpus
from unifeat.text.sources import SHIPPED_TEXT
from unifeat.text.windows import first_parts
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookPoint
from unifeat.vocabulary.masks import Masked
from unifeat.vocabulary.openings import CHATS, Chat
from unifeat.vocabulary.windowing import Windowing


@dataclass(frozen=True)
class Checked:
    """The result of `check_sae`.

    Attributes:
        sae, model, text: names.
        point: where the activations are from.
        bos, chat: whether windows begin with BOS, and whose message of a chat template they are.
        quality: FVU, L0, dead share.
        decoder_norms: smallest, median and largest norm of the decoder's rows.
        masked: how many tokens were read and left out.
        provenance: how the checkpoint was read: format, normalisation, gate, folds.
        claims: what the SAE claims about itself.
        own, others: the SAE as loaded and its likely misreadings, all on the same sample of the tokens.
        loss: cross-entropies with the reconstruction spliced in, or None if not asked for.
        findings: the verdict; empty if the SAE fits.
    """

    sae: str
    model: str
    text: str
    point: HookPoint
    bos: bool
    chat: Chat
    quality: Quality
    decoder_norms: tuple[float, float, float]
    masked: Masked
    provenance: Provenance
    claims: Claims
    own: Reading
    others: list[Reading]
    loss: Loss | None
    findings: list[Finding]

    @property
    def fits(self) -> bool:
        """Whether nothing is wrong enough to stop a study."""
        return not any(f.level == "fault" for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON; None for figures that are not finite."""
        found: dict[str, Any] = _finite(
            {
                "sae": self.sae,
                "model": self.model,
                "text": self.text,
                "hook": self.point.saelens_name,
                "bos": self.bos,
                "chat": self.chat,
                **self.quality.as_dict(),
                "decoder_norm": dict(zip(("least", "median", "largest"), self.decoder_norms, strict=True)),
                "masked": asdict(self.masked),
                "loss": None if self.loss is None else self.loss.as_dict(),
                "read_as": asdict(self.provenance),
                "claims": asdict(self.claims),
                "readings": [asdict(a) for a in (self.own, *self.others)],
                "fits": self.fits,
                "findings": [asdict(f) for f in self.findings],
            }
        )
        return found


def check_sae(
    sae: str,
    model: str,
    layer: int | None = None,
    text: str | None = None,
    *,
    hook: str | None = None,
    documents: int | None = None,
    tokens: int = 8192,
    context: int = 128,
    dtype: str = "auto",
    device: str = "auto",
    bos: str | bool = "auto",
    chat: Chat = "none",
    revision: str | None = None,
    format: str = "auto",
    loss: bool = True,
    trust_remote_code: bool = False,
) -> Checked:
    """Measure an SAE on a model's activations over some text, and judge whether it is read correctly.

    Args:
        sae: `release/sae_id` from SAELens' registry, or a folder.
        model: hub name, folder or GGUF file.
        layer, hook: where to read; by default, where the SAE claims to read.
        text: file, glob or dataset; by default, chapters of *Alice in Wonderland* that come with unifeat.
        documents: at most this many documents.
        tokens: at most this many tokens of the model, not counting BOS.
        context: window length in tokens, including BOS.
        device: auto, cpu, cuda …, or map for a model larger than one device.
        bos, chat: the opening of windows, as in a study's `models`.
        revision: branch, tag or commit of a hub model.
        format: format of the SAE's files; auto recognises it.
        loss: also measure the loss recovered, which needs the whole model and three more forward passes.
        trust_remote_code: run the model's own code.

    Raises:
        UserError: unknown SAE, model or text; an SAE of another width; a layer that the model does not have, or no
            layer given.
    """
    if hook is not None and hook not in HOOK_KINDS:
        raise UserError(f"unknown hook point {hook!r}{did_you_mean(hook, HOOK_KINDS)}: use {', '.join(HOOK_KINDS)}")
    if chat not in CHATS:
        raise UserError(f"unknown chat {chat!r}{did_you_mean(chat, CHATS)}: use {', '.join(CHATS)}")
    loaded = load_sae(sae, format=format)
    claims = claims_of(loaded, sae)
    point = _point(claims, sae, layer, hook)
    config = read_config(model, dtype, revision, trust_remote_code=trust_remote_code)
    check_layers(model, [point], config.num_hidden_layers)
    check_fits(loaded, sae, model, config, point)
    stated = claims.point.layer if claims.point is not None else 0
    deeper = HookPoint(min(max(point.layer + 1, stated), config.num_hidden_layers - 1))
    language_model = load_language_model(
        model,
        [*with_outputs(loaded, [point]), deeper],
        dtype=dtype,
        device=device,
        whole=loss,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    fit_to_model(loaded, sae, language_model.blocks, point)
    near = neighbours(point, language_model, claims.point)
    points = with_outputs(loaded, [point, *near])
    loaded.to(str(language_model.device))
    tokenizer = language_model.tokenizer
    source = text if text is not None else str(SHIPPED_TEXT)
    corpus = build_corpus(
        source,
        documents=documents,
        tokens=tokens,
        count_tokens=lambda t: len(tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"]),
        tokenizer_digest=tokenizer_digest(tokenizer),
    )
    parts = first_parts(corpus, tokenizer, tokens)
    windowing = Windowing(context, opening_of(tokenizer, bos, chat))
    activations = run_group(language_model, parts, points, windowing)
    found = examine(language_model, parts, activations, loaded, claims, point, near, windowing, everything=True)
    lost = None
    if loss:
        largest = activations.sink_norm(point)
        lost = measure_loss(language_model, parts, point, loaded, windowing, sink_norm=largest)
    return Checked(
        sae=sae,
        model=model,
        text=source,
        point=point,
        bos=describe_opening(tokenizer, windowing.opening, chat)["bos"],
        chat=chat,
        quality=found.quality,
        decoder_norms=decoder_norms(loaded),
        masked=activations.without_sinks(point)[2],
        provenance=provenance_of(loaded),
        claims=claims,
        own=found.own,
        others=found.others,
        loss=lost,
        findings=found.findings,
    )


def _finite(value: Any) -> Any:
    """The same data with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decoder_norms(sae: SAE) -> tuple[float, float, float]:
    """Smallest, median and largest norm of the decoder's rows."""
    norms = sae.W_dec.detach().to(torch.float32).norm(dim=-1)
    return float(norms.min()), float(norms.median()), float(norms.max())


def _point(claims: Claims, sae: str, layer: int | None, hook: str | None) -> HookPoint:
    kind = hook if hook is not None else claims.hook or "resid_post"
    layer = layer if layer is not None else claims.layer
    for known in HOOK_KINDS:
        if kind == known and layer is not None:
            return HookPoint(layer, known)
    if kind not in HOOK_KINDS:
        raise UserError(
            f"SAE {sae} says it reads {kind}, which is none of {', '.join(HOOK_KINDS)}: if it does read one of these, "
            "give --hook and --layer"
        )
    raise UserError(f"SAE {sae} does not say which layer it reads: give --layer")
