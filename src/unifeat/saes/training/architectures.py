"""SAELens' training classes with a sparse forward pass. They save the same files."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from unifeat.saes.training.sparse import Active, Decoded, Jump, PreActivation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE
    from sae_lens.saes.matryoshka_batchtopk_sae import MatryoshkaBatchTopKTrainingSAE
    from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
    from sae_lens.saes.topk_sae import TopKTrainingSAE

_CANDIDATES_ABOVE = 0.5  # share of the running threshold above which to look for the top k of the batch
_THRESHOLD_PACE = 0.02  # per step, how far thresholds move towards the smallest chosen activation


class _SparseForward:
    """A `training_forward_pass` over the active features only; a mixin for the top-k training classes."""

    def training_forward_pass(self: Any, step_input: TrainStepInput) -> TrainStepOutput:
        x_BD = step_input.sae_in
        active, pre_N, norm_F = self._choose(x_BD)
        with torch.autocast(x_BD.device.type, enabled=False):
            centred_BD = x_BD - self.b_dec.detach()
            pre_N = PreActivation.apply(centred_BD, self.W_enc, self.b_enc, self.b_dec, active, pre_N)
            # Codes are for unit decoder norm; in the reconstruction the norm cancels.
            value_N = pre_N.relu()
            decoded = Decoded.apply(value_N, self.W_dec, active) + self.b_dec
            losses = {"mse_loss": self.mse_loss_fn(decoded, x_BD).sum(dim=-1).mean()}
            losses |= self._more_losses(x_BD, active, value_N)
            losses["auxiliary_reconstruction_loss"] = dead_loss(
                self, step_input, decoded, norm_F, self.cfg.aux_loss_coefficient
            )
            codes = active.as_sparse((value_N * norm_F[active.feature]).detach())
        return _output(x_BD, decoded, codes, pre_N, losses)

    @torch.no_grad()
    def _choose(self: Any, x_BD: Tensor) -> tuple[Active, Tensor, Tensor]:
        """The active entries, their pre-activations (N,) float32, and the decoder norms (F,)."""
        norm_F = self.W_dec.norm(dim=-1)
        # The only dense product; in bfloat16 under autocast.
        scaled_BF = torch.nn.functional.linear(x_BD - self.b_dec, self.W_enc.T * norm_F[:, None], self.b_enc * norm_F)
        token, feature, scaled_N = self._select(scaled_BF)
        active = Active(token, feature, *scaled_BF.shape)
        return active, scaled_N.to(torch.float32) / norm_F[feature], norm_F

    def _select(self: Any, scaled_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = scaled_BF.topk(self.cfg.k, dim=-1, sorted=False)
        token = torch.arange(len(scaled_BF), device=scaled_BF.device).repeat_interleave(self.cfg.k)
        return token, found.indices.flatten(), found.values.flatten()

    def _more_losses(self: Any, x_BD: Tensor, active: Active, value_N: Tensor) -> dict[str, Tensor]:
        return {}


def _output(
    x_BD: Tensor, decoded_BD: Tensor, codes: Tensor, pre_N: Tensor, losses: dict[str, Tensor]
) -> TrainStepOutput:
    return TrainStepOutput(
        sae_in=x_BD,
        sae_out=decoded_BD,
        feature_acts=codes,
        hidden_pre=pre_N,
        loss=torch.stack(list(losses.values())).sum(),
        losses=losses,
    )


class SparseTopK(_SparseForward, TopKTrainingSAE):
    """SAELens' TopK training SAE."""


