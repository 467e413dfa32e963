"""Correlation → pairs: the candidates of each pair of spaces, and the verdict on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.tops import top_token_texts
from unifeat.matching.bootstrap import Bootstrap, bootstrap
from unifeat.matching.candidates import Candidates, find_blocks, find_candidates
from unifeat.matching.filters import Filters, decide, excluded_features, keep, token_reasons
from unifeat.matching.match import select
from unifeat.matching.quality import agreement
from unifeat.progress import track
from unifeat.spaces import Space
from unifeat.study import Study


@dataclass(frozen=True)
class Rule:
    """How the candidates of two spaces become pairs: filters, then a method. Redone for every null and resample.

    Attributes:
        words_a, words_b: the top activating tokens of every feature, as text.
    """

    filters: Filters
    method: str
    direction: str
    words_a: dict[int, list[str]]
    words_b: dict[int, list[str]]

    def decide(self, candidates: pd.DataFrame) -> pd.DataFrame:
        """The candidates with `kept` and `dropped_because`."""
        choose = partial(select, method=self.method, direction=self.direction)
        return decide(candidates, self.filters, choose, self.words_a, self.words_b, self.method)

    def keep(self, candidates: pd.DataFrame) -> Callable[[pd.DataFrame], NDArray[np.bool_]]:
        """From these candidates with other counts and correlations to which of them are kept: `decide`, many times."""
        allowed = token_reasons(candidates, self.filters, self.words_a, self.words_b) == ""
        choose = partial(select, method=self.method, direction=self.direction)
        return lambda table: keep(table, self.filters, choose, allowed, self.method)

    def able(self, candidates: pd.DataFrame, side: str) -> pd.DataFrame:
        """The features of A or of B that filters leave a chance, one row each: `feature` and its firing `count`."""
        words = self.words_a if side == "a" else self.words_b
        own = candidates[[f"feature_{side}", f"count_{side}"]].set_axis(["feature", "count"], axis=1).drop_duplicates()
        rare = own["count"] < self.filters.min_count
        return own[~rare & ~own["feature"].isin(excluded_features(self.filters, words))]

    def strongest(self, candidates: pd.DataFrame, n: int) -> pd.DataFrame:
        """The n pairs of highest r that the method makes of the candidates when no r is too small."""
        free = replace(self.filters, min_correlation=-np.inf)
        choose = partial(select, method=self.method, direction=self.direction)
        chosen = decide(candidates, free, choose, self.words_a, self.words_b, self.method).query("kept")
        return chosen.sort_values("correlation", ascending=False, kind="stable").head(n)


@dataclass(frozen=True)
class Cell:
    """One pair of spaces: what was found and decided.

    Attributes:
        table: every candidate with `kept` and `dropped_because`.
        sure: intervals over documents; None where the study draws none.
    """

    a: Space
    b: Space
    rule: Rule
    found: Candidates
    table: pd.DataFrame
    sure: Bootstrap | None

    @property
    def kept(self) -> pd.DataFrame:
        """The pairs."""
        return self.table[self.table["kept"]]

    def facts(self) -> dict[str, Any]:
        """Counts for `run.json`."""
        dropped = self.table.loc[~self.table["kept"], "dropped_because"].value_counts()
        return {
            "space_a": self.a.name,
            "space_b": self.b.name,
            "candidates": len(self.table),
            "kept": len(self.kept),
            "dropped": {str(k): int(v) for k, v in dropped.items()},
            "mean_correlation": mean(self.kept["correlation"]),
            "mean_correlation_heldout": mean(self.kept["correlation_heldout"]),
            "stability": self._stability(),
            "intervals": self.sure.facts if self.sure else None,
            **self.found.facts,
        }

    def _stability(self) -> dict[str, Any] | None:
        """Pairs found again when the other half of the documents is filtered and matched by itself."""
        if self.found.other is None:
            return None
        return agreement(self.kept, self.rule.decide(self.found.other).query("kept"))

    def pairs(self) -> pd.DataFrame:
        """The rows of `pairs.parquet`, kept ones first, highest r first."""
        table = self.table
        both = {
            "space_a": self.a.name,
            "layer_a": self.a.layer,
            "feature_a": table["feature_a"],
            "space_b": self.b.name,
            "layer_b": self.b.layer,
            "feature_b": table["feature_b"],
            **{name: table[name] for name in ("correlation", "correlation_heldout", "cofiring", "count_a", "count_b")},
            **({str(name): column for name, column in self.sure.pairs.items()} if self.sure else {}),
            "top_tokens_a": [self.rule.words_a.get(f, []) for f in table["feature_a"]],
            "top_tokens_b": [self.rule.words_b.get(f, []) for f in table["feature_b"]],
            "kept": table["kept"],
            "dropped_because": table["dropped_because"],
        }
        return pd.DataFrame(both).sort_values(
            ["kept", "correlation"], ascending=False, kind="stable", ignore_index=True
        )


def match_cells(
    study: Study, pairs: list[tuple[Space, Space]], tops: dict[str, pd.DataFrame], documents: int
) -> list[Cell]:
    """Correlate and match every pair of spaces."""
    spec = study.matching
    filters = Filters(spec.min_correlation, spec.min_count, tuple(spec.exclude_tokens), spec.shared_top_token)
    spaces = {space.name: space for pair in pairs for space in pair}
    words = {name: top_token_texts(tops[name], space.tokenizer, spec.top_tokens) for name, space in spaces.items()}
    cells = []
    with track("correlating and matching", len(pairs), unit="pairs of spaces") as advance:
        for a, b in pairs:
            found = find_candidates(
                a.store, b.store, top=spec.top, heldout=spec.heldout, documents=documents, seed=study.seed
            )
            rule = Rule(filters, spec.method, spec.direction, words[a.name], words[b.name])
            cells.append(
                Cell(a, b, rule, found, rule.decide(found.table), _intervals(study, a, b, rule, found, documents))
            )
            advance(1)
    return cells


def _intervals(study: Study, a: Space, b: Space, rule: Rule, found: Candidates, documents: int) -> Bootstrap | None:
    spec, inference = study.matching, study.inference
    if not inference.bootstraps:
        return None
    fitted, heldout = find_blocks(
        a.store, b.store, found, top=spec.top, heldout=spec.heldout, documents=documents, seed=study.seed
    )
    return bootstrap(
        found.table,
        fitted,
        heldout,
        rule.keep(found.table),
        draws=inference.bootstraps,
        level=inference.level,
        seed=study.seed,
        top=spec.top if spec.method == "csls" else None,
    )


def mean(values: pd.Series | NDArray[np.float64]) -> float | None:
    """The mean of what is known, or None."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None
