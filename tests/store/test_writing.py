"""Files come to be whole or not at all, and are known by what they hold."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from unifeat.errors import UserError
from unifeat.store import (
    cache_root,
    digests,
    key_of,
    machine_error,
    remove,
    sha256_of,
    write_json,
    write_text,
    written_aside,
)
from unifeat.store.paths import user_path
from unifeat.store.writing import _UMASK, aside_name, make_folder


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


def settled(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was changed long ago, by the clock that its digest is remembered by."""
    path.write_bytes(content)
    monkeypatch.setattr(digests, "_SETTLED_S", -1.0)
    return path


class TestSha256:
    def test_a_change_that_keeps_size_and_times_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """Container images set all times to 0; what no program can set gives the change away."""
        path = settled(tmp_path / "weights", b"one", monkeypatch)
        os.utime(path, ns=(0, 0))
        before = sha256_of(path)
        path.write_bytes(b"two")
        os.utime(path, ns=(0, 0))
        assert sha256_of(path) == hashlib.sha256(b"two").hexdigest() != before

    def test_another_file_in_its_place_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path, other = (settled(tmp_path / name, name.encode(), monkeypatch) for name in ("a", "b"))
        for one in (path, other):
            os.utime(one, ns=(0, 0))
        assert sha256_of(path) == hashlib.sha256(b"a").hexdigest()
        os.replace(other, path)
        assert sha256_of(path) == hashlib.sha256(b"b").hexdigest()

    def test_a_file_changed_just_now_is_not_remembered(self, tmp_path: Path):
        """It may change again within the tick of the clock that its times are read off."""
        path = tmp_path / "a"
        path.write_bytes(b"abc")
        sha256_of(path)
        assert not list((cache_root() / "digests").glob("*"))

    def test_a_damaged_memory_is_not_believed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = settled(tmp_path / "a", b"abc", monkeypatch)
        digest = sha256_of(path)
        (memo,) = (cache_root() / "digests").iterdir()
        held = memo.read_text()
        memo.write_text(("0" if held[0] != "0" else "1") + held[1:])
        assert sha256_of(path) == digest
        memo.write_bytes(b"\xff")
        assert sha256_of(path) == digest

    def test_a_cache_that_cannot_be_written_serves(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = settled(tmp_path / "a", b"abc", monkeypatch)
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "file"))
        assert sha256_of(path) == hashlib.sha256(b"abc").hexdigest()

    def test_follows_the_content(self, tmp_path: Path):
        path = tmp_path / "a"
        path.write_bytes(b"abc")
        assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        path.write_bytes(b"abd")
        os.utime(path, ns=(1, 1))
        assert sha256_of(path).startswith("a52d159f")

    def test_is_remembered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = settled(tmp_path / "a", b"abc", monkeypatch)
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

    def test_replaces_a_file_and_no_folder(self, tmp_path: Path):
        write_text(tmp_path / "file", "old")
        write_text(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "new"
        for text in ("old", "new"):
            with written_aside(tmp_path / "folder", replace=False) as aside:
                aside.mkdir()
                (aside / text).write_text(text)
        assert [p.name for p in (tmp_path / "folder").iterdir()] == ["old"]
        with (
            pytest.raises(ValueError, match="a folder cannot be replaced"),
            written_aside(tmp_path / "folder") as aside,
        ):
            aside.mkdir()
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []

    @pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOENT, "no")])
    def test_an_error_leaves_what_was_there(self, tmp_path: Path, error: BaseException):
        path = tmp_path / "file"
        write_text(path, "old")
        with pytest.raises(type(error)):
            fail_halfway(path, error)
        assert path.read_text() == "old"
        assert list(tmp_path.glob("*")) + list(tmp_path.glob(".p*")) == [path]

    def test_names_aside_are_never_the_same(self, tmp_path: Path):
        """Process ids are no names: two containers both have a process 1."""
        names = {aside_name(tmp_path / "out") for _ in range(1000)}
        assert len(names) == 1000
        assert all(str(os.getpid()) not in name.name.split("-")[1] or len(name.name) > 20 for name in names)

    def test_a_long_name_has_room_for_the_one_aside(self, tmp_path: Path):
        write_text(tmp_path / ("x" * 250), "new")
        assert [len(p.name) for p in tmp_path.iterdir()] == [250]

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_the_first_in_place_stays_where_asked(self, tmp_path: Path, kind: str):
        for text in ("first", "second"):
            with written_aside(tmp_path / "out", replace=False) as aside:
                if kind == "folder":
                    aside.mkdir()
                    (aside / "file").write_text(text)
                else:
                    aside.write_text(text)
        held = tmp_path / "out" / "file" if kind == "folder" else tmp_path / "out"
        assert held.read_text() == "first"
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_files_are_readable_for_whom_the_mask_lets_read(self, tmp_path: Path):
        """safetensors makes files for the owner alone: a colleague on a shared cache could not read them."""
        with written_aside(tmp_path / "folder") as aside:
            aside.mkdir()
            (aside / "file").touch(mode=0o600)
        write_text(tmp_path / "plain", "")
        modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("folder/file", "plain")]
        assert modes[0] == modes[1] == 0o666 & ~_UMASK

    def test_everything_is_flushed_before_it_is_renamed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """A power cut after the rename must not find an empty file under the final name."""
        done: list[str] = []
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", lambda fd: done.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
        monkeypatch.setattr(os, "replace", lambda a, b: done.append("renamed") or replace(a, b))
        with written_aside(tmp_path / "folder") as aside:
            aside.mkdir()
            (aside / "file").write_text("content")
        assert done == [str(aside / "file"), str(aside), "renamed", str(tmp_path)]

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
        with pytest.raises(FileNotFoundError), written_aside(tmp_path / "file"):
            raise FileNotFoundError(errno.ENOENT, "no")

    @pytest.mark.parametrize(
        ("number", "says"),
        [
            (errno.EROFS, "read-only"),
            (errno.EFBIG, "ulimit -f"),
            (errno.EMFILE, "ulimit -n"),
            (errno.EACCES, "permission denied"),
            (errno.ENOTDIR, "a file is where a folder should be"),
            (errno.ENAMETOOLONG, "longer than a file name"),
            (errno.EIO, "input/output error"),
        ],
    )
    def test_errors_of_the_machine_say_what_to_do(self, tmp_path: Path, number: int, says: str):
        with pytest.raises(UserError, match=f"writing .*file.*{says}"):
            fail_halfway(tmp_path / "file", OSError(number, os.strerror(number)))
        told = machine_error(RuntimeError(f"I/O error (os error {number})"), "reading x")
        assert told is not None
        assert says in str(told)

    def test_a_file_in_the_place_of_a_folder(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="a file is where a folder should be"):
            write_text(tmp_path / "file" / "deep" / "out", "")


