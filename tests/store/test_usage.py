"""What is in the cache, who uses it, and what may go."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.store import JSON, TABLE, Piece, cache_root, writing
from unifeat.store.amounts import bytes_of, seconds_of
from unifeat.store.usage import RunNote, contents, prunable, prune

OLD = time.time() - 100 * 86400
STORE = "0123456789abcdef"


def made(kind: str, name: str) -> Path:
    piece = Piece(kind, {"name": name}, JSON)
    Unit(piece, lambda: name * 100).result()
    return piece.path


def age(path: Path) -> None:
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        os.utime(file, (OLD, OLD))


def run_of(folder: Path, study: str, *names: str, created: str = "now") -> Path:
    """A kept run that uses the scores of these names."""
    note = RunNote(folder, study)
    with note.under_way():
        for name in names:
            made("scores", name)
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps({"created": created}))
        note.finish(created)
    return folder


def reasons(**asked: object) -> dict[str, str]:
    found = prunable(contents(cache_root()), **asked)  # type: ignore[arg-type]
    return {str(entry.path.relative_to(cache_root())): why for entry, why in found}


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, Path]:
    """A kept run, one whose folder is gone, leftovers old and new."""
    run_of(tmp_path / "kept", "kept", "a", "b")
    gone = run_of(tmp_path / "gone", "gone", "b", "c")
    (gone / "run.json").unlink()
    paths = {name: made("scores", name) for name in "abc"}
    for name in ("old", "new"):
        left = cache_root() / "codes" / STORE / f".partial-{name}-shard"
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("half")
        if name == "old":
            age(left)
    (cache_root() / ".offload-x").mkdir()
    age(cache_root() / ".offload-x")
    return paths


def test_who_uses_what(cache: dict[str, Path]):
    studies = {entry.path: entry.studies for entry in contents(cache_root()) if entry.kind == "scores"}
    assert studies == {cache["a"]: {"kept"}, cache["b"]: {"kept"}, cache["c"]: set()}
    sizes = [entry.size for entry in contents(cache_root()) if entry.kind == "scores"]
    assert sizes == [path.stat().st_size for path in sorted(cache.values())]


def test_only_old_leftovers_go_unasked(cache: dict[str, Path]):
    assert reasons() == dict.fromkeys((".offload-x", f"codes/{STORE}/.partial-old-shard"), "left behind by a kill")


def test_what_no_kept_run_uses(cache: dict[str, Path], tmp_path: Path):
    found = reasons(unused=True)
    assert found[str(cache["c"].relative_to(cache_root()))] == "no kept run uses it"
    assert not {str(cache[name].relative_to(cache_root())) for name in "ab"} & set(found)
    assert str(cache["c"].relative_to(cache_root())) not in reasons(older_s=86400)
    age(cache["c"])
    assert str(cache["c"].relative_to(cache_root())) in reasons(older_s=86400)


def test_a_run_that_was_made_anew_elsewhere_is_not_the_noted_one(cache: dict[str, Path], tmp_path: Path):
    (tmp_path / "kept" / "run.json").write_text(json.dumps({"created": "later"}))
    assert all(not entry.studies for entry in contents(cache_root()))


def test_a_run_under_way_keeps_its_pieces(tmp_path: Path):
    note = RunNote(tmp_path / "running", "running")
    with note.under_way():
        path = made("scores", "mine")
        assert str(path.relative_to(cache_root())) not in reasons(unused=True)
        (noted,) = (cache_root() / "runs").iterdir()
        age(noted)  # it was killed long ago
        assert str(path.relative_to(cache_root())) in reasons(unused=True)
    assert list((cache_root() / "runs").iterdir()) == []


def test_a_run_that_fails_leaves_the_note_of_the_one_before(cache: dict[str, Path], tmp_path: Path):
    note = RunNote(tmp_path / "kept", "kept")
    with suppress(KeyboardInterrupt), note.under_way():
        made("scores", "c")
        raise KeyboardInterrupt
    studies = {entry.path: entry.studies for entry in contents(cache_root()) if entry.kind == "scores"}
    assert studies == {cache["a"]: {"kept"}, cache["b"]: {"kept"}, cache["c"]: set()}


def test_what_a_run_reads_on_is_noted_at_once(tmp_path: Path):
    """Notes are written twice a minute; what is read all along must not wait for the next one."""
    note = RunNote(tmp_path / "running", "running")
    with note.under_way():
        made("scores", "first")
        paths = [made(kind, "mine") for kind in ("text", "codes", "models", "scores")]
        gone = reasons(unused=True)
    assert [str(path.relative_to(cache_root())) in gone for path in paths] == [False, False, False, True]


def test_what_a_run_has_begun_to_use_since_it_was_chosen_stays(tmp_path: Path):
    """Somebody reads the list for a minute before saying yes."""
    text, scores = made("text", "mine"), made("scores", "other")
    chosen = prunable(contents(cache_root()), unused=True)
    with RunNote(tmp_path / "running", "running").under_way():
        made("text", "mine")
        prune(chosen)
    assert text.exists()
    assert not scores.exists()


def test_what_somebody_writes_into_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = cache_root() / "codes" / STORE
    folder.mkdir(parents=True)
    (folder / "shard").write_text("one")
    remove = writing.remove

    def slow(path: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "shard").write_text("another")
        remove(path)

    monkeypatch.setattr(writing, "remove", slow)
    prune(prunable(contents(cache_root()), unused=True))
    assert (folder / "shard").read_text() == "another"
    assert [path.name for path in folder.parent.iterdir()] == [STORE]


def test_a_cache_in_a_folder_with_other_things(tmp_path: Path):
    """UNIFEAT_CACHE=$HOME: nothing that unifeat has not named itself is listed, let alone removed."""
    mine = made("scores", "mine")
    others = ["papers/thesis.tex", "models/llama/model.bin", "runs/demo/run.json", "text/book.txt", "tmp/x", "x.tmp"]
    others += ["scores/notes.json", "codes/tmp-mine/x", "demo/tmp.txt", "training/book/.partial-x", ".tmpfile/x"]
    for name in others:
        (cache_root() / name).parent.mkdir(parents=True, exist_ok=True)
        (cache_root() / name).write_text("mine")
    age(cache_root())
    listed = {str(entry.path.relative_to(cache_root())) for entry in contents(cache_root())}
    assert listed == {f"scores/{mine.name}", "demo/tmp.txt"}
    prune(prunable(contents(cache_root()), unused=True, older_s=1, to_size=0))
    assert not mine.exists()
    assert all((cache_root() / name).read_text() == "mine" for name in others)


def test_the_least_used_goes_first_to_make_room(cache: dict[str, Path]):
    age(cache["a"])
    whole = sum(entry.size for entry in contents(cache_root()) if not entry.leftover)
    made_room = [key for key, why in reasons(to_size=0).items() if why == "to make room"]
    assert made_room[-2:] == [f"scores/{cache[name].name}" for name in "ab"]  # used ones last, the older of them first
    assert f"scores/{cache['c'].name}" in made_room[:-2]
    assert not any(key.startswith(("runs/", "digests/")) for key in made_room)
    assert list(reasons(to_size=whole - 1).values()).count("to make room") in (1, 2)
    assert "to make room" not in reasons(to_size=whole).values()


def test_pruning_frees_what_it_says(cache: dict[str, Path]):
    chosen = prunable(contents(cache_root()), unused=True)
    assert prune(chosen) == sum(entry.size for entry, _ in chosen)
    assert cache["a"].exists()
    assert not cache["c"].exists()
    assert prunable(contents(cache_root()), unused=True) == []
    assert Unit(Piece("scores", {"name": "c"}, JSON), lambda: "again").result() == "again"


def test_an_empty_cache_and_a_file():
    assert contents(cache_root()) == []
    cache_root().write_text("")
    with pytest.raises(UserError, match="is a file: set UNIFEAT_CACHE to a folder"):
        contents(cache_root())


def test_a_damaged_note_counts_for_nothing(cache: dict[str, Path]):
    for note in (cache_root() / "runs").iterdir():
        note.write_bytes(note.read_bytes()[:40])
    assert all(not entry.studies for entry in contents(cache_root()))


def test_folders_count_as_one_piece():
    piece = Piece("tables", {"n": 1}, TABLE)
    import pandas as pd

    piece.write(pd.DataFrame({"a": [1]}))
    (entry,) = contents(cache_root())
    assert entry.path == piece.path
    assert entry.size == sum(path.stat().st_size for path in piece.path.iterdir())


@pytest.mark.parametrize(("text", "expected"), [("20GB", 20e9), ("1.5 GiB", 1.5 * 2**30), ("100", 100), ("5mb", 5e6)])
def test_bytes(text: str, expected: float):
    assert bytes_of(text, "--to-size") == expected


@pytest.mark.parametrize(("text", "expected"), [("12h", 43200), ("30d", 30 * 86400), ("1.5w", 1.5 * 7 * 86400)])
def test_ages(text: str, expected: float):
    assert seconds_of(text, "--older") == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e99", "x" * 1000, "٣GB", "9" * 400, "1GB\n2"])
def test_no_amounts(text: str):
    for read in (bytes_of, seconds_of):
        with pytest.raises(UserError, match=r"--x .*give"):
            read(text, "--x")
