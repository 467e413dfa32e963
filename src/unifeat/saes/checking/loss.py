"""Loss recovered: how well a model predicts when an SAE's reconstruction replaces its activations.

The cross-entropy of the next token is measured with the activations at one hook point (for a transcoder, the MLP's
output) unchanged, replaced by the reconstruction, and replaced by zeros. Loss recovered is
(zeroed − spliced) / (zeroed − clean), as in Bricken et al. 2023, "Towards monosemanticity", and in SAELens'
evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unifeat.models.hooks import capturing
from unifeat.models.language import LanguageModel
from unifeat.models.splicing import splicing, with_rows
from unifeat.saes.decoding import reconstruct, writes_at
from unifeat.saes.encoding import encode_rows
from unifeat.saes.protocol import SAE
from unifeat.text.corpus import Part
from unifeat.text.windows import tokenize_part, windows
from unifeat.vocabulary.hook_points import HookPoint, stream_before
from unifeat.vocabulary.openings import opening_tokens
from unifeat.vocabulary.windowing import Windowing

_BATCH_LOGITS = 1 << 27  # logits in a batch: half a gigabyte in float32, whatever the size of the vocabulary


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy of the next token, in nats, over the positions whose activation the SAE reads.

    Attributes:
        clean, spliced, zeroed: with the activations unchanged, reconstructed, and set to zero.
        tokens: number of positions in the means.
    """

    clean: float
    spliced: float
    zeroed: float
    tokens: int

    @property
    def recovered(self) -> float:
        """(zeroed − spliced) / (zeroed − clean): 1 if nothing is lost, 0 if it is no better than zeros."""
        span = self.zeroed - self.clean
        return (self.zeroed - self.spliced) / span if span > 0 else float("nan")

    def as_dict(self) -> dict[str, float | int | None]:
        """The figures, for JSON."""
        recovered = self.recovered
        return {
            "recovered": round(recovered, 5) if recovered == recovered else None,
            "ce_clean": round(self.clean, 5),
            "ce_spliced": round(self.spliced, 5),
            "ce_zeroed": round(self.zeroed, 5),
            "tokens": self.tokens,
        }


@torch.inference_mode()
def measure_loss(
    model: LanguageModel,
    parts: list[Part],
    point: HookPoint,
    sae: SAE,
    windowing: Windowing,
    *,
    sink_norm: float,
) -> Loss:
    """Cross-entropies of a whole model over some text, for one SAE.

    Masked positions (special tokens, first positions, attention sinks) keep their activation and are not in the means,
    since SAEs are not meant to reconstruct them.

    Args:
        model: loaded with `whole=True`.
        sink_norm: tokens with a larger norm at `stream_before(point)` are sinks (`GroupActivations.sink_norm`).

    Raises:
        ValueError: a model that was loaded without its head.
    """
    if model.causal is None:
        raise ValueError("the model was loaded without its head: load_language_model(..., whole=True)")
    written, sinks_at = writes_at(sae, point), stream_before(point)
    sums, tokens = np.zeros(3), 0
    for ids, reads in _batches(model, parts, windowing):
        with capturing(model.blocks, [sinks_at]) as seen:
            clean = _logits(model, ids)
        value = seen[sinks_at].reshape(*ids.shape, -1).to(model.device)
        reads = reads & (value.to(torch.float32).norm(dim=-1) <= sink_norm)
        # The last token of a window has no next token to predict.
        scored = reads[:, :-1] & (ids[:, 1:] >= 0)
        targets = ids[:, 1:][scored]
        if not len(targets):
            continue
        tokens += len(targets)
        sums[0] += _nats(clean, scored, targets)
        for i, by in ((1, sae), (2, None)):
            with splicing(model.blocks, written, partial(_replaced, reads=reads, sae=by), point):
                sums[i] += _nats(_logits(model, ids), scored, targets)
    clean_mean, spliced, zeroed = (float(s) / tokens if tokens else float("nan") for s in sums)
    return Loss(clean_mean, spliced, zeroed, tokens)


def _replaced(value: Tensor, read: Tensor, *, reads: Tensor, sae: SAE | None) -> Tensor:
    def new(rows: Tensor) -> Tensor:
        if sae is None or not len(rows):
            return torch.zeros_like(rows)
        x = read.reshape(-1, read.shape[-1])[reads.flatten().to(read.device)].to(reads.device, torch.float32)
        return torch.cat([reconstruct(sae, part, codes) for part, codes in encode_rows(sae, x)])

    return with_rows(value, reads, new)


def _logits(model: LanguageModel, ids: Tensor) -> Tensor:
    # Padding is on the right, where it does not affect earlier positions (attention is causal), so any token will do.
    return model.causal(input_ids=ids.clamp(min=0), use_cache=False).logits


def _nats(logits: Tensor, scored: Tensor, targets: Tensor) -> float:
    return float(cross_entropy(logits[:, :-1][scored].to(torch.float32), targets, reduction="none").double().sum())


def _batches(model: LanguageModel, parts: list[Part], windowing: Windowing) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids (windows, positions), −1 for padding, and a mask of those that an SAE reads, still including sinks."""
    context, prefix = windowing.context, opening_tokens(windowing.opening)
    rows = []
    for part in parts:
        tokenized = tokenize_part(model.tokenizer, part)
        rows += [prefix + tokenized.token[w].tolist() for w in windows(tokenized, context - len(prefix))]
    special = torch.tensor(sorted(model.special_ids), dtype=torch.int64)
    size = max(1, _BATCH_LOGITS // (context * int(model.causal.config.get_text_config().vocab_size)))
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        ids = torch.full((len(batch), max(map(len, batch))), -1, dtype=torch.int64)
        for i, row in enumerate(batch):
            ids[i, : len(row)] = torch.tensor(row)
        reads = (ids >= 0) & ~torch.isin(ids, special)
        reads[:, : max(len(prefix), 1)] = False  # the opening, or the first position
        yield ids.to(model.device), reads.to(model.device)
