"""SAELens' training classes, the top-k ones with a sparse forward pass; what is saved is the same."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from unifeat.models.training.sparse import Active, Decoded, PreActivation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE
    from sae_lens.saes.matryoshka_batchtopk_sae import MatryoshkaBatchTopKTrainingSAE
    from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
    from sae_lens.saes.topk_sae import TopKTrainingSAE

_CANDIDATES_ABOVE = 0.5  # of the running threshold: more than k a token lie above it, and the top k among them


class _SparseForward:
    """`training_forward_pass` over the active features only; mixed in before a top-k training class."""

    def training_forward_pass(self: Any, step_input: TrainStepInput) -> TrainStepOutput:
        x_BD = step_input.sae_in
        active, pre_N, norm_F = self._choose(x_BD)
        with torch.autocast(x_BD.device.type, enabled=False):
            centred_BD = x_BD - self.b_dec.detach()
            pre_N = PreActivation.apply(centred_BD, self.W_enc, self.b_enc, self.b_dec, active, pre_N)
            # Codes are taken at unit decoder norm; in the reconstruction the norm cancels.
            value_N = pre_N.relu()
            decoded = Decoded.apply(value_N, self.W_dec, active) + self.b_dec
            losses = {"mse_loss": self.mse_loss_fn(decoded, x_BD).sum(dim=-1).mean()}
            losses |= self._more_losses(x_BD, active, value_N)
            losses["auxiliary_reconstruction_loss"] = self._dead_loss(step_input, decoded, norm_F)
            codes = active.as_sparse((value_N * norm_F[active.feature]).detach())
        return TrainStepOutput(
            sae_in=x_BD,
            sae_out=decoded,
            feature_acts=codes,
            hidden_pre=pre_N,
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
        )

    @torch.no_grad()
    def _choose(self: Any, x_BD: Tensor) -> tuple[Active, Tensor, Tensor]:
        """The active entries, their pre-activations (N,) float32, and the decoder norms (F,)."""
        norm_F = self.W_dec.norm(dim=-1)
        # The one dense product; in bfloat16 under autocast.
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

    def _dead_loss(self: Any, step_input: TrainStepInput, decoded_BD: Tensor, norm_F: Tensor) -> Tensor:
        """SAELens' auxiliary loss, computed for the dead features only: they explain what the live ones leave."""
        mask = step_input.dead_neuron_mask
        dead = mask.nonzero().flatten() if mask is not None else []
        if not len(dead):
            return decoded_BD.new_zeros(())
        x_BD = step_input.sae_in
        residual_BD = (x_BD - decoded_BD).detach()
        k_aux = x_BD.shape[-1] // 2  # Gao et al. 2024, appendix B.1
        scale = min(len(dead) / k_aux, 1.0)
        pre = (x_BD - self.b_dec) @ self.W_enc[:, dead] + self.b_enc[dead]
        if len(dead) > k_aux:
            top = (pre * norm_F[dead]).topk(k_aux, dim=-1, sorted=False).indices
            pre = pre * torch.zeros_like(pre).scatter_(-1, top, 1.0)
        explained_BD = pre @ self.W_dec[dead]
        loss = (explained_BD - residual_BD).pow(2).sum(dim=-1).mean()
        return self.cfg.aux_loss_coefficient * scale * loss


class SparseTopK(_SparseForward, TopKTrainingSAE):
    """SAELens' TopK training SAE."""


class SparseBatchTopK(_SparseForward, BatchTopKTrainingSAE):
    """SAELens' BatchTopK training SAE: k features a token on average over the batch."""

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        output = super().training_forward_pass(step_input)
        values = output.feature_acts._values()
        self.update_topk_threshold(values)
        return output

    def _select(self, scaled_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = scaled_BF.flatten()
        n = int(self.cfg.k * len(scaled_BF))
        # Four million numbers are slow to sort; the few above a fraction of the threshold so far hold the largest n.
        among = (flat > _CANDIDATES_ABOVE * float(self.topk_threshold)).nonzero().flatten()
        if len(among) < n:
            among = (flat > 0).nonzero().flatten()
        if len(among) > n:
            among = among[flat[among].topk(n, sorted=False).indices.sort().values]
        features = scaled_BF.shape[1]
        return among // features, among % features, flat[among]


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
