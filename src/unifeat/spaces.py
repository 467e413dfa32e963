"""From a study to spaces with finished codes: text, models, SAEs, encoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unifeat.codes.encode import Encoder, encode_spaces, store_settings
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.matching.candidates import fitting_documents
from unifeat.models.hooks import HookPoint
from unifeat.models.language import (
    LanguageModel,
    check_layers,
    load_language_model,
    load_tokenizer,
    model_identity,
    read_config,
    resolve_device,
    tokenizer_digest,
)
from unifeat.models.opening import Opening, describe_opening, opening_of
from unifeat.models.saes import check_fits, decoder_rows, fit_to_model, is_local, load_sae, writes_at
from unifeat.models.saes.controls import random_directions
from unifeat.models.saes.preactivation import check_pre_activation, codes_for
from unifeat.progress import say
from unifeat.space_check import Checkable, check_spaces, checked_before, warnings_of
from unifeat.storage import cache_root
from unifeat.study import ModelSpec, SpacesSpec, Study, TextSpec
from unifeat.text.corpus import Corpus, build_corpus


@dataclass(frozen=True)
class Space:
    """One model, one hook point, one SAE, with its codes on disk.

    Attributes:
        name: `model@layer`.
        decoder: (d_sae, d_in) float32, rows of unit norm.
        info: what the report says of it.
    """

    name: str
    group: str
    layer: int
    store: CodeStore
    tokenizer: Any = field(repr=False)
    decoder: np.ndarray = field(repr=False)
    info: dict[str, Any] = field(repr=False)


def study_corpus(text: TextSpec, tokenizer: Any) -> Corpus:
    """The documents of a study; a token budget is counted by this tokenizer."""
    return build_corpus(
        text.source,
        documents=text.documents,
        tokens=text.tokens,
        count_tokens=lambda t: len(tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"]),
        tokenizer_digest=tokenizer_digest(tokenizer),
        skip=text.skip,
        field=text.field,
        split=text.split,
        config=text.config,
    )


def prepare_spaces(
    study: Study, *, repair: bool = False, force: bool = False
) -> tuple[Corpus, list[Space], dict[str, Any]]:
    """Encode what is not encoded yet; returns the corpus, all spaces in the study's order, and facts of the models.

    Args:
        repair: encode damaged shards anew instead of stopping at them.
        force: encode with SAEs that do not do what they say they do instead of stopping at them.

    Raises:
        UserError: whatever of the study's text, models and SAEs does not exist or fit.
    """
    _check_names(study)
    tokenizers = {name: load_tokenizer(spec.name, spec.dtype, spec.revision) for name, spec in study.models.items()}
    # Known before the first model's work begins: a template that the last model lacks ends the study now.
    openings = {name: opening_of(tokenizers[name], spec.bos, spec.chat) for name, spec in study.models.items()}
    corpus = study_corpus(study.text, tokenizers[next(iter(study.models))])
    say(f"text: {corpus.documents:,} documents, {corpus.characters:,} characters from {study.text.source}")
    if study.matching.heldout:
        fitting_documents(
            corpus.documents, study.seed
        )  # a text that cannot be halved is found out before hours of work
    spaces: dict[str, Space] = {}
    models: dict[str, Any] = {}
    plans: list[_Plan] = []
    for model_name, spec in study.models.items():
        groups = [s for s in study.spaces if s.model == model_name]
        if not groups:
            continue
        config = read_config(spec.name, spec.dtype, spec.revision)
        tokenizer = tokenizers[model_name]
        bos = openings[model_name]
        identity = model_identity(spec.name, spec.dtype, spec.randomise, spec.revision)
        digest = tokenizer_digest(tokenizer)
        models[model_name] = {
            "name": spec.name,
            "revision": spec.revision,
            "commit": identity.get("commit"),
            "architecture": config.model_type,
            "layers": config.num_hidden_layers,
            "d_model": config.hidden_size,
            "dtype": identity["dtype"],
        } | describe_opening(tokenizer, bos, spec.chat)
        encoders: list[Encoder] = []
        for group, layer in ((g, layer) for g in groups for layer in g.layers):
            point = HookPoint(layer, group.hook)
            name = group.sae.format(layer=layer)
            sae = load_sae(name, format=group.format)
            check_fits(sae, name, f"{model_name} ({spec.name})", config, point)
            codes = codes_for(sae, group.codes)
            if codes == "pre_activation":
                check_pre_activation(sae, name)
            if group.random_directions is not None:
                random_directions(sae, group.random_directions)
            settings = store_settings(
                corpus,
                identity,
                digest,
                point,
                sae,
                context=study.text.context,
                bos=bos,
                mask=study.mask,
                limit=study.text.windows,
                codes=codes,
            )
            store = CodeStore.create(cache_root() / "codes", settings)
            store.verify(corpus.groups, repair=repair)
            encoders.append(Encoder(f"{group.name or model_name}@{layer}", point, sae, store, codes))
        plans.append(_Plan(model_name, spec, tokenizer, bos, encoders, [(g, n) for g in groups for n in g.layers]))
    # A preset repeats what was published, codes of the wrong layer among it: that is reported and stops nothing.
    held = _check_all(plans, corpus, study.text.context, force or study.preset is not None)
    # The model that was checked last is loaded already.
    for plan in sorted(plans, key=lambda p: held is None or p is not held[0]):
        if plan.unfinished():
            model = held[1] if held is not None and plan is held[0] else plan.load()
            held = None
            for encoder in plan.encoders:
                encoder.sae.to(str(model.device))
            encode_spaces(
                model,
                corpus,
                plan.encoders,
                context=study.text.context,
                bos=plan.bos,
                mask=study.mask,
                limit=study.text.windows,
            )
            del model
    for plan in plans:
        for encoder, (group, layer) in zip(plan.encoders, plan.groups, strict=True):
            sae = group.sae.format(layer=layer)
            info = {"model": plan.name, "layer": layer, "hook": group.hook, "sae": sae}
            info |= _facts(encoder) | {"control": _control(plan.spec, group)}
            info["warnings"] = warnings_of(encoder, sae)
            spaces[encoder.space] = Space(
                encoder.space,
                group.name or plan.name,
                layer,
                encoder.store,
                plan.tokenizer,
                decoder_rows(encoder.sae),
                info,
            )
    ordered = [spaces[f"{s.name or s.model}@{layer}"] for s in study.spaces for layer in s.layers]
    return corpus, ordered, models


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be encoded with one model, and with what."""

    name: str
    spec: ModelSpec
    tokenizer: Any
    bos: Opening
    encoders: list[Encoder]
    groups: list[tuple[SpacesSpec, int]]  # the spaces' part of the study and layer, an encoder each

    def unfinished(self) -> bool:
        return any(not e.store.finished() for e in self.encoders)

    def unchecked(self) -> list[Checkable]:
        """Spaces that are neither encoded nor checked; controls are meant to fit nothing."""
        if self.spec.randomise is not None:
            return []
        pairs = zip(self.encoders, self.groups, strict=True)
        return [
            (encoder, group.sae.format(layer=layer))
            for encoder, (group, layer) in pairs
            if group.random_directions is None and not encoder.store.finished()
        ]

    def load(self, deeper: int = 0) -> LanguageModel:
        """The model, cut `deeper` blocks below the deepest that is read."""
        # What a transcoder writes is compared with the model too, so that it is tried when the model is loaded.
        spec = self.spec
        points = [point for e in self.encoders for point in dict.fromkeys([e.point, writes_at(e.sae, e.point)])]
        if deeper:
            last = read_config(spec.name, spec.dtype, spec.revision).num_hidden_layers - 1
            points.append(HookPoint(min(last, max(p.layer for p in points) + deeper)))
        model = load_language_model(
            spec.name,
            points,
            dtype=spec.dtype,
            device=spec.device,
            randomise=spec.randomise,
            revision=spec.revision,
            max_memory=spec.max_memory,
        )
        for encoder, (group, layer) in zip(self.encoders, self.groups, strict=True):
            fit_to_model(encoder.sae, group.sae.format(layer=layer), model.blocks, encoder.point)
        return model


