"""Text, models and SAEs of a study → spaces with finished codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unifeat.codes.encode import Encoder, encode_spaces, store_settings
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.models.language import (
    LanguageModel,
    check_layers,
    load_language_model,
    load_tokenizer,
    model_identity,
    read_config,
    tokenizer_digest,
)
from unifeat.models.opening import describe_opening, opening_of
from unifeat.models.placement import resolve_device
from unifeat.models.tokens import extra_specials
from unifeat.pipeline.check import Checkable, check_spaces, checked_before, warnings_of
from unifeat.pipeline.spaces import Space, study_corpus
from unifeat.progress import say
from unifeat.saes.controls import random_directions
from unifeat.saes.decoding import writes_at
from unifeat.saes.encoding import check_pre_activation, codes_for
from unifeat.saes.fit import check_fits, fit_to_model
from unifeat.saes.load import is_local, load_sae
from unifeat.saes.quality import fvu
from unifeat.saes.weights import decoder_rows
from unifeat.store import cache_root
from unifeat.store.paths import exists, user_path
from unifeat.study.spec import ModelSpec, SpacesSpec, Study
from unifeat.text.corpus import Corpus
from unifeat.text.halves import fitting_documents
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing


@dataclass(frozen=True)
class Prepared:
    """The result of encoding.

    Attributes:
        corpus: the text.
        spaces: in the study's order, with finished codes.
        models: facts of each model, for `run.json`.
    """

    corpus: Corpus
    spaces: list[Space]
    models: dict[str, Any]


def prepare_spaces(study: Study, *, force: bool = False) -> Prepared:
    """Encode the spaces of a study that are not encoded yet.

    Args:
        force: continue with SAEs that the check finds faulty.

    Raises:
        UserError: a text, model or SAE of the study does not exist or does not fit.
    """
    _check_names(study)
    used = [name for name in study.models if any(group.model == name for group in study.spaces)]
    tokenizers = {
        name: load_tokenizer(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code)
        for name, spec in study.models.items()
    }
    # Openings are made before any model runs, so that a missing chat template is reported at once.
    windowings = {
        name: Windowing(
            study.text.context, opening_of(tokenizers[name], spec.bos, spec.chat), study.mask, study.text.windows
        )
        for name, spec in study.models.items()
    }
    corpus = study_corpus(study.text, tokenizers[next(iter(study.models))])
    say(f"text: {corpus.documents:,} documents, {corpus.characters:,} characters from {study.text.source}")
    if study.matching.heldout:  # report a text that cannot be halved before hours of work
        fitting_documents(corpus.documents, study.seed)
    plans = [_plan(study, name, corpus, tokenizers[name], windowings[name]) for name in used]
    # A preset repeats published choices, even codes of a wrong layer; so faults are reported but do not stop the run.
    loaded = _check_all(plans, corpus, force or study.preset is not None)
    # The model that was checked last is already loaded, so it comes first.
    for plan in sorted(plans, key=lambda p: loaded is None or p is not loaded[0]):
        if plan.unfinished():
            model = loaded[1] if loaded is not None and plan is loaded[0] else plan.load()
            loaded = None
            for encoder in plan.encoders:
                encoder.sae.to(str(model.device))
            encode_spaces(model, corpus, plan.encoders, plan.windowing)
            del model
    spaces = {space.name: space for plan in plans for space in plan.spaces()}
    ordered = [spaces[f"{s.name or s.model}@{layer}"] for s in study.spaces for layer in s.layers]
    return Prepared(corpus, ordered, {plan.name: plan.facts for plan in plans})


@dataclass(frozen=True, eq=False)
class _Plan:
    """What to encode with one model."""

    name: str
    spec: ModelSpec
    tokenizer: Any
    windowing: Windowing
    facts: dict[str, Any]
    encoders: list[Encoder]
    groups: list[tuple[SpacesSpec, int]]  # for each encoder, its section of the study and its layer

    def unfinished(self) -> bool:
        return any(not e.store.finished() for e in self.encoders)

    def unchecked(self) -> list[Checkable]:
        """Spaces to check: those not encoded yet, and those whose check is missing or damaged (`run.json` holds what it
        found). Controls are not checked, since they are not meant to fit.
        """
        if self.spec.randomise is not None:
            return []
        pairs = zip(self.encoders, self.groups, strict=True)
        spaces = [
            Checkable(encoder, _sae_name(group, layer))
            for encoder, (group, layer) in pairs
            if group.random_directions is None
        ]
        return [space for space in spaces if not space.encoder.store.finished() or not checked_before(space)]

    def load(self, deeper: int = 0) -> LanguageModel:
        """The model, cut `deeper` blocks after the deepest one that is read."""
        # A transcoder's output is compared with the model too, so the self-test includes that hook point.
        spec = self.spec
        points = [point for e in self.encoders for point in dict.fromkeys([e.point, writes_at(e.sae, e.point)])]
        if deeper:
            config = read_config(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code)
            last = config.num_hidden_layers - 1
            points.append(HookPoint(min(last, max(p.layer for p in points) + deeper)))
        model = load_language_model(
            spec.name,
            points,
            dtype=spec.dtype,
            device=spec.device,
            randomise=spec.randomise,
            revision=spec.revision,
            max_memory=spec.max_memory,
            trust_remote_code=spec.trust_remote_code,
        )
        for encoder, (group, layer) in zip(self.encoders, self.groups, strict=True):
            fit_to_model(encoder.sae, _sae_name(group, layer), model.blocks, encoder.point)
        return model

    def spaces(self) -> list[Space]:
        """The spaces, after they have been encoded."""
        found = []
        for encoder, (group, layer) in zip(self.encoders, self.groups, strict=True):
            sae = _sae_name(group, layer)
            info = {"model": self.name, "layer": layer, "hook": group.hook, "sae": sae}
            info |= _facts(encoder) | {"control": _control(self.spec, group)}
            info["warnings"] = warnings_of(Checkable(encoder, sae))
            found.append(
                Space(
                    encoder.space,
                    group.name or self.name,
                    layer,
                    encoder.store,
                    self.tokenizer,
                    decoder_rows(encoder.sae),
                    info,
                )
            )
        return found


def _plan(study: Study, name: str, corpus: Corpus, tokenizer: Any, windowing: Windowing) -> _Plan:
    """Load a model's SAEs and open their stores; damaged shards are removed."""
    spec = study.models[name]
    trust = spec.trust_remote_code
    config = read_config(spec.name, spec.dtype, spec.revision, trust_remote_code=trust)
    identity = model_identity(spec.name, spec.dtype, spec.randomise, spec.revision, trust_remote_code=trust)
    facts = {
        "name": spec.name,
        "revision": spec.revision,
        "commit": identity.get("commit"),
        "architecture": config.model_type,
        "layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "dtype": identity["dtype"],
    } | describe_opening(tokenizer, windowing.opening, spec.chat)
    digest = tokenizer_digest(tokenizer)
    groups = [(group, layer) for group in study.spaces if group.model == name for layer in group.layers]
    encoders: list[Encoder] = []
    for group, layer in groups:
        point, sae_name = HookPoint(layer, group.hook), _sae_name(group, layer)
        sae = load_sae(sae_name, format=group.format)
        check_fits(sae, sae_name, f"{name} ({spec.name})", config, point)
        codes = codes_for(sae, group.codes)
        if codes == "pre_activation":
            check_pre_activation(sae, sae_name)
        if group.random_directions is not None:
            random_directions(sae, group.random_directions)
        settings = store_settings(
            corpus,
            identity,
            digest,
            point,
            sae,
            windowing,
            codes=codes,
            values=group.values,
            specials=extra_specials(tokenizer),
        )
        store = CodeStore.create(cache_root() / "codes", settings)
        store.verify(corpus.groups)
        encoders.append(Encoder(f"{group.name or name}@{layer}", point, sae, store, codes, group.values))
    return _Plan(name, spec, tokenizer, windowing, facts, encoders, groups)


