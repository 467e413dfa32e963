"""What the two features of a pair do to the next token, in their own models, and how alike that is.

Three ways: *direct* (decoder row through final norm and unembedding), *added* (a standard dose of the feature, at the
same probe tokens for all pairs) and *removed* (the feature's contribution taken out where the pair fires).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unifeat.codes.beside import Beside
from unifeat.engine import Held, Unit
from unifeat.errors import UserError
from unifeat.inference.strata import strata_of
from unifeat.models.language import LanguageModel, read_config
from unifeat.pipeline.effect_edits import Asked, Profiles, Side, ask, probable_strings, profiles_of
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.transfer import Direction
from unifeat.pipeline.transfer_loss import whole_model
from unifeat.progress import say
from unifeat.store import Form, Piece
from unifeat.study.spec import TransferSpec
from unifeat.text.corpus import Corpus
from unifeat.transfer.agreement import AgreementSums, EffectAgreement
from unifeat.transfer.direct import direct_effects, readout
from unifeat.transfer.profiles import extremes, pearson, spearman, standardised
from unifeat.transfer.relation import relation
from unifeat.transfer.strings import SharedStrings, shared_strings
from unifeat.vocabulary.hook_points import HOOKS

VERSION = 2  # raised whenever the results change
_FEWEST_CONTEXTS = 5
_SHOWN = 8  # strings that a feature promotes or suppresses most
_DRAWS = 1000
_STRINGS = Held(2)


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
    """The strings that are a token of both models. (Some seconds for a large vocabulary, so they are held.)

    Raises:
        UserError: there are none.
    """
    source, target = direction.source, direction.target
    sizes = [_vocabulary(space) for space in (source, target)]

    def make() -> SharedStrings:
        tokenizers = source.tokenizer(), target.tokenizer()
        return shared_strings(*tokenizers, vocabulary_a=sizes[0], vocabulary_b=sizes[1])

    digests = source.store.settings["tokenizer"], target.store.settings["tokenizer"]
    return _STRINGS.get((*digests, *sizes), make)


def _vocabulary(space: Space) -> int:
    """How many tokens a space's model gives logits for."""
    assert space.loader is not None
    spec = space.loader.spec
    config = read_config(spec.name, spec.dtype, spec.revision, trust_remote_code=spec.trust_remote_code)
    return int(config.vocab_size)


def effects_unit(direction: Direction, corpus: Corpus, spec: TransferSpec, level: float) -> Unit[Effects]:
    """A unit of work: the effects of some of a cell's pairs. The direction is `a_to_b`."""
    loaders = [space.loader for space in (direction.source, direction.target)]
    made_from = direction.made_from | {
        "effects": VERSION,
        "pairs asked for": spec.pairs,
        "contexts": spec.contexts,
        "level": level,
        "models": [loader.identity for loader in loaders if loader is not None],
        "text": corpus.digest,
    }
    piece = Piece("effects", made_from, _FORM, "what features do to the next token")
    return Unit(piece, partial(_effects, direction, corpus, spec, level), fills_machine=True, gpu=True)


def _effects(direction: Direction, corpus: Corpus, spec: TransferSpec, level: float) -> Effects:
    seed = direction.seed
    rng = np.random.default_rng([seed, 21])
    pairs = direction.pairs
    if len(pairs) > spec.pairs:
        pairs = pairs.iloc[np.sort(rng.choice(len(pairs), spec.pairs, replace=False))].reset_index(drop=True)
    elif len(pairs) < spec.pairs:
        say(f"effects: {direction.source.name} × {direction.target.name} has {len(pairs)} pairs, not {spec.pairs}")
    rows = Beside.joined(list(direction.stretches()))  # a sample is bounded
    ids = pairs[["source_feature", "target_feature"]].to_numpy(np.int64).T
    asked = ask(rows, ids, ~direction.fitting, spec.contexts, rng)
    strings = strings_of(direction)
    sides = [Side(direction.source, rows, ids[0]), Side(direction.target, rows.turned(), ids[1])]
    maps = [(strings.exact_a, strings.first_a), (strings.exact_b, strings.first_b)]
    with tempfile.TemporaryDirectory(prefix="unifeat-effects-") as folder:
        direct, found = [], []
        kept: NDArray[np.int64] | None = None
        for number, (side, (exact, first)) in enumerate(zip(sides, maps, strict=True)):
            model = _exact(whole_model(side.space, "float32"))
            direct.append(_direct(model, side, exact, len(strings)))
            if kept is None:
                kept = probable_strings(model, side, asked, corpus, first, len(strings))
            path = Path(folder) / f"{number}.npy"
            of_strings = (first, len(strings), kept, path)
            found.append(profiles_of(model, side, asked, corpus, *of_strings, control=number == 1))
        return _Comparison(pairs, asked, strings, seed, level).of(direct, found)


