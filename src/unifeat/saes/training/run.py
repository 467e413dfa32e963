"""Training all SAEs of one model in lockstep on one stream of activations, each with its own SAELens trainer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unifeat.errors import UserError
from unifeat.progress import say, track
from unifeat.saes.checking.loss import Loss
from unifeat.saes.quality import Quality, Variance
from unifeat.saes.training.activations import ActivationSource
from unifeat.saes.training.card import cast, check_target, version, write_sae
from unifeat.saes.training.checkpoints import FORMAT, Checkpoint, Checkpoints
from unifeat.saes.training.measure import CURVE_POINTS, curve_point, curve_sample, measure_heldout, measure_losses
from unifeat.saes.training.stream import ActivationStream
from unifeat.saes.training.trainers import (
    Job,
    autocast_pays,
    check_finite,
    made_so_far,
    make_trainer,
    restore,
    state_of,
)
from unifeat.store import cache_root, key_of
from unifeat.study.spec import ModelSpec
from unifeat.study.training import TrainSpec

_SCALE_BATCHES = 16


@dataclass(frozen=True)
class Heldout:
    """An SAE's figures on held-out documents, as its `training.json` has them (see `Quality`)."""

    fvu: float
    l0: float
    dead_share: float
    tokens: int


@dataclass(frozen=True)
class Trained:
    """A trained SAE: where it is saved, its figures on held-out documents, and the content of its `training.json`."""

    folder: Path
    quality: Quality | Heldout
    loss: Loss
    about: dict[str, Any]


def stream_folder(source: ActivationSource, spec: TrainSpec, seed: int) -> Path:
    """The folder of all trainings on one stream of activations, named after everything that determines the stream.

    The hook points are not part of the name: they follow from a training's SAEs, and may change when it is resumed.
    """
    stream = [spec.batch, spec.buffer, spec.heldout_documents, seed]
    return cache_root() / "training" / key_of([FORMAT, source.text_settings, stream])


def train_saes(
    source: ActivationSource,
    jobs: list[Job],
    spec: TrainSpec,
    model_spec: ModelSpec,
    *,
    seed: int,
    prepend_bos: bool,
    device: torch.device,
    checkpoints: Checkpoints,
) -> list[Trained]:
    """Train SAEs and save them in SAELens' format. A training that was killed resumes from its checkpoint.

    Args:
        source: activations of the training text; the last `spec.heldout_documents` documents are held out. When
            resuming, its points are set to those of the checkpoint.
        jobs: the SAEs. If another process saves one of them first, that one stays.
        spec: batch, buffer and held-out documents of the shared stream.
        seed: seed for the order of the activations.
        prepend_bos: whether windows begin with BOS, for the SAEs' metadata.
        device: where the SAEs are trained.

    Raises:
        UserError: too few documents to hold some out, or fewer activations than a batch; a loss or weights that are not
            finite; an error of the machine.
    """
    for job in jobs:
        check_target(job.folder)
    last = source.corpus.documents - spec.heldout_documents
    if last <= 0:
        raise UserError(
            f"train.text has {source.corpus.documents} documents, and {spec.heldout_documents} are to be held out: "
            "give more text or lower train.heldout_documents"
        )
    found, saved = checkpoints.load() or (None, None)
    if found:
        source.points = found.points
    stream = ActivationStream(
        source,
        batch=spec.batch,
        buffer=spec.buffer,
        last_document=last,
        seed=seed,
        position=saved["position"] if saved else None,
    )
    training = _Training(jobs, source, stream, last, device, found, saved, keep=spec.store)
    what = f"training {len(jobs)} SAE{'s' if len(jobs) > 1 else ''} of {_short(model_spec.name)}"
    # Work done before resuming is not counted, so that the rate and the time left are those of this process.
    with track(what, training.total - training.step * spec.batch) as advance:
        for note in training.run(checkpoints):
            advance(spec.batch, note=note)
    made = {job: made_so_far(training.trainers[job]) for job in jobs}
    tensors = {job: cast(sae, job.spec.save_dtype) for job, sae in made.items()}
    qualities = measure_heldout(source, made, last)
    losses = measure_losses(source, made, last)
    results = []
    for job, sae in made.items():
        about = _about(job, source, spec, model_spec, training) | {
            "heldout": qualities[job].as_dict() | {"documents": spec.heldout_documents},
            "loss": losses[job].as_dict(),
            "curve": training.curves[job],
        }
        sae.cfg.metadata.model_name = about["model"]
        sae.cfg.metadata.hook_name = about["hook"]
        sae.cfg.metadata.context_size = source.windowing.context
        sae.cfg.metadata.prepend_bos = prepend_bos
        if write_sae(job.folder, sae, tensors[job], job.spec.save_dtype, about):
            say(f"{job.folder}: held-out {qualities[job]}")
        else:
            say(f"{job.folder}: another process has saved an SAE there meanwhile, which is kept")
        results.append(Trained(job.folder, qualities[job], losses[job], about))
    checkpoints.clear()
    return results


