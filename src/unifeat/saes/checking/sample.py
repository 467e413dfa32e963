"""An SAE's quality on activations: on a sample of tokens, or on a whole corpus."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unifeat.models.activations import GroupActivations, run_group
from unifeat.models.language import LanguageModel
from unifeat.saes.decoding import reconstruct, writes_at
from unifeat.saes.encoding import ENCODE_ROWS, encode_rows
from unifeat.saes.protocol import SAE
from unifeat.saes.quality import Quality
from unifeat.text.corpus import Corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

ROWS = 1024  # rows that each reading is tried on
Prepare = Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


class Sample(NamedTuple):
    """Activations of some tokens, float32.

    Attributes:
        x: (rows, d_in) the SAE's input.
        y: (rows, d_out) the target of its decoder: x, except for transcoders.
    """

    x: Tensor
    y: Tensor

    def spread(self) -> Sample:
        """At most `ROWS` of the rows, evenly spaced."""
        step = max(1, math.ceil(len(self.x) / ROWS))
        return Sample(self.x[::step], self.y[::step])


def sample_at(sae: SAE, activations: GroupActivations, point: HookPoint) -> Sample:
    """The input and target of an SAE at a hook point, without attention sinks."""
    return Sample(activations.without_sinks(point)[0], activations.beside(point, writes_at(sae, point)))


def quality_on(sae: SAE, sample: Sample, prepare: Prepare | None = None) -> Quality:
    """An SAE's quality on some activations.

    Args:
        prepare: from rows to (the SAE's input, a function that undoes this for the reconstruction).
    """
    quality = Quality()
    with torch.inference_mode():
        for rows, wanted in zip(sample.x.split(ENCODE_ROWS), sample.y.split(ENCODE_ROWS), strict=True):
            given, back = prepare(rows) if prepare else (rows, None)
            codes = sae.encode(given)
            made = reconstruct(sae, given, codes)
            quality.add(wanted, codes, back(made) if back else made)
    return quality


def measure_quality(
    model: LanguageModel,
    corpus: Corpus,
    saes: dict[HookPoint, SAE],
    windowing: Windowing,
    *,
    first_document: int = 0,
) -> dict[HookPoint, Quality]:
    """FVU, L0 and dead share of several SAEs of one model on the documents from `first_document` on."""
    qualities = {point: Quality() for point in saes}
    points = list(dict.fromkeys([*saes, *(writes_at(sae, point) for point, sae in saes.items())]))
    for group in range(corpus.groups):
        parts = [part for part in corpus.parts(group) if part.document >= first_document]
        if not parts:
            continue
        activations = run_group(model, parts, points, windowing)
        for point, sae in saes.items():
            x, _, _ = activations.without_sinks(point)
            target = activations.beside(point, writes_at(sae, point))
            for (rows, codes), wanted in zip(encode_rows(sae, x), target.split(ENCODE_ROWS), strict=True):
                qualities[point].add(wanted, codes, reconstruct(sae, rows, codes))
    return qualities
