"""A run's files take their places together, over nobody else's, and a mixture is noticed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unifeat.errors import UserError
from unifeat.runs.folder import open_run
from unifeat.runs.writing import INFO, STUDY, check_free, run_written
from unifeat.store.digests import read_sha256
from unifeat.study.read import dump_study
from unifeat.study.spec import Study

RESOLVED = Study.model_validate(
    {
        "text": {"source": "/text.jsonl"},
        "models": {"a": {"name": "/a"}, "b": {"name": "/b"}},
        "spaces": [{"model": "a", "layers": [0], "sae": "/s"}, {"model": "b", "layers": [0], "sae": "/t"}],
    }
)


def write_run(folder: Path, seed: int, *, tables: tuple[str, ...] = ("pairs", "scores")) -> None:
    """A run whose every file says its seed."""
    with run_written(folder) as new:
        for name in tables:
            pd.DataFrame({"seed": [seed], "name": [name]}).to_parquet(new / f"{name}.parquet")
        (new / STUDY).write_text(dump_study(RESOLVED.model_copy(update={"seed": seed})))
        files = {path.name: read_sha256(path) for path in new.iterdir()}
        info = {"versions": {"unifeat": "0"}, "seed": seed, "created": f"at {seed}", "files": files, "pairs": []}
        (new / INFO).write_text(json.dumps(info))


def seeds(folder: Path) -> set[int]:
    run = open_run(folder)
    return {run.info["seed"], int(run.pairs["seed"][0]), int(run.scores["seed"][0])}


class TestTakingPlaces:
    def test_everything_else_stays(self, tmp_path: Path):
        (tmp_path / "mine").write_text("stays")
        write_run(tmp_path, 1)
        write_run(tmp_path, 2)
        assert seeds(tmp_path) == {2}
        assert (tmp_path / "mine").read_text() == "stays"
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize("at", range(1, 6))
    def test_a_kill_at_any_rename_leaves_one_run_or_the_other(
        self, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
    ):
        """The first rename decides; what it kept from its place is moved by whoever opens the folder."""
        write_run(tmp_path, 1)
        real, count = os.replace, iter(range(1, 100))

        def replace(*args: Any) -> None:
            if next(count) == at:
                raise SystemExit
            real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with pytest.raises(SystemExit):
                write_run(tmp_path, 2)
        assert seeds(tmp_path) == {1 if at == 1 else 2}
        assert not list(tmp_path.glob(".finished-*"))

    def test_what_cannot_be_moved_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        write_run(tmp_path, 1)
        (tmp_path / ".finished-x").mkdir()
        (tmp_path / ".finished-x" / "pairs.parquet").write_bytes(b"")

        def fail(*_: Any) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(UserError, match=r"not in their places yet.*read-only"):
            open_run(tmp_path)

    def test_a_mixture_is_noticed(self, tmp_path: Path):
        """However it came about: a file of another run is not taken for this one's."""
        write_run(tmp_path / "one", 1)
        write_run(tmp_path / "two", 2)
        os.replace(tmp_path / "two" / "pairs.parquet", tmp_path / "one" / "pairs.parquet")
        run = open_run(tmp_path / "one")
        assert int(run.scores["seed"][0]) == 1
        with pytest.raises(UserError, match=r"pairs\.parquet is not the one that run\.json was written with"):
            run.pairs  # noqa: B018

    def test_tables_of_an_earlier_run_do_not_linger(self, tmp_path: Path):
        write_run(tmp_path, 1, tables=("pairs", "scores", "members"))
        assert open_run(tmp_path).members is not None
        write_run(tmp_path, 2)
        assert open_run(tmp_path).members is None

    @pytest.mark.parametrize("how", ["cut", "noise"])
    def test_damage_is_one_line(self, tmp_path: Path, how: str):
        write_run(tmp_path, 1)
        text = (tmp_path / INFO).read_text()
        (tmp_path / INFO).write_text(text[: len(text) // 2] if how == "cut" else "\x00\x01")
        with pytest.raises(UserError, match=r"run\.json is damaged"):
            open_run(tmp_path).info  # noqa: B018

    def test_an_error_leaves_no_new_folder(self, tmp_path: Path):
        with pytest.raises(ZeroDivisionError), run_written(tmp_path / "new"):
            raise ZeroDivisionError
        assert not (tmp_path / "new").exists()


class TestCheckFree:
    def test_a_folder_of_ones_own(self, tmp_path: Path):
        check_free(tmp_path / "new" / "deep")
        (tmp_path / "notes.txt").write_text("")
        check_free(tmp_path)
        write_run(tmp_path, 1)
        check_free(tmp_path)

    @pytest.mark.parametrize("name", [STUDY, INFO, "pairs.parquet", "report.html"])
    def test_a_file_that_is_no_runs(self, tmp_path: Path, name: str):
        (tmp_path / name).write_text("# mine\nname: mine\n")
        with pytest.raises(UserError, match=f"overwrite .*{name}.*--out"):
            check_free(tmp_path)
        assert (tmp_path / name).read_text() == "# mine\nname: mine\n"

    def test_a_resolved_study_that_somebody_changed(self, tmp_path: Path):
        write_run(tmp_path, 1)
        path = tmp_path / STUDY
        path.write_text("# tried with more documents\n" + path.read_text())
        with pytest.raises(UserError, match=r"study\.yaml, which is not as unifeat wrote it"):
            check_free(tmp_path)

    def test_a_run_of_before_there_were_digests(self, tmp_path: Path):
        write_run(tmp_path, 1)
        info = json.loads((tmp_path / INFO).read_text())
        del info["files"]
        (tmp_path / INFO).write_text(json.dumps(info))
        check_free(tmp_path)
        assert seeds(tmp_path) == {1}
        (tmp_path / STUDY).write_text("# mine\n" + (tmp_path / STUDY).read_text())
        with pytest.raises(UserError, match=r"study\.yaml"):
            check_free(tmp_path)

    def test_a_damaged_run_may_be_made_again(self, tmp_path: Path):
        write_run(tmp_path, 1)
        (tmp_path / INFO).write_text("{")
        check_free(tmp_path)
        (tmp_path / "pairs.parquet").write_bytes(b"")
        check_free(tmp_path)

    def test_below_a_file(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="is a file; name another folder with --out"):
            check_free(tmp_path / "file" / "run")

    def test_where_nothing_can_be_written(self):
        with pytest.raises(UserError, match=r"--out /proc/run: nothing can be written .*--out"):
            check_free(Path("/proc/run"))


def test_a_later_run_that_another_process_is_moving_into_place(tmp_path: Path):
    """A table of it is there, its `run.json` not yet."""
    write_run(tmp_path, 1)
    opened, other = open_run(tmp_path), tmp_path / "other"
    assert opened.info["seed"] == 1
    write_run(other, 2)
    (tmp_path / ".finished-0123456789abcdef-run").mkdir()
    for path in other.iterdir():
        path.rename(tmp_path / ".finished-0123456789abcdef-run" / path.name)
    (tmp_path / ".finished-0123456789abcdef-run" / "pairs.parquet").rename(tmp_path / "pairs.parquet")
    assert set(opened.pairs["seed"]) == {2}
    assert opened.info["seed"] == 2
    assert set(opened.scores["seed"]) == {2}
