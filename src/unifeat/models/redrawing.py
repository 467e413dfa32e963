"""A control: a model with randomised weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


@torch.no_grad()
def redraw_weights(model: nn.Module, seed: int) -> None:
    """Replace every parameter by normal noise of the same mean and standard deviation, tensor by tensor.

    Only the model's architecture, tokenizer and scale of weights remain, so this is a control for how alike these alone
    make two models (Heap et al. 2025, "Sparse autoencoders can interpret randomly initialized transformers").
    A tensor whose entries are all equal, such as norm weights of ones, is not changed. The noise of a tensor depends
    only on the seed and the tensor's name.
    """
    for name, parameter in model.named_parameters():  # tied weights are listed once
        wide = parameter.detach().to("cpu", torch.float32)
        if bool((wide == wide.flatten()[0]).all()):
            continue
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        noise = torch.randn(wide.shape, generator=generator)
        parameter.copy_((noise * wide.std(correction=0) + wide.mean()).to(parameter.dtype))
