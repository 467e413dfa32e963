"""A full disk: one clear error, nothing under a final name, nothing left aside, what was there stays."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from stores import random_shard, written
from unifeat import UserError
from unifeat.codes.shard import write_shard
from unifeat.store import is_disk_full, write_json, written_aside

needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


def full(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number))


def a_shard(path: Path) -> None:
    write_shard(path, random_shard(np.random.default_rng(0)))


def a_text(path: Path) -> None:
    write_json(path, {})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(("write", "there"), [(a_shard, False), (a_text, False), (a_text, True)])
def test_no_space_when_renaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, write: Callable[[Path], None], there: bool
) -> None:
    path = tmp_path / "shard-00000.safetensors"
    if there:
        path.write_bytes(b"old")

    def replace(*_: object) -> None:
        raise full(number)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match="disk full") as caught:
        write(path)
    assert str(path) in str(caught.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({path.name: b"old"} if there else {})


def test_the_shard_that_is_there_first_stays(tmp_path: Path) -> None:
    """Shards are alike whoever made them: another process's is not replaced."""
    path = tmp_path / "shard-00000.safetensors"
    path.write_bytes(b"first")
    a_shard(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {path.name: b"first"}


def test_no_space_for_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The safetensors library raises an error of its own, which is not an OSError."""

    def save_file(arrays: dict, path: Path, metadata: dict) -> None:
        path.write_bytes(safetensors.numpy.save(arrays, metadata)[:100])
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", save_file)
    path = tmp_path / "shard-00000.safetensors"
    with pytest.raises(UserError, match="disk full") as caught:
        write_shard(path, random_shard(np.random.default_rng(0)))
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@needs_dev_full
def test_no_space_for_a_table_or_a_text(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": np.random.default_rng(0).random(100_000)})
    for name, write in {"table": lambda p: table.to_parquet(p), "text": lambda p: p.write_text("x" * 100_000)}.items():

        def on_the_full_disk(path: Path, write: object = write) -> None:
            with written_aside(path) as aside:
                aside.symlink_to("/dev/full")
                write(aside)

        with pytest.raises(UserError, match="disk full"):
            on_the_full_disk(tmp_path / name)
        assert list(tmp_path.iterdir()) == []


def test_no_space_for_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = written(tmp_path, [random_shard(np.random.default_rng(0))], finish=False)
    before = sorted(p.name for p in store.folder.iterdir())

    def write_text(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"{")
        raise full()

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(UserError, match=r"disk full while writing .*manifest\.json"):
        store.finish(1)
    assert sorted(p.name for p in store.folder.iterdir()) == before
    assert not store.finished()


def test_other_errors_of_the_machine_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.json", tmp_path / "file" / "below" / "x.json"):
        with pytest.raises(UserError, match="a file is where a folder should be") as caught:
            write_json(path, {})
        assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="the name is longer than a file name may be"):
        write_json(tmp_path / ("x" * 300) / "x.json", {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_bugs_stay_what_they_are(tmp_path: Path) -> None:

    def fail() -> None:
        with written_aside(tmp_path / "x") as aside:
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert not is_disk_full(PermissionError(errno.EACCES, "no"))
    assert not is_disk_full(KeyboardInterrupt())


REAL = """
import numpy as np, sys
from pathlib import Path
from stores import random_shard
from unifeat import UserError
from unifeat.codes.shard import read_shard, write_shard

folder = Path(sys.argv[1])
shard = random_shard(np.random.default_rng(0), rows=500)
for number in range(1000):
    try:
        write_shard(folder / f"shard-{number:05d}.safetensors", shard)
    except UserError as error:
        assert "disk full" in str(error), error
        break
names = sorted(p.name for p in folder.iterdir())
assert names == [f"shard-{n:05d}.safetensors" for n in range(number)] and number > 2, names
for name in names:
    read_shard(folder / name, verify=True)
print("left", number)
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A file system of 100 kB, mounted where this machine lets us."""
    mounted = f"mount -t tmpfs -o size=100k tmpfs {tmp_path}"
    for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        if subprocess.run([*unshare, "sh", "-c", mounted], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("cannot mount a file system here")
    script = tmp_path.parent / f"{tmp_path.name}-script.py"
    script.write_text(REAL)
    done = subprocess.run(
        [*unshare, "sh", "-c", f"{mounted} && exec {sys.executable} {script} {tmp_path}"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("left")
