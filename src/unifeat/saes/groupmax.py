"""sparsify's GroupMax, for which SAELens has no class: the largest feature of each of k groups fires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sae_lens import TopKSAE, TopKSAEConfig
from torch import Tensor, nn


class GroupMax(nn.Module):
    """Keep the largest positive entry in each of `k` equal, consecutive parts of the last dimension."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """(…, d_sae) to (…, d_sae); d_sae is a multiple of k."""
        grouped = x.relu().unflatten(-1, (self.k, -1))
        values, at = grouped.max(dim=-1, keepdim=True)
        return torch.zeros_like(grouped).scatter_(-1, at, values).flatten(-2)


@dataclass
class GroupMaxSAEConfig(TopKSAEConfig):
    """A TopK config whose `k` is the number of groups."""

    @classmethod
    def architecture(cls) -> str:
        return "groupmax"


class GroupMaxSAE(TopKSAE):
    """A TopK SAE with `GroupMax` in place of top-k."""

    def get_activation_fn(self) -> Callable[[Tensor], Tensor]:
        return GroupMax(self.cfg.k)
