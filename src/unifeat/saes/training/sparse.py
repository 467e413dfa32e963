"""The losses of SAELens' top-k SAEs, computed over the active features only.

Of a dictionary's 4,096 features, perhaps 32 are active on a token. SAELens decodes, and computes both gradients, with
products over all features. Here only the encoder's product is dense; everything after the selection is computed over
the active features. `embedding_bag` sums weighted rows: by token for the reconstruction, and by feature for the two
weight gradients. Every bag is summed in a fixed order, so that a training can be repeated bit for bit.

Letters: B tokens, F features, D width, N active (token, feature) entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True)
class Active:
    """Which features are active in which tokens, in order of tokens.

    Attributes:
        token, feature: (N,) int64.
        tokens, features: B and F.
    """

    token: Tensor
    feature: Tensor
    tokens: int
    features: int

    @cached_property
    def token_start(self) -> Tensor:
        """(B,) index of each token's first entry."""
        return _starts(self.token, self.tokens)

    @cached_property
    def by_feature(self) -> Tensor:
        """(N,) the entries in order of features, and of tokens within a feature."""
        return torch.argsort(self.feature, stable=True)

    @cached_property
    def feature_start(self) -> Tensor:
        """(F,) index of each feature's first entry in `by_feature`."""
        return _starts(self.feature, self.features)

    def sum_by_token(self, rows_FD: Tensor, weight_N: Tensor) -> Tensor:
        """Σ of weight × row of the feature, for each token: (B, D)."""
        return embedding_bag(self.feature, rows_FD, self.token_start, mode="sum", per_sample_weights=weight_N)

    def sum_by_feature(self, rows_BD: Tensor, weight_N: Tensor) -> Tensor:
        """Σ of weight × row of the token, for each feature: (F, D)."""
        order = self.by_feature
        return embedding_bag(
            self.token[order], rows_BD, self.feature_start, mode="sum", per_sample_weights=weight_N[order]
        )

    def dot(self, rows_FD: Tensor, rows_BD: Tensor) -> Tensor:
        """The dot product of the feature's row and the token's row, for each entry: (N,)."""
        # This is the derivative of `sum_by_token` by its weights, which torch computes without gathering N rows.
        with torch.enable_grad():
            weight = rows_FD.new_zeros(len(self.token), requires_grad=True)
            total = self.sum_by_token(rows_FD.detach(), weight)
            return torch.autograd.grad(total, weight, rows_BD)[0]

    def total(self, value_N: Tensor) -> Tensor:
        """Σ of values, for each feature: (F,)."""
        return value_N.new_zeros(self.features).index_add_(0, self.feature, value_N)

    def as_sparse(self, value_N: Tensor) -> Tensor:
        """A sparse (B, F) tensor of the nonzero entries, from which SAELens' trainer counts firings."""
        on = value_N != 0
        index = torch.stack([self.token[on], self.feature[on]])
        return torch.sparse_coo_tensor(index, value_N[on], (self.tokens, self.features), check_invariants=False)


def _starts(ids: Tensor, n: int) -> Tensor:
    counts = torch.bincount(ids, minlength=n)
    return counts.cumsum(0) - counts


class PreActivation(torch.autograd.Function):
    """(x − b_dec) · W_enc + b_enc at the active entries, (N,), with values from the dense product computed before."""

    @staticmethod
    def forward(
        ctx: Any,
        centred_BD: Tensor,
        W_enc_DF: Tensor,
        b_enc_F: Tensor,
        b_dec_D: Tensor,
        active: Active,
        value_N: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(centred_BD, W_enc_DF)
        ctx.active = active
        return value_N.clone()

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> Any:
        centred_BD, W_enc_DF = ctx.saved_tensors
        grad_W = ctx.active.sum_by_feature(centred_BD, grad_N).T
        grad_b_F = ctx.active.total(grad_N)
        # b_dec is subtracted from every token, so its gradient needs only the sum over tokens.
        return None, grad_W, grad_b_F, -(W_enc_DF @ grad_b_F), None, None


class Decoded(torch.autograd.Function):
    """Σ of value × decoder row over each token's active features, (B, D)."""

    @staticmethod
    def forward(ctx: Any, value_N: Tensor, W_dec_FD: Tensor, active: Active) -> Tensor:
        ctx.save_for_backward(value_N, W_dec_FD)
        ctx.active = active
        return active.sum_by_token(W_dec_FD, value_N)

    @staticmethod
    def backward(ctx: Any, grad_BD: Tensor) -> Any:
        value_N, W_dec_FD = ctx.saved_tensors
        grad_BD = grad_BD.contiguous()
        return ctx.active.dot(W_dec_FD, grad_BD), ctx.active.sum_by_feature(grad_BD, value_N), None


class Jump(torch.autograd.Function):
    """JumpReLU at the entries, and which of them fire: two (N,), from pre-activations (N,) and thresholds (F,).

    The gradients are straight-through estimators with a rectangular kernel of width `bandwidth` (Rajamanoharan et al.
    2024, "Jumping ahead", eq. 11 and 12). The pre-activations get them too, as with SAELens' `jumprelu_ste_to_input`.
    """

    @staticmethod
    def forward(ctx: Any, pre_N: Tensor, threshold_F: Tensor, active: Active, bandwidth: float) -> Any:
        threshold_N = threshold_F[active.feature]
        on_N = pre_N > threshold_N
        ctx.save_for_backward(pre_N, threshold_N, on_N)
        ctx.active, ctx.bandwidth = active, bandwidth
        return pre_N * on_N, on_N.to(pre_N.dtype)

    @staticmethod
    def backward(ctx: Any, grad_value_N: Tensor, grad_on_N: Tensor) -> Any:
        pre_N, threshold_N, on_N = ctx.saved_tensors
        inside_N = ((pre_N - threshold_N).abs() < ctx.bandwidth / 2) / ctx.bandwidth
        through_N = inside_N * (threshold_N * grad_value_N + grad_on_N)
        return on_N * grad_value_N + through_N, -ctx.active.total(through_N), None, None
