"""Pieces: what is read is what was written; damage is named, put away, and the piece made again."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unifeat.engine import Local, Unit
from unifeat.errors import UserError
from unifeat.progress import set_mode
from unifeat.store import JSON, TABLE, Form, Piece
from unifeat.store.pieces import FORMAT, recording


def write_both(value: tuple[dict[str, Any], bytes], folder: Path) -> dict[str, Any]:
    (folder / "deep").mkdir()
    (folder / "deep" / "data.bin").write_bytes(value[1])
    return value[0]


BOTH: Form[Any] = Form(write_both, lambda data, folder: (data, (folder / "deep" / "data.bin").read_bytes()))
VALUES: dict[str, tuple[Form[Any], Any]] = {
    "json": (JSON, {"score": 0.1 + 0.2, "null": [float("nan"), 1e-300, -0.0], "text": "ü \ud800 €"}),
    "table": (TABLE, pd.DataFrame({"a": np.arange(5, dtype=np.int32), "b": list("vwxyz")})),
    "both": (BOTH, ({"n": 3}, bytes(range(256)) * 10)),
}


def piece(form: Form[Any], **made_from: Any) -> Piece[Any]:
    return Piece("kind", {"version": 1, **made_from}, form, "the thing")


def same(one: Any, other: Any) -> bool:
    return one.equals(other) if isinstance(one, pd.DataFrame) else repr(one) == repr(other)


def files_of(one: Piece[Any]) -> list[Path]:
    return [one.path] if one.path.is_file() else sorted(p for p in one.path.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", VALUES)
class TestEveryForm:
    def test_what_is_read_is_what_was_written(self, name: str):
        form, value = VALUES[name]
        one = piece(form)
        assert one.read() is None
        assert not one.exists()
        one.write(value)
        assert one.exists()
        assert same(piece(form).read(), value)

    def test_its_name_depends_on_what_it_is_made_from(self, name: str):
        form, value = VALUES[name]
        piece(form, seed=1).write(value)
        assert piece(form, seed=2).read() is None
        assert Piece("other", {"version": 1, "seed": 1}, form).read() is None

    @pytest.mark.parametrize("how", ["flip", "cut", "empty", "delete", "another"])
    def test_damage_is_named_and_mended(self, name: str, how: str, capsys: pytest.CaptureFixture[str]):
        form, value = VALUES[name]
        set_mode("log")
        rng = random.Random(0)
        one = piece(form)
        Unit(piece(form, other=1), lambda: value).result()
        for number in range(len(files_of(piece(form, other=1)))):
            Unit(one, lambda: value).result()
            file = files_of(one)[number]
            content = bytearray(file.read_bytes())
            if how == "flip":
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            if how == "delete":
                file.unlink()
            elif how == "another":  # a piece of another key under this one's name
                shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
                source = piece(form, other=1).path
                shutil.copytree(source, one.path) if source.is_dir() else shutil.copy(source, one.path)
            else:
                file.write_bytes({"flip": content, "cut": content[: len(content) // 2], "empty": b""}[how])
            capsys.readouterr()
            made: list[int] = []
            assert same(Unit(one, lambda made=made: made.append(1) or value).result(), value)
            said = capsys.readouterr().err
            if how == "delete" and one.path.suffix == ".json":
                assert made == [1]  # nothing there is nothing damaged
                continue
            assert made == [1]
            assert said.startswith(f"warning: the thing {one.path} is damaged")
            assert said.endswith("it is made again\n")
            assert said.count("\n") == 1
            assert same(one.read(), value)
            assert capsys.readouterr().err == ""
            assert [p.name for p in one.path.parent.iterdir() if p.name.startswith(".")] == []


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_changed_bit_goes_into_a_result(tmp_path: Path, place: float, bit: int):
    """Whatever bit of whatever file is changed, the value is either the same or gone."""
    form, value = VALUES["both"]
    one = piece(form)
    if not one.exists():
        one.write(value)
    file = files_of(one)[int(place * 2)]
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)
    found = one.read()
    assert found is None or same(found, value)
    if found is not None:
        shutil.rmtree(one.path)


def test_a_piece_says_what_it_is():
    one = piece(JSON, seed=3)
    one.write({"a": 1})
    held = json.loads(one.path.read_text())["content"]
    assert held == {
        "format": FORMAT,
        "kind": "kind",
        "made_from": {"version": 1, "seed": 3},
        "value": {"a": 1},
        "files": {},
    }


@pytest.mark.parametrize(("number", "says"), [(errno.EMFILE, "too many open files"), (errno.EACCES, "permission")])
@pytest.mark.parametrize("name", VALUES)
def test_errors_of_the_machine_are_no_damage(name: str, number: int, says: str, monkeypatch: pytest.MonkeyPatch):
    form, value = VALUES[name]
    one = piece(form)
    one.write(value)
    before = {path: path.read_bytes() for path in files_of(one)}
    real: Callable[..., Any] = Path.open

    def fail(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self in before:
            raise OSError(number, os.strerror(number), str(self))
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        patch.setattr(Path, "read_text", lambda self, **_: fail(self) if self in before else real(self).read())
        with pytest.raises(UserError, match=f"reading .*{says}"):
            one.read()
    assert {path: path.read_bytes() for path in files_of(one)} == before
    assert same(one.read(), value)


def test_what_another_process_made_first_stays():
    one = piece(BOTH)
    one.write(({"by": "first"}, b"1"))
    one.write(({"by": "second"}, b"2"))
    assert one.read() == ({"by": "first"}, b"1")
    assert Unit(one, lambda: pytest.fail("made again")).result() == ({"by": "first"}, b"1")


def test_a_unit_gives_what_is_stored():
    """The same now and after a restart: a tuple becomes the list that JSON makes of it."""
    unit = Unit(piece(JSON), lambda: {"pair": (1, 2)})
    assert unit.result() == unit.result() == {"pair": [1, 2]}


def test_a_failing_unit_leaves_nothing(own_cache: Path):
    def fail() -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Unit(piece(BOTH), fail).result()
    assert not list(own_cache.rglob("*.json"))


@pytest.mark.parametrize("fills", [False, True])
def test_the_engine_keeps_the_order_and_stops_at_the_first_error(fills: bool):
    def unit(number: int) -> Unit[Any]:
        def compute() -> int:
            if number == 7:
                raise UserError("seven")
            return number

        return Unit(piece(JSON, number=number), compute, fills)

    assert list(Local().map(unit(number) for number in range(7))) == list(range(7))
    results = Local().map([unit(number) for number in range(6, 9)])
    assert next(results) == 6
    with pytest.raises(UserError, match="seven"):
        next(results)


def test_use_is_noted():
    Unit(piece(JSON, n=1), lambda: 1).result()
    with recording() as used:
        list(Local().map([Unit(piece(JSON, n=n), lambda: 1) for n in (1, 2)]))
    assert used == {("kind", piece(JSON, n=n).path.name) for n in (1, 2)}


@pytest.mark.parametrize(("form", "in_its_place"), [(JSON, "folder"), (JSON, "loop"), (TABLE, "file"), (TABLE, "loop")])
def test_something_else_in_its_place(form: Form[Any], in_its_place: str) -> None:
    """A folder where a file should be, or the other way round, is damage too."""
    value = pd.DataFrame({"x": [1]}) if form is TABLE else {"x": 1}
    piece = Piece("scores", {"name": "a"}, form)
    piece.path.parent.mkdir(parents=True)
    if in_its_place == "folder":
        (piece.path / "inside").mkdir(parents=True)
    elif in_its_place == "file":
        piece.path.write_text("")
    else:
        piece.path.symlink_to(piece.path.name)
    found = Unit(piece, lambda: value).result()
    assert pd.DataFrame(found).equals(value) if form is TABLE else found == value
    assert piece.read() is not None
