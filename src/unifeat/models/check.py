"""`unifeat check`: what an SAE does on real activations."""

from __future__ import annotations

from unifeat.errors import UserError, did_you_mean
from unifeat.models.hooks import HOOK_KINDS, HookPoint
from unifeat.models.language import bos_of, load_language_model, tokenizer_digest
from unifeat.models.quality import Quality, measure_quality
from unifeat.models.sae import check_width, load_sae
from unifeat.text.corpus import build_corpus


def check_sae(
    sae: str,
    model: str,
    layer: int,
    text: str,
    *,
    hook: str = "resid_post",
    documents: int = 20,
    context: int = 128,
    dtype: str = "auto",
) -> Quality:
    """FVU, L0 and dead share of an SAE on a model's activations over some text.

    Raises:
        UserError: unknown SAE, model or text; an SAE of another width; a layer the model does not have.
    """
    if hook not in HOOK_KINDS:
        raise UserError(f"unknown hook point {hook!r}{did_you_mean(hook, HOOK_KINDS)}: use {', '.join(HOOK_KINDS)}")
    point = HookPoint(layer, hook)
    loaded = load_sae(sae)
    language_model = load_language_model(model, [point], dtype=dtype)
    check_width(loaded, sae, model, language_model.d_model)
    loaded.to(str(language_model.device))
    corpus = build_corpus(
        text,
        documents=documents,
        tokens=None,
        count_tokens=len,
        tokenizer_digest=tokenizer_digest(language_model.tokenizer),
    )
    bos = bos_of(language_model.tokenizer, "auto")
    return measure_quality(language_model, corpus, {point: loaded}, context=context, bos=bos)[point]
