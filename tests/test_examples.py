"""Every example runs, in a folder with a finished run and what its models need."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from homes import shared_place

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example(
    script: Path,
    tmp_path_factory: pytest.TempPathFactory,
    model_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = shared_place(tmp_path_factory, model_folder).copy(tmp_path / "place")
    shutil.copytree(place.run, place.home / "runs" / "demo")
    monkeypatch.chdir(place.home)
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.setattr(sys, "argv", [script.name])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_they_are_listed() -> None:
    listed = (EXAMPLES[0].parent / "README.md").read_text(encoding="utf-8")
    assert len(EXAMPLES) == 10
    assert all(f"[{path.name}]({path.name})" in listed for path in EXAMPLES)
