"""A control: a model of which only its architecture, its tokenizer and the sizes of its weights are left."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


@torch.no_grad()
def redraw_weights(model: nn.Module, seed: int) -> None:
    """Replace every parameter by normal noise of the same mean and standard deviation, tensor by tensor.

    What is left of the model is its architecture, its tokenizer and the sizes of its weights: a control for what
    these alone make alike (Heap et al. 2025, "Sparse autoencoders can interpret randomly initialized transformers").
    A tensor whose entries are all equal, as norm weights of ones, stays as it is. The noise of a tensor depends on the
    seed and on the tensor's name alone.
    """
    for name, parameter in model.named_parameters():  # tied weights come once
        wide = parameter.detach().to("cpu", torch.float32)
        if bool((wide == wide.flatten()[0]).all()):
            continue
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        noise = torch.randn(wide.shape, generator=generator)
        parameter.copy_((noise * wide.std(correction=0) + wide.mean()).to(parameter.dtype))