def _check_all(plans: list[_Plan], corpus: Corpus, context: int, force: bool) -> tuple[_Plan, LanguageModel] | None:
    """Check all SAEs before the first is used for hours; returns the last model that was loaded for it, if any."""
    held: tuple[_Plan, LanguageModel] | None = None
    for plan in plans:
        todo = plan.unchecked()
        if not todo:
            continue
        model = None
        if not all(checked_before(*space) for space in todo):
            held = None
            model = plan.load(deeper=1)
            for encoder, _ in todo:
                encoder.sae.to(str(model.device))
        check_spaces(model, corpus, todo, context=context, bos=plan.bos, force=force)
        if model is not None:
            model.cut(max(e.point.layer for e in plan.encoders))
            held = (plan, model)
    return held


def _check_names(study: Study) -> None:
    """What can be known at once, before the first model spends minutes on work that the second one's mistake ends."""
    for group in study.spaces:
        spec = study.models[group.model]
        resolve_device(spec.device)
        points = [HookPoint(layer, group.hook) for layer in group.layers]
        check_layers(spec.name, points, read_config(spec.name, spec.dtype, spec.revision).num_hidden_layers)
        for layer in group.layers:
            name = group.sae.format(layer=layer)
            if is_local(name) and not Path(name).expanduser().exists():
                way_out = ": `unifeat train STUDY.yaml` trains it" if study.train else ""
                raise UserError(f"SAE {name}: no such folder{way_out}")


def _control(model: ModelSpec, spaces: SpacesSpec) -> str | None:
    """What makes these spaces a control, if anything does."""
    kinds = {"random weights": model.randomise, "random directions": spaces.random_directions}
    return " and ".join(kind for kind, seed in kinds.items() if seed is not None) or None


def _facts(encoder: Encoder) -> dict[str, Any]:
    """Counts and quality of a space, from its shards."""
    store = encoder.store
    totals = store.totals()
    fired = np.zeros(store.features, bool)
    nonzeros = 0
    for shard in store.shards():
        fired[shard.feature] = True
        nonzeros += len(shard.feature)
    total = totals.get("fvu_total", 0.0)
    return {
        "d_in": int(encoder.sae.cfg.d_in),
        "d_sae": store.features,
        "architecture": encoder.sae.cfg.architecture(),
        "tokens_read": int(totals["read"]),
        "masked": {reason: int(totals[reason]) for reason in ("special", "first", "sink")},
        "padding": int(totals.get("pad", 0)),
        "tokens_kept": store.rows,
        "l0": nonzeros / store.rows if store.rows else None,
        "fvu": totals["fvu_error"] / total if total > 0 else None,
        "alive": int(fired.sum()),
        "dead_share": float(1 - fired.mean()),
        "encoded_as": encoder.codes,
        "codes": str(store.folder),
    }
