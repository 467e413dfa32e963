"""`unifeat cache` and `unifeat cache prune`."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from homes import Place, hashes
from warm import Warm


def test_what_is_there(warm: Warm, place: Place) -> None:
    shutil.rmtree(place.run)  # the copy of a run is another run than the one noted
    assert place.unifeat(warm, "run", place.study, "--quiet").code == 0
    done = place.unifeat(warm, "cache", COLUMNS="120")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{place.cache}: ")
    for words in ("codes of spaces", "scores and their nulls", "candidate pairs", "tiny"):
        assert words in done.out


def test_pruning_says_asks_and_removes(warm: Warm, place: Place) -> None:
    shutil.rmtree(place.run)
    assert place.unifeat(warm, "run", place.study, "--quiet").code == 0
    left = next(place.cache.glob("codes/*")) / ".partial-0123456789abcdef-shard-00003.safetensors"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 7200,) * 2)
    before = hashes(place.cache)
    asked = place.unifeat(warm, "cache", "prune")
    assert asked.code == 2
    assert "left behind by a kill" in asked.out
    assert asked.err == "unifeat: nothing was removed: without a terminal to ask on, give --yes\n"
    assert left.exists()
    done = place.unifeat(warm, "cache", "prune", "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "removed 4 B"
    assert not left.exists()
    assert hashes(place.cache) == before
    again = place.unifeat(warm, "cache", "prune")
    assert (again.code, again.out) == (0, "nothing to remove\n")


def test_what_a_removed_run_used_goes_and_comes_again(warm: Warm, place: Place) -> None:
    shutil.rmtree(place.run)
    shutil.rmtree(place.cache / "runs")  # of the run that this place was copied from
    assert place.unifeat(warm, "run", place.study, "--quiet").code == 0
    before = hashes(place.run, but=("run.json", "report.html"))
    assert place.unifeat(warm, "cache", "prune", "--unused", "--yes").code == 0
    assert list(place.cache.glob("codes/*/shard-*")), "a kept run's pieces stay"
    shutil.rmtree(place.run)
    assert place.unifeat(warm, "cache", "prune", "--unused", "--yes").code == 0
    assert not [path for kind in ("codes", "scores", "text", "candidates") for path in place.cache.glob(f"{kind}/*")]
    assert place.unifeat(warm, "run", place.study, "--quiet").code == 0
    assert hashes(place.run, but=("run.json", "report.html")) == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--older", "soon"], "--older 'soon': give an age"),
        (["--to-size", "small"], "--to-size 'small': give bytes"),
        (["--to-size", "-1GB"], "--to-size"),
    ],
)
def test_a_mistake_is_one_line(warm: Warm, place: Place, args: list[str], says: str) -> None:
    done = place.unifeat(warm, "cache", "prune", *args)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_cache_that_is_a_file(warm: Warm, place: Place) -> None:
    shutil.rmtree(place.cache)
    place.cache.write_text("")
    for args in (["cache"], ["cache", "prune"], ["run", place.study, "--quiet"]):
        done = place.unifeat(warm, *args)
        assert done.code == 2
        assert done.err.startswith("unifeat: ")
        assert done.err.count("\n") == 1
        assert str(place.cache) in done.err
