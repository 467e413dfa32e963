"""Codes: a space's sparse feature activations over the text, on disk, with their places."""

from unifeat.codes.align import AlignedCodes, align
from unifeat.codes.shard import Shard
from unifeat.codes.store import CodeStore

__all__ = ["AlignedCodes", "CodeStore", "Shard", "align"]
