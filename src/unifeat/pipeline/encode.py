"""Text, models and SAEs of a study → spaces with finished codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from unifeat.codes.activations import activation_settings, sample_share
from unifeat.codes.encode import Sampler, encode_spaces, store_settings
from unifeat.codes.facts import facts_unit
from unifeat.codes.store import CodeStore
from unifeat.codes.top_activations import TopTokens, top_unit
from unifeat.engine import Engine, Local, forget
from unifeat.errors import UserError
from unifeat.models.language import check_layers, model_identity, read_config, resolve_dtype, tokenizer_digest
from unifeat.models.opening import describe_opening, opening_of
from unifeat.models.placement import MAP, ONE_GPU, device_memory, resolve_device
from unifeat.models.sizes import sizes_of
from unifeat.models.tokens import extra_specials
from unifeat.pipeline.brought import brought_models, brought_spaces, check_brought
from unifeat.pipeline.check import check_unit, checked_before, report_checks, warnings_of
from unifeat.pipeline.loading import Loader, PlannedSpace
from unifeat.pipeline.rows import text_of
from unifeat.pipeline.space_facts import control_of, facts_elsewhere, facts_of
from unifeat.pipeline.spaces import (
    Space,
    Tokenizer,
    compared_spaces,
    elsewhere_corpus,
    study_corpus,
    with_types,
)
from unifeat.progress import say
from unifeat.saes.checking.claims import claims_of
from unifeat.saes.controls import random_directions
from unifeat.saes.decoding import writes_at
from unifeat.saes.encoding import check_pre_activation, codes_for
from unifeat.saes.fit import check_fits
from unifeat.saes.load import is_local
from unifeat.saes.recipe import Recipe
from unifeat.saes.weights import Decoder, RowsOfSae, decoder_rows, size_of
from unifeat.store import cache_root, key_of
from unifeat.store.paths import exists, user_path
from unifeat.study.spec import ModelSpec, Study
from unifeat.study.text import source_said
from unifeat.text.corpus import Corpus
from unifeat.text.halves import fitting_documents
from unifeat.vocabulary.hook_points import HookPoint, width_at
from unifeat.vocabulary.windowing import Windowing

_SHARE_OF_SAES = 0.5  # of the memory of the device that the SAEs run on


@dataclass(frozen=True)
class Prepared:
    """The result of encoding.

    Attributes:
        corpus: the text.
        spaces: in the study's order, with finished codes.
        models: facts of each model, for `run.json`.
        elsewhere: the text elsewhere; None if the study has none.
    """

    corpus: Corpus
    spaces: list[Space]
    models: dict[str, Any]
    elsewhere: Corpus | None = None


def prepare_spaces(
    study: Study,
    *,
    force: bool = False,
    engine: Engine | None = None,
    ready: Callable[[Prepared], None] | None = None,
    encode: bool = True,
) -> Prepared:
    """Encode the spaces of a study that are not encoded yet.

    Args:
        force: continue with SAEs that the check finds faulty.
        engine: what runs the units of work; by default, this machine's cores.
        ready: called after each model but the last, with the spaces that are encoded by then.
        encode: if False, nothing is checked or encoded: what a finished run has left in the cache is opened.

    Raises:
        UserError: a text, model or SAE of the study does not exist or does not fit; codes that are not in the cache,
            without `encode`.
    """
    engine = engine or Local()
    study = with_types(study, engine)
    _check_names(study, engine)
    check_brought(study)
    used = [name for name in study.models if any(group.model == name for group in study.encoded)]
    tokenizers = {name: Tokenizer(spec)() for name, spec in study.models.items()}
    # Openings are made before any model runs, so that a missing chat template is reported at once.
    windowings = {
        name: Windowing(
            study.text.context, opening_of(tokenizers[name], spec.bos, spec.chat), study.mask, study.text.windows
        )
        for name, spec in study.models.items()
    }
    counter = tokenizers[next(iter(study.models))] if study.models else None
    corpus = study_corpus(text_of(study.text, study.brought, encoded=bool(study.encoded)), counter)
    tell = say if encode else _nothing
    source = source_said(study.text.source)
    tell(f"text: {corpus.documents:,} documents, {corpus.characters:,} characters from {source}")
    other = elsewhere_corpus(study.text, corpus, counter)
    if other is not None and study.text.elsewhere is not None:
        source = source_said(study.text.elsewhere.source)
        tell(f"elsewhere: {other.documents:,} documents, {other.characters:,} characters from {source}")
    if study.matching.heldout:  # report a text that cannot be halved before hours of work
        fitting_documents(corpus.documents, study.seed)
    brought = brought_spaces(study, corpus, engine, encode=encode)
    unseen = brought_models(brought)
    plans = [_plan(study, name, corpus, other, tokenizers[name], windowings[name]) for name in used]
    if not encode:
        _check_encoded(plans)
        spaces = brought | {space.name: space for plan in plans for space in _finished(study, plan, engine)}
        return Prepared(corpus, _ordered(study, spaces), unseen | {plan.name: plan.facts for plan in plans}, other)
    _check_memory(plans, engine.memory)
    try:
        # A preset repeats published choices, even codes of a wrong layer; so faults are reported but do not stop it.
        last = _check_all(plans, corpus, engine, force or study.preset is not None)
        spaces = dict(brought)
        # The model that was checked last is already loaded, so it comes first; what is only a control comes last.
        for number, plan in enumerate(sorted(plans, key=lambda p: (None not in p.controls, p is not last)), start=1):
            samplers = plan.unfinished_samples()
            batches = list(_batches([space for space in plan.spaces if not space.finished]))
            for batch in batches or ([[]] if samplers else []):
                _encode(plan, batch, samplers, corpus, other, engine)
                samplers = []  # in the first pass
            spaces |= {space.name: space for space in _finished(study, plan, engine)}
            if ready is not None and number < len(plans):
                ready(Prepared(corpus, _ordered(study, spaces), {}, other))
    finally:
        forget()
    return Prepared(corpus, _ordered(study, spaces), unseen | {plan.name: plan.facts for plan in plans}, other)


def _nothing(_: str) -> None:
    pass


def _ordered(study: Study, spaces: dict[str, Space]) -> list[Space]:
    """Those of the study's spaces that there are, in its order."""
    return [spaces[name] for name in study.space_names if name in spaces]


