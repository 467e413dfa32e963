"""What the disk spoils is noticed: activations are made again, checkpoints left out, and the machine's errors told."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import sentences, write_text
from unifeat.errors import UserError
from unifeat.pipeline.train import train
from unifeat.progress import set_mode
from unifeat.saes.training import checkpoints
from unifeat.saes.training.checkpoints import Checkpoints
from unifeat.store import cache_root
from unifeat.store.pieces import recording
from unifeat.store.usage import contents, prunable, prune
from unifeat.study.spec import ModelSpec, SpacesSpec, Study
from unifeat.study.text import TextSpec
from unifeat.study.training import TrainSpec
from unifeat.vocabulary.hook_points import HookPoint

pytestmark = pytest.mark.slow

POINT = HookPoint(0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def flipped(path: Path) -> None:
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def missing(path: Path) -> None:
    path.unlink()


@pytest.fixture
def study(tmp_path: Path, model_folder: Callable[..., Path]) -> Study:
    text = TextSpec(source=str(write_text(tmp_path, sentences(60, seed=4))), context=32, group=3000)
    return Study(
        text=text,
        models={"tiny": ModelSpec(name=str(model_folder("llama", tokenizer="wordish")), dtype="float32", device="cpu")},
        spaces=[SpacesSpec(model="tiny", layers=[1], sae=f"{tmp_path}/saes/{{layer}}")],
        compare=[("tiny", "tiny")],
        train=TrainSpec(text=text, features=48, k=4, tokens=4000, batch=128, buffer=1024, heldout_documents=15),
    )


def changed(study: Study, **train_settings: Any) -> Study:
    assert study.train is not None
    return study.model_copy(update={"train": study.train.model_copy(update=train_settings)})


def stop_after(checkpoint: int, study: Study, monkeypatch: pytest.MonkeyPatch, out: Path | None = None) -> None:
    """Train until so many checkpoints are written."""
    inner, calls = Checkpoints.save, []

    def save(self: Any, *args: Any, **kw: Any) -> None:
        inner(self, *args, **kw)
        calls.append(self)
        if len(calls) == checkpoint:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "INTERVAL_S", 0.0)
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            train(study, out)


def weights(folder: Path) -> bytes:
    return (folder / "1" / "sae_weights.safetensors").read_bytes()


@pytest.mark.parametrize("spoil", [cut, emptied, flipped, missing])
class TestDamaged:
    @pytest.mark.parametrize("file", ["rows.safetensors", "piece.json"])
    def test_activations(
        self, study: Study, tmp_path: Path, capfd: pytest.CaptureFixture[str], spoil: Callable[[Path], None], file: str
    ):
        kept = changed(study, store=True)
        train(kept, tmp_path / "a")
        groups = sorted((cache_root() / "activations").iterdir())
        spoil(groups[0] / file)
        set_mode("log")
        train(kept, tmp_path / "b")
        set_mode("quiet")
        told = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
        (line,) = told
        assert f"a group of activations {groups[0]} is damaged" in line
        assert line.endswith("it is made again")
        assert weights(tmp_path / "a") == weights(tmp_path / "b")
        assert sorted((cache_root() / "activations").iterdir()) == groups
        train(kept, tmp_path / "c")
        assert "warning" not in capfd.readouterr().err

    @pytest.mark.parametrize("file", ["state.pt", "about.json"])
    def test_the_only_checkpoint(
        self,
        study: Study,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        spoil: Callable[[Path], None],
        file: str,
    ):
        train(study, tmp_path / "undisturbed")
        stop_after(6, study, monkeypatch)
        (path,) = (cache_root() / "training").glob("*/*/checkpoint-*")
        spoil(path / file)
        set_mode("log")
        train(study)
        lines = capfd.readouterr().err.splitlines()
        (line,) = [line for line in lines if "warning" in line]
        assert f"checkpoint {path} is damaged" in line
        assert file in line
        assert not any("resuming" in line for line in lines)
        assert weights(tmp_path / "saes") == weights(tmp_path / "undisturbed")
        assert not list((cache_root() / "training").iterdir())

    def test_one_of_two_checkpoints(
        self, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
    ):
        """The other one is gone on from, though it is not so far along and another folder's."""
        train(study, tmp_path / "undisturbed")
        stop_after(6, study, monkeypatch)
        (ahead,) = (cache_root() / "training").glob("*/*/checkpoint-*")
        Path(ahead.parent).rename(tmp_path / "aside")
        stop_after(3, study, monkeypatch, tmp_path / "elsewhere")
        (tmp_path / "aside").rename(ahead.parent)
        spoil(ahead / "state.pt")
        taken = []
        inner = Checkpoints.load
        monkeypatch.setattr(Checkpoints, "load", lambda self: taken.append(inner(self)) or taken[0])
        train(study)
        assert taken[0][0].step == 3
        assert weights(tmp_path / "saes") == weights(tmp_path / "undisturbed")


