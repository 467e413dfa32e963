"""Carrying out a study: the one list of the steps, in the order of the data's way.

text → windows → activations → codes (`spaces`) → correlation → pairs (`matching`) → geometry → scores → report
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unifeat.codes.tops import top_activations, top_token_texts
from unifeat.errors import UserError
from unifeat.inference import find_measure, permutation_test
from unifeat.inference.multiplicity import false_discovery_rate
from unifeat.matching.candidates import find_candidates
from unifeat.matching.filters import Filters, decide
from unifeat.matching.match import select
from unifeat.progress import track
from unifeat.report.examples import pick_shown, write_examples
from unifeat.report.html import write_report
from unifeat.results import Run
from unifeat.spaces import Space, prepare_spaces
from unifeat.storage import cache_root, key_of, write_json, write_text, written_aside, written_together
from unifeat.study import MetricSpec, Study, dump_study, load_study

TOP_ACTIVATIONS = 10
_PACKAGES = ("unifeat", "torch", "transformers", "sae-lens", "numpy", "scipy", "numba", "pandas")


def run(study: str | Path | Study, out: str | Path | None = None, *, repair: bool = False, force: bool = False) -> Run:
    """Carry out a study; what is already done, in this run or another over the same text, is not done again.

    Args:
        study: a study file, or a `Study`.
        out: the run's folder; `runs/<name of the study>` if left out.
        repair: encode damaged shards anew instead of stopping at them.
        force: go on, with a warning, with SAEs that are evidently read wrongly (FVU above 1, or L0 off 3 ×).

    Raises:
        UserError: a mistake in the study, or something it names that does not exist or fit.
    """
    if not isinstance(study, Study):
        study = load_study(study)
    for spec in study.geometry:
        _check_metric(spec)
    folder = Path(out) if out is not None else Path("runs") / study.name
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.exists() and not there.is_dir():
        raise UserError(f"the run cannot go to {folder}, since {there} is a file: name another folder with --out")
    clock = _Clock()
    with clock.step("encode"):
        corpus, spaces, models = prepare_spaces(study, repair=repair, force=force)
    with clock.step("top tokens"):
        tops = {space.name: _tops(space) for space in spaces}
    cells = [(a, b) for i, a in enumerate(spaces) for b in spaces[i + 1 :] if _compared(study, a, b)]
    if not cells:
        raise UserError("the study compares no two spaces: look at its compare key")
    with clock.step("match"):
        matched = _match(study, cells, tops, corpus.documents)
    with clock.step("score"):
        scores = _score(study, cells, matched)
    pairs = pd.concat([cell.table for cell in matched], ignore_index=True)
    info = {
        "name": study.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "seed": study.seed,
        "text": {
            "source": study.text.source,
            "documents": corpus.documents,
            "characters": corpus.characters,
            "digest": corpus.digest,
            "context": study.text.context,
        },
        "models": models,
        "spaces": {space.name: space.info for space in spaces},
        "pairs": [cell.facts for cell in matched],
    }
    # An earlier run in this folder stays as it is until the new one is complete.
    with written_together(folder) as new:
        with clock.step("report"):
            pairs.to_parquet(new / "pairs.parquet", index=False)
            scores.to_parquet(new / "scores.parquet", index=False)
            shown = pick_shown(pairs, seed=study.seed)
            write_examples(new / "examples.parquet", shown, corpus, spaces, tops)
            write_text(new / "study.yaml", dump_study(study))
            write_json(new / "run.json", info | {"timings": clock.seconds})
            write_report(Run(new, goes_to=folder))
        write_json(new / "run.json", info | {"timings": clock.seconds})
    return Run(folder)


@dataclass
class _Matched:
    """Candidates of one pair of spaces with the verdict on each, and counts for `run.json`."""

    table: pd.DataFrame
    facts: dict[str, Any]


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


def _compared(study: Study, a: Space, b: Space) -> bool:
    if study.compare is None:
        return a.group != b.group
    return (a.group, b.group) in study.compare or (b.group, a.group) in study.compare


def _tops(space: Space) -> pd.DataFrame:
    path = space.store.folder / f"top-{TOP_ACTIVATIONS}.parquet"
    if not path.exists() or path.stat().st_mtime_ns < (space.store.folder / "manifest.json").stat().st_mtime_ns:
        table = top_activations(space.store, TOP_ACTIVATIONS)
        with written_aside(path) as aside:
            table.to_parquet(aside, index=False)
    return pd.read_parquet(path)


def _match(
    study: Study, cells: list[tuple[Space, Space]], tops: dict[str, pd.DataFrame], documents: int
) -> list[_Matched]:
    spec = study.matching
    filters = Filters(spec.min_correlation, spec.min_count, tuple(spec.exclude_tokens), spec.shared_top_token)
    names = {space.name: space for cell in cells for space in cell}
    words = {name: top_token_texts(tops[name], space.tokenizer, spec.top_tokens) for name, space in names.items()}
    matched = []
    with track("correlating and matching", len(cells), unit="pairs of spaces") as advance:
        for a, b in cells:
            found = find_candidates(
                a.store, b.store, top=spec.top, heldout=spec.heldout, documents=documents, seed=study.seed
            )
            table = decide(
                found.table,
                filters,
                lambda left: select(left, spec.method, spec.direction),
                words[a.name],
                words[b.name],
                spec.method,
            )
            table = pd.DataFrame(
                {
                    "space_a": a.name,
                    "layer_a": a.layer,
                    "feature_a": table["feature_a"],
                    "space_b": b.name,
                    "layer_b": b.layer,
                    "feature_b": table["feature_b"],
                    "correlation": table["correlation"],
                    "correlation_heldout": table["correlation_heldout"],
                    "cofiring": table["cofiring"],
                    "count_a": table["count_a"],
                    "count_b": table["count_b"],
                    "top_tokens_a": [words[a.name].get(f, []) for f in table["feature_a"]],
                    "top_tokens_b": [words[b.name].get(f, []) for f in table["feature_b"]],
                    "kept": table["kept"],
                    "dropped_because": table["dropped_because"],
                }
            ).sort_values(["kept", "correlation"], ascending=False, kind="stable", ignore_index=True)
            kept = table[table["kept"]]
            dropped = table.loc[~table["kept"], "dropped_because"].value_counts()
            facts = {
                "space_a": a.name,
                "space_b": b.name,
                "candidates": len(table),
                "kept": len(kept),
                "dropped": {str(k): int(v) for k, v in dropped.items()},
                "mean_correlation": _mean(kept["correlation"]),
                "mean_correlation_heldout": _mean(kept["correlation_heldout"]),
                **found.facts,
            }
            matched.append(_Matched(table, facts))
            advance(1)
    return matched


def _score(study: Study, cells: list[tuple[Space, Space]], matched: list[_Matched]) -> pd.DataFrame:
    rows = []
    with track("scoring", len(cells) * len(study.geometry), unit="scores") as advance:
        for (a, b), cell in zip(cells, matched, strict=True):
            kept = cell.table[cell.table["kept"]]
            for spec in study.geometry:
                rows.append(_score_cell(study, a, b, kept, spec))
                advance(1)
    scores = pd.DataFrame(rows, columns=[name for name in _SCORE_COLUMNS if name != "q"])
    return scores.assign(q=false_discovery_rate(scores["p"].to_numpy(np.float64)))[_SCORE_COLUMNS]


_SCORE_COLUMNS = [
    *("space_a", "layer_a", "space_b", "layer_b", "subspace", "metric", "settings", "n_pairs", "score"),
    *("null_mean", "null_sd", "corrected", "p", "q", "ci_low", "ci_high", "details", "flags"),
]


def _score_cell(study: Study, a: Space, b: Space, kept: pd.DataFrame, spec: MetricSpec) -> dict[str, Any]:
    """One score with its null; cached by the decoder rows and the settings, since shuffles cost time."""
    features_a, features_b = kept["feature_a"].to_numpy(), kept["feature_b"].to_numpy()
    row: dict[str, Any] = {
        "space_a": a.name,
        "layer_a": a.layer,
        "space_b": b.name,
        "layer_b": b.layer,
        "subspace": "all",
        "metric": spec.metric,
        "settings": json.dumps(spec.settings, sort_keys=True),
        "n_pairs": len(kept),
        "ci_low": np.nan,
        "ci_high": np.nan,
    }
    permutations = study.inference.permutations
    key = key_of(
        {
            "what": "score/1",
            "saes": [a.store.settings["sae"], b.store.settings["sae"]],
            "pairs": [features_a.tolist(), features_b.tolist()],
            "metric": [spec.metric, spec.settings],
            "null": [permutations, study.seed],
        }
    )
    path = cache_root() / "scores" / f"{key}.json"
    if not path.exists():
        write_json(path, _compute_score(a.decoder[features_a], b.decoder[features_b], spec, permutations, study.seed))
    return row | json.loads(path.read_text(encoding="utf-8"))


def _compute_score(x: np.ndarray, y: np.ndarray, spec: MetricSpec, permutations: int, seed: int) -> dict[str, Any]:
    try:
        if permutations and find_measure(spec.metric).sees_pairing:
            test = permutation_test(spec.metric, x, y, permutations=permutations, seed=seed, **spec.settings)
            observed = test.observed
            result = {
                "score": test.score,
                "null_mean": test.null_mean,
                "null_sd": test.null_sd,
                "corrected": test.corrected,
                "p": test.p,
                "flags": list(test.flags),
            }
        else:
            observed = find_measure(spec.metric).function(x, y, **spec.settings)
            nothing = dict.fromkeys(("null_mean", "null_sd", "corrected", "p"), float("nan"))
            result = {"score": observed.value, **nothing, "flags": list(observed.flags)}
        used = {k: v for k, v in observed.details.items() if isinstance(v, (int, float))}
        return result | {"details": json.dumps(used)}
    except UserError as error:
        # Too few pairs for a measure is a result, not a mistake: the cell says so, and the others go on.
        nothing = dict.fromkeys(("score", "null_mean", "null_sd", "corrected", "p"), float("nan"))
        return {**nothing, "flags": [f"undefined: {error}"], "details": "{}"}


def _check_metric(spec: MetricSpec) -> None:
    """A wrong setting is the user's mistake and shall stop the run before it begins, not blank a column at its end."""
    x, y = np.random.default_rng(0).normal(size=(2, 64, 8))
    try:
        find_measure(spec.metric).prepare(x, y, **spec.settings).score()
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"geometry, {spec.metric}: {error}") from error


def _mean(values: pd.Series) -> float | None:
    mean = values.mean()
    return None if pd.isna(mean) else float(mean)
