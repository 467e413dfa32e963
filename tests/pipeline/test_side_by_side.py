"""Several runs at the same time in one cache: each gives what a run alone gives, and nothing is broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from homes import Place, hashes, write_study
from unifeat.store.writing import ASIDE, DAMAGED
from warm import Warm

pytestmark = pytest.mark.slow

CHANGING = ("run.json", "report.html")  # hold times


@pytest.mark.parametrize("pid", [0, 1], ids=["own ids", "one id"])
def test_three_runs_from_an_empty_cache(warm: Warm, finished: Place, tmp_path: Path, pid: int) -> None:
    """Two containers on one cache both have a process 1."""
    (tmp_path / "work").mkdir()
    place = replace(finished, work=tmp_path / "work", cache=tmp_path / "cache")
    started = [
        warm.start("run", place.study, "--out", f"run-{n}", "--quiet", cache=place.cache, cwd=place.work, pid=pid)
        for n in range(3)
    ]
    for number, command in enumerate(started):
        done = command.wait()
        assert (done.code, done.news) == (0, "")
        assert hashes(place.work / f"run-{number}", but=CHANGING) == hashes(finished.run, but=CHANGING)
    assert hashes(place.cache) == hashes(finished.cache)
    assert not [path for path in place.cache.rglob(".*") if path.name.startswith((ASIDE, DAMAGED))]


def test_two_runs_into_one_folder(warm: Warm, place: Place) -> None:
    """One of them is the last; its files are all its own."""
    import unifeat as uf

    studies = [write_study(place.home, f"study-{seed}.yaml", seed=seed) for seed in (5, 6)]
    started = [
        warm.start("run", study, "--out", "both", "--quiet", cache=place.cache, cwd=place.work) for study in studies
    ]
    done = [command.wait() for command in started]
    assert [(one.code, one.err) for one in done] == [(0, "")] * 2
    run = uf.open(place.work / "both")
    assert run.info["seed"] in (5, 6)
    assert len(run.pairs)
    assert len(run.scores)  # read through `run.json`'s checksums