class SparseBatchTopK(_SparseForward, BatchTopKTrainingSAE):
    """SAELens' BatchTopK training SAE: k features per token, on average over the batch."""

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        output = super().training_forward_pass(step_input)
        values = output.feature_acts._values()
        self.update_topk_threshold(values)
        return output

    def _select(self, scaled_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return top_of_batch(scaled_BF, int(self.cfg.k * len(scaled_BF)), float(self.topk_threshold))


class SparseMatryoshka(SparseBatchTopK, MatryoshkaBatchTopKTrainingSAE):
    """SAELens' Matryoshka training SAE: every prefix of the dictionary reconstructs as well as it can."""

    def _more_losses(self, x_BD: Tensor, active: Active, value_N: Tensor) -> dict[str, Tensor]:
        losses = {}
        decoded_BD: Tensor = self.b_dec
        start = 0
        for width in self.cfg.matryoshka_widths[:-1]:
            inside = (active.feature >= start) & (active.feature < width)
            level = Active(active.token[inside], active.feature[inside], active.tokens, active.features)
            decoded_BD = decoded_BD + Decoded.apply(value_N[inside], self.W_dec, level)
            losses[f"inner_mse_loss_{width}"] = self.mse_loss_fn(decoded_BD, x_BD).sum(dim=-1).mean()
            start = width
        return losses


class SparseJumpReLU(JumpReLUTrainingSAE):
    """SAELens' JumpReLU training SAE, with thresholds initialised by a phase of BatchTopK selection.

    If thresholds are trained from the first step, most features stop firing while the dictionary takes shape, before
    there is any pressure on L0. So in the first `selection_steps`, features are chosen as in BatchTopK, and the
    thresholds follow the smallest chosen activation. After that they are trained with SAELens' straight-through
    estimators. The penalty is that of Gemma Scope 2, 2/k · (L0 − k)², but on the mean L0 of a batch, so that tokens may
    differ in L0.

    Attributes:
        selection_steps: number of steps with BatchTopK selection.
        auxiliary: weight of the loss that makes dead features explain the residual.
    """

    selection_steps: int = 0
    auxiliary: float = 0.0

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        x_BD = step_input.sae_in
        norm_F = self.W_dec.norm(dim=-1).detach()
        selects = step_input.n_training_steps < self.selection_steps
        active, pre_N = (
            self._chosen(x_BD, norm_F, first=step_input.n_training_steps == 0) if selects else self._near(x_BD)
        )
        with torch.autocast(x_BD.device.type, enabled=False):
            centred_BD = x_BD - self.b_dec.detach()
            pre_N = PreActivation.apply(centred_BD, self.W_enc, self.b_enc, self.b_dec, active, pre_N)
            if selects:
                value_N, l0_loss = pre_N.relu(), x_BD.new_zeros(())
            else:
                value_N, on_N = Jump.apply(pre_N, self.threshold, active, self.bandwidth)
                k = self.cfg.target_l0
                l0_loss = step_input.coefficients["l0"] * 2 / k * (on_N.sum() / len(x_BD) - k) ** 2
            decoded = Decoded.apply(value_N, self.W_dec, active) + self.b_dec
            losses = {
                "mse_loss": self.mse_loss_fn(decoded, x_BD).sum(dim=-1).mean(),
                "l0_loss": l0_loss,
                "auxiliary_reconstruction_loss": dead_loss(self, step_input, decoded, norm_F, self.auxiliary),
            }
            codes = active.as_sparse(value_N.detach())
        return _output(x_BD, decoded, codes, pre_N, losses)

    @torch.no_grad()
    def _chosen(self, x_BD: Tensor, norm_F: Tensor, *, first: bool) -> tuple[Active, Tensor]:
        """The k · B largest pre-activations at unit decoder norm; moves the thresholds towards the smallest of them."""
        scaled_BF = self._pre(x_BD, norm_F)
        about = 0.0 if first else float((self.threshold * norm_F).median())
        token, feature, scaled_N = top_of_batch(scaled_BF, int(self.cfg.target_l0 * len(x_BD)), about)
        scaled_N = scaled_N.to(torch.float32)
        if len(scaled_N):
            self.threshold.data.lerp_(scaled_N.min().clamp(min=0) / norm_F, 1.0 if first else _THRESHOLD_PACE)
        return Active(token, feature, *scaled_BF.shape), scaled_N / norm_F[feature]

    @torch.no_grad()
    def _near(self, x_BD: Tensor) -> tuple[Active, Tensor]:
        """All entries above their thresholds, or so little below them that they affect the thresholds' gradient."""
        self.threshold.data.clamp_(min=0.0)
        pre_BF = self._pre(x_BD, None)
        token, feature = (pre_BF > self.threshold - self.bandwidth / 2).nonzero(as_tuple=True)
        return Active(token, feature, *pre_BF.shape), pre_BF[token, feature].to(torch.float32)

    def _pre(self, x_BD: Tensor, norm_F: Tensor | None) -> Tensor:
        weight, bias = self.W_enc.T, self.b_enc
        if norm_F is not None:
            weight, bias = weight * norm_F[:, None], bias * norm_F
        return torch.nn.functional.linear(x_BD - self.b_dec, weight, bias)


def top_of_batch(scaled_BF: Tensor, n: int, about: float) -> tuple[Tensor, Tensor, Tensor]:
    """The n largest entries of a batch that are above 0, in order of tokens: (token, feature, value), each (≤ n,).

    Args:
        about: a guess of the smallest of them; it affects only the speed.
    """
    flat = scaled_BF.flatten()
    # Four million numbers are slow to sort; the largest n are usually among the few above a fraction of the guess.
    among = (flat > _CANDIDATES_ABOVE * about).nonzero().flatten()
    if len(among) < n:
        among = (flat > 0).nonzero().flatten()
    if len(among) > n:
        among = among[flat[among].topk(n, sorted=False).indices.sort().values]
    features = scaled_BF.shape[1]
    return among // features, among % features, flat[among]


def dead_loss(sae: Any, step_input: TrainStepInput, decoded_BD: Tensor, norm_F: Tensor, coefficient: float) -> Tensor:
    """SAELens' auxiliary loss, computed for the dead features only: they explain the residual of the live ones."""
    mask = step_input.dead_neuron_mask
    dead = mask.nonzero().flatten() if mask is not None else []
    if not len(dead):
        return decoded_BD.new_zeros(())
    x_BD = step_input.sae_in
    residual_BD = (x_BD - decoded_BD).detach()
    k_aux = x_BD.shape[-1] // 2  # Gao et al. 2024, appendix B.1
    scale = min(len(dead) / k_aux, 1.0)
    pre = (x_BD - sae.b_dec) @ sae.W_enc[:, dead] + sae.b_enc[dead]
    if len(dead) > k_aux:
        top = (pre * norm_F[dead]).topk(k_aux, dim=-1, sorted=False).indices
        pre = pre * torch.zeros_like(pre).scatter_(-1, top, 1.0)
    explained_BD = pre @ sae.W_dec[dead]
    loss = (explained_BD - residual_BD).pow(2).sum(dim=-1).mean()
    return coefficient * scale * loss
