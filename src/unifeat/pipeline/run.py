"""Running a study: the list of steps, in the order in which the data flow.

text → windows → activations → codes (`encode`) → correlation → pairs (`match`) → geometry → scores (`score`) → report
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unifeat import __version__
from unifeat.engine import Engine, forget
from unifeat.engine.choose import engine_called
from unifeat.errors import UserError
from unifeat.inference import find_measure
from unifeat.inference.nulls import AGAIN
from unifeat.pipeline.ceilings import add_ceilings, ceiling_facts
from unifeat.pipeline.elsewhere import pairs_elsewhere, read_cells
from unifeat.pipeline.encode import Prepared, prepare_spaces
from unifeat.pipeline.equivalence import add_equivalence
from unifeat.pipeline.examples import pick_shown, write_examples
from unifeat.pipeline.families import family_cells, run_families
from unifeat.pipeline.labels import Labelled, agree, check_labels, given_labels, label_spaces, label_table, words_of
from unifeat.pipeline.latents import compare_latents
from unifeat.pipeline.match import Cell, cells_of, match_cells, show_first
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.rematch import again, rematch_cells
from unifeat.pipeline.rematch_tests import add_rematch, decoys
from unifeat.pipeline.score import score_sets, with_q
from unifeat.pipeline.spaces import check_compares, role
from unifeat.pipeline.subspaces import find_subspaces, score_subspaces
from unifeat.pipeline.transfer_step import chosen_cells, run_transfer
from unifeat.report.html import write_report
from unifeat.runs.folder import Run
from unifeat.runs.pairs import shown_cells, write_pairs
from unifeat.runs.tables import write_table
from unifeat.runs.writing import INFO, STUDY, check_free, run_written
from unifeat.store import write_json, write_text
from unifeat.store.digests import read_sha256
from unifeat.store.paths import user_path
from unifeat.store.usage import RunNote
from unifeat.study.measures import MetricSpec
from unifeat.study.read import dump_study, load_study
from unifeat.study.spec import Study
from unifeat.study.text import DocumentsSpec
from unifeat.text.corpus import Corpus

_PACKAGES = ("torch", "transformers", "sae-lens", "numpy", "scipy", "numba", "pandas")


def run(
    study: str | Path | Study,
    out: str | Path | None = None,
    *,
    force: bool = False,
    engine: Engine | str = "local",
) -> Run:
    """Run a study, from a file or as a `Study`: see `unifeat.api.run.run`, which also takes a dict."""
    if not isinstance(study, Study):
        study = load_study(study)
    for spec in study.geometry:
        _check_metric(spec, "geometry")
    for spec in _subspace_geometry(study):
        _check_metric(spec, "subspaces.geometry")
    check_labels(study)
    folder = user_path(out, "--out") if out is not None else Path("runs") / study.name
    check_free(folder)
    note = RunNote(folder, study.name)
    opened = engine_called(engine) if isinstance(engine, str) else nullcontext(engine)
    with opened as chosen, note.under_way():
        try:
            finished = _carry_out(study, folder, force, chosen)
        finally:
            forget()
        note.finish(finished.info["created"])
    return finished


def _carry_out(study: Study, folder: Path, force: bool, engine: Engine) -> Run:
    clock = Clock()
    check_compares(study)
    shown = False

    def show(prepared: Prepared) -> None:
        """Shared features of two ordinary spaces as soon as both are encoded: long before the controls are."""
        nonlocal shown
        pairs = combinations(prepared.spaces, 2)
        ordinary = (cell for cell in cells_of(study, prepared, pairs) if role(cell.a, cell.b) == "ordinary")
        if not shown and (cell := next(ordinary, None)) is not None:
            shown = show_first(cell, engine)

    with clock.step("encode"):
        prepared = prepare_spaces(study, force=force, engine=engine, ready=show)
    return compare_spaces(study, prepared, folder, engine, clock, shown=shown)


def compare_spaces(
    study: Study, prepared: Prepared, folder: Path, engine: Engine, clock: Clock, *, shown: bool = False
) -> Run:
    """Match and score encoded spaces, and write the run's folder.

    Args:
        shown: whether shared features have been shown in the terminal.

    Raises:
        UserError: the folder cannot be written.
    """
    corpus, spaces, elsewhere = prepared.corpus, prepared.spaces, prepared.elsewhere
    given = given_labels(study, spaces)  # a mistake is told now
    with clock.step("top tokens"):
        for _ in engine.map(space.tokens.tops for space in spaces):
            pass
    # Cells are light: each step reads what it needs of one cell from the cache, so that memory does not grow with them.
    cells = list(cells_of(study, prepared, combinations(spaces, 2)))
    if study.transfer is not None and study.transfer.cells != "best":
        chosen_cells(study, cells)  # a mistake is told now
    if study.families is not None:
        family_cells(study, cells)
    with clock.step("match"):
        facts = list(match_cells(cells, engine, shown=shown))
    if elsewhere is not None:
        with clock.step("elsewhere"):
            facts = [own | {"elsewhere": there} for own, there in zip(facts, read_cells(cells, engine), strict=True)]
    with clock.step("near-copies"):
        if any("given" in spec.settings for spec in [*study.geometry, *_subspace_geometry(study)]):
            compared = {space.name: space for cell in cells for space in (cell.a, cell.b)}
            of_spaces = {name: space.token_embeddings.unit for name, space in compared.items()}
            for _ in engine.map(sorted(of_spaces.values(), key=lambda unit: str(unit.model))):
                pass
            forget()  # the models
        near = {own.store.folder: own.unit for cell in cells for own in cell.near_copies or ()}
        for _ in engine.map(near.values()):
            pass
    families = None
    if study.families is not None:
        with clock.step("families"):
            families = run_families(study, cells, corpus.documents, engine)
    with clock.step("subspaces"):
        subspaces = find_subspaces(study, cells, corpus)
    with clock.step("score"):
        everything = (PairSet.of(cell, "all", cell.kept) for cell in cells)
        tables = [
            score_sets(study, everything, len(cells), study.geometry, engine),
            score_subspaces(study, subspaces, cells, engine),
        ]
        scores = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
        scores = add_equivalence(study.inference, scores)
    with clock.step("ceilings"):
        scores = add_ceilings(study, scores, cells, subspaces.of_cell, engine)
        of_ceilings = ceiling_facts(cells, facts)
    if study.activations is not None:
        with clock.step("activations"):
            of_latents = compare_latents(cells, study.activations.dims, engine)
            facts = [own | {"latents": found} for own, found in zip(facts, of_latents, strict=True)]
    roles = {(cell.a.name, cell.b.name): role(cell.a, cell.b) for cell in cells}
    with clock.step("rematch"):
        rematched: dict[str, list[dict[str, Any]]] = {}
        for null in again(study):
            rematched[null.name] = rematch_cells(study, null, cells, facts, engine)
            scores = add_rematch(scores, AGAIN[null.name].prefix, list(roles), rematched[null.name])
    transfer = None
    if study.transfer is not None:
        with clock.step("transfer"):
            transfer = run_transfer(study, cells, spaces, corpus, engine)
            of_effects = [transfer.facts.get((cell.a.name, cell.b.name)) for cell in cells]
            if study.transfer.pairs:
                facts = [own | {"effects": found} for own, found in zip(facts, of_effects, strict=True)]
    with clock.step("labels"):
        labels = label_spaces(study, spaces, given, corpus, engine)
        facts = [own | {"labels": agree(cell, labels, study.seed)} for own, cell in zip(facts, cells, strict=True)]
    scores, rates, rematched = with_q(scores, subspaces.rates, rematched, roles)
    of_cells = [
        own | {"ceiling": of_ceilings[i]} | {name: of[i] for name, of in rematched.items()}
        for i, own in enumerate(facts)
    ]
    info = {
        "name": study.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "unifeat": __version__}
        | {name: version(name) for name in _PACKAGES},
        "seed": study.seed,
        "text": _text_facts(study.text, corpus) | {"context": study.text.context},
        "models": prepared.models,
        "spaces": {
            space.name: space.info | {"labels": labels[space.name].facts if space.name in labels else None}
            for space in spaces
        },
        "pairs": of_cells,
    }
    if families is not None:
        info["families"] = families.facts
    if elsewhere is not None and study.text.elsewhere is not None:
        info["elsewhere"] = _text_facts(study.text.elsewhere, elsewhere)
    # An earlier run in this folder stays as it is until the new one is complete.
    with run_written(folder) as new:
        with clock.step("report"):
            listed = _write_pairs(new / "pairs.parquet", cells, of_cells, study.seed, labels)
            scores.to_parquet(new / "scores.parquet", index=False)
            if study.subspaces:
                subspaces.members.to_parquet(new / "members.parquet", index=False)
                rates.to_parquet(new / "rates.parquet", index=False)
            if transfer is not None:
                for name, table in transfer.tables.items():
                    write_table(new / f"{name}.parquet", table)
            for name, table in (families.tables if families is not None else {}).items():
                write_table(new / f"{name}.parquet", table)
            if labels:
                label_table(labels).to_parquet(new / "labels.parquet", index=False)
            write_examples(new / "examples.parquet", listed, corpus, spaces)
            write_text(new / STUDY, dump_study(study))
            files = {path.name: read_sha256(path) for path in sorted(new.iterdir())}
            write_json(new / INFO, info | {"files": files, "timings": clock.seconds})
            written = Run(new, goes_to=folder)
            write_report(written)
        write_json(new / INFO, info | {"files": files, "timings": clock.seconds})
        written.info["timings"] = clock.seconds
    # Its tables are in memory: another process may be putting another run into this folder.
    return written.moved_to(folder)


def _text_facts(spec: DocumentsSpec, corpus: Corpus) -> dict[str, Any]:
    return {
        "source": spec.source,
        "documents": corpus.documents,
        "characters": corpus.characters,
        "duplicates": corpus.duplicates,
        "digest": corpus.digest,
    }


def _write_pairs(
    path: Path, cells: list[Cell], facts: list[dict[str, Any]], seed: int, labels: dict[str, Labelled]
) -> pd.DataFrame:
    """Write `pairs.parquet`; returns the pairs that the report lists."""
    chosen = shown_cells([own["kept"] for own in facts]) or [0]
    shown: dict[int, pd.DataFrame] = {}

    def tables() -> Iterator[pd.DataFrame]:
        for number, cell in enumerate(cells):
            found = facts[number].get("rematch")
            of_decoys = partial(decoys, found=found) if found else None
            table = cell.pairs(of_decoys, pairs_elsewhere(cell), words_of(cell, labels) if labels else None)
            if number in chosen:
                shown[number] = pick_shown(table, seed)
            yield table

    write_pairs(path, tables())
    return pd.concat([shown[number] for number in chosen], ignore_index=True)


class Clock:
    """Seconds of each step, for `run.json`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what is done inside."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 2)


def _subspace_geometry(study: Study) -> list[MetricSpec]:
    return (study.subspaces.geometry or []) if study.subspaces else []


def _check_metric(spec: MetricSpec, where: str) -> None:
    """Check a measure's settings before the run begins, so that a mistake does not show only as an empty column."""
    x, y, z = np.random.default_rng(0).normal(size=(3, 64, 8))
    try:
        find_measure(spec.metric).prepare(
            x, y, **spec.settings | ({"given": [z]} if "given" in spec.settings else {})
        ).score()
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"{where}, {spec.metric}: {error}") from error
