"""Files come to be whole or not at all, and are known by what they hold."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from unifeat.errors import UserError
from unifeat.store import cache_root, key_of, remove, sha256_of, write_json, write_text, written_aside


class TestCacheRoot:
    def test_order_of_choice(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("UNIFEAT_CACHE", "~/mine")
        monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
        monkeypatch.setenv("HOME", "/home/me")
        assert cache_root() == Path("/home/me/mine")
        monkeypatch.delenv("UNIFEAT_CACHE")
        assert cache_root() == Path("/xdg/unifeat")
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_root() == Path("/home/me/.cache/unifeat")


class TestKeys:
    def test_depend_on_content_not_on_order(self):
        key = key_of({"a": 1, "b": [1, 2]})
        assert len(key) == 16
        assert int(key, 16) >= 0
        assert key_of({"b": [1, 2], "a": 1}) == key
        others = [{"a": 1, "b": [2, 1]}, {"a": "1", "b": [1, 2]}, {"a": 1}, {"a": None, "b": [1, 2]}, "ü"]
        assert len({key_of(other) for other in others} | {key}) == len(others) + 1

    def test_are_stable_between_releases(self):
        """A key that changes would orphan everything in the users' caches."""
        assert key_of({"what": "corpus/1", "skip": 0}) == "1b6e60704090a919"


class TestSha256:
    def test_follows_the_content(self, tmp_path: Path):
        path = tmp_path / "a"
        path.write_bytes(b"abc")
        assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        path.write_bytes(b"abd")
        os.utime(path, ns=(1, 1))
        assert sha256_of(path).startswith("a52d159f")

    def test_is_remembered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = tmp_path / "a"
        path.write_bytes(b"abc")
        digest = sha256_of(path)
        real, opened = Path.open, []
        monkeypatch.setattr(Path, "open", lambda self, *args, **kw: opened.append(self) or real(self, *args, **kw))
        assert sha256_of(path) == digest
        assert path not in opened


def fail_halfway(path: Path, error: BaseException) -> None:
    with written_aside(path) as aside:
        aside.write_text("half")
        raise error


class TestWrittenAside:
    def test_appears_only_at_the_end(self, tmp_path: Path):
        path = tmp_path / "deep" / "file"
        with written_aside(path) as aside:
            aside.write_text("new")
            assert not path.exists()
            assert aside.parent == path.parent
        assert path.read_text() == "new"
        assert list(path.parent.iterdir()) == [path]

    def test_replaces_a_file_or_folder(self, tmp_path: Path):
        write_text(tmp_path / "file", "old")
        write_text(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "new"
        for text in ("old", "new"):
            with written_aside(tmp_path / "folder") as aside:
                aside.mkdir()
                (aside / text).write_text(text)
        assert [p.name for p in (tmp_path / "folder").iterdir()] == ["new"]

    @pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.EACCES, "no")])
    def test_an_error_leaves_what_was_there(self, tmp_path: Path, error: BaseException):
        path = tmp_path / "file"
        write_text(path, "old")
        with pytest.raises(type(error)):
            fail_halfway(path, error)
        assert path.read_text() == "old"
        assert list(tmp_path.glob("*")) + list(tmp_path.glob(".p*")) == [path]

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_what_a_kill_left_is_cleared_away(self, tmp_path: Path, kind: str):
        left = tmp_path / f".partial-{os.getpid()}-out"
        left.mkdir() if kind == "file" else left.write_text("half")
        with written_aside(tmp_path / "out") as aside:
            aside.write_text("new") if kind == "file" else aside.mkdir()
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            # What safetensors raises, whose exceptions are no OSErrors.
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        ],
    )
    def test_a_full_disk_is_a_users_error(self, tmp_path: Path, error: Exception):
        path = tmp_path / "file"
        with pytest.raises(UserError, match=r"disk full while writing .*file: free some space"):
            fail_halfway(path, error)
        assert list(tmp_path.iterdir()) == []

    def test_other_errors_are_not(self, tmp_path: Path):
        with pytest.raises(PermissionError), written_aside(tmp_path / "file"):
            raise PermissionError(errno.EACCES, "no")


def test_json_is_readable(tmp_path: Path):
    write_json(tmp_path / "a.json", {"name": "Zoë", "n": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "name": "Zoë",\n "n": [\n  1\n ]\n}\n'


def test_remove_takes_anything(tmp_path: Path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("file", "link", "nothing"):
        remove(tmp_path / name)
    assert (tmp_path / "folder" / "deep").exists()
    remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []
