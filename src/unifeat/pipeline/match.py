"""Correlation → pairs: the candidates of each pair of spaces, and which of them are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.near_copies import NearCopies
from unifeat.codes.token_types import ByTokenType
from unifeat.engine import Engine, Unit
from unifeat.matching import beyond_token as beyond
from unifeat.matching.beyond_token import BeyondToken
from unifeat.matching.bootstrap import FORM, VERSION, Bootstrap, bootstrap
from unifeat.matching.candidates import Candidates, Comparison
from unifeat.matching.filters import Filters
from unifeat.matching.rule import Rule
from unifeat.matching.stability import agreement
from unifeat.pipeline.encode import Prepared
from unifeat.pipeline.spaces import Space
from unifeat.progress import say, track
from unifeat.store import Form, Piece
from unifeat.study.spec import InferenceSpec, Study

_ROWS_TO_FILL_MACHINE = 1_000_000
_FIRST_SHOWN = 5
_SHARES = ("token_share_a", "token_share_b")
_VERSION = 3  # raised whenever the result made from the same candidates and intervals changes


@dataclass(frozen=True)
class Matched:
    """What became of the candidates of one pair of spaces.

    Attributes:
        kept: the candidates that were kept, with the columns of `Candidates.table`, and `token_share_a`,
            `token_share_b` (see `beyond_token`).
        decided: `kept` and `dropped_because` of every candidate, in the order of `Candidates.table`.
        facts: counts for `run.json`, without the spaces' names.
    """

    kept: pd.DataFrame
    decided: pd.DataFrame
    facts: dict[str, Any]


def _write(found: Matched, folder: Path) -> dict[str, Any]:
    found.kept.to_parquet(folder / "kept.parquet", index=False)
    found.decided.to_parquet(folder / "decided.parquet", index=False)
    return found.facts


def _read(facts: dict[str, Any], folder: Path) -> Matched:
    return Matched(pd.read_parquet(folder / "kept.parquet"), pd.read_parquet(folder / "decided.parquet"), facts)


_FORM: Form[Matched] = Form(_write, _read)


@dataclass(frozen=True)
class Cell:
    """One pair of spaces. Light: its tables are in the cache, and are read when they are needed.

    Attributes:
        comparison: the two stores and how they are compared.
        rule: how candidates become pairs.
        inference: the number of draws for the intervals of r, and their level.
        elsewhere: the two spaces on the study's text elsewhere; None if it has none.
    """

    a: Space
    b: Space
    rule: Rule = field(repr=False)
    comparison: Comparison = field(repr=False)
    inference: InferenceSpec = field(repr=False)
    elsewhere: Comparison | None = field(default=None, repr=False)

    def unit(self) -> Unit[Matched]:
        """A unit of work: correlate the two spaces, decide which candidates are kept, and draw intervals."""
        inference, rule = self.inference, self.rule
        intervals = [VERSION, inference.bootstraps, inference.level] if inference.bootstraps else None
        made_from = {
            "version": _VERSION,
            "candidates": self.comparison.made_from(),
            "rule": rule.identity(),
            "intervals": intervals,
            "beyond_token": [beyond.VERSION, inference.bootstraps, inference.level],
        }
        piece = Piece("matched", made_from, _FORM, "the pairs")
        return Unit(piece, partial(_match, self), fills_machine=True, gpu=self.comparison.device == "cuda")

    def matched(self) -> Matched:
        """The result of `unit`."""
        return self.unit().result()

    @property
    def fills_machine(self) -> bool:
        """Whether correlating keeps all cores busy and takes too much memory to run twice at a time."""
        return min(self.a.store.rows, self.b.store.rows) > _ROWS_TO_FILL_MACHINE

    @property
    def near_copies(self) -> tuple[NearCopies, NearCopies] | None:
        """The near-copies among the features of either space; None if the study takes every pair as independent."""
        threshold, device = self.inference.clusters, self.comparison.device
        if threshold is None:
            return None
        return NearCopies(self.a.store, threshold, device), NearCopies(self.b.store, threshold, device)

    @property
    def kept(self) -> pd.DataFrame:
        """The candidates that were kept."""
        return self.matched().kept

    def with_token_shares(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """The pairs with the token shares of their features; NaN for features of no kept pair."""
        kept = self.kept
        shares = {}
        for name, side in zip(_SHARES, ("feature_a", "feature_b"), strict=True):
            known = kept.drop_duplicates(side).set_index(side)[name]
            shares[name] = pairs[side].map(known).astype(np.float64)
        return pairs.assign(**shares)

    def candidates(self) -> Candidates:
        """The candidates before any filter, and with the halves of the documents exchanged."""
        return self.comparison.candidates().result()

    def intervals(self, found: Candidates) -> Unit[Bootstrap]:
        """A unit of work: the intervals of r of these candidates."""
        inference, seed = self.inference, self.comparison.seed
        made_from = {
            "version": VERSION,
            "candidates": self.comparison.made_from(),
            "rule": self.rule.identity(),
            "draws": inference.bootstraps,
            "level": inference.level,
            "seed": seed,
        }
        piece = Piece("intervals", made_from, FORM, "the intervals of r")
        work = partial(_draw, self.comparison, self.rule, found, inference.bootstraps, inference.level, seed)
        return Unit(piece, work, fills_machine=True)

    def beyond_token(self, kept: pd.DataFrame) -> Unit[BeyondToken]:
        """A unit of work: what these pairs share beyond the token, on the held-out documents if there are any."""
        inference, seed = self.inference, self.comparison.seed
        made_from = {
            "version": beyond.VERSION,
            "candidates": self.comparison.made_from(),
            "rule": self.rule.identity(),
            "draws": inference.bootstraps,
            "level": inference.level,
            "seed": seed,
        }
        piece = Piece("beyond-token", made_from, beyond.FORM, "correlations within token")
        work = partial(_beyond_token, self.comparison, kept, inference.bootstraps, inference.level, seed)
        return Unit(piece, work, fills_machine=True)

    @property
    def kept_with_token(self) -> pd.DataFrame:
        """The kept pairs as in `table`, with the columns of `BeyondToken.pairs`."""
        table = self.table()
        kept = table[table["kept"]]
        return kept.join(self.beyond_token(kept).result().pairs)

    def table(self) -> pd.DataFrame:
        """Every candidate, with `kept` and `dropped_because`."""
        return pd.concat([self.candidates().table, self.matched().decided], axis=1)

    def pairs(
        self,
        decoys: Callable[[pd.Series], NDArray[np.float64]] | None = None,
        elsewhere: pd.DataFrame | None = None,
        labels: tuple[Mapping[int, str], Mapping[int, str]] | None = None,
    ) -> pd.DataFrame:
        """The rows of `pairs.parquet`: kept ones first, highest r first.

        Args:
            decoys: from the kept pairs' r to their `decoy_fdr`, where text was rearranged.
            elsewhere: columns of the kept pairs, by their place in `table`, if there is a text elsewhere.
            labels: words for the features of either side, if there are any.
        """
        table, (words_a, words_b) = self.table(), self.rule.texts
        intervals = self.intervals(self.candidates()).result().pairs if self.inference.bootstraps else pd.DataFrame()
        kept = table[table["kept"]]
        more = self.beyond_token(kept).result().pairs
        if elsewhere is not None:
            more = more.join(elsewhere)
        if decoys is not None:
            more = more.assign(decoy_fdr=decoys(kept["correlation"]))
        more = more.reindex(table.index)
        both = {
            "space_a": self.a.name,
            "layer_a": self.a.layer,
            "feature_a": table["feature_a"],
            "space_b": self.b.name,
            "layer_b": self.b.layer,
            "feature_b": table["feature_b"],
            **{name: table[name] for name in ("correlation", "correlation_heldout", "cofiring", "count_a", "count_b")},
            **{str(name): column for name, column in intervals.items()},
            **{str(name): column for name, column in more.items()},
            "top_tokens_a": [words_a.get(f, []) for f in table["feature_a"]],
            "top_tokens_b": [words_b.get(f, []) for f in table["feature_b"]],
            **_labels(table, labels),
            "kept": table["kept"],
            "dropped_because": table["dropped_because"],
        }
        return pd.DataFrame(both).sort_values(
            ["kept", "correlation"], ascending=False, kind="stable", ignore_index=True
        )


def compare(study: Study, a: Space, b: Space, documents: int, documents_elsewhere: int = 0) -> Cell:
    """How a study compares two spaces.

    Args:
        documents, documents_elsewhere: how many the study's text has, and its text elsewhere.
    """
    spec = study.matching
    filters = Filters(spec.min_correlation, spec.min_count, tuple(spec.exclude_tokens), spec.shared_top_token)
    rule = Rule(filters, spec.method, spec.direction, a.tokens, b.tokens)
    names = a.name, b.name
    comparison = Comparison(
        a.store, b.store, spec.top, spec.heldout, documents, study.seed, spec.device, spec.by, names
    )
    if a.elsewhere is None or b.elsewhere is None:
        return Cell(a, b, rule, comparison, study.inference)
    there = replace(comparison, a=a.elsewhere, b=b.elsewhere, heldout=False, documents=documents_elsewhere)
    return Cell(a, b, rule, comparison, study.inference, there)


def cells_of(study: Study, prepared: Prepared, pairs: Iterable[tuple[Space, Space]]) -> Iterator[Cell]:
    """Those of the pairs of spaces that the study compares."""
    elsewhere = prepared.elsewhere
    documents = prepared.corpus.documents, elsewhere.documents if elsewhere is not None else 0
    return (compare(study, a, b, *documents) for a, b in pairs if study.compares(a.name, b.name))


def match_cells(cells: list[Cell], engine: Engine, *, shown: bool = False) -> Iterator[dict[str, Any]]:
    """Correlate and match every pair of spaces; yields each one's facts for `run.json`.

    Args:
        shown: whether `show_first` has shown some shared features already.
    """
    with track("correlating and matching", len(cells), unit="pairs of spaces") as advance:
        for cell, matched in zip(cells, engine.map(cell.unit() for cell in cells), strict=True):
            if not shown and len(matched.kept):
                shown = True
                _say_first(cell, matched.kept)
            yield {"space_a": cell.a.name, "space_b": cell.b.name} | matched.facts
            advance(1)


def show_first(cell: Cell, engine: Engine) -> bool:
    """Match one cell before all others and show a few of its shared features, if it has any."""
    for matched in engine.map([cell.unit()]):
        if len(matched.kept):
            _say_first(cell, matched.kept)
            return True
    return False


def _say_first(cell: Cell, kept: pd.DataFrame) -> None:
    """A few shared features, long before the run is finished."""
    say(f"{cell.a.name} × {cell.b.name}: {len(kept):,} shared features. The strongest, with their top tokens:")
    strongest = kept.nlargest(_FIRST_SHOWN, "correlation")
    columns = (strongest[name].tolist() for name in ("correlation", "feature_a", "feature_b"))
    for r, *features in zip(*columns, strict=True):
        words = []
        for texts, feature in zip(cell.rule.texts, features, strict=True):
            tokens = (repr(word.strip())[1:-1] for word in texts.get(feature, []))
            words.append(" ".join(dict.fromkeys(tokens)))
        say(f"  r {r:.2f}  {words[0]}  |  {words[1]}")


def _match(cell: Cell) -> Matched:
    found = cell.candidates()
    table = cell.rule.decide(found.table)
    intervals = cell.intervals(found).result() if cell.inference.bootstraps else None
    kept = table[table["kept"]]
    within = cell.beyond_token(kept).result()
    dropped = table.loc[~table["kept"], "dropped_because"].value_counts()
    facts = {
        "candidates": len(table),
        "kept": len(kept),
        "dropped": {str(k): int(v) for k, v in dropped.items()},
        "mean_correlation": mean(kept["correlation"]),
        "mean_correlation_heldout": mean(kept["correlation_heldout"]),
        "stability": _stability(cell.rule, kept, found),
        "intervals": intervals.facts if intervals else None,
        "beyond_token": within.facts,
        **found.facts,
    }
    shares = within.pairs[list(_SHARES)]
    return Matched(kept[list(found.table)].join(shares), table[["kept", "dropped_because"]], facts)


def _stability(rule: Rule, kept: pd.DataFrame, found: Candidates) -> dict[str, Any] | None:
    """How many pairs are found again when only the other half of the documents is filtered and matched."""
    return None if found.other is None else agreement(kept, rule.decide(found.other).query("kept"))


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


def _beyond_token(comparison: Comparison, kept: pd.DataFrame, draws: int, level: float, seed: int) -> BeyondToken:
    codes = comparison.halves()[-1]
    starts = codes.document_starts()[1]
    return beyond.beyond_token(ByTokenType(codes), starts, kept, draws=draws, level=level, seed=seed)


def _labels(table: pd.DataFrame, labels: tuple[Mapping[int, str], Mapping[int, str]] | None) -> dict[str, list[str]]:
    """`label_a` and `label_b`, empty for features without one."""
    sides = zip("ab", labels, strict=True) if labels is not None else ()
    return {f"label_{side}": [own.get(f, "") for f in table[f"feature_{side}"].tolist()] for side, own in sides}


def mean(values: pd.Series | NDArray[np.float64]) -> float | None:
    """The mean of the values that are not NaN, or None."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None
