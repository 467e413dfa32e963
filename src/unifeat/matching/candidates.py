"""The candidate pairs of two spaces: found on half the documents, read again on the other half. Cached by content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.aligned import AlignedCodes, align
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.matching.correlation import Correlation, correlate
from unifeat.matching.match import select
from unifeat.matching.pairs import pair_correlation
from unifeat.matching.shifted import ShiftedCodes
from unifeat.storage import cache_root, key_of, write_json, written_aside

VERSION = "candidates/1"


@dataclass(frozen=True)
class Candidates:
    """Candidates of one pair of spaces.

    Attributes:
        table: `feature_a`, `feature_b`, `correlation`, `correlation_heldout`, `cofiring`, `count_a`, `count_b`.
        facts: tokens aligned and fitted on, best r of each feature here and in shifted text.
    """

    table: pd.DataFrame
    facts: dict[str, Any]


def find_candidates(a: CodeStore, b: CodeStore, *, top: int, heldout: bool, documents: int, seed: int) -> Candidates:
    """Correlate two stores and keep each feature's `top` best partners, both ways.

    Args:
        top: partners kept a feature.
        heldout: find them on one half of the documents and report their r on the other half too; otherwise all
            documents are fitted on and `correlation_heldout` is NaN.
        documents: how many documents the text has.
        seed: which documents are held out.

    Raises:
        UserError: fewer than two documents to split.
    """
    settings = {
        "what": VERSION,
        "a": a.folder.name,
        "b": b.folder.name,
        "shards": [[e["sha256"] for e in store.manifest["shards"]] for store in (a, b)],
        "top": top,
        "heldout": [heldout, seed if heldout else None],
    }
    folder = cache_root() / "candidates" / key_of(settings)
    if not folder.exists():
        found = _find(a, b, top=top, fit=fitting_documents(documents, seed) if heldout else None)
        with written_aside(folder) as aside:
            aside.mkdir()
            found.table.to_parquet(aside / "candidates.parquet", index=False)
            write_json(aside / "facts.json", found.facts)
    return _read(folder)


def fitting_documents(documents: int, seed: int) -> NDArray[np.bool_]:
    """A (documents,) mask of the half that pairs are found on; the other half is held out."""
    if documents < 2:
        raise UserError("one document cannot be split into two halves: give more, or set matching.heldout to false")
    fit = np.zeros(documents, bool)
    fit[np.random.default_rng([seed, documents]).permutation(documents)[: (documents + 1) // 2]] = True
    return fit


def _find(a: CodeStore, b: CodeStore, *, top: int, fit: NDArray[np.bool_] | None) -> Candidates:
    codes = align(a, b)
    fitted = codes if fit is None else codes.only(fit)
    corr = correlate(fitted, top=top)
    table = corr.candidates()[["feature_a", "feature_b", "correlation", "cofiring"]]
    table = table.assign(
        correlation_heldout=_heldout(codes, fit, table) if fit is not None else np.nan,
        count_a=corr.moments_a.count[table["feature_a"]],
        count_b=corr.moments_b.count[table["feature_b"]],
    )
    facts: dict[str, Any] = {
        "tokens_aligned": codes.n_rows,
        "share_a": codes.n_rows / a.rows,
        "share_b": codes.n_rows / b.rows,
        "tokens_fitted": fitted.n_rows,
        "tokens_heldout": codes.n_rows - fitted.n_rows,
        "best_r": _best(corr),
    }
    # What best partners look like where no token meets its own: the yardstick for every r above.
    shifted = correlate(ShiftedCodes(fitted), top=1)
    facts["best_r_shifted"] = _best(shifted)
    facts["mutual_shifted_over_0.1"] = int(
        (select(chance := shifted.candidates(), "mutual") & (chance["correlation"] > 0.1)).sum()
    )
    return Candidates(table, facts)


def _heldout(codes: AlignedCodes, fit: NDArray[np.bool_], table: pd.DataFrame) -> NDArray[np.float64]:
    other = codes.only(~fit)
    if other.n_rows < 2:
        return np.full(len(table), np.nan)
    return pair_correlation(other, table["feature_a"].to_numpy(), table["feature_b"].to_numpy())[0]


def _best(corr: Correlation) -> dict[str, list[float]]:
    """Deciles of each feature's best r, both ways: enough to draw the distribution."""
    deciles = {}
    for direction, partners in (("a_to_b", corr.a_to_b), ("b_to_a", corr.b_to_a)):
        best = partners.value[:, 0]
        best = best[~np.isnan(best)]
        deciles[direction] = [float(v) for v in np.quantile(best, np.linspace(0, 1, 21))] if len(best) else []
    return deciles


def _read(folder: Path) -> Candidates:
    import json

    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return Candidates(pd.read_parquet(folder / "candidates.parquet"), facts)
