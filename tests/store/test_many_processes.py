"""Many processes in one cache: nobody reads half, the first one in place stays, nobody breaks another's work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unifeat.store.writing import ASIDE, DAMAGED

WORKER = """
import os, random, sys, time
from pathlib import Path
from unifeat.engine import Unit
from unifeat.store import Form, JSON, Piece

if sys.argv[2] == "one id":
    os.getpid = lambda: 1  # two containers on one cache both have a process 1
number, rng = int(sys.argv[1]), random.Random(int(sys.argv[1]))

def write(value, folder):
    for part in range(4):
        (folder / f"part-{part}").write_bytes(value[part] * 20_000)
    return value[0].hex()

def read(data, folder):
    parts = [(folder / f"part-{part}").read_bytes() for part in range(4)]
    assert [len(part) for part in parts] == [20_000] * 4
    return [data, *(part[:1].hex() for part in parts)]

for turn in range(30):
    key = rng.randrange(6)
    made_from = {"key": key}
    pieces = [Piece("folders", made_from, Form(write, read)), Piece("files", made_from, JSON)]
    values = [[bytes([key])] * 4, {"key": key, "long": [key] * 2000}]
    for piece, value in zip(pieces, values):
        found = Unit(piece, lambda value=value: value).result()
        expected = [bytes([key]).hex()] * 5 if piece.kind == "folders" else value
        assert found == expected, (found, expected)
print("done")
"""


def run_workers(cache: Path, workers: int, ids: str) -> list[tuple[int, str, str]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(number), ids],
            env=os.environ | {"UNIFEAT_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]
    return [(process.wait(), *process.communicate()) for process in started]


@pytest.mark.parametrize("ids", ["own ids", "one id"])
def test_many_processes_make_the_same_pieces(tmp_path: Path, ids: str):
    for code, out, err in run_workers(tmp_path, 6, ids):
        assert code == 0, err
        assert out == "done\n"
        assert err == ""
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith((ASIDE, DAMAGED))]
    assert left == []
    assert len(list((tmp_path / "folders").iterdir())) == len(list((tmp_path / "files").iterdir())) == 6


def test_many_processes_find_the_same_damage(tmp_path: Path):
    """Each may be the one that makes it again, perhaps twice; none fails, and none reads half of it."""
    run_workers(tmp_path, 1, "one id")
    for turn in range(4):
        for piece in (tmp_path / "folders").iterdir():
            with (piece / f"part-{turn}").open("r+b") as file:
                file.write(b"damage")
        for code, out, err in run_workers(tmp_path, 4, "one id"):
            assert code == 0, err
            assert out == "done\n"
            assert all(line.startswith("warning: folders ") for line in err.splitlines())
    assert len(list((tmp_path / "folders").iterdir())) == 6


def test_killed_processes_leave_only_what_nobody_reads(tmp_path: Path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(number), "one id"],
            env=os.environ | {"UNIFEAT_CACHE": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(4)
    ]
    for number, process in enumerate(started):
        time.sleep(0.12 * (number + 1))
        process.kill()
        process.wait()
    ((code, out, err),) = run_workers(tmp_path, 1, "one id")
    assert (code, out, err) == (0, "done\n", "")