def _sae_name(group: SpacesSpec, layer: int) -> str:
    return group.sae_at(layer)


def _check_all(plans: list[_Plan], corpus: Corpus, force: bool) -> tuple[_Plan, LanguageModel] | None:
    """Check all SAEs before hours of encoding; returns the last model that was loaded for this, if any."""
    loaded: tuple[_Plan, LanguageModel] | None = None
    for plan in plans:
        waiting = plan.unchecked()
        if not waiting:
            continue
        model = None
        if not all(checked_before(space) for space in waiting):
            loaded = None
            model = plan.load(deeper=1)
            for space in waiting:
                space.encoder.sae.to(str(model.device))
        check_spaces(model, corpus, waiting, Windowing(plan.windowing.context, plan.windowing.opening), force=force)
        if model is not None:
            model.cut(max(e.point.layer for e in plan.encoders))
            loaded = (plan, model)
    return loaded


def _check_names(study: Study) -> None:
    """Check names, devices and layers of all models before the first one runs, to report mistakes at once."""
    for group in study.spaces:
        spec = study.models[group.model]
        resolve_device(spec.device)
        points = [HookPoint(layer, group.hook) for layer in group.layers]
        config = read_config(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code)
        check_layers(spec.name, points, config.num_hidden_layers)
        for layer in group.layers:
            name = _sae_name(group, layer)
            path = user_path(name, "SAE")
            if is_local(name) and not exists(path):
                way_out = ": `unifeat train STUDY.yaml` trains it" if study.train else ""
                raise UserError(f"SAE {name}: no such folder{way_out}")


def _control(model: ModelSpec, spaces: SpacesSpec) -> str | None:
    """What makes these spaces a control; None for ordinary spaces."""
    kinds = {"random weights": model.randomise, "random directions": spaces.random_directions}
    return " and ".join(kind for kind, seed in kinds.items() if seed is not None) or None


def _facts(encoder: Encoder) -> dict[str, Any]:
    """Counts and quality of a space, computed from its shards."""
    store = encoder.store
    totals = store.totals()
    fired = np.zeros(store.features, bool)
    nonzeros = 0
    for shard in store.shards():
        fired[shard.feature] = True
        nonzeros += len(shard.feature)
    return {
        "d_in": int(encoder.sae.cfg.d_in),
        "d_sae": store.features,
        "architecture": encoder.sae.cfg.architecture(),
        "tokens_read": int(totals["read"]),
        "masked": {reason: int(totals[reason]) for reason in ("special", "first", "sink")},
        "padding": int(totals.get("pad", 0)),
        "tokens_kept": store.rows,
        "l0": nonzeros / store.rows if store.rows else None,
        "fvu": fvu(totals["fvu_error"], totals["fvu_total"]) if totals.get("fvu_total", 0.0) > 0 else None,
        "alive": int(fired.sum()),
        "dead_share": float(1 - fired.mean()),
        "encoded_as": encoder.codes,
        "codes": str(store.folder),
    }
