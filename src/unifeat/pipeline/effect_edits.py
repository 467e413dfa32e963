"""The edits that show what features do to the next token.

An edit changes the activation of one token. For each pair there are edits of two kinds: a dose of the feature added at
probe tokens, the same for all pairs; and the feature's contribution taken out at tokens where the pair fires. In the
target there are controls of both: the second-best partner's dose, and the contribution of another feature of the token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.beside import Beside
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.transfer import sae_of
from unifeat.transfer.decoding import Decoding
from unifeat.vocabulary.hook_points import HookPoint

Ids = NDArray[np.int64]
DOSE = 0.9  # quantile of a feature's activation that is added
FEWEST_BEFORE = 16  # sampled tokens before a probe


@dataclass(frozen=True)
class EditList:
    """Edits of one model, each of one feature at one token.

    Attributes:
        row: (edits,) the sampled token.
        feature: (edits,) the feature; −1: no edit, which keeps the lists of two models alike.
        added: (edits,) whether a dose is added; else the feature's contribution is taken out.
    """

    row: Ids
    feature: Ids
    added: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Asked:
    """What is asked of both models.

    Attributes:
        ids: (2, pairs) features of the source and of the target.
        second: (pairs,) the target's second-best partner of each feature of the source; −1: there is none.
        probes: (contexts,) the tokens at which every pair's dose is added.
        pair: (removals,) the pair, and …
        row: (removals,) … a token where it fires.
        control: (removals,) another feature of the target that fires there; −1: there is none.
    """

    ids: Ids
    second: Ids
    probes: Ids
    pair: Ids
    row: Ids
    control: Ids

    @property
    def added(self) -> int:
        """How many edits add a dose: those come first, context by context. Removals follow."""
        return self.ids.shape[1] * len(self.probes)

    def of_source(self) -> EditList:
        """Doses, then removals."""
        return self._edits(self.ids[0])

    def of_target(self) -> EditList:
        """The same, then the control of each removal, then doses of the second-best partners."""
        own, n = self._edits(self.ids[1]), self.ids.shape[1]
        return EditList(
            np.r_[own.row, self.row, np.repeat(self.probes, n)],
            np.r_[own.feature, self.control, np.tile(self.second, len(self.probes))],
            np.r_[own.added, np.zeros(len(self.row), bool), np.ones(self.added, bool)],
        )

    def _edits(self, ids: Ids) -> EditList:
        n, contexts = len(ids), len(self.probes)
        return EditList(
            np.r_[np.repeat(self.probes, n), self.row],
            np.r_[np.tile(ids, contexts), ids[self.pair]],
            np.r_[np.ones(n * contexts, bool), np.zeros(len(self.row), bool)],
        )


def ask(
    rows: Beside, ids: Ids, second: Ids, judged: NDArray[np.bool_], contexts: int, rng: np.random.Generator
) -> Asked:
    """Choose the edits.

    Args:
        rows: the sampled tokens.
        ids, second: as in `Asked`.
        judged: (documents,) those that edits may be in.
        contexts: how many probe tokens, and at most how many tokens of each pair.
    """
    probes = probe_tokens(rows, judged, contexts, rng)
    pair, row, control = [], [], []
    a, b = rows.codes_a[:, ids[0]].tocsc(), rows.codes_b[:, ids[1]].tocsc()
    of_row = rows.codes_b.tocsr()
    for number in range(ids.shape[1]):
        fires = np.intersect1d(*(m.indices[m.indptr[number] : m.indptr[number + 1]] for m in (a, b)))
        fires = fires[judged[rows.document[fires]]]
        chosen = np.sort(rng.choice(fires, min(contexts, len(fires)), replace=False))
        for at in chosen:
            others = of_row.indices[of_row.indptr[at] : of_row.indptr[at + 1]]
            others = others[others != ids[1, number]]
            control.append(int(rng.choice(others)) if len(others) else -1)
        pair += [number] * len(chosen)
        row += chosen.tolist()
    return Asked(ids, second, probes, *(np.array(part, np.int64) for part in (pair, row, control)))


def probe_tokens(rows: Beside, judged: NDArray[np.bool_], n: int, rng: np.random.Generator) -> Ids:
    """Sampled tokens of judged documents, drawn at random, with some sampled tokens of their document before them."""
    open_rows = np.flatnonzero(judged[rows.document])
    before = open_rows[open_rows >= FEWEST_BEFORE]
    deep = before[rows.document[before - FEWEST_BEFORE] == rows.document[before]]
    return np.sort(rng.choice(deep, min(n, len(deep)), replace=False)) if len(deep) else deep


class Side:
    """One model's side.

    Attributes:
        space: the space.
        rows: the sampled tokens, with this space as A.
    """

    def __init__(self, space: Space, rows: Beside) -> None:
        self.space, self.rows = space, rows
        self._decoding = Decoding(sae_of(space), space.info["sae"])

    @property
    def point(self) -> HookPoint:
        """Where the space's SAE writes."""
        assert self.space.loader is not None
        (planned,) = self.space.loader.spaces
        return planned.writes_at

    def weights(self, features: Ids) -> NDArray[np.float64]:
        """What a code of 1 adds, (features, d)."""
        return self._decoding.weights(features)

    def doses(self, features: Ids) -> NDArray[np.float64]:
        """The standard dose of features, (features,): their activation's quantile `DOSE` where they fire."""
        columns = self.rows.codes_a[:, features].tocsc()
        own = [columns.data[columns.indptr[k] : columns.indptr[k + 1]] for k in range(len(features))]
        return np.array([np.quantile(values, DOSE) if len(values) else 0.0 for values in own])

    def deltas(self, edits: EditList) -> NDArray[np.float32]:
        """What is added at each edit, (edits, d); none of them may be of feature −1."""
        ids, place = np.unique(edits.feature, return_inverse=True)
        codes = np.asarray(self.rows.codes_a[edits.row, edits.feature], np.float64).ravel()
        amount = np.where(edits.added, self.doses(ids)[place], -codes) * self._scale(edits.row)
        return np.asarray(amount[:, None] * self.weights(ids)[place], np.float32)

    def _scale(self, row: Ids) -> NDArray[np.float64]:
        unique, place = np.unique(row, return_inverse=True)
        return self._decoding.parts(self.rows.x_a[unique], self.rows.codes_a[unique]).scale[place]
