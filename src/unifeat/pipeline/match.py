"""Correlation → pairs: the candidates of each pair of spaces, and which of them are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.top_activations import top_token_texts
from unifeat.engine import Unit
from unifeat.matching.bootstrap import FORM, VERSION, Bootstrap, bootstrap
from unifeat.matching.candidates import Candidates, Comparison
from unifeat.matching.filters import Filters
from unifeat.matching.rule import Rule
from unifeat.matching.stability import agreement
from unifeat.pipeline.spaces import Space
from unifeat.progress import track
from unifeat.store import Piece
from unifeat.study.spec import Study


@dataclass(frozen=True)
class Cell:
    """One pair of spaces, with its candidates and pairs.

    Attributes:
        table: every candidate, with `kept` and `dropped_because`.
        comparison: the two stores and how they are compared.
        intervals: bootstrap intervals over documents; None if the study draws none.
    """

    a: Space
    b: Space
    rule: Rule
    comparison: Comparison
    found: Candidates
    table: pd.DataFrame
    intervals: Bootstrap | None

    @property
    def kept(self) -> pd.DataFrame:
        """The candidates that were kept."""
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
            "intervals": self.intervals.facts if self.intervals else None,
            **self.found.facts,
        }

    def _stability(self) -> dict[str, Any] | None:
        """How many pairs are found again when only the other half of the documents is filtered and matched."""
        if self.found.other is None:
            return None
        return agreement(self.kept, self.rule.decide(self.found.other).query("kept"))

    def pairs(self) -> pd.DataFrame:
        """The rows of `pairs.parquet`: kept ones first, highest r first."""
        table = self.table
        both = {
            "space_a": self.a.name,
            "layer_a": self.a.layer,
            "feature_a": table["feature_a"],
            "space_b": self.b.name,
            "layer_b": self.b.layer,
            "feature_b": table["feature_b"],
            **{name: table[name] for name in ("correlation", "correlation_heldout", "cofiring", "count_a", "count_b")},
            **({str(name): column for name, column in self.intervals.pairs.items()} if self.intervals else {}),
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
            comparison = Comparison(a.store, b.store, spec.top, spec.heldout, documents, study.seed)
            found = comparison.candidates().result()
            rule = Rule(filters, spec.method, spec.direction, words[a.name], words[b.name])
            intervals = None
            if study.inference.bootstraps:
                intervals = _intervals(study, comparison, rule, found).result()
            cells.append(Cell(a, b, rule, comparison, found, rule.decide(found.table), intervals))
            advance(1)
    return cells


def _intervals(study: Study, comparison: Comparison, rule: Rule, found: Candidates) -> Unit[Bootstrap]:
    inference = study.inference
    made_from = {
        "version": VERSION,
        "candidates": comparison.made_from(),
        "rule": rule.identity(),
        "draws": inference.bootstraps,
        "level": inference.level,
        "seed": study.seed,
    }
    piece = Piece("intervals", made_from, FORM, "the intervals of r")
    work = partial(_draw, comparison, rule, found, inference.bootstraps, inference.level, study.seed)
    return Unit(piece, work, fills_machine=True)


def _draw(comparison: Comparison, rule: Rule, found: Candidates, draws: int, level: float, seed: int) -> Bootstrap:
    fitted, heldout = comparison.block_sums(found.table)
    return bootstrap(
        found.table,
        fitted,
        heldout,
        rule.keep(found.table),
        draws=draws,
        level=level,
        seed=seed,
        top=comparison.top if rule.method == "csls" else None,
    )


def mean(values: pd.Series | NDArray[np.float64]) -> float | None:
    """The mean of the values that are not NaN, or None."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None