class TestUserPath:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("a\0b", "NUL byte"),
            ("x" * 300, "longer than a file name"),
            ("/".join(["deep"] * 2000), "longer than a file name"),
            ("~nobody-of-that-name/x", "has no home directory"),
            ("a\ud800b", "half a character"),
        ],
    )
    def test_what_cannot_be_a_path(self, given: str, says: str):
        with pytest.raises(UserError, match=f"--out .*{says}") as caught:
            user_path(given, "--out")
        assert len(str(caught.value)) < 200
        str(caught.value).encode()

    def test_others_stay(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("HOME", "/home/me")
        assert user_path("~/ü x", "--out") == Path("/home/me/ü x")


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


def test_a_folder_that_is_removed_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`mkdir` finds it, and then it is gone."""
    folder, real, asked = tmp_path / "folder", Path.is_dir, []
    folder.mkdir()

    def is_dir(path: Path) -> bool:
        if path == folder and not asked:
            asked.append(path)
            folder.rmdir()
        return real(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    make_folder(folder)
    assert asked
    assert real(folder)


def test_a_folder_where_a_file_is(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "file/deep", "round", "round/deep", "link", "link/deep"):
        with pytest.raises(OSError, match=r"exists|[Nn]ot a directory|[Tt]oo many levels"):
            make_folder(tmp_path / name)
