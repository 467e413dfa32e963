"""`unifeat train` writes nowhere but into new folders of its own, and says so before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from unifeat.errors import UserError
from unifeat.pipeline.train import train
from unifeat.study.spec import ModelSpec, SpacesSpec, Study
from unifeat.study.text import TextSpec
from unifeat.study.training import TrainSpec


@pytest.fixture
def study(tmp_path: Path, model_folder: Callable[..., Path]) -> Callable[..., Study]:
    def make(*names: str) -> Study:
        text = TextSpec(source=str(tmp_path / "nowhere.jsonl"))
        spaces = [SpacesSpec(model="tiny", layers=[i], sae=name, name=f"s{i}") for i, name in enumerate(names)]
        return Study(
            text=text,
            models={"tiny": ModelSpec(name=str(model_folder("llama")), device="cpu")},
            spaces=spaces,
            compare=[("s0", "s0")],
            train=TrainSpec(text=text),
        )

    return make


def refused(study: Study, out: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        train(study, out)
    return str(caught.value)


def test_a_new_folder_is_fine(tmp_path: Path, study: Callable[..., Study]) -> None:
    """So far that the text is looked for."""
    assert "nowhere.jsonl: no such file" in refused(study(f"{tmp_path}/new/{{layer}}"))
    assert "nowhere.jsonl: no such file" in refused(study(f"{tmp_path}/a/sae"), tmp_path / "b")
    assert not (tmp_path / "new").exists()


def test_folders_that_are_not_its_own(
    tmp_path: Path, study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "cfg.json").touch()
    (tmp_path / "other").symlink_to("sae")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "round").symlink_to("round")
    before = sorted(tmp_path.rglob("*"))
    for name, message in {
        "../new": "name its folder without ..",
        "./file/new": "file is a file",
        "./sae/new": "it would be inside the SAE .*/sae .which holds cfg.json.",
        "./sae/deep/er/new": "it would be inside the SAE .*/sae .which holds cfg.json.",
        "./other/new": "it would be inside the SAE .*/sae .which holds cfg.json.",
        "./nowhere": "is a link that leads nowhere",
        "./nowhere/new": "is a link that leads nowhere",
        "./round/new": "is a link that leads nowhere",
        "/proc/a/new": "SAE /proc/a/new: ",
        "~nobody-here/new": "~nobody-here has no home directory",
        "./" + "x" * 300: "the name is longer than a file name may be",
    }.items():
        found = refused(study(name))
        assert re.search(message, found), (name, found)
        assert "\n" not in found
    assert "inside the SAE" in refused(study("./a/new"), tmp_path / "sae")
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_of_two(tmp_path: Path, study: Callable[..., Study]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    assert "two SAEs of the study would be saved in" in refused(study(f"{tmp_path}/a/x", f"{tmp_path}/b/x"))
    names = (f"{tmp_path}/x", f"{tmp_path}/x/y")
    assert "would be inside the other" in refused(study(*names))
    assert "would be inside the other" in refused(study(*reversed(names)))
