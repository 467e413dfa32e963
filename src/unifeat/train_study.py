"""`unifeat train`: the SAEs that a study names and that do not exist yet."""

from __future__ import annotations

from pathlib import Path

from unifeat.errors import UserError
from unifeat.models.hooks import HookPoint
from unifeat.models.language import load_language_model, load_tokenizer, tokenizer_digest
from unifeat.models.sae import is_local
from unifeat.models.training import Trained, train_saes
from unifeat.progress import say
from unifeat.study import Study
from unifeat.text.corpus import Corpus, build_corpus


def train(study: Study, out: Path | None = None) -> list[Trained]:
    """Train the study's missing SAEs, all layers of a model from one stream of activations.

    Args:
        study: must have a `train` section.
        out: train every SAE of the study anew into this folder instead, under the same folder names.

    Returns:
        One entry for each SAE trained; empty when none is missing.

    Raises:
        UserError: no `train` section, no text, a layer the model does not have.
    """
    if study.train is None:
        raise UserError("the study has no train section: say on which text and how wide its SAEs shall be trained")
    trained: list[Trained] = []
    for model_name, model_spec in study.models.items():
        folders: dict[HookPoint, Path] = {}
        for spaces in study.spaces:
            if spaces.model != model_name:
                continue
            for layer in spaces.layers:
                folder = Path(spaces.sae.format(layer=layer)).expanduser()
                target = out / folder.name if out else folder
                if not target.exists() and (out or is_local(folder) or "/" not in spaces.sae):
                    folders[HookPoint(layer, spaces.hook)] = target
        if not folders:
            continue
        model = load_language_model(
            model_spec.name, list(folders), dtype=model_spec.dtype, device=model_spec.device
        )
        corpus = training_corpus(study, model_name)
        trained += train_saes(model, model_spec, corpus, study.train, folders, study.seed)
    if not trained:
        say("every SAE of the study is there already: nothing to train")
    return trained


def training_corpus(study: Study, model_name: str) -> Corpus:
    """The training text; a token budget is counted by the tokenizer of the model that is trained on."""
    assert study.train is not None
    text = study.train.text
    model = study.models[model_name]
    tokenizer = load_tokenizer(model.name, model.dtype)
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
