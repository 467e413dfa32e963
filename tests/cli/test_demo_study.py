"""`unifeat demo` without its models: what it writes, where, and what it never overwrites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import unifeat.cli
from unifeat.demo import prepare as demo
from unifeat.errors import UserError
from unifeat.study.read import load_study


@pytest.fixture(autouse=True)
def ingredients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for what the demo's packages carry."""
    monkeypatch.setattr(demo, "check_packages", lambda: None)
    monkeypatch.setattr(demo, "saes_folder", lambda: tmp_path / "saes")
    for name in ("news", "encyclopaedia", "smollm2", "gemma3"):
        monkeypatch.setattr(demo, f"_{name}", lambda name=name: tmp_path / f"{name}.file")


def test_prepare_writes_a_study_that_can_be_read(tmp_path: Path) -> None:
    path = demo.prepare(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "study.yaml"
    assert list(path.parent.iterdir()) == [path]
    assert "# the ceiling" in path.read_text()
    assert load_study(path) == demo.demo_study()
    full = demo.prepare(tmp_path / "full", full=True)
    assert load_study(full) == demo.demo_study(full=True)
    assert demo.demo_study().models["gemma3"].name == str(tmp_path / "gemma3.file")


def test_prepare_never_overwrites_an_edited_study(tmp_path: Path) -> None:
    path = demo.prepare(tmp_path / "demo")
    written = path.read_bytes()
    assert demo.prepare(tmp_path / "demo") == path  # the same again is fine
    for edited in (written + b"# mine\n", b"", b"\xff"):
        path.write_bytes(edited)
        with pytest.raises(UserError, match=r"study\.yaml exists and differs from what unifeat would write") as caught:
            demo.prepare(tmp_path / "demo")
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == edited
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"study\.yaml: a folder is where a file should be"):
        demo.prepare(tmp_path / "demo")


def test_prepare_where_nothing_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for folder, message in {
        tmp_path / "file": "file is a file; name another folder with --prepare",
        tmp_path / "file" / "below": "file is a file; name another folder with --prepare",
        tmp_path / "nowhere": "nowhere is a link that leads nowhere",
        Path("/proc/a/b"): "--prepare /proc/a/b: ",
    }.items():
        with pytest.raises(UserError, match=message):
            demo.prepare(folder)
    assert not (tmp_path / "missing").exists()


def test_the_demo_leaves_its_folder_to_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study there that no run wrote would be in the run's way."""
    asked: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unifeat.cli.studies, "_run", lambda *args: asked.append(args))
    for args in ([], ["--full", "--out", "else/where"], ["--documents", "7", "--force"]):
        done = CliRunner().invoke(unifeat.cli.app, ["demo", "--quiet", *args])
        assert done.exit_code == 0, done.output
    assert [(study.text.documents, folder, force) for study, folder, force, *_ in asked] == [
        (60, Path("runs/demo"), False),
        (170, Path("else/where"), False),
        (7, Path("runs/demo"), True),
    ]
    assert list(tmp_path.iterdir()) == [] or [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_both_sizes_tell_the_same_story() -> None:
    """The same comparisons, controls, measures and nulls, and no test that could not come out significant.

    (The full one also takes the token embeddings out of RSA, which would double the time of the small one's nulls.)
    """
    quick, full = demo.demo_study(), demo.demo_study(full=True)
    # (The full one also compares the layers of one model with each other, for families along its depth.)
    assert quick.compare == [pair for pair in full.compare if pair[0] != pair[1]]
    assert quick.geometry == [spec for spec in full.geometry if "given" not in spec.settings]
    assert quick.models == full.models
    for small, large in zip(quick.spaces, full.spaces, strict=True):
        assert set(small.layers) <= set(large.layers)
    for study in (quick, full):
        assert {"smollm2@15", "smollm2-seed1@15", "gemma3-seed1@9", "smollm2-random@15", "smollm2-aimless@15"} <= {
            f"{group.name or group.model}@{layer}" for group in study.spaces for layer in group.layers
        }
        names = [f"{group.name or group.model}@{layer}" for group in study.spaces for layer in group.layers]
        ceilings = {
            (a, b) for a in names for b in names if b.partition("@")[0].endswith("-seed1") and study.compares(a, b)
        }
        assert ceilings == {("smollm2@15", "smollm2-seed1@15"), ("gemma3@9", "gemma3-seed1@9")}, "of one layer each"
        for draws in (study.inference.permutations, study.inference.rematches, study.inference.same_token):
            assert 1 / (draws + 1) < 0.05
