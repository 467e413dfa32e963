"""The edits that show what features do to the next token, and the profiles of change that they give.

An edit changes the activation of one token. For each pair there are edits of two kinds: a dose of the feature added at
probe tokens, the same for all pairs; and the feature's contribution taken out at tokens where the pair fires.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import log_softmax

from unifeat.codes.beside import Beside
from unifeat.models.edits import Edits, edited_logits
from unifeat.models.language import LanguageModel
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.transfer import sae_of
from unifeat.text.corpus import Corpus
from unifeat.text.windows import cut_windows, tokenize_part
from unifeat.transfer.decoding import Decoding
from unifeat.transfer.splicing_loss import rows_in
from unifeat.transfer.strings import sum_to_strings
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.openings import opening_tokens

Ids = NDArray[np.int64]
_DOSE = 0.9  # quantile of the feature's activation that is added
_STRINGS = 8192  # the most probable ones, on which profiles are compared
_DOCUMENTS_FOR_STRINGS = 8
_FEWEST_BEFORE = 16  # sampled tokens before a probe


@dataclass(frozen=True)
class Asked:
    """Edits of both models, in the same order: of the probe contexts for every pair, then where pairs fire.

    Attributes:
        pair: (edits,) the pair; rows of the probe contexts come first, context by context.
        row: (edits,) the sampled token.
        added: how many edits belong to the probe contexts.
        control: (edits − added,) features of the target that fire on the same tokens; −1 where no other does.
    """

    pair: Ids
    row: Ids
    added: int
    control: Ids

    def __len__(self) -> int:
        return len(self.pair)

    def rows_of(self, edits: Ids) -> Ids:
        """The tokens of edits; those from `len(self)` on are the controls."""
        return self.row[np.where(edits < len(self), edits, edits - len(self) + self.added)]


def ask(rows: Beside, ids: Ids, judged: NDArray[np.bool_], contexts: int, rng: np.random.Generator) -> Asked:
    """Choose the edits.

    Args:
        rows: the sampled tokens.
        ids: (2, pairs) features of the source and of the target.
        judged: (documents,) those that edits may be in.
        contexts: how many probe tokens, and at most how many tokens of each pair.
    """
    pairs = ids.shape[1]
    open_rows = np.flatnonzero(judged[rows.document])
    # A probe context has some sampled tokens of its document before it.
    before = open_rows[open_rows >= _FEWEST_BEFORE]
    deep = before[rows.document[before - _FEWEST_BEFORE] == rows.document[before]]
    probes = np.sort(rng.choice(deep, min(contexts, len(deep)), replace=False)) if len(deep) else deep
    pair, row, control = [], [], []
    a, b = rows.codes_a[:, ids[0]].tocsc(), rows.codes_b[:, ids[1]].tocsc()
    of_row = rows.codes_b.tocsr()
    for number in range(pairs):
        fires = np.intersect1d(*(m.indices[m.indptr[number] : m.indptr[number + 1]] for m in (a, b)))
        fires = fires[judged[rows.document[fires]]]
        chosen = np.sort(rng.choice(fires, min(contexts, len(fires)), replace=False))
        for at in chosen:
            others = of_row.indices[of_row.indptr[at] : of_row.indptr[at + 1]]
            others = others[others != ids[1, number]]
            control.append(int(rng.choice(others)) if len(others) else -1)
        pair += [number] * len(chosen)
        row += chosen.tolist()
    return Asked(
        np.r_[np.tile(np.arange(pairs), len(probes)), np.array(pair, np.int64)].astype(np.int64),
        np.r_[np.repeat(probes, pairs), np.array(row, np.int64)].astype(np.int64),
        len(probes) * pairs,
        np.array(control, np.int64),
    )


class Side:
    """One model's side of the pairs.

    Attributes:
        space: the space.
        rows: the sampled tokens, with this space as A.
        ids: (pairs,) its features.
        weights: (pairs, d) what a code of 1 adds.
        doses: (pairs,) what is added at the probes.
    """

    def __init__(self, space: Space, rows: Beside, ids: Ids) -> None:
        self.space, self.rows, self.ids = space, rows, ids
        self._decoding = Decoding(sae_of(space), space.info["sae"])
        self.weights = self._decoding.weights(ids)
        columns = rows.codes_a[:, ids].tocsc()
        own = [columns.data[columns.indptr[k] : columns.indptr[k + 1]] for k in range(len(ids))]
        self.doses = np.array([np.quantile(values, _DOSE) if len(values) else 0.0 for values in own])

    @property
    def point(self) -> HookPoint:
        """Where the space's SAE writes."""
        assert self.space.loader is not None
        (planned,) = self.space.loader.spaces
        return planned.writes_at

    def deltas(self, asked: Asked, chosen: Ids) -> NDArray[np.float32]:
        """What is added at each of some edits: a dose, or what a feature contributed, with a minus sign.

        Edits from `len(asked)` on are the controls.
        """
        row = asked.rows_of(chosen)
        scale = self._scale(row)[:, None]
        is_control = chosen >= len(asked)
        made = np.zeros((len(chosen), self.weights.shape[1]), np.float32)
        own, pair = ~is_control, asked.pair[chosen[~is_control]]
        dose = np.where(chosen[own] < asked.added, self.doses[pair], -self._codes(row[own], self.ids[pair]))
        made[own] = dose[:, None] * scale[own] * self.weights[pair]
        if is_control.any():
            features = asked.control[chosen[is_control] - len(asked)]
            ids, place = np.unique(features, return_inverse=True)
            code = self._codes(row[is_control], features)
            made[is_control] = -code[:, None] * scale[is_control] * self._decoding.weights(ids)[place]
        return made

    def _codes(self, row: Ids, feature: Ids) -> NDArray[np.float64]:
        return np.asarray(self.rows.codes_a[row, feature], np.float64).ravel()

    def _scale(self, row: Ids) -> NDArray[np.float64]:
        unique, place = np.unique(row, return_inverse=True)
        return self._decoding.parts(self.rows.x_a[unique], self.rows.codes_a[unique]).scale[place]

    def windows(self, model: LanguageModel, corpus: Corpus, rows: Ids) -> Iterator[tuple[Any, Any]]:
        """The windows that hold some of the sampled tokens: token ids, and (row, position) of those."""
        windowing = self.space.windowing
        assert windowing is not None
        opening = opening_tokens(windowing.opening)
        wanted = np.zeros(len(self.rows.document), bool)
        wanted[rows] = True
        documents = set(self.rows.document[rows].tolist())
        for group in range(corpus.groups):
            first, last = corpus.group_documents[group][0], corpus.group_documents[group][1]
            if not any(first <= document <= last for document in documents):
                continue
            for part in corpus.parts(group):
                if part.document not in documents:
                    continue
                tokens = tokenize_part(model.tokenizer, part)
                for window in cut_windows(
                    tokens, opening, windowing.context, at_start=part.start == 0, limit=windowing.limit
                ):
                    at = rows_in(window, self.rows.places_a)
                    position = np.flatnonzero((at >= 0) & wanted[np.maximum(at, 0)])
                    if len(position):
                        yield window.ids, np.stack([at[position], position])


