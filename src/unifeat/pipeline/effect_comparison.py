"""How alike the effects of pairs are in both models, beside their nulls and controls: the table and the facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.inference.strata import strata_of
from unifeat.pipeline.effect_edits import Asked
from unifeat.pipeline.effect_profiles import Profiles
from unifeat.transfer.agreement import AgreementSums, EffectAgreement
from unifeat.transfer.profiles import blocks, extremes, pearson, spearman, standardised
from unifeat.transfer.relation import mean_interval, relation
from unifeat.transfer.strings import SharedStrings
from unifeat.vocabulary.json_values import number_or_none

WAYS = ("direct", "added", "removed")
_FEWEST_CONTEXTS = 5
_SHOWN = 8  # strings that a feature promotes or suppresses most
_DRAWS = 1000
_BATCH = 512
_SIDES = ("source", "target")


@dataclass(frozen=True)
class Effects:
    """What came of one cell.

    Attributes:
        pairs: one row for each pair, the columns of `effects.parquet` after the spaces' names.
        facts: `strings`, `strings_compared`, `contexts`, for each of `WAYS` the agreement beside its null and its
            control, and its relation to r, and `kl_agreement` beside its control.
    """

    pairs: pd.DataFrame
    facts: dict[str, Any]


@dataclass
class Comparison:
    """Compares the effects of both models.

    Attributes:
        pairs: `source_feature`, `target_feature`, `correlation`, `count`, `within`, `token_share`, `second`.
    """

    pairs: pd.DataFrame
    asked: Asked
    strings: SharedStrings
    seed: int
    level: float

    def of(self, direct: list[NDArray[np.float32] | None], found: list[Profiles]) -> Effects:
        """The table and the facts.

        Args:
            direct: direct effects of the source's features, and of the target's, with those of the second-best
                partners behind them; None where there are none.
            found: what came of `Asked.of_source` and `Asked.of_target`.
        """
        names = {"within": "correlation_within_token"}
        columns = ["source_feature", "target_feature", "correlation", "within"]
        table = self.pairs[columns].rename(columns=names)
        facts: dict[str, Any] = {
            "strings": len(self.strings),
            "strings_compared": int(found[0].change.shape[1]),
            "contexts": len(self.asked.probes),
            "direct": self._direct(table, *direct),
            "added": self._added(table, found),
            "removed": self._removed(table, found),
        }
        facts["kl_agreement"] = self._beside(table, "kl_agreement", "control")
        for way in WAYS:
            if facts[way] is not None:
                facts[way] |= self._related(table, way, "correlation", "relation")
                facts[way] |= self._related(table, way, "correlation_within_token", "relation_within")
        return Effects(table, facts)

    def _related(self, table: pd.DataFrame, way: str, to: str, name: str) -> dict[str, float | None]:
        known = table.dropna(subset=[way, to])
        if len(known) < 3:
            return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
        r = relation(known[to], known[way], seed=self.seed, level=self.level)
        return {name: float(r.value), f"{name}_low": float(r.low), f"{name}_high": float(r.high)}

    def _direct(
        self, table: pd.DataFrame, one: NDArray[np.float32] | None, other: NDArray[np.float32] | None
    ) -> dict[str, Any] | None:
        if one is None or other is None:
            return None
        n, parts = len(table), blocks(len(table), one.shape[1])
        for side, values in zip(_SIDES, (one, other[:n]), strict=True):
            found = zip(*(extremes(values[part], _SHOWN) for part in parts), strict=True)
            for name, own in zip(("promotes", "suppresses"), map(np.concatenate, found), strict=True):
                table[f"{name}_{side}"] = [[self.strings.strings[i] for i in row] for row in own]
        sums = AgreementSums(n)
        sums.add(one, other[:n])
        second = np.concatenate([pearson(one[part], other[n:][part]) for part in parts])
        table["direct_second"] = np.where(self.asked.second >= 0, second, np.nan)
        return self._agreed(table, "direct", sums)

    def _added(self, table: pd.DataFrame, found: list[Profiles]) -> dict[str, Any] | None:
        n, contexts = len(table), len(self.asked.probes)
        source, target = (own.change for own in found)
        # Behind the target's own edits and the controls of removals are the doses of second-best partners.
        behind = self.asked.added + 2 * len(self.asked.row)
        sums, total = AgreementSums(n), [np.zeros((n, source.shape[1])) for _ in found]
        second = np.zeros(n)
        for context in range(contexts):
            at = slice(context * n, (context + 1) * n)
            both = [np.asarray(own[at], np.float32) for own in (source, target)]
            sums.add(*both)
            other = np.asarray(target[behind + at.start : behind + at.stop], np.float32)
            second += pearson(both[0], other)
            for own, profiles in zip(total, both, strict=True):
                own += standardised(profiles)[0]
        for side, own, of_side in zip(_SIDES, total, found, strict=True):
            # Of k standardised profiles, |Σ z|² is k, and twice the r of each two of them.
            pairs_of = contexts * (contexts - 1)
            table[f"stability_{side}"] = ((own**2).sum(1) - contexts) / pairs_of if pairs_of else np.nan
            spread = of_side.spread[: self.asked.added].reshape(contexts, n)
            table[f"spread_{side}"] = _mean_of_known(spread)
        table["added_second"] = second / contexts if contexts else np.nan
        return self._agreed(table, "added", sums) if contexts else None

    def _agreed(self, table: pd.DataFrame, name: str, sums: AgreementSums) -> dict[str, Any] | None:
        """Put an agreement's columns into the table; its figures for the facts. None for too few pairs."""
        shares = self.pairs["token_share"]
        variables = [self.pairs["count"].to_numpy(), shares.fillna(shares.mean()).fillna(0.0).to_numpy()]
        try:
            found: EffectAgreement = sums.result(
                draws=_DRAWS, seed=self.seed, strata=strata_of(*variables), level=self.level
            )
        except UserError:
            return None
        table[name], table[f"{name}_spearman"] = found.pearson, found.spearman
        table[f"{name}_overlap"], table[f"{name}_rank"] = found.top_overlap, found.rank
        facts = {part: getattr(found, part) for part in ("value", "low", "high", "null_mean", "null_sd", "p")}
        rates = {rate: getattr(found, rate) for rate in ("top_1", "top_10", "mrr")}
        retrieved = {f"{r}_{part}": getattr(own, part) for r, own in rates.items() for part in ("value", "chance", "p")}
        second = {f"second_{name}": value for name, value in (self._beside(table, name, "second") or {}).items()}
        others = sums.matrix[~np.eye(len(table), dtype=bool)]
        return {**facts, "random": float(np.nanmean(others)), "pairs": found.n, **retrieved, **second}

    def _removed(self, table: pd.DataFrame, found: list[Profiles]) -> dict[str, Any] | None:
        """Agreement where the pair fires, context by context, beside the removal of another feature of the token."""
        pair, start = self.asked.pair, self.asked.added
        edits = pd.DataFrame({"pair": pair, "removed": np.nan, "removed_control": np.nan})
        (source, target), n = (own.change for own in found), len(pair)
        for first in range(0, n, _BATCH):
            last = min(first + _BATCH, n)
            a = np.asarray(source[start + first : start + last], np.float32)
            for name, at in (("removed", start), ("removed_control", start + n)):
                b = np.asarray(target[at + first : at + last], np.float32)
                edits.loc[first : last - 1, name] = pearson(a, b)
        edits["kl_source"], edits["kl_target"] = (own.divergence[start : start + n] for own in found)
        edits["kl_control"] = found[1].divergence[start + n : start + 2 * n]
        by_pair = edits.groupby("pair")
        means = by_pair.mean().reindex(range(len(table)))
        for name in ("removed", "removed_control", "kl_source", "kl_target"):
            table[name] = means[name]
        table["contexts"] = by_pair.size().reindex(range(len(table)), fill_value=0)
        for name, other in (("kl_agreement", "kl_target"), ("kl_agreement_control", "kl_control")):
            agreement = by_pair[["kl_source", other]].apply(_rank_correlation)
            table[name] = agreement.reindex(range(len(table))) if n else np.nan
        beside = self._beside(table, "removed", "control")
        return beside and beside | {"kl_agreement": number_or_none(table["kl_agreement"].mean())}

    def _beside(self, table: pd.DataFrame, name: str, control: str) -> dict[str, Any] | None:
        """A mean agreement beside that of a control, with the interval of their difference and p by flipping its signs.

        Of the pairs that have both; None for fewer than three.
        """
        known = table[[name, f"{name}_{control}"]].dropna().to_numpy(np.float64)
        if len(known) < 3:
            return None
        difference = known[:, 0] - known[:, 1]
        signs = np.random.default_rng([self.seed, 22]).choice([-1.0, 1.0], (_DRAWS, len(known)))
        low, high = mean_interval(difference, draws=_DRAWS, seed=self.seed, level=self.level)
        as_far = (signs @ difference) / len(known) >= difference.mean()
        return {
            "value": float(known[:, 0].mean()),
            "control": float(known[:, 1].mean()),
            "difference": float(difference.mean()),
            "low": low,
            "high": high,
            "p": float((as_far.sum() + 1) / (_DRAWS + 1)),
            "pairs": len(known),
        }


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0).sum(0) / known.sum(0))


def _rank_correlation(divergences: pd.DataFrame) -> float:
    """Spearman's correlation of the two models' divergences over a pair's contexts."""
    known = divergences.dropna().to_numpy(np.float64)
    return float(spearman(known[None, :, 0], known[None, :, 1])[0]) if len(known) >= _FEWEST_CONTEXTS else np.nan
