"""What the two features of a pair do to the next token, in their own models, and how alike that is.

Three ways: *direct* (decoder row through final norm and unembedding), *added* (a standard dose of the feature, at the
same probe contexts for all pairs) and *removed* (the feature's contribution taken out where the pair fires).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.functional import log_softmax

from unifeat.codes.beside import Beside
from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.inference.strata import strata_of
from unifeat.models.edits import Edits, edited_logits
from unifeat.models.language import LanguageModel
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.transfer import Direction, sae_of
from unifeat.pipeline.transfer_loss import whole_model
from unifeat.progress import say
from unifeat.store import Form, Piece
from unifeat.study.spec import TransferSpec
from unifeat.text.corpus import Corpus
from unifeat.text.windows import cut_windows, tokenize_part
from unifeat.transfer.agreement import AgreementSums, EffectAgreement
from unifeat.transfer.decoding import Decoding
from unifeat.transfer.direct import direct_effects, readout
from unifeat.transfer.profiles import extremes, pearson, standardised
from unifeat.transfer.relation import relation
from unifeat.transfer.splicing_loss import rows_in
from unifeat.transfer.strings import NONE, SharedStrings, shared_strings, sum_to_strings
from unifeat.vocabulary.openings import opening_tokens

VERSION = 1  # raised whenever the results change
_DOSE = 0.9  # quantile of the feature's activation that is added
_STRINGS = 8192  # the most probable ones, on which full effects are compared
_FEWEST_CONTEXTS = 5
_DOCUMENTS_FOR_STRINGS = 8
_FEWEST_BEFORE = 16  # tokens before a probe context
_SHOWN = 8  # strings that a feature promotes or suppresses most
_DRAWS = 1000


@dataclass(frozen=True)
class Effects:
    """What came of one cell.

    Attributes:
        pairs: one row for each pair, the columns of `effects.parquet` after the spaces' names.
        facts: `strings`, `strings_compared`, `contexts`, and for `direct`, `added` and `removed` the agreement beside
            its null.
    """

    pairs: pd.DataFrame
    facts: dict[str, Any]


def _write(found: Effects, folder: Path) -> dict[str, Any]:
    found.pairs.to_parquet(folder / "effects.parquet", index=False)
    return found.facts


_FORM: Form[Effects] = Form(_write, lambda facts, folder: Effects(pd.read_parquet(folder / "effects.parquet"), facts))


def strings_of(direction: Direction) -> SharedStrings:
    """The strings that are a token of both models.

    Raises:
        UserError: there are none.
    """
    return shared_strings(direction.source.tokenizer(), direction.target.tokenizer())


def effects_unit(direction: Direction, corpus: Corpus, spec: TransferSpec) -> Unit[Effects]:
    """A unit of work: the effects of some of a cell's pairs. The direction is `a_to_b`."""
    loaders = [space.loader for space in (direction.source, direction.target)]
    made_from = direction.made_from | {
        "effects": VERSION,
        "pairs asked for": spec.pairs,
        "contexts": spec.contexts,
        "models": [loader.identity for loader in loaders if loader is not None],
        "text": corpus.digest,
    }
    piece = Piece("effects", made_from, _FORM, "what features do to the next token")
    return Unit(piece, partial(_effects, direction, corpus, spec), fills_machine=True, gpu=True)


