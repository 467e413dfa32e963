"""Quality of SAEs on held-out documents: on a sample at intervals during training, and on all of them at the end."""

from __future__ import annotations

from typing import Any

import torch

from unifeat.models.activations import run_group
from unifeat.saes.checking.loss import Loss, measure_loss
from unifeat.saes.encoding import encode_rows
from unifeat.saes.protocol import SAE
from unifeat.saes.quality import Quality
from unifeat.saes.training.activations import ActivationSource, Rows
from unifeat.saes.training.stream import heldout_rows
from unifeat.saes.training.trainers import Job, made_so_far
from unifeat.text.windows import first_parts

CURVE_POINTS = 20
CURVE_ROWS = 8192  # held-out activations for each point of the curve
LOSS_TOKENS = 2048  # held-out tokens for loss recovered, which takes three passes of the whole model per SAE


def curve_sample(source: ActivationSource, first_document: int) -> Rows:
    """The first `CURVE_ROWS` held-out rows."""
    parts: list[Rows] = []
    for rows in heldout_rows(source, first_document):
        parts.append(rows)
        if sum(map(len, parts)) >= CURVE_ROWS:
            break
    values = {p: torch.cat([part.values[p] for part in parts if len(part)])[:CURVE_ROWS] for p in source.points}
    document = torch.cat([part.document for part in parts if len(part)])[:CURVE_ROWS]
    return Rows(values, document)


@torch.no_grad()
def curve_point(trainer: Any, job: Job, sample: Rows, loss: float) -> dict[str, float | int]:
    """One point of a training's curve.

    Returns:
        `tokens` trained on, `loss` of the last batch, held-out `fvu` and `l0`, and `dead`, the share of features that
        have not fired in the last `train.dead_after` training activations.
    """
    quality = measure(made_so_far(trainer), job, sample)
    return {
        "tokens": trainer.n_training_samples,
        "loss": round(loss, 3),
        "fvu": round(quality.fvu, 5),
        "l0": round(quality.l0, 3),
        "dead": round(float(trainer.dead_neurons.float().mean()), 5),
    }


def measure(sae: SAE, job: Job, rows: Rows, into: Quality | None = None) -> Quality:
    """Quality of an SAE on some rows, added to `into` if given."""
    quality = into or Quality()
    x = rows.values[job.point].to(sae.W_dec.device, torch.float32)
    for part, codes in encode_rows(sae, x):
        quality.add(part, codes, sae.decode(codes))
    return quality


def measure_heldout(source: ActivationSource, saes: dict[Job, SAE], first_document: int) -> dict[Job, Quality]:
    """Quality of each SAE on all held-out rows."""
    qualities = {job: Quality() for job in saes}
    for rows in heldout_rows(source, first_document):
        for job, sae in saes.items():
            measure(sae, job, rows, qualities[job])
    return qualities


def measure_losses(source: ActivationSource, saes: dict[Job, SAE], first_document: int) -> dict[Job, Loss]:
    """Loss recovered of each SAE on the first `LOSS_TOKENS` held-out tokens."""
    model = source.whole_model()
    parts = first_parts(source.corpus, model.tokenizer, LOSS_TOKENS, first_document)
    found = run_group(model, parts, source.points, source.windowing)
    sink_norms = {point: found.sink_norm(point) for point in source.points}
    return {
        job: measure_loss(
            model,
            parts,
            job.point,
            sae.to(str(model.device)),
            source.windowing,
            sink_norm=sink_norms[job.point],
        )
        for job, sae in saes.items()
    }