@dataclass(frozen=True, eq=False)
class _Plan:
    """What to encode with one model."""

    name: str
    spec: ModelSpec
    tokenizer: Tokenizer
    tokenizer_digest: str
    windowing: Windowing
    identity: str
    facts: dict[str, Any]
    model_bytes: float
    spaces: list[PlannedSpace]
    controls: list[str | None]  # for each space, what makes it a control

    def unchecked(self) -> list[PlannedSpace]:
        """Spaces to check: those not encoded yet, and those whose check is missing or damaged (`run.json` holds what it
        found). Controls are not checked, since they are not meant to fit.
        """
        ordinary = [space for space, control in zip(self.spaces, self.controls, strict=True) if control is None]
        return [space for space in ordinary if not space.store.finished() or not checked_before(space)]

    def unfinished_samples(self) -> list[Sampler]:
        """The samples of activations that are not finished, each once: several SAEs may read at one hook point."""
        samples = {space.sample.name: space.sample for space in self.spaces if space.sample is not None}
        return [sample for sample in samples.values() if not sample.store.finished()]

    def loader(self, spaces: list[PlannedSpace]) -> Loader:
        """What loads the model with the SAEs of some spaces."""
        # A transcoder's output is compared with the model too, so the self-test includes that hook point.
        points = [point for space in self.spaces for point in (space.point, space.writes_at)]
        return Loader(self.spec, tuple(dict.fromkeys(points)), tuple(spaces), self.identity)


