"""Sizes of a model from its configuration alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from unifeat.models.blocks import find_blocks


@dataclass(frozen=True)
class Sizes:
    """What a model takes, cut after its deepest block that is read.

    Attributes:
        parameters: of its blocks, which each token passes through.
        bytes: of these and of the embeddings.
        blocks: how many are kept.
        width: of the residual stream.
    """

    parameters: int
    bytes: float
    blocks: int
    width: int


def sizes_of(config: Any, deepest: int, itemsize: int) -> Sizes:
    """Count a model's parameters without making any.

    Args:
        config: its text configuration.
        deepest: the deepest block that is read.
        itemsize: bytes of a parameter.
    """
    from transformers import AutoModel

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModel.from_config(config)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    blocks = find_blocks(decoder, config.num_hidden_layers)[2][: deepest + 1]
    parameters = sum(p.numel() for block in blocks for p in block.parameters())
    embeddings = sum(p.numel() for p in decoder.get_input_embeddings().parameters())
    return Sizes(parameters, float((parameters + embeddings) * itemsize), len(blocks), int(config.hidden_size))