@dataclass(frozen=True)
class _Asked:
    """Edits of both models, in the same order: of the probe contexts for every pair, then where pairs fire.

    Attributes:
        pair: (edits,) the pair; rows of the probe contexts come first, context by context.
        row: (edits,) the sampled token.
        added: how many edits belong to the probe contexts.
        control: (edits − added,) features of the target that fire on the same tokens; −1 where no other does.
    """

    pair: NDArray[np.int64]
    row: NDArray[np.int64]
    added: int
    control: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pair)

    def rows_of(self, edits: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tokens of edits; those from `len(self)` on are the controls."""
        return self.row[np.where(edits < len(self), edits, edits - len(self) + self.added)]


def _effects(direction: Direction, corpus: Corpus, spec: TransferSpec) -> Effects:
    seed = direction.seed
    rng = np.random.default_rng([seed, 21])
    pairs = direction.pairs
    if len(pairs) > spec.pairs:
        pairs = pairs.iloc[np.sort(rng.choice(len(pairs), spec.pairs, replace=False))].reset_index(drop=True)
    elif len(pairs) < spec.pairs:
        say(f"effects: {direction.source.name} × {direction.target.name} has {len(pairs)} pairs, not {spec.pairs}")
    rows = _joined(direction)
    ids = pairs[["source_feature", "target_feature"]].to_numpy(np.int64).T
    asked = _ask(rows, ids, ~direction.fitting, spec.contexts, rng)
    strings = strings_of(direction)
    strata = strata_of(pairs["count"].to_numpy())
    sides = [
        _Side(direction.source, rows, ids[0], rows.codes_a, rows.x_a, rows.places_a),
        _Side(direction.target, rows, ids[1], rows.codes_b, rows.x_b, rows.places_b),
    ]
    maps = [(strings.exact_a, strings.first_a), (strings.exact_b, strings.first_b)]
    with tempfile.TemporaryDirectory(prefix="unifeat-effects-") as folder:
        direct, found = [], []
        kept: NDArray[np.int64] | None = None
        for number, (side, own) in enumerate(zip(sides, maps, strict=True)):
            model = _exact(whole_model(side.space, "float32"))
            size = int(model.causal.get_output_embeddings().weight.shape[0])
            exact, first = (_fitted(each, size) for each in own)
            direct.append(_direct(model, side, exact, len(strings)))
            if kept is None:
                kept = _probable(model, side, asked, corpus, first, len(strings))
            path = Path(folder) / f"{number}.npy"
            found.append(_profiles(model, side, asked, corpus, first, len(strings), kept, path, control=number == 1))
        return _compared(pairs, asked, strings, direct, found, strata, spec, seed)


def _fitted(to_string: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """A map for a model that gives logits for more, or fewer, tokens than its tokenizer has."""
    found = np.full(size, NONE, np.int64)
    found[: min(size, len(to_string))] = to_string[:size]
    return found


def _exact(model: LanguageModel) -> LanguageModel:
    """The same weights, computed with in float32 on a CPU: in bfloat16, changes of 0.001 nats are rounding."""
    if model.device.type != "cpu" or model.dtype == torch.float32:
        return model
    model.causal.float()
    return replace(model, dtype=torch.float32)


def _joined(direction: Direction) -> Beside:
    """All sampled tokens of both, in memory: a sample is bounded."""
    parts = list(direction.stretches())
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.followed_by(part)
    return whole


def _ask(
    rows: Beside, ids: NDArray[np.int64], judged: NDArray[np.bool_], contexts: int, rng: np.random.Generator
) -> _Asked:
    n, pairs = len(rows.document), ids.shape[1]
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
    assert n
    return _Asked(
        np.r_[np.tile(np.arange(pairs), len(probes)), np.array(pair, np.int64)].astype(np.int64),
        np.r_[np.repeat(probes, pairs), np.array(row, np.int64)].astype(np.int64),
        len(probes) * pairs,
        np.array(control, np.int64),
    )


class _Side:
    """One model's side of the pairs.

    Attributes:
        space: the space.
        ids: (pairs,) its features.
    """

    def __init__(self, space: Space, rows: Beside, ids: NDArray[np.int64], codes: Any, x: Any, places: Any) -> None:
        self.space, self.ids, self.codes, self.places = space, ids, codes, places
        self._rows, self._x = rows, x
        self.documents = rows.document
        self._decoding = Decoding(sae_of(space), space.info["sae"])
        self.weights = self._decoding.weights(ids)
        columns = codes[:, ids].tocsc()
        own = [columns.data[columns.indptr[k] : columns.indptr[k + 1]] for k in range(len(ids))]
        self.doses = np.array([np.quantile(values, _DOSE) if len(values) else 0.0 for values in own])

    def deltas(self, asked: _Asked, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
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

    def _codes(self, row: NDArray[np.int64], feature: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(self.codes[row, feature], np.float64).ravel()

    def _scale(self, row: NDArray[np.int64]) -> NDArray[np.float64]:
        unique, place = np.unique(row, return_inverse=True)
        return self._decoding.parts(self._x[unique], self.codes[unique]).scale[place]

    def windows(self, model: LanguageModel, corpus: Corpus, rows: NDArray[np.int64]) -> Iterator[tuple[Any, Any]]:
        """The windows that hold some of the sampled tokens: token ids, and (row, position) of those."""
        windowing = self.space.windowing
        assert windowing is not None
        opening = opening_tokens(windowing.opening)
        wanted = np.zeros(len(self._rows.document), bool)
        wanted[rows] = True
        documents = set(self._rows.document[rows].tolist())
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
                    at = rows_in(window, self.places)
                    position = np.flatnonzero((at >= 0) & wanted[np.maximum(at, 0)])
                    if len(position):
                        yield window.ids, np.stack([at[position], position])


def _edits(
    side: _Side, model: LanguageModel, asked: _Asked, corpus: Corpus, chosen: NDArray[np.int64]
) -> tuple[torch.Tensor, Edits, NDArray[np.int64]]:
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


def _probable(
    model: LanguageModel, side: _Side, asked: _Asked, corpus: Corpus, first: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """The strings that are most probable over some of the edited tokens, those of a few documents, ascending."""
    unique = np.sort(np.unique(asked.row, return_index=True)[1])
    own = side.documents[asked.row[unique]]
    unique = unique[np.isin(own, np.unique(own)[:_DOCUMENTS_FOR_STRINGS])]
    padded, edits, _ = _edits(side, model, asked, corpus, unique)
    total = torch.zeros(n, dtype=torch.float64)
    still = Edits(edits.window, edits.position, torch.zeros_like(edits.delta))
    for batch in edited_logits(model, padded, _point(side), still):
        total += sum_to_strings(batch.clean.float().softmax(-1), first, n).double().sum(0).cpu()
    return np.sort(torch.topk(total, min(_STRINGS, n)).indices.numpy())


def _point(side: _Side) -> Any:
    assert side.space.loader is not None
    (planned,) = side.space.loader.spaces
    return planned.writes_at


@dataclass(frozen=True)
class _Found:
    """Profiles of one model's edits: the change of log-probability of each string, (edits, strings) on disk.

    Attributes:
        profiles, control: float16, NaN for edits that could not be made; control's are of the edits where pairs fire.
        divergence: (edits,) KL from the clean prediction, in nats.
    """

    profiles: Any
    control: Any
    divergence: NDArray[np.float64]


@torch.inference_mode()
def _profiles(
    model: LanguageModel,
    side: _Side,
    asked: _Asked,
    corpus: Corpus,
    first: NDArray[np.int64],
    n: int,
    kept: NDArray[np.int64],
    path: Path,
    *,
    control: bool,
) -> _Found:
    chosen = np.arange(len(asked))
    if control:
        chosen = np.r_[chosen, len(asked) + np.flatnonzero(asked.control >= 0)]
    profiles = np.lib.format.open_memmap(
        path, "w+", np.float16, (len(asked) + (len(asked.control) if control else 0), len(kept))
    )
    profiles[:] = np.nan
    divergence = np.full(len(profiles), np.nan)
    padded, edits, of = _edits(side, model, asked, corpus, chosen)
    columns = torch.from_numpy(kept)
    for batch in edited_logits(model, padded, _point(side), edits):
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
    return _Found(profiles[: len(asked)], beside, divergence[: len(asked)])


def _direct(model: LanguageModel, side: _Side, exact: NDArray[np.int64], n: int) -> NDArray[np.float32] | None:
    """The direct effects of the pairs' features, (pairs, strings); None where they write outside the stream."""
    try:
        read = readout(model, exact, n)
        return np.concatenate([own for _, own in direct_effects(read, side.weights.astype(np.float32))])
    except UserError as error:
        say(f"effects of {side.space.name}: no direct effects ({error})")
        return None


def _compared(
    pairs: pd.DataFrame,
    asked: _Asked,
    strings: SharedStrings,
    direct: list[NDArray[np.float32] | None],
    found: list[_Found],
    strata: NDArray[np.intp],
    spec: TransferSpec,
    seed: int,
) -> Effects:
    n = len(pairs)
    table = pairs[["source_feature", "target_feature", "correlation"]].copy()
    facts: dict[str, Any] = {"strings": len(strings), "strings_compared": int(found[0].profiles.shape[1])}
    one, other = direct
    if one is not None and other is not None and n >= 3:
        sums = AgreementSums(n)
        sums.add(one, other)
        facts["direct"] = _agreed(table, "direct", sums.result(draws=_DRAWS, seed=seed, strata=strata))
        for side, values in (("source", one), ("target", other)):
            most, least = extremes(values, _SHOWN)
            table[f"promotes_{side}"] = [[strings.strings[i] for i in own] for own in most]
            table[f"suppresses_{side}"] = [[strings.strings[i] for i in own] for own in least]
    facts["contexts"] = asked.added // max(n, 1)
    if facts["contexts"] and n >= 3:
        sums, stability = AgreementSums(n), [np.zeros((n, found[0].profiles.shape[1])) for _ in found]
        for context in range(facts["contexts"]):
            at = slice(context * n, (context + 1) * n)
            both = [np.asarray(own.profiles[at], np.float32) for own in found]
            sums.add(*both)
            for total, own in zip(stability, both, strict=True):
                total += standardised(own)[0]
        facts["added"] = _agreed(table, "added", sums.result(draws=_DRAWS, seed=seed, strata=strata))
        k = facts["contexts"]
        for side, total in zip(("source", "target"), stability, strict=True):
            table[f"stability_{side}"] = ((total**2).sum(1) - k) / (k * (k - 1)) if k > 1 else np.nan
    facts["removed"] = _removed(table, asked, found, seed)
    for way in ("direct", "added", "removed"):
        if way in table and facts.get(way):
            known = table[way].notna()
            if known.sum() >= 10:
                r = relation(table.loc[known, "correlation"], table.loc[known, way], seed=seed)
                facts[way] |= {"relation": float(r.value), "relation_low": float(r.low), "relation_high": float(r.high)}
    return Effects(table, facts)


def _agreed(table: pd.DataFrame, name: str, found: EffectAgreement) -> dict[str, Any]:
    """Put an agreement's columns into the table; its figures for the facts."""
    table[name] = found.pearson
    table[f"{name}_spearman"], table[f"{name}_overlap"] = found.spearman, found.top_overlap
    table[f"{name}_rank"] = found.rank
    rates = {
        f"{rate}_{part}": float(getattr(getattr(found, rate), part))
        for rate in ("top_1", "top_10", "mrr")
        for part in ("value", "chance", "p")
    }
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "null_mean": found.null_mean,
        "null_sd": found.null_sd,
        "p": found.p,
        "pairs": found.n,
        **rates,
    }