def test_a_checkpoint_that_runs_code_is_not_loaded(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    made = Checkpoints(tmp_path / "stream", {"a": tmp_path / "a"}, [POINT])
    made.save({"jobs": Evil()}, step=1, over=False, points=[POINT])
    set_mode("log")
    assert made.load() is None
    assert "cannot be read and is ignored" in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_format_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    made = Checkpoints(tmp_path / "stream", {"a": tmp_path / "a"}, [POINT])
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", "training/99")
        made.save({"jobs": {}}, step=1, over=False, points=[POINT])
    set_mode("log")
    assert made.load() is None
    assert capfd.readouterr().err == ""
    assert list(made.folder.iterdir())


class TestTheMachine:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
    def test_an_error_in_the_middle_of_a_checkpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
        """Torch hides it behind an error of its own."""
        inner = checkpoints._Summed.write

        class Full:
            def __init__(self, file: Any) -> None:
                self.file, self.left = file, 2

            def write(self, data: Any) -> int:
                self.left -= 1
                if not self.left:
                    raise OSError(number, os.strerror(number))
                return int(self.file.write(data))

            def flush(self) -> None:
                self.file.flush()

        def write(self: Any, data: Any) -> int:
            if not isinstance(self.file, Full):
                self.file = Full(self.file)
            return inner(self, data)

        monkeypatch.setattr(checkpoints._Summed, "write", write)
        made = Checkpoints(tmp_path / "stream", {"a": tmp_path / "a"}, [POINT])
        with pytest.raises(UserError, match=r"disk full|read-only|size limit") as told:
            made.save({"jobs": {"a": torch.zeros(100_000)}}, step=1, over=False, points=[POINT])
        assert "\n" not in str(told.value)
        assert list(made.folder.iterdir()) == []

    def test_a_target_that_cannot_be_is_told_before_the_training(self, study: Study, tmp_path: Path):
        (tmp_path / "saes").write_text("")
        with pytest.raises(UserError, match="saes is a file; name another folder"):
            train(study)
        (tmp_path / "saes").unlink()
        (tmp_path / "saes").mkdir()
        (tmp_path / "saes" / "1").symlink_to(tmp_path / "nowhere")
        with pytest.raises(UserError, match="saes/1 is a link that leads nowhere"):
            train(study)
        assert not (cache_root() / "training").exists()

    def test_a_folder_that_cannot_be_written(self, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        with pytest.raises(UserError, match=r"saes/1 cannot be saved, since .* cannot be written"):
            train(study)

    def test_a_cache_that_is_a_file(self, study: Study, tmp_path: Path):
        train(study, tmp_path / "a")
        shutil.rmtree(cache_root() / "training", ignore_errors=True)
        (cache_root() / "training").write_text("")
        with pytest.raises(UserError, match="a file is where a folder should be"):
            train(study)


class TestNumbersThatAreNone:
    @pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "jumprelu", "relu"])
    @pytest.mark.parametrize("lr", [float("inf"), 1e30])
    def test_a_learning_rate_out_of_all_reason(self, study: Study, tmp_path: Path, architecture: str, lr: float):
        with pytest.raises(
            UserError, match=r"training .*/saes/1 failed at step [1-5] of 31: .*; lower train\.lr from (inf|1e\+30)"
        ):
            train(changed(study, lr=lr, architecture=architecture))
        assert not (tmp_path / "saes").exists()
        assert not list((cache_root() / "training").glob("*/*/checkpoint-*"))

    def test_weights_alone(self, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """A feature of NaN is never chosen by BatchTopK: the loss would not show it."""
        from unifeat.saes.training import run

        inner = run.make_trainer

        def make(*args: Any) -> Any:
            trainer = inner(*args)
            trainer.sae.b_enc.data[5] = float("nan")
            return trainer

        monkeypatch.setattr(run, "make_trainer", make)
        with pytest.raises(UserError, match=r"failed at step 1 of 31: .*b_enc"):
            train(changed(study, architecture="batchtopk", auxiliary=0.0))


def test_unifeat_cache_sees_both_kinds(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with recording() as used:
        train(changed(study, store=True), tmp_path / "a")
    stop_after(2, study, monkeypatch)
    entries = [entry for entry in contents(cache_root()) if entry.kind in ("activations", "training")]
    assert not any(entry.leftover for entry in entries)
    kept = {entry.path.name for entry in entries if entry.kind == "activations"}
    assert kept
    assert {name for kind, name in used if kind == "activations"} == kept
    (unfinished,) = [entry for entry in entries if entry.kind == "training"]
    assert unfinished.size > 10_000


def test_pruning_leaves_a_training_under_way_its_text(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from unifeat.saes.training import run

    chosen: list[list[str]] = []
    inner = run.make_trainer

    def make(*args: Any) -> Any:
        found = prunable(contents(cache_root()), unused=True)
        chosen.append([entry.kind for entry, _ in found])
        prune(found)
        return inner(*args)

    monkeypatch.setattr(run, "make_trainer", make)
    train(study)
    assert chosen
    assert not any("text" in kinds for kinds in chosen)
    assert not list((cache_root() / "runs").iterdir())  # its note goes with it
    assert "text" in [entry.kind for entry, _ in prunable(contents(cache_root()), unused=True)]