def _exact(model: LanguageModel) -> LanguageModel:
    """The same weights, computed with in float32 on a CPU: in bfloat16, changes of 0.001 nats are rounding."""
    if model.device.type != "cpu" or model.dtype == torch.float32:
        return model
    model.causal.float()
    return replace(model, dtype=torch.float32)


def _direct(model: LanguageModel, side: Side, exact: NDArray[np.int64], n: int) -> NDArray[np.float32] | None:
    """The direct effects of the pairs' features, (pairs, strings); None where they write outside the stream."""
    kind = side.point.kind
    try:
        if HOOKS[kind].behind_norm or kind == "attn_z":  # as wide as the stream, maybe, but not in it
            raise UserError(f"its SAE writes {HOOKS[kind].what}, not to the residual stream")
        read = readout(model, exact, n)
        return np.concatenate([own for _, own in direct_effects(read, side.weights.astype(np.float32))])
    except UserError as error:
        say(f"effects of {side.space.name}: no direct effects ({error})")
        return None


@dataclass
class _Comparison:
    """Compares the effects of both models.

    Attributes:
        pairs: `source_feature`, `target_feature`, `correlation`, `count`.
    """

    pairs: pd.DataFrame
    asked: Asked
    strings: SharedStrings
    seed: int
    level: float

    def of(self, direct: list[NDArray[np.float32] | None], found: list[Profiles]) -> Effects:
        """The table and the facts, of the direct effects and the profiles of the source and of the target."""
        table = self.pairs[["source_feature", "target_feature", "correlation"]].copy()
        facts: dict[str, Any] = {
            "strings": len(self.strings),
            "strings_compared": int(found[0].profiles.shape[1]),
            "contexts": self.asked.added // max(len(table), 1),
            "direct": self._direct(table, *direct),
            "added": self._added(table, found),
            "removed": self._removed(table, found),
        }
        for way in ("direct", "added", "removed"):
            if facts[way] is not None:
                known = table.dropna(subset=[way])
                r = relation(known["correlation"], known[way], seed=self.seed, level=self.level)
                facts[way] |= {"relation": float(r.value), "relation_low": float(r.low), "relation_high": float(r.high)}
        return Effects(table, facts)

    def _direct(
        self, table: pd.DataFrame, one: NDArray[np.float32] | None, other: NDArray[np.float32] | None
    ) -> dict[str, Any] | None:
        if one is None or other is None:
            return None
        for side, values in (("source", one), ("target", other)):
            for name, own in zip(("promotes", "suppresses"), extremes(values, _SHOWN), strict=True):
                table[f"{name}_{side}"] = [[self.strings.strings[i] for i in row] for row in own]
        sums = AgreementSums(len(table))
        sums.add(one, other)
        return self._agreed(table, "direct", sums)

    def _added(self, table: pd.DataFrame, found: list[Profiles]) -> dict[str, Any] | None:
        n = len(table)
        contexts = self.asked.added // max(n, 1)
        sums, total = AgreementSums(n), [np.zeros((n, found[0].profiles.shape[1])) for _ in found]
        for context in range(contexts):
            both = [np.asarray(own.profiles[context * n : (context + 1) * n], np.float32) for own in found]
            sums.add(*both)
            for own, profiles in zip(total, both, strict=True):
                own += standardised(profiles)[0]
        for side, own in zip(("source", "target"), total, strict=True):
            # Of k standardised profiles, |Σ z|² is k, and twice the r of each two of them.
            pairs_of = contexts * (contexts - 1)
            table[f"stability_{side}"] = ((own**2).sum(1) - contexts) / pairs_of if pairs_of else np.nan
        return self._agreed(table, "added", sums) if contexts else None

    def _agreed(self, table: pd.DataFrame, name: str, sums: AgreementSums) -> dict[str, Any] | None:
        """Put an agreement's columns into the table; its figures for the facts. None for too few pairs."""
        try:
            strata = strata_of(self.pairs["count"].to_numpy())
            found: EffectAgreement = sums.result(draws=_DRAWS, seed=self.seed, strata=strata, level=self.level)
        except UserError:
            return None
        table[name], table[f"{name}_spearman"] = found.pearson, found.spearman
        table[f"{name}_overlap"], table[f"{name}_rank"] = found.top_overlap, found.rank
        facts = {part: getattr(found, part) for part in ("value", "low", "high", "null_mean", "null_sd", "p")}
        rates = {rate: getattr(found, rate) for rate in ("top_1", "top_10", "mrr")}
        retrieved = {f"{r}_{part}": getattr(own, part) for r, own in rates.items() for part in ("value", "chance", "p")}
        return {**facts, "pairs": found.n, **retrieved}

    def _removed(self, table: pd.DataFrame, found: list[Profiles]) -> dict[str, Any] | None:
        """Agreement where the pair fires, context by context, beside the removal of another feature of the token."""
        added, pair = self.asked.added, self.asked.pair[self.asked.added :]
        edits = pd.DataFrame({"pair": pair, "removed": np.nan, "removed_control": np.nan})
        for start in range(0, len(pair), 512):
            at = slice(start, min(start + 512, len(pair)))
            a, b = (np.asarray(own.profiles[added + at.start : added + at.stop], np.float32) for own in found)
            edits.loc[at.start : at.stop - 1, "removed"] = pearson(a, b)
            if found[1].control is not None:
                other = np.asarray(found[1].control[at], np.float32)
                edits.loc[at.start : at.stop - 1, "removed_control"] = pearson(a, other)
        edits["kl_source"], edits["kl_target"] = (own.divergence[added:] for own in found)
        by_pair = edits.groupby("pair")
        means = by_pair.mean().reindex(range(len(table)))
        for name in ("removed", "removed_control", "kl_source", "kl_target"):
            table[name] = means[name]
        table["contexts"] = by_pair.size().reindex(range(len(table)), fill_value=0)
        agreement = by_pair[["kl_source", "kl_target"]].apply(_rank_correlation)
        table["kl_agreement"] = agreement.reindex(range(len(table))) if len(pair) else np.nan
        difference = (table["removed"] - table["removed_control"]).dropna().to_numpy(np.float64)
        if len(difference) < 3:
            return None
        rng = np.random.default_rng([self.seed, 22])
        signs = rng.choice([-1.0, 1.0], (_DRAWS, len(difference)))
        drawn = difference[rng.integers(len(difference), size=(_DRAWS, len(difference)))].mean(axis=1)
        low, high = np.quantile(drawn, [0.5 - self.level / 2, 0.5 + self.level / 2])
        known = table[["removed", "removed_control"]].dropna()
        kl_agreement = table["kl_agreement"].mean()
        return {
            "value": float(known["removed"].mean()),
            "control": float(known["removed_control"].mean()),
            "difference": float(difference.mean()),
            "low": float(low),
            "high": float(high),
            "p": float((np.sum((signs @ difference) / len(difference) >= difference.mean()) + 1) / (_DRAWS + 1)),
            "pairs": len(difference),
            "kl_agreement": None if np.isnan(kl_agreement) else float(kl_agreement),
        }


def _rank_correlation(divergences: pd.DataFrame) -> float:
    """Spearman's correlation of the two models' divergences over a pair's contexts."""
    known = divergences.dropna().to_numpy(np.float64)
    return float(spearman(known[None, :, 0], known[None, :, 1])[0]) if len(known) >= _FEWEST_CONTEXTS else np.nan
