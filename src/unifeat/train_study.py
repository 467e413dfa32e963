"""`unifeat train`: the SAEs that a study names and that do not exist yet."""

from __future__ import annotations

from pathlib import Path

from unifeat.errors import UserError
from unifeat.models.hooks import HookPoint
from unifeat.models.language import check_layers, load_language_model, load_tokenizer, read_config
from unifeat.models.sae import is_local, registry
from unifeat.models.saes import on_hub
from unifeat.models.training import Trained, train_saes
from unifeat.progress import say
from unifeat.spaces import study_corpus
from unifeat.study import Study
from unifeat.text.corpus import Corpus


def train(study: Study, out: Path | None = None) -> list[Trained]:
    """Train the study's missing SAEs, all layers of a model from one stream of activations.

    Args:
        study: must have a `train` section.
        out: train every SAE of the study anew into this folder instead, under the same folder names.

    Returns:
        One entry for each SAE trained; empty when none is missing.

    Raises:
        UserError: no `train` section, no text, a layer the model does not have, two SAEs with one folder.
    """
    if study.train is None:
        raise UserError("the study has no train section: say on which text and how wide its SAEs shall be trained")
    trained: list[Trained] = []
    for model_name, folders in _missing(study, out).items():
        model_spec = study.models[model_name]
        model = load_language_model(
            model_spec.name,
            list(folders),
            dtype=model_spec.dtype,
            device=model_spec.device,
            randomise=model_spec.randomise,
            revision=model_spec.revision,
            max_memory=model_spec.max_memory,
        )
        corpus = training_corpus(study, model_name)
        trained += train_saes(model, model_spec, corpus, study.train, folders, study.seed)
    if not trained:
        say("every SAE of the study is there already: nothing to train")
    return trained


def _missing(study: Study, out: Path | None) -> dict[str, dict[HookPoint, Path]]:
    """For each model with SAEs to train, where each goes; all that can be known at once is checked first."""
    missing: dict[str, dict[HookPoint, Path]] = {}
    targets: set[Path] = set()
    for spaces in study.spaces:
        spec = study.models[spaces.model]
        points = [HookPoint(layer, spaces.hook) for layer in spaces.layers]
        check_layers(spec.name, points, read_config(spec.name, spec.dtype, spec.revision).num_hidden_layers)
        for point in points:
            name = spaces.sae.format(layer=point.layer)
            folder = Path(name).expanduser()
            target = out / folder.name if out else folder
            if target.exists() or (not out and _is_released(name)):
                continue
            if target in targets:
                raise UserError(f"two SAEs of the study would go to {target}: give each a folder name of its own")
            targets.add(target)
            of_model = missing.setdefault(spaces.model, {})
            if point in of_model:
                raise UserError(
                    f"{of_model[point]} and {target} would be the same SAE twice: model {spaces.model}, "
                    f"layer {point.layer}, {point.kind}"
                )
            of_model[point] = target
    return missing


def _is_released(name: str) -> bool:
    """Whether an SAE's name says one of SAELens' registry or of the hub; the others are folders."""
    if is_local(name) or "/" not in name:
        return False
    if name.split("/")[0] not in registry() and not on_hub(name):
        raise UserError(
            f"SAE {name}: no such folder, and no release of SAELens' registry; "
            f"to have it trained there, call the folder ./{name}"
        )
    return True


def training_corpus(study: Study, model_name: str) -> Corpus:
    """The training text; a token budget is counted by the tokenizer of the model that is trained on."""
    assert study.train is not None
    model = study.models[model_name]
    return study_corpus(study.train.text, load_tokenizer(model.name, model.dtype, model.revision))
