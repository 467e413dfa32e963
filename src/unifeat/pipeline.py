"""Carrying out a study: the one list of the steps, in the order of the data's way.

text → windows → activations → codes (`spaces`) → correlation → pairs (`matching`) → geometry → scores → report
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from unifeat.codes.tops import top_activations
from unifeat.errors import UserError
from unifeat.inference import find_measure
from unifeat.report.examples import pick_shown, write_examples
from unifeat.report.html import write_report
from unifeat.results import Run
from unifeat.spaces import Space, prepare_spaces
from unifeat.steps.match import match_cells
from unifeat.steps.rematch import add_rematch, rematch_cells
from unifeat.steps.score import PairSet, score_sets, with_q
from unifeat.steps.subspaces import find_subspaces, score_subspaces
from unifeat.storage import write_json, write_text, written_aside, written_together
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
        _check_metric(spec, "geometry")
    for spec in _subspace_geometry(study):
        _check_metric(spec, "subspaces.geometry")
    folder = Path(out) if out is not None else Path("runs") / study.name
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.exists() and not there.is_dir():
        raise UserError(f"the run cannot go to {folder}, since {there} is a file: name another folder with --out")
    clock = _Clock()
    with clock.step("encode"):
        corpus, spaces, models = prepare_spaces(study, repair=repair, force=force)
    with clock.step("top tokens"):
        tops = {space.name: _tops(space) for space in spaces}
    compared = [(a, b) for i, a in enumerate(spaces) for b in spaces[i + 1 :] if _compared(study, a, b)]
    if not compared:
        raise UserError("the study compares no two spaces: look at its compare key")
    with clock.step("match"):
        cells = match_cells(study, compared, tops, corpus.documents)
    with clock.step("subspaces"):
        subspaces = find_subspaces(study, cells, corpus, tops)
    with clock.step("score"):
        everything = [PairSet.of(cell, "all", cell.kept) for cell in cells]
        tables = [score_sets(study, everything, study.geometry), score_subspaces(study, subspaces)]
        scores = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    with clock.step("rematch"):
        rematched = rematch_cells(study, cells, corpus.documents, study.geometry)
        scores = add_rematch(scores, cells, rematched)
    scores, rates, rematched = with_q(scores, subspaces.rates, rematched)
    pairs = pd.concat([cell.pairs() for cell in cells], ignore_index=True)
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
        "pairs": [cell.facts() | {"rematch": found} for cell, found in zip(cells, rematched, strict=True)],
    }
    # An earlier run in this folder stays as it is until the new one is complete.
    with written_together(folder) as new:
        with clock.step("report"):
            pairs.to_parquet(new / "pairs.parquet", index=False)
            scores.to_parquet(new / "scores.parquet", index=False)
            if study.subspaces:
                subspaces.members.to_parquet(new / "members.parquet", index=False)
                rates.to_parquet(new / "rates.parquet", index=False)
            shown = pick_shown(pairs, seed=study.seed)
            write_examples(new / "examples.parquet", shown, corpus, spaces, tops)
            write_text(new / "study.yaml", dump_study(study))
            write_json(new / "run.json", info | {"timings": clock.seconds})
            write_report(Run(new, goes_to=folder))
        write_json(new / "run.json", info | {"timings": clock.seconds})
    return Run(folder)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


def _subspace_geometry(study: Study) -> list[MetricSpec]:
    return (study.subspaces.geometry or []) if study.subspaces else []


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


def _check_metric(spec: MetricSpec, where: str) -> None:
    """A wrong setting is the user's mistake and shall stop the run before it begins, not blank a column at its end."""
    x, y = np.random.default_rng(0).normal(size=(2, 64, 8))
    try:
        find_measure(spec.metric).prepare(x, y, **spec.settings).score()
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"{where}, {spec.metric}: {error}") from error