def _encode(
    plan: _Plan,
    batch: list[PlannedSpace],
    samplers: list[Sampler],
    corpus: Corpus,
    other: Corpus | None,
    engine: Engine,
) -> None:
    """Encode spaces of one model on both texts, one after the other: the model and the SAEs are loaded once.

    Args:
        samplers: activations to be sampled in the same pass over the study's own text.
    """
    loader, name = replace(plan.loader(batch), samplers=tuple(samplers)), plan.spec.name.rsplit("/", 1)[-1]
    gpu = plan.spec.device in ONE_GPU
    own = {space.name: space.store for space in batch} | {sampler.name: sampler.store for sampler in samplers}
    there = {space.name: space.elsewhere for space in batch if space.elsewhere is not None}
    texts = (corpus, own, name, "the text"), (other, there, f"{name} elsewhere", "text.elsewhere")
    for documents, stores, shown, text in texts:
        missing = {space: store for space, store in stores.items() if not store.finished()}
        if documents is not None and missing:
            encode_spaces(
                *(loader, loader.key, documents, missing, plan.windowing, engine), name=shown, text=text, gpu=gpu
            )


def _plan(study: Study, name: str, corpus: Corpus, other: Corpus | None, tokenizer: Any, windowing: Windowing) -> _Plan:
    """Read a model's SAEs, one at a time, and open their stores; damaged shards are removed."""
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
    compared = compared_spaces(study) if other is not None else set()
    spaces: list[PlannedSpace] = []
    controls: list[str | None] = []
    for group in study.encoded:
        for layer in group.layers if group.model == name else ():
            point, recipe = HookPoint(layer, group.hook), Recipe(group.sae_at(layer), group.format)
            sae = recipe.load()
            check_fits(sae, recipe.name, f"{name} ({spec.name})", config, point)
            codes = codes_for(sae, group.codes)
            if codes == "pre_activation":
                check_pre_activation(sae, recipe.name)
            if group.random_directions is not None:
                recipe = replace(recipe, random_directions=group.random_directions)
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
            space = f"{group.prefix}@{layer}"
            store, elsewhere = _store(settings, corpus), None
            if other is not None and space in compared:
                elsewhere = _store(settings | {"text": other.digest, "cut": list(other.cut)}, other)
            sample = _sample(study, corpus, settings, point, writes_at(sae, point), config)
            decoder = Decoder(RowsOfSae(recipe), settings["sae"])
            decoder.store(partial(decoder_rows, sae))
            control = control_of(spec, group)
            info = {"model": name, "layer": layer, "hook": group.hook, "sae": recipe.name}
            info |= {"d_in": int(sae.cfg.d_in), "architecture": sae.cfg.architecture(), "control": control}
            info["decoder"] = decoder.digest
            spaces.append(
                PlannedSpace(
                    name=space,
                    group=group.prefix,
                    layer=layer,
                    point=point,
                    writes_at=writes_at(sae, point),
                    sae=recipe,
                    size=size_of(sae),
                    store=store,
                    codes=codes,
                    values=group.values,
                    claims=claims_of(sae, recipe.name),
                    decoder=decoder,
                    info=info,
                    sample=sample,
                    elsewhere=elsewhere,
                )
            )
            controls.append(control)
    return _Plan(
        *(name, spec, Tokenizer(spec), digest, windowing, key_of([identity, list(map(str, facts.values()))])),
        *(facts, _model_bytes(spec, config, spaces), spaces, controls),
    )


def _sample(
    study: Study, corpus: Corpus, codes: dict[str, Any], point: HookPoint, target: HookPoint, config: Any
) -> Sampler | None:
    """How the activations at `target` are sampled; damaged shards are removed."""
    if study.sampled is None:
        return None
    share = sample_share(corpus, study.sampled.rows)
    settings = activation_settings(codes, point, target, width_at(config, target.kind), share)
    store = _store(settings, corpus)
    return Sampler(f"activations {store.folder.name}", point, target, share, store)


def _store(settings: dict[str, Any], corpus: Corpus) -> CodeStore:
    """The store of codes, new or existing; damaged shards are removed."""
    store = CodeStore.create(cache_root() / "codes", settings)
    store.verify(corpus.groups)
    return store


def _model_bytes(spec: ModelSpec, config: Any, spaces: list[PlannedSpace]) -> float:
    """Memory that the model takes as far as it is read; 0 where it is spread, or has code of its own."""
    if spec.device == MAP or spec.trust_remote_code:
        return 0.0
    return sizes_of(config, max(space.point.layer for space in spaces), resolve_dtype(spec.dtype).itemsize).bytes


