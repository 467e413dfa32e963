"""Bounds of the numbers that users give. Beyond them something would fail or run out of memory hours later."""

from __future__ import annotations

# The largest seed of numpy's RandomState, which pandas uses; torch and numpy's SeedSequence take larger ones.
LARGEST_SEED = 2**32 - 1
LARGEST_COUNT = 10**12  # for counts of documents, tokens and activations, for which nothing is allocated
LARGEST_WIDTH = 2**24  # for features of a dictionary and activations in memory
