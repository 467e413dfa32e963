"""What edits do: the change of the log-probability of the next strings, and of the features of a later layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from unifeat.models.edits import edited_logits, is_later
from unifeat.models.language import LanguageModel
from unifeat.pipeline.effect_edits import EditList, Ids, Side
from unifeat.pipeline.placed import placed
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.transfer import sae_of
from unifeat.text.corpus import Corpus
from unifeat.transfer.profiles import effective_number
from unifeat.transfer.strings import sum_to_strings
from unifeat.vocabulary.hook_points import HookPoint

_STRINGS = 8192  # the most probable ones, on which profiles are compared
_DOCUMENTS_FOR_STRINGS = 8


@dataclass(frozen=True)
class Profiles:
    """What came of one model's edits; NaN for edits that could not be made.

    Attributes:
        change: (edits, strings) float16 on disk, the change of each string's log-probability.
        divergence: (edits,) KL from the clean prediction, in nats.
        spread: (edits,) the effective number of features of a later layer that an added dose moves; NaN without one.
    """

    change: Any
    divergence: NDArray[np.float64]
    spread: NDArray[np.float64]


class LaterLayer:
    """The features of a later layer of a model, as its SAE in the study sees them."""

    def __init__(self, space: Space) -> None:
        assert space.loader is not None
        self._sae: Any = sae_of(space)
        self.point: HookPoint = space.loader.spaces[0].point
        self._norms = self._sae.W_dec.detach().float().norm(dim=1)

    def moved(self, clean: Tensor, edited: Tensor) -> NDArray[np.float64]:
        """How many features differ between activations (n, d), (n,): see `effective_number`."""
        before, after = (self._sae.encode(x.float().cpu()) for x in (clean, edited))
        return effective_number(((after - before).abs() * self._norms).numpy())


def later_space(space: Space, spaces: list[Space]) -> Space | None:
    """The nearest later layer of a space's model that the study has an SAE of; None if there is none."""
    assert space.loader is not None
    (own,) = space.loader.spaces
    later = [
        other
        for other in spaces
        if other.loader is not None
        and other.loader.identity == space.loader.identity
        and other.info["control"] is None
        and is_later(other.loader.spaces[0].point, own.writes_at)
    ]
    return min(later, key=lambda other: other.layer, default=None)  # the first of several SAEs of a layer


@torch.inference_mode()
def probable_strings(
    model: LanguageModel, side: Side, rows: Ids, corpus: Corpus, first: Ids, n: int
) -> NDArray[np.int64]:
    """The strings that are most probable over some of the edited tokens, those of a few documents, ascending.

    Args:
        rows: the edited tokens.
    """
    unique = np.unique(rows)
    own = side.rows.document[unique]
    unique = unique[np.isin(own, np.unique(own)[:_DOCUMENTS_FOR_STRINGS])]
    at = placed(side.space, side.rows.places_a, unique, model, corpus)
    unique = unique[at.window[unique] >= 0]
    total = torch.zeros(n, dtype=torch.float64)
    still = at.edits(unique, np.zeros((len(unique), model.width(side.point)), np.float32))
    for batch in edited_logits(model, at.ids, side.point, still):
        total += sum_to_strings(batch.clean.float().softmax(-1), first, n).double().sum(0).cpu()
    return np.sort(torch.topk(total, min(_STRINGS, n)).indices.numpy())


@torch.inference_mode()
def profiles_of(
    model: LanguageModel,
    side: Side,
    edits: EditList,
    corpus: Corpus,
    first: Ids,
    n: int,
    kept: Ids,
    path: Path,
    later: LaterLayer | None = None,
) -> Profiles:
    """Run a model with every edit.

    Args:
        first, n: the map of its tokens to strings, and how many strings there are.
        kept: the strings that profiles have.
        path: of the file that holds the profiles.
        later: a later layer, to see how far added doses spread.
    """
    profiles = np.lib.format.open_memmap(path, "w+", np.float16, (len(edits), len(kept)))
    profiles[:] = np.nan
    divergence, spread = np.full(len(edits), np.nan), np.full(len(edits), np.nan)
    at = placed(side.space, side.rows.places_a, np.unique(edits.row), model, corpus)
    made = np.flatnonzero((edits.feature >= 0) & (at.window[edits.row] >= 0))
    some = EditList(edits.row[made], edits.feature[made], edits.added[made])
    columns = torch.from_numpy(kept)
    observe = later.point if later is not None else None
    changes = at.edits(some.row, side.deltas(some))
    for batch in edited_logits(model, at.ids, side.point, changes, observe=observe):
        place = torch.from_numpy(batch.place).to(batch.clean.device)
        clean, edited = (log_softmax(values.float(), -1) for values in (batch.clean, batch.logits))
        before = clean[place]
        logs = [
            sum_to_strings(values.exp(), first, n)[:, columns.to(values.device)].clamp(min=1e-30).log()
            for values in (clean, edited)
        ]
        change = logs[1] - logs[0][place]
        of = made[batch.edit]
        profiles[of] = change.clamp(-6e4, 6e4).half().cpu().numpy()
        divergence[of] = (before.exp() * (before - edited)).sum(-1).double().cpu().numpy()
        if later is not None and batch.seen is not None and batch.seen_clean is not None:
            doses = some.added[batch.edit]
            spread[of[doses]] = later.moved(batch.seen_clean[place][doses], batch.seen[doses])
    return Profiles(profiles, divergence, spread)
