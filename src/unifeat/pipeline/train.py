"""`unifeat train`: the SAEs that a study names and that do not exist yet."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

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
from unifeat.pipeline.spaces import study_corpus
from unifeat.progress import say
from unifeat.saes.load import is_local, on_hub
from unifeat.saes.registry import known_releases
from unifeat.saes.training.activations import KIND, ActivationSource
from unifeat.saes.training.checkpoints import Checkpoints
from unifeat.saes.training.run import Trained, stream_folder, train_saes
from unifeat.saes.training.trainers import Job
from unifeat.store import cache_root
from unifeat.store.paths import exists, new_folder, user_path
from unifeat.store.pieces import recording
from unifeat.store.usage import RunNote
from unifeat.study.spec import Study
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing


def train(study: Study, out: Path | None = None) -> list[Trained]:
    """Train the study's missing SAEs, all of a model from one stream of activations.

    Args:
        study: must have a `train` section.
        out: train every SAE of the study anew into this folder instead, under the same folder names.

    Returns:
        One entry for each SAE trained; empty when none is missing.

    Raises:
        UserError: no `train` section, no text, a layer the model does not have, two SAEs with one folder, or a folder
            that cannot be an SAE's own.
    """
    if study.train is None:
        raise UserError("the study has no train section: say on which text and how wide its SAEs shall be trained")
    trained: list[Trained] = []
    missing = _missing(study, out)
    # Several processes may train at once, into the same folders too: each has a note of its own.
    note = RunNote(Path(f"training-{secrets.token_hex(8)}"), study.name)
    try:
        with recording(note.tell):
            for model_name, jobs in missing.items():
                trained += _train_model(study, model_name, jobs)
    finally:
        note.forget()
    if not trained:
        say("every SAE of the study is there already: nothing to train")
    return trained


def _train_model(study: Study, model_name: str, jobs: list[Job]) -> list[Trained]:
    spec, model = study.train, study.models[model_name]
    assert spec is not None
    trust = model.trust_remote_code
    points = list(dict.fromkeys(job.point for job in jobs))
    tokenizer = load_tokenizer(model.name, model.dtype, model.revision, trust_remote_code=trust)
    opening = opening_of(tokenizer, model.bos, model.chat)

    def load(**how: Any) -> LanguageModel:
        return load_language_model(
            model.name,
            source.points,  # more than the jobs' where a training goes on that had more
            dtype=model.dtype,
            device=model.device,
            randomise=model.randomise,
            revision=model.revision,
            max_memory=model.max_memory,
            trust_remote_code=trust,
            **how,
        )

    source = ActivationSource(
        corpus=training_corpus(study, model_name),
        identity={
            "model": model_identity(model.name, model.dtype, model.randomise, model.revision, trust_remote_code=trust),
            "tokenizer": tokenizer_digest(tokenizer),
            **({"specials": specials} if (specials := extra_specials(tokenizer)) is not None else {}),
        },
        points=points,
        windowing=Windowing(spec.text.context, opening, limit=spec.text.windows),
        folder=cache_root() / KIND,
        load=load,
    )
    checkpoints = Checkpoints(stream_folder(source, spec, study.seed), {job.key: job.folder for job in jobs}, points)
    if not spec.store:
        source.folder = checkpoints.folder / KIND
    return train_saes(
        source,
        jobs,
        spec,
        model,
        seed=study.seed,
        prepend_bos=describe_opening(tokenizer, opening, model.chat)["bos"],
        device=resolve_device(model.device),
        checkpoints=checkpoints,
    )


def _missing(study: Study, out: Path | None) -> dict[str, list[Job]]:
    """For each model with SAEs to train, which; all that can be known at once is checked first."""
    assert study.train is not None
    missing: dict[str, list[Job]] = {}
    targets: dict[Path, Path] = {}
    out = user_path(out, "--out") if out is not None else None
    for spaces in study.spaces:
        model = study.models[spaces.model]
        points = [HookPoint(layer, spaces.hook) for layer in spaces.layers]
        config = read_config(model.name, model.dtype, model.revision, trust_remote_code=model.trust_remote_code)
        check_layers(model.name, points, config.num_hidden_layers)
        spec = study.train.overridden(spaces.train)
        seed = study.seed if spec.seed is None else spec.seed
        for point in points:
            name = spaces.sae_at(point.layer)
            folder = user_path(name, "SAE")
            target = out / folder.name if out else folder
            if exists(target) or (not out and _is_released(name)):
                continue
            _check_target(target, targets)
            targets[Path(os.path.realpath(target))] = target
            job = Job(point, target, spec, seed)
            of_model = missing.setdefault(spaces.model, [])
            for other in of_model:
                if other.key == job.key:
                    raise UserError(
                        f"{other.folder} and {target} would be the same SAE twice: model {spaces.model}, layer "
                        f"{point.layer}, {point.kind}; give one group of spaces another train.seed or train.features"
                    )
            of_model.append(job)
    return missing


# Files that make a folder an SAE, in the formats of docs/saes.md.
_OF_AN_SAE = ("sae_weights.safetensors", "sae.safetensors", "cfg.json", "ae.pt", "params.npz", "params.safetensors")


def _check_target(target: Path, others: dict[Path, Path]) -> None:
    """See that a training writes nowhere but into a new folder of its own, before hours of work.

    Args:
        others: the folders of the study's other new SAEs: without links, and as they are called.

    Raises:
        UserError: it is none.
    """
    if ".." in target.parts or not target.name:
        raise UserError(f"SAE {target} does not exist, and cannot be trained there: name its folder without ..")
    own = Path(os.path.realpath(target))
    for other, called in others.items():
        if other == own:
            raise UserError(f"two SAEs of the study would go to {target}: give each a folder name of its own")
        if other in own.parents or own in other.parents:
            raise UserError(f"of the SAEs {called} and {target} one would lie inside the other: name other folders")
    new_folder(target, "SAE")
    for folder in own.parents:
        held = [name for name in _OF_AN_SAE if exists(folder / name)]
        if held:
            raise UserError(
                f"SAE {target} cannot be trained there: it would lie inside the SAE {folder} (which holds {held[0]})"
            )


def _is_released(name: str) -> bool:
    """Whether an SAE's name says one of SAELens' registry or of the hub; the others are folders."""
    if is_local(name) or "/" not in name:
        return False
    if name.split("/")[0] not in known_releases() and not on_hub(name):
        raise UserError(
            f"SAE {name}: no such folder, and no release of SAELens' registry; "
            f"to have it trained there, call the folder ./{name}"
        )
    return True


def training_corpus(study: Study, model_name: str) -> Corpus:
    """The training text; a token budget is counted by the tokenizer of the model that is trained on."""
    assert study.train is not None
    model = study.models[model_name]
    tokenizer = load_tokenizer(model.name, model.dtype, model.revision, trust_remote_code=model.trust_remote_code)
    return study_corpus(study.train.text, tokenizer)
