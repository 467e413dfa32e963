"""One SAELens trainer per SAE: its settings, its state as tensors, and the SAE that it has trained so far."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.training.architectures import SparseBatchTopK, SparseJumpReLU, SparseMatryoshka, SparseTopK
from unifeat.store import key_of
from unifeat.study.training import TrainSpec
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookPoint

AUTOCAST_MIN_WIDTH = 256  # bfloat16 is faster only for wide matrices; and small tests stay exact
_WARM_UP_STEPS = 100
# Activations have a mean norm of √d, so squared errors grow with d, and codes with √d.
_L1_COEFFICIENT = 1 / 16  # times √d: an L0 of about 30 on SmolLM2's layer 15, where SAELens' default of 5.0 gives 6
_L0_PENALTY = 0.02  # times d
_BANDWIDTH = 0.0125  # times √d
_SELECTION_SHARE = 2 / 3  # share of a JumpReLU training with selection; then thresholds are trained, as the rate falls


@dataclass(frozen=True, eq=False)
class Job:
    """One SAE to train.

    Attributes:
        point: the hook point of its activations.
        folder: where it is saved.
        spec: its settings; text, batch, buffer and held-out documents are those of its stream.
        seed: seed of its initial weights.
    """

    point: HookPoint
    folder: Path
    spec: TrainSpec
    seed: int

    @property
    def steps(self) -> int:
        """Number of batches it is trained on."""
        return max(1, self.spec.tokens // self.spec.batch)

    @property
    def key(self) -> str:
        """A key made from everything that determines it, apart from its stream."""
        settings = self.spec.model_dump(mode="json", exclude={"text", "store", "save_dtype", "seed"})
        return key_of([list(self.point), settings, self.seed])


def make_trainer(job: Job, device: torch.device, first: list[Tensor]) -> Any:
    """A SAELens trainer at its first step.

    Args:
        first: some (batch, d_in) activations. Their mean norm gives the scale, their mean the initial decoder bias.

    Raises:
        UserError: activations that are all zero.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

    spec, d_in = job.spec, first[0].shape[1]
    with torch.random.fork_rng(devices=[]):
        seed = np.random.SeedSequence([job.seed, job.point.layer, HOOK_KINDS.index(job.point.kind)])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        sae = _untrained(spec, d_in, job.steps, device)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=job.steps * spec.batch,
            train_batch_size_samples=spec.batch,
            lr=spec.lr,
            lr_end=spec.lr,
            lr_warm_up_steps=min(_WARM_UP_STEPS, job.steps // 10),
            lr_decay_steps=job.steps // 3,
            device=str(device),
            autocast=autocast_pays(d_in, device),
            dead_feature_window=max(1, min(spec.dead_after // spec.batch, job.steps // 4)),
            feature_sampling_window=10 * job.steps,  # never reset: SAELens builds a wandb histogram at each reset
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=iter(()),
    )
    sample = torch.cat(first).to(device)
    norm = float(sample.norm(dim=-1).mean())
    if not norm > 0:
        raise UserError(f"{job.folder}: activations at layer {job.point.layer} ({job.point.kind}) are all zero")
    trainer.activation_scaler.scaling_factor = d_in**0.5 / norm
    # The mean makes up most of a residual stream, so starting from it saves the first third of the training.
    sae.b_dec.data.copy_(trainer.activation_scaler(sample).mean(0))
    return trainer


def _untrained(spec: TrainSpec, d_in: int, steps: int, device: torch.device) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import (
            BatchTopKTrainingSAEConfig,
            JumpReLUTrainingSAEConfig,
            MatryoshkaBatchTopKTrainingSAEConfig,
            StandardTrainingSAE,
            StandardTrainingSAEConfig,
            TopKTrainingSAEConfig,
        )

    common: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": spec.features,
        "dtype": "float32",
        "device": str(device),
        "normalize_activations": "expected_average_only_in",
        "apply_b_dec_to_input": True,
    }
    top: dict[str, Any] = common | {"k": spec.k, "aux_loss_coefficient": spec.auxiliary}
    if spec.architecture == "topk":
        sae: Any = SparseTopK(TopKTrainingSAEConfig(**top))
    elif spec.architecture == "batchtopk":
        sae = SparseBatchTopK(BatchTopKTrainingSAEConfig(**top))
    elif spec.architecture == "matryoshka":
        levels = spec.levels or [spec.features // 16, spec.features // 4]
        widths = sorted({max(1, width) for width in levels} | {spec.features})
        sae = SparseMatryoshka(MatryoshkaBatchTopKTrainingSAEConfig(**top, matryoshka_widths=widths))
    elif spec.architecture == "jumprelu":
        sae = SparseJumpReLU(
            JumpReLUTrainingSAEConfig(
                **common,
                jumprelu_sparsity_loss_mode="quadratic",
                target_l0=float(spec.k),
                l0_coefficient=(spec.sparsity or _L0_PENALTY) * d_in,
                jumprelu_bandwidth=_BANDWIDTH * d_in**0.5,
                jumprelu_ste_to_input=True,
            )
        )
        sae.selection_steps = int(_SELECTION_SHARE * steps)
        sae.auxiliary = spec.auxiliary
    else:
        sae = StandardTrainingSAE(
            StandardTrainingSAEConfig(
                **common, l1_coefficient=spec.sparsity or _L1_COEFFICIENT * d_in**0.5, l1_warm_up_steps=steps // 5
            )
        )
    if spec.architecture != "relu":
        # The encoder's gradient has one row per feature; weights stored in that order need no transposing.
        sae.W_enc.data = sae.W_enc.data.T.contiguous().T
    return sae


def autocast_pays(width: int, device: torch.device) -> bool:
    """Whether products in bfloat16 are faster: on CUDA, and on CPUs with bfloat16 instructions."""
    if width < AUTOCAST_MIN_WIDTH:
        return False
    cpu = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda" or bool(cpu)


@torch.no_grad()
def check_finite(trainer: Any, job: Job, loss: Tensor) -> None:
    """Check that the loss and weights are finite after a step.

    Args:
        loss: the loss of that step, before the weights changed.

    Raises:
        UserError: the loss or a weight is NaN or infinite.
    """
    weights = dict(trainer.sae.named_parameters())
    # A sum of finite numbers is finite unless they are huge; if it is not, each number is checked.
    if bool(torch.stack([loss.detach(), *(w.sum() for w in weights.values())]).isfinite().all()):
        return
    broken = [name for name, weight in weights.items() if not bool(weight.isfinite().all())]
    if bool(loss.isfinite()) and not broken:
        return
    what = f"{', '.join(broken)} hold NaN or Inf" if bool(loss.isfinite()) else f"the loss is {float(loss)}"
    raise UserError(
        f"training {job.folder} failed at step {trainer.n_training_steps:,} of {job.steps:,}: {what}; "
        f"lower train.lr from {job.spec.lr:g}"
    )


def state_of(trainer: Any) -> dict[str, Any]:
    """Everything that a trainer changes during training: weights, moments, schedules, counters and scale."""
    return {
        "sae": trainer.sae.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "lr_scheduler": trainer.lr_scheduler.state_dict(),
        "coefficients": {name: s.state_dict() for name, s in trainer.coefficient_schedulers.items()},
        "scaling_factor": trainer.activation_scaler.scaling_factor,
        **{name: getattr(trainer, name) for name in _COUNTERS},
    }


_COUNTERS = (
    "n_training_samples",
    "n_training_steps",
    "act_freq_scores",
    "n_forward_passes_since_fired",
    "n_frac_active_samples",
)


def restore(trainer: Any, state: dict[str, Any]) -> None:
    """Restore a trainer to a state from `state_of`."""
    trainer.sae.load_state_dict(state["sae"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.lr_scheduler.load_state_dict(state["lr_scheduler"])
    for name, scheduler in trainer.coefficient_schedulers.items():
        scheduler.load_state_dict(state["coefficients"][name])
    trainer.activation_scaler.scaling_factor = state["scaling_factor"]
    for name in _COUNTERS:
        value = state[name]
        setattr(trainer, name, value.to(trainer.cfg.device) if isinstance(value, Tensor) else value)


@torch.no_grad()
def made_so_far(trainer: Any) -> Any:
    """The SAE as it would be saved now: a `sae_lens.SAE` for unscaled activations. The trainer is not changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import SAE

        twin = copy.deepcopy(trainer.sae)
        twin.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
        tensors = twin.state_dict()
        twin.process_state_dict_for_saving_inference(tensors)
        sae = SAE.from_dict(twin.cfg.get_inference_sae_cfg_dict())
        sae.load_state_dict(tensors)
    return sae.eval().requires_grad_(False)
