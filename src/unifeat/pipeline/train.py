"""`unifeat train`: the SAEs that a study names and that do not exist yet."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from unifeat.engine import Engine, Local, Unit
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
from unifeat.models.placement import ONE_GPU, resolve_device
from unifeat.models.tokens import extra_specials
from unifeat.pipeline.spaces import study_corpus, with_types
from unifeat.progress import say
from unifeat.saes.checking.loss import Loss
from unifeat.saes.load import is_local, on_hub
from unifeat.saes.registry import known_releases
from unifeat.saes.training.activations import KIND, ActivationSource
from unifeat.saes.training.checkpoints import Checkpoints
from unifeat.saes.training.run import Heldout, Trained, stream_folder, train_saes
from unifeat.saes.training.trainers import Job
from unifeat.store import cache_root
from unifeat.store.paths import exists, new_folder, user_path
from unifeat.store.usage import RunNote
from unifeat.study.spec import Study
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing


@dataclass(eq=False)
class SavedSAEs:
    """The SAEs of one model, in their folders, as the result of a unit of work."""

    folders: tuple[Path, ...]
    trained: list[Trained] | None = field(default=None, repr=False)

    def write(self, trained: list[Trained]) -> None:
        """Remember what training gave; it has saved the SAEs itself, with checkpoints."""
        self.trained = trained

    def read(self) -> list[Trained] | None:
        """The SAEs, whoever trained them; None if one is missing."""
        if self.trained is None and all((folder / "training.json").is_file() for folder in self.folders):
            self.trained = [_from_card(folder) for folder in self.folders]
        return self.trained


def _from_card(folder: Path) -> Trained:
    about = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    own, loss = about["heldout"], about["loss"]
    quality = Heldout(**{name: own[name] for name in ("fvu", "l0", "dead_share", "tokens")})
    return Trained(
        folder, quality, Loss(loss["ce_clean"], loss["ce_spliced"], loss["ce_zeroed"], loss["tokens"]), about
    )


def train(study: Study, out: Path | None = None, *, engine: Engine | None = None) -> list[Trained]:
    """Train the study's missing SAEs. All SAEs of a model are trained on one stream of activations.

    Args:
        study: must have a `train` section.
        out: if given, train all SAEs of the study again, into this folder, under the same folder names.
        engine: what runs the units of work, one for each model; by default, this machine's cores.

    Returns:
        One entry for each trained SAE; empty if none is missing.

    Raises:
        UserError: no `train` section, no text, a layer that the model does not have, two SAEs with the same folder, or
            a folder that cannot be used.
    """
    if study.train is None:
        raise UserError("the study has no train section: add one, with the text and the width of the SAEs")
    engine = engine or Local()
    study = with_types(study, engine)
    missing = _missing(study, out)
    trained: list[Trained] = []
    with ExitStack() as under_way:
        for jobs in missing.values():
            under_way.enter_context(RunNote(jobs[0].folder, study.name).under_way())
        for found in engine.map(_unit(study, name, jobs) for name, jobs in missing.items()):
            trained += found
    if not trained:
        say("all SAEs of the study exist already: nothing to train")
    return trained


def _unit(study: Study, model_name: str, jobs: list[Job]) -> Unit[list[Trained]]:
    """Training all missing SAEs of one model as a unit of work."""
    saved = SavedSAEs(tuple(job.folder.absolute() for job in jobs))
    gpu = study.models[model_name].device in ONE_GPU
    work = partial(_train_model, study, model_name, jobs)
    return Unit(saved, work, fills_machine=True, model=f"train {model_name}", gpu=gpu)


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
            source.points,  # a resumed training may have more points than these jobs
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
    """The SAEs to train, by model. Mistakes that show without loading a model are reported first."""
    assert study.train is not None
    missing: dict[str, list[Job]] = {}
    targets: dict[Path, Path] = {}
    out = user_path(out, "--out") if out is not None else None
    for spaces in study.encoded:
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


# Files that mark a folder as an SAE, in the formats of docs/saes.md.
_SAE_FILES = ("sae_weights.safetensors", "sae.safetensors", "cfg.json", "ae.pt", "params.npz", "params.safetensors")


def _check_target(target: Path, others: dict[Path, Path]) -> None:
    """Check before hours of training that an SAE goes into a new folder of its own.

    Args:
        others: the folders of the study's other new SAEs: without links → as named.

    Raises:
        UserError: it does not.
    """
    if ".." in target.parts or not target.name:
        raise UserError(f"SAE {target} does not exist, and cannot be trained there: name its folder without ..")
    own = Path(os.path.realpath(target))
    for other, named in others.items():
        if other == own:
            raise UserError(f"two SAEs of the study would be saved in {target}: give each its own folder name")
        if other in own.parents or own in other.parents:
            raise UserError(f"one of the SAEs {named} and {target} would be inside the other: name other folders")
    new_folder(target, "SAE")
    for folder in own.parents:
        held = [name for name in _SAE_FILES if exists(folder / name)]
        if held:
            raise UserError(
                f"SAE {target} cannot be trained there: it would be inside the SAE {folder} (which holds {held[0]})"
            )


def _is_released(name: str) -> bool:
    """Whether an SAE's name is one of SAELens' registry or of the hub, and not a folder."""
    if is_local(name) or "/" not in name:
        return False
    if name.split("/")[0] not in known_releases() and not on_hub(name):
        raise UserError(
            f"SAE {name}: no such folder, and no such release in SAELens' registry; "
            f"to train it there, name the folder ./{name}"
        )
    return True


def training_corpus(study: Study, model_name: str) -> Corpus:
    """The training text; the model's tokenizer counts a token budget."""
    assert study.train is not None
    model = study.models[model_name]
    tokenizer = load_tokenizer(model.name, model.dtype, model.revision, trust_remote_code=model.trust_remote_code)
    return study_corpus(study.train.text, tokenizer)