def _removed(table: pd.DataFrame, asked: _Asked, found: list[_Found], seed: int) -> dict[str, Any] | None:
    """Agreement where the pair fires, context by context, beside the removal of another feature that fires there."""
    pair = asked.pair[asked.added :]
    if not len(pair):
        return None
    agreement, control = np.full(len(pair), np.nan), np.full(len(pair), np.nan)
    for start in range(0, len(pair), 512):
        at = slice(start, min(start + 512, len(pair)))
        a, b = (np.asarray(own.profiles[asked.added + at.start : asked.added + at.stop], np.float32) for own in found)
        agreement[at] = pearson(a, b)
        if found[1].control is not None:
            control[at] = pearson(a, np.asarray(found[1].control[at], np.float32))
    n = len(table)
    table["removed"], table["removed_control"] = _mean_by(pair, agreement, n), _mean_by(pair, control, n)
    table["contexts"] = np.bincount(pair, minlength=n)
    divergences = [own.divergence[asked.added :] for own in found]
    table["kl_source"], table["kl_target"] = (_mean_by(pair, own, n) for own in divergences)
    table["kl_agreement"] = [_rank_correlation(*(own[pair == k] for own in divergences)) for k in range(n)]
    both = table[["removed", "removed_control"]].dropna().to_numpy(np.float64)
    if len(both) < 3:
        return None
    rng = np.random.default_rng([seed, 22])
    difference = both[:, 0] - both[:, 1]
    null = np.array([(rng.choice([-1.0, 1.0], len(difference)) * difference).mean() for _ in range(_DRAWS)])
    drawn = np.array([difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(_DRAWS)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "value": float(both[:, 0].mean()),
        "control": float(both[:, 1].mean()),
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "p": float((np.sum(null >= difference.mean()) + 1) / (_DRAWS + 1)),
        "pairs": len(both),
        "kl_agreement": _mean(table["kl_agreement"]),
    }


def _mean_by(pair: NDArray[np.int64], values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    counts = np.bincount(pair[known], minlength=n)
    with np.errstate(invalid="ignore"):
        return np.where(counts, np.bincount(pair[known], values[known], minlength=n) / counts, np.nan)


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    known = ~(np.isnan(a) | np.isnan(b))
    if known.sum() < _FEWEST_CONTEXTS or np.ptp(a[known]) == 0 or np.ptp(b[known]) == 0:
        return float("nan")
    return float(spearmanr(a[known], b[known]).statistic)


def _mean(values: pd.Series) -> float | None:
    known = values.dropna()
    return float(known.mean()) if len(known) else None