class _Training:
    """The training loop and its state."""

    def __init__(
        self,
        jobs: list[Job],
        source: ActivationSource,
        stream: ActivationStream,
        last_document: int,
        device: torch.device,
        found: Checkpoint | None,
        saved: dict[str, Any] | None,
        *,
        keep: bool,
    ) -> None:
        self.jobs, self.source, self.stream = jobs, source, stream
        self.last_document, self.keep = last_document, keep
        self.steps = max(job.steps for job in jobs)
        self.total = self.steps * stream.batch
        self.sample = curve_sample(source, last_document)
        # A checkpoint contains the scale and the bias, and its buffer may have no batches left to peek at.
        first = [{job.point: torch.ones(1, _width_of(saved, job)) for job in jobs}] if saved else None
        first = first or stream.peek(_SCALE_BATCHES)
        self.trainers = {job: make_trainer(job, device, [batch[job.point] for batch in first]) for job in jobs}
        self.curves: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
        self.step, self.seconds = 0, 0.0
        if found and saved:
            self.step, self.seconds = found.step, saved["seconds"]
            for job in jobs:
                restore(self.trainers[job], saved["jobs"][job.key]["trainer"])
                self.curves[job] = saved["jobs"][job.key]["curve"]
            say(f"resuming from the last checkpoint, at {self.step * stream.batch:,} activations")

    def run(self, checkpoints: Checkpoints) -> Any:
        """Take the remaining steps; yields a note after each."""
        start, before, saved_at = time.monotonic(), self.seconds, self.step
        while self.step < self.steps:
            batch = self.stream.take()
            notes = []
            for job, trainer in self.trainers.items():
                if self.step >= job.steps:
                    continue
                output = trainer.step(batch[job.point])
                trainer.n_training_steps += 1
                check_finite(trainer, job, output.loss)
                if self.step % 20 == 0:
                    notes.append(f"{job.folder.name} {_describe(trainer, output)}")
                if trainer.n_training_steps in curve_steps(job):
                    self.curves[job].append(curve_point(trainer, job, self.sample, float(output.loss.detach())))
            self.step += 1
            self.seconds = before + time.monotonic() - start
            if checkpoints.due():
                self.save(checkpoints)
                saved_at = self.step
            yield "  ".join(notes)
        if self.step > saved_at:
            self.save(checkpoints)

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint, then remove the activations that no later step reads."""
        checkpoints.save(
            {
                "position": self.stream.state(),
                "seconds": self.seconds,
                "jobs": {
                    job.key: {"trainer": state_of(trainer), "curve": self.curves[job]}
                    for job, trainer in self.trainers.items()
                },
            },
            step=self.step,
            over=self.step >= self.steps,
            points=self.source.points,
        )
        for group in self.stream.spent():
            if not self.keep and self.source.corpus.group_documents[group][1] < self.last_document:
                self.source.discard(group)


def _width_of(saved: dict[str, Any], job: Job) -> int:
    return int(saved["jobs"][job.key]["trainer"]["sae"]["W_dec"].shape[1])


def curve_steps(job: Job) -> set[int]:
    """The steps after which a point of the curve is measured, including the last step."""
    return {round(job.steps * n / CURVE_POINTS) for n in range(1, CURVE_POINTS + 1)}


@torch.no_grad()
def _describe(trainer: Any, output: Any) -> str:
    x = output.sae_in
    unexplained = Variance()
    unexplained.add(x, output.sae_out)
    codes = output.feature_acts
    active = codes._nnz() if codes.is_sparse else int((codes != 0).sum())
    dead = float(trainer.dead_neurons.float().mean())
    return f"loss {float(output.loss.detach()):.1f} FVU {unexplained.fvu:.3f} L0 {active / len(x):.0f} dead {dead:.1%}"


def _about(
    job: Job, source: ActivationSource, spec: TrainSpec, model_spec: ModelSpec, training: _Training
) -> dict[str, Any]:
    trainer = training.trainers[job]
    return {
        "trained_by": "unifeat",
        "version": version(),
        "model": _short(model_spec.name),
        "randomised": model_spec.randomise,
        "hook": job.point.saelens_name,
        "settings": job.spec.model_dump(mode="json", exclude={"text", "seed", "store"}),
        "seed": job.seed,
        "text": Path(spec.text.source).name,
        "context": source.windowing.context,
        "training_documents": training.last_document,
        "tokens": trainer.n_training_samples,
        "bfloat16_products": autocast_pays(trainer.sae.cfg.d_in, trainer.sae.device),
        "activations_per_second": round(training.step * spec.batch / max(training.seconds, 1e-9)),
    }


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