def edits_of(
    side: Side, model: LanguageModel, asked: Asked, corpus: Corpus, chosen: Ids
) -> tuple[torch.Tensor, Edits, Ids]:
    """The windows, the edits in them, and which of `chosen` each edit is."""
    ids: list[NDArray[np.int32]] = []
    window_of: dict[int, int] = {}
    position_of: dict[int, int] = {}
    for window, (rows, positions) in side.windows(model, corpus, np.unique(asked.rows_of(chosen))):
        for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
            window_of[row], position_of[row] = len(ids), position
        ids.append(window)
    chosen = chosen[np.array([row in window_of for row in asked.rows_of(chosen)], bool)]
    rows_of = asked.rows_of(chosen)
    padded = torch.full((len(ids), max(map(len, ids), default=1)), -1, dtype=torch.int64)
    for number, own in enumerate(ids):
        padded[number, : len(own)] = torch.from_numpy(own.astype(np.int64))
    window, position = (np.array([of[row] for row in rows_of], np.int64) for of in (window_of, position_of))
    delta = torch.from_numpy(side.deltas(asked, chosen))
    return padded, Edits(window, position, delta), chosen


def probable_strings(model: LanguageModel, side: Side, asked: Asked, corpus: Corpus, first: Ids, n: int) -> Ids:
    """The strings that are most probable over some of the edited tokens, those of a few documents, ascending."""
    unique = np.sort(np.unique(asked.row, return_index=True)[1])
    own = side.rows.document[asked.row[unique]]
    unique = unique[np.isin(own, np.unique(own)[:_DOCUMENTS_FOR_STRINGS])]
    padded, edits, _ = edits_of(side, model, asked, corpus, unique)
    total = torch.zeros(n, dtype=torch.float64)
    still = Edits(edits.window, edits.position, torch.zeros_like(edits.delta))
    for batch in edited_logits(model, padded, side.point, still):
        total += sum_to_strings(batch.clean.float().softmax(-1), first, n).double().sum(0).cpu()
    return np.sort(torch.topk(total, min(_STRINGS, n)).indices.numpy())


@dataclass(frozen=True)
class Profiles:
    """Profiles of one model's edits: the change of log-probability of each string, (edits, strings) on disk.

    Attributes:
        profiles, control: float16, NaN for edits that could not be made; control's are of the edits where pairs fire.
        divergence: (edits,) KL from the clean prediction, in nats.
    """

    profiles: Any
    control: Any
    divergence: NDArray[np.float64]


@torch.inference_mode()
def profiles_of(
    model: LanguageModel,
    side: Side,
    asked: Asked,
    corpus: Corpus,
    first: Ids,
    n: int,
    kept: Ids,
    path: Path,
    *,
    control: bool,
) -> Profiles:
    """Run a model with every edit.

    Args:
        first, n: the map of its tokens to strings, and how many strings there are.
        kept: the strings that profiles have.
        path: of the file that holds the profiles.
        control: whether the control edits are this model's.
    """
    chosen = np.arange(len(asked))
    if control:
        chosen = np.r_[chosen, len(asked) + np.flatnonzero(asked.control >= 0)]
    profiles = np.lib.format.open_memmap(
        path, "w+", np.float16, (len(asked) + (len(asked.control) if control else 0), len(kept))
    )
    profiles[:] = np.nan
    divergence = np.full(len(profiles), np.nan)
    padded, edits, of = edits_of(side, model, asked, corpus, chosen)
    columns = torch.from_numpy(kept)
    for batch in edited_logits(model, padded, side.point, edits):
        clean, edited = (log_softmax(values.float(), -1) for values in (batch.clean, batch.logits))
        before = clean[torch.from_numpy(batch.place).to(clean.device)]
        logs = [
            sum_to_strings(values.exp(), first, n)[:, columns.to(values.device)].clamp(min=1e-30).log()
            for values in (clean, edited)
        ]
        change = logs[1] - logs[0][torch.from_numpy(batch.place).to(clean.device)]
        at = of[batch.edit]
        profiles[at] = change.clamp(-6e4, 6e4).half().cpu().numpy()
        divergence[at] = (before.exp() * (before - edited)).sum(-1).double().cpu().numpy()
    beside = profiles[len(asked) :] if control and len(asked.control) else None
    return Profiles(profiles[: len(asked)], beside, divergence[: len(asked)])
