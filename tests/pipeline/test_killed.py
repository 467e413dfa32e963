"""`kill -9` at any moment: the same command carries on, and the outcome is that of an undisturbed run, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from homes import Place, hashes, write_study
from unifeat.codes.shard import read_shard
from warm import KILLED, Warm

pytestmark = pytest.mark.slow

CHANGING = ("run.json", "report.html")  # hold times


@pytest.fixture
def fresh(tmp_path: Path, finished: Place) -> Place:
    """The finished place's study and text, with an empty cache and no run."""
    (tmp_path / "work").mkdir()
    return replace(finished, work=tmp_path / "work", cache=tmp_path / "fresh-cache")


def assert_whole(folder: Path) -> None:
    """Whatever stands under a final name can be read to its end."""
    for path in folder.rglob("*"):
        if any(part.startswith(".partial-") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".safetensors":
            read_shard(path, verify=True)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".parquet":
            pd.read_parquet(path)


def assert_as_undisturbed(place: Place, undisturbed: Place) -> None:
    got, expected = hashes(place.cache), hashes(undisturbed.cache)
    assert got == expected
    assert sum(name.endswith(".safetensors") for name in got) >= 24
    assert hashes(place.run, but=CHANGING) == hashes(undisturbed.run, but=CHANGING)
    for name in CHANGING:
        assert (place.run / name).is_file()


def test_killed_in_one_file_after_another(warm: Warm, fresh: Place, finished: Place) -> None:
    """Every few files, when one is half written or complete but not yet in its place, until the run gets through."""
    shards = []
    for number in range(3, 40):
        moment = {"die_in_write" if number % 2 else "die_before_rename": number}
        done = fresh.unifeat(warm, "run", fresh.study, "--quiet", **moment)
        for folder in (fresh.cache, fresh.work):
            assert_whole(folder)
        shards.append(len(list(fresh.cache.glob("codes/*/shard-*"))))
        if done.code == 0:
            break
        assert done.code == KILLED
    else:
        pytest.fail("the run never ended")
    assert len(shards) > 4
    assert len(set(shards)) > 3  # killed within the encoding, not only around it
    assert list(fresh.cache.rglob(".partial-*"))  # and with files half done
    assert_as_undisturbed(fresh, finished)


def test_killed_at_random_moments(warm: Warm, fresh: Place, finished: Place) -> None:
    rng = np.random.default_rng()
    killed = 0
    for longest in (0.3, 0.6, 0.9, 1.2, 1.5):
        started = warm.start("run", fresh.study, "--quiet", cache=fresh.cache, cwd=fresh.work)
        time.sleep(rng.uniform(0.05, longest))
        started.kill()
        done = started.wait()
        assert done.code in (0, KILLED), done.err
        killed += done.code == KILLED
        assert_whole(fresh.cache)
    assert killed
    done = fresh.unifeat(warm, "run", fresh.study, "--quiet")
    assert done.code == 0, done.err
    assert_as_undisturbed(fresh, finished)


SCRIPT = """
from unifeat.cli import main
main()
"""


def test_a_process_of_its_own_killed_while_it_encodes(warm: Warm, fresh: Place, finished: Place) -> None:
    """From the start of the interpreter."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "run", str(fresh.study), "--quiet"],
        cwd=fresh.work,
        env=os.environ | {"UNIFEAT_CACHE": str(fresh.cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 120
        while len(list(fresh.cache.glob("codes/*/shard-*"))) < 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL
    assert not fresh.run.exists()
    assert_whole(fresh.cache)
    assert fresh.unifeat(warm, "run", fresh.study, "--quiet").code == 0
    assert_as_undisturbed(fresh, finished)


def test_killed_while_an_earlier_run_is_replaced(warm: Warm, place: Place) -> None:
    """The earlier run stays as it was until the new one is complete."""
    before = hashes(place.run)
    write_study(place.home, seed=4)
    assert place.unifeat(warm, "run", place.study, "--quiet", "--out", "elsewhere").code == 0
    for number in (5, 8, 11):  # the first four are those of the note in the cache
        done = place.unifeat(warm, "run", place.study, "--quiet", die_before_rename=number)
        assert done.code == KILLED
        assert list(place.run.glob(".partial-*"))  # parts of the new run were written
        assert hashes(place.run) == before
    place.unifeat(warm, "run", place.study, "--quiet", die_before_rename=14)  # amid the last renames
    assert_whole(place.run)
    assert place.unifeat(warm, "run", place.study, "--quiet").code == 0
    assert hashes(place.run, but=CHANGING) == hashes(place.work / "elsewhere", but=CHANGING)
    after = hashes(place.run)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in ("pairs.parquet", "scores.parquet", "study.yaml", "run.json"))