def _check_memory(plans: list[_Plan], memory: float) -> None:
    """Raise a UserError if a model does not fit with one of its SAEs in the memory of a worker.

    Args:
        memory: bytes. (What is on a GPU is in the CPU's memory first.)
    """
    for plan in plans:
        waiting = [space.size for space in plan.spaces if not space.finished]
        need = plan.model_bytes + max(waiting, default=0)
        if waiting and need > memory:
            raise UserError(
                f"model {plan.name} takes {need / 1e9:.1f} GB with one of its SAEs, and only {memory / 1e9:.1f} GB are "
                "free: use a machine with more memory, device: map, or a smaller dtype (`unifeat plan` shows all sizes)"
            )


def _check_encoded(plans: list[_Plan]) -> None:
    """Raise a UserError if a space, or the activations of one, are not encoded."""
    for plan in plans:
        missing = [space.name for space in plan.spaces if not space.finished]
        missing += [f"activations of {plan.name}" for _ in plan.unfinished_samples()]
        if missing:
            raise UserError(
                f"the cache {cache_root()} does not hold the codes of {missing[0]} (any more): run the study again, "
                "which makes what is missing"
            )


def _batches(spaces: list[PlannedSpace]) -> Iterator[list[PlannedSpace]]:
    """Spaces whose SAEs are in memory at once: all, unless that takes too much; each batch is one pass of the model."""
    room = _SHARE_OF_SAES * device_memory()
    batch: list[PlannedSpace] = []
    for space in spaces:
        if batch and sum(other.size for other in batch) + space.size > room:
            yield batch
            batch = []
        batch.append(space)
    if batch:
        yield batch


def _check_all(plans: list[_Plan], corpus: Corpus, engine: Engine, force: bool) -> _Plan | None:
    """Check all SAEs before hours of encoding; returns the last plan whose model was loaded for this, if any."""
    last: _Plan | None = None
    for plan in plans:
        waiting = plan.unchecked()
        new = [space for space in waiting if not checked_before(space)]
        windowing = Windowing(plan.windowing.context, plan.windowing.opening)
        for batch in _batches(new):
            for _ in engine.map([check_unit(plan.loader(batch), corpus, windowing)]):
                last = plan
        report_checks(waiting, force=force)
    return last


def _finished(study: Study, plan: _Plan, engine: Engine) -> Iterator[Space]:
    """A plan's spaces, after they have been encoded."""
    counts = engine.map(facts_unit(space.store) for space in plan.spaces)
    for space, counted in zip(plan.spaces, counts, strict=True):
        tops = top_unit(space.store)
        tokens = TopTokens(tops, plan.tokenizer, plan.tokenizer_digest, study.matching.top_tokens)
        info = space.info | facts_of(space, counted) | {"warnings": warnings_of(space)}
        if study.text.elsewhere is not None:
            info["elsewhere"] = facts_elsewhere(space.elsewhere)
        yield Space(
            *(space.name, space.group, space.layer, space.store, plan.tokenizer, space.decoder, tokens, info),
            elsewhere=space.elsewhere,
            loader=plan.loader([space]),
            activations=space.sample.store if space.sample else None,
            windowing=plan.windowing,
        )


def _check_names(study: Study, engine: Engine) -> None:
    """Check names, devices and layers of all models before the first one runs, to report mistakes at once."""
    for device in [
        study.matching.device,
        study.inference.device,
        *(study.models[group.model].device for group in study.encoded),
    ]:
        if not engine.remote:
            resolve_device(device)
        elif device.startswith("cuda") and not engine.gpus:
            raise UserError(f"device {device!r}: no node of the cluster has a GPU; use auto or cpu")
    for group in study.encoded:
        spec = study.models[group.model]
        points = [HookPoint(layer, group.hook) for layer in group.layers]
        config = read_config(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code)
        check_layers(spec.name, points, config.num_hidden_layers)
        for layer in group.layers:
            name = group.sae_at(layer)
            path = user_path(name, "SAE")
            if is_local(name) and not exists(path):
                way_out = ": `unifeat train STUDY.yaml` trains it" if study.train else ""
                raise UserError(f"SAE {name}: no such folder{way_out}")
