"""YAML as it looks: nothing is read as something else than what stands there, and nothing exhausts the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from unifeat.errors import UserError
from unifeat.study import yaml_file
from unifeat.study.yaml_file import dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+5", 5),
        ("1_000_000", 1_000_000),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("1e-3", 0.001),
        ("1e5", 100_000.0),
        (".5", 0.5),
        ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("On", "On"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'5'", "5"),
        ("=", "="),
        ("1__0", "1__0"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
    ],
)
def test_values(written: str, read: Any) -> None:
    found = parse_yaml(f"a: {written}", "x")["a"]
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "x, line 3: the key 'a' is given a second time (first in line 1): drop one"),
        ("a:\n  b: 1\n  'b': 2", "x, line 3: the key 'b' is given a second time (first in line 2): drop one"),
        ("true: 1\n1: 2", "x, line 2: the key 1 is given a second time (first in line 1): drop one"),
        ("? [a]\n: 1", "x, line 1: not valid YAML (a key is a list or a map)"),
        ("a: &a [*a]", "x, line 1: an alias refers to something that contains it"),
        ("a: *b", "x, line 1: not valid YAML (found undefined alias 'b')"),
        ("a: !!int x", "x, line 1: not valid YAML ('x' is not of type int)"),
        ("a: !!bool no", "x, line 1: not valid YAML ('no' is not of type bool)"),
        ("a: !!float [1]", "x, line 1: not valid YAML (expected a scalar node, but found sequence)"),
        ("a: !!map [1]", "x, line 1: not valid YAML (expected keys with values)"),
        (r"b: 1" "\n" r'a: "\ud800"', "x, line 2: text with half a character (a lone surrogate)"),
        (r'a: "\U00110000"', "x: not valid YAML (chr() arg not in range(0x110000))"),
        ("a: " + "9" * 5000, "x, line 1: a number of 5000 digits"),
        ("---\na: 1\n---\nb: 2", "x, line 3: not valid YAML (but found another document)"),
        ("a: \x07", "x: not valid YAML (special characters are not allowed)"),
        ("[" * 100_000, "x, line 1: nested more than 50 deep"),
        ("- " * 100_000, "x, line 1: nested more than 50 deep"),
        ("a: !!set {b}", "x, line 1: not valid YAML (could not determine a constructor for the tag "),
        ("a: !!binary aGk=", "x, line 1: not valid YAML (could not determine a constructor for the tag "),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "x")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_aliases_are_allowed_within_reason() -> None:
    assert parse_yaml("a: &m {x: 1}\nb: *m\nc: [*m, *m]", "x") == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}] * 2}
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))
    with pytest.raises(UserError, match=r"line 51: nested more than 50 deep"):
        parse_yaml(chain, "x")
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    with pytest.raises(UserError, match="its aliases expand to more than 100,000 entries"):
        parse_yaml(laughs, "x")
    wide = f"a: &a [{', '.join('x' * 200)}]\nb: [{', '.join(['*a'] * 400)}]"
    assert len(parse_yaml(wide, "x")["b"]) == 400  # 80,000 entries more than are written


def test_what_is_written_is_read_by_others_too() -> None:
    """PyYAML, which knows YAML 1.1, and this module find the same data in it."""
    text = [
        "1e3",
        "1e-3",
        "010",
        "no",
        "on",
        "0o7",
        "1_0",
        "1:30",
        "~",
        "5.",
        ".5",
        "-.5e1",
        "2024-01-01",
        "",
        "<<",
        "=",
    ]
    data = {"text": text, "numbers": [1, -2, 0.001, 1e-7, 1e22, 0.1], "others": [True, False, None], "no": "x"}
    assert parse_yaml(dump_yaml(data), "x") == data == yaml.safe_load(dump_yaml(data))
    shared = ["a"]
    assert "&" not in dump_yaml({"one": shared, "two": shared})


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\n")  # as editors of Windows write it
    assert read_yaml(file, "x") == {"a": 1}
    monkeypatch.setattr(yaml_file, "MOST_BYTES", 5)
    with pytest.raises(UserError, match="x is larger than 0 MB: is it the right file"):
        read_yaml(file, "x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to("round")
    for name, message in {
        "pipe": "no such file .it is not a regular file.",
        "": "no such file .it is a folder.",
        "nowhere": "no such file",
        "x.yaml/below": "a file is where a folder should be",
        "round": "its links form a loop",
    }.items():
        with pytest.raises(UserError, match=rf"^x( \(.*\))?: {message}"):
            read_yaml(tmp_path / name, "x")
    with pytest.raises(UserError, match=r"^x: no such file .it is not a regular file."):
        read_yaml(Path("/dev/zero"), "x")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may read everything, so the refusal is made."""

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "x.yaml").write_text("a: 1")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"^study x \(.*x\.yaml\): permission denied"):
        read_yaml(tmp_path / "x.yaml", "study x")
