"""Training the SAEs that a study names and that do not exist yet, with SAELens' trainer.

All layers of one model are trained from one stream of activations: text → model (one forward pass) → shuffling
buffer → one `sae_lens.SAETrainer` per layer, in lockstep. Special tokens, first positions and attention sinks are
masked as in encoding, and activations are scaled to a mean norm of √d; the scale is folded into the weights at the end.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.activations import is_sink, run_group
from unifeat.models.hooks import HookPoint
from unifeat.models.language import LanguageModel
from unifeat.models.opening import Opening, describe_opening, opening_of
from unifeat.models.quality import Quality, measure_quality
from unifeat.models.sae import load_sae
from unifeat.progress import say, track
from unifeat.storage import write_json, written_aside
from unifeat.study import ModelSpec, TrainSpec
from unifeat.text.corpus import Corpus

_SCALE_BATCHES = 16
_DEAD_AFTER_TOKENS = 200_000
_AUTOCAST_MIN_WIDTH = 256  # bf16 pays for wide matrices only, and small tests stay exact

Batch = dict[HookPoint, Tensor]


@dataclass(frozen=True)
class Trained:
    """One SAE that was trained: where it is saved, and what it reached on held-out documents."""

    folder: Path
    quality: Quality


def activation_batches(
    model: LanguageModel, corpus: Corpus, spec: TrainSpec, points: list[HookPoint], bos: Opening, seed: int
) -> Iterator[Batch]:
    """Shuffled batches of activations, each point a (batch, d_model) float32 tensor of the same rows, without end.

    The text is reread when it ends; if it does not fill one batch, there are no batches at all. At most `spec.buffer`
    rows a point are held.
    """
    generator = torch.Generator().manual_seed(seed)
    last = corpus.documents - spec.heldout_documents
    held: Batch = {}
    read = 0
    while True:
        for group in torch.randperm(corpus.groups, generator=generator).tolist():
            parts = [part for part in corpus.parts(group) if part.document < last]
            if not parts:
                continue
            rows = run_group(model, parts, points, context=spec.text.context, bos=bos).values
            sinks = torch.stack([is_sink(value.to(torch.float32)) for value in rows.values()]).any(0)
            held = {p: torch.cat([held[p], v[~sinks]]) if held else v[~sinks] for p, v in rows.items()}
            n = len(held[points[0]])
            read += int((~sinks).sum())
            if n < spec.buffer:
                continue
            order = torch.randperm(n, generator=generator)
            # Half is given out and half stays to mix with later text: neighbours in the text never fill a batch.
            spent = (n // 2) // spec.batch * spec.batch
            for start in range(0, spent, spec.batch):
                chosen = order[start : start + spec.batch]
                yield {p: v[chosen].to(torch.float32) for p, v in held.items()}
            held = {p: v[order[spent:]] for p, v in held.items()}
        if read < spec.batch:
            return


def train_saes(
    model: LanguageModel,
    model_spec: ModelSpec,
    corpus: Corpus,
    spec: TrainSpec,
    folders: dict[HookPoint, Path],
    seed: int,
) -> list[Trained]:
    """Train one SAE for each point and save it in SAELens' format.

    Args:
        model: cut at or after the deepest point.
        corpus: the training text; its last `spec.heldout_documents` documents are kept back.
        folders: where each point's SAE goes. None may exist yet.

    Raises:
        UserError: too few documents to keep some back, or fewer activations than a batch.
    """
    if corpus.documents <= spec.heldout_documents:
        raise UserError(
            f"train.text has {corpus.documents} documents and {spec.heldout_documents} are to be held out: "
            "give more text or lower train.heldout_documents"
        )
    points = list(folders)
    bos = opening_of(model.tokenizer, model_spec.bos, model_spec.chat)
    buffer_rows = sum(corpus.group_characters) // 8  # a cautious guess at the rows there are
    spec = spec.model_copy(update={"buffer": max(2 * spec.batch, min(spec.buffer, buffer_rows))})
    batches = activation_batches(model, corpus, spec, points, bos, seed)
    first = list(islice(batches, _SCALE_BATCHES))
    if not first:
        raise UserError("train.text is too short to fill one batch: give more text or lower train.batch")
    trainers = {point: _trainer(point, model, spec, first, seed) for point in points}
    steps = max(1, spec.tokens // spec.batch)
    start = time.monotonic()
    with track(f"training {len(points)} SAEs of {model.name.rsplit('/', 1)[-1]}", steps * spec.batch) as advance:
        for step in range(steps):
            batch = first[step] if step < len(first) else next(batches)
            notes = []
            for point, trainer in trainers.items():
                trainer.maybe_reset_sparsity()
                output = trainer.step(batch[point])
                trainer.n_training_steps += 1
                if step % 20 == 0:
                    notes.append(f"L{point.layer} {_describe(trainer, output)}")
            advance(spec.batch, note="  ".join(notes))
    seconds = time.monotonic() - start
    for point, folder in folders.items():
        _save(trainers[point], point, model, model_spec, spec, folder)
    qualities = measure_quality(
        model,
        corpus,
        {point: load_sae(folder, device=str(model.device)) for point, folder in folders.items()},
        context=spec.text.context,
        bos=bos,
        first_document=corpus.documents - spec.heldout_documents,
    )
    results = []
    for point, folder in folders.items():
        quality = qualities[point]
        card = {
            "trained_by": "unifeat",
            "model": model.name.rsplit("/", 1)[-1],
            "hook": point.saelens_name,
            "settings": spec.model_dump(mode="json", exclude={"text"}),
            "context": spec.text.context,
            "training_documents": corpus.documents - spec.heldout_documents,
            "activations_per_second": round(steps * spec.batch * len(points) / seconds),
            "heldout": quality.as_dict() | {"documents": spec.heldout_documents},
        }
        write_json(folder / "training.json", card)
        say(f"{folder}: held-out {quality}")
        results.append(Trained(folder, quality))
    return results


def _trainer(point: HookPoint, model: LanguageModel, spec: TrainSpec, first: list[Batch], seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(seed + point.layer)
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=model.d_model,
            d_sae=spec.features,
            k=spec.k,
            dtype="float32",
            device=str(model.device),
            normalize_activations="expected_average_only_in",
            apply_b_dec_to_input=True,
        )
    )
    steps = max(1, spec.tokens // spec.batch)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=steps * spec.batch,
            train_batch_size_samples=spec.batch,
            lr=spec.lr,
            lr_end=spec.lr / 10,
            lr_warm_up_steps=min(100, steps // 10),
            lr_decay_steps=steps // 3,
            device=str(model.device),
            autocast=_autocast_pays(model.d_model, model.device),
            dead_feature_window=max(10, min(_DEAD_AFTER_TOKENS // spec.batch, steps // 4)),
            feature_sampling_window=10 * steps,  # never reset: SAELens builds a wandb histogram at each reset
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=iter(()),
    )
    trainer.activation_scaler.estimate_scaling_factor(
        d_in=model.d_model, data_provider=iter([b[point] for b in first]), n_batches_for_norm_estimate=len(first)
    )
    # The mean is the bulk of a residual stream: starting there saves the first third of the training.
    sample = torch.cat([trainer.activation_scaler(b[point]) for b in first])
    sae.b_dec.data.copy_(sample.mean(0))
    return trainer


def _autocast_pays(width: int, device: torch.device) -> bool:
    if width < _AUTOCAST_MIN_WIDTH:
        return False
    return device.type == "cuda" or bool(torch.cpu._is_amx_tile_supported())


@torch.no_grad()
def _describe(trainer: Any, output: Any) -> str:
    x, y = output.sae_in.float(), output.sae_out.float()
    fvu = float((x - y).pow(2).sum() / (x - x.mean(0)).pow(2).sum())
    l0 = float((output.feature_acts != 0).float().sum(-1).mean())
    dead = float(trainer.dead_neurons.float().mean())
    return f"loss {float(output.loss):.1f} FVU {fvu:.3f} L0 {l0:.0f} dead {dead:.1%}"


def _save(
    trainer: Any, point: HookPoint, model: LanguageModel, model_spec: ModelSpec, spec: TrainSpec, folder: Path
) -> None:
    sae = trainer.sae
    opening = opening_of(model.tokenizer, model_spec.bos, model_spec.chat)
    sae.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
    trainer.set_final_sae_metadata()
    for key, value in {
        "model_name": model_spec.name.rsplit("/", 1)[-1],
        "hook_name": point.saelens_name,
        "context_size": spec.text.context,
        "prepend_bos": describe_opening(model.tokenizer, opening, model_spec.chat)["bos"],
    }.items():
        sae.cfg.metadata[key] = value
    sae.cfg.device = "cpu"
    with written_aside(folder) as aside:
        sae.cpu().save_inference_model(aside)
        _cast(aside, spec.save_dtype)


def _cast(folder: Path, dtype: str) -> None:
    """Store the weights in a smaller type; `cfg.json` says so, as SAELens expects."""
    if dtype == "float32":
        return
    import json

    from safetensors.torch import load_file, save_file

    weights = folder / "sae_weights.safetensors"
    tensors = {key: value.to(getattr(torch, dtype)).contiguous() for key, value in load_file(weights).items()}
    overflown = [key for key, value in tensors.items() if not torch.isfinite(value).all()]
    if overflown:
        raise UserError(f"train.save_dtype {dtype} cannot hold {', '.join(overflown)}: use float32 or bfloat16")
    save_file(tensors, weights)
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | {"dtype": dtype}, indent=1) + "\n")
