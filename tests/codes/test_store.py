"""A store of codes: its key, its manifest, what is missing, damaged, foreign, and how it is mended."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from stores import SETTINGS, dense_of, random_shard, written
from unifeat import UserError
from unifeat.codes import shard as shard_module
from unifeat.codes.shard import write_shard
from unifeat.codes.store import CodeStore
from unifeat.progress import set_mode
from unifeat.store import key_of

Told = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def heard() -> None:
    """What is said to the user reaches stderr, where `capsys` finds it."""
    set_mode("log")


@pytest.fixture
def shards() -> list:
    rng = np.random.default_rng(0)
    return [random_shard(rng, rows, document=number) for number, rows in enumerate((40, 1, 25))]


@pytest.fixture
def store(tmp_path: Path, shards: list) -> CodeStore:
    return written(tmp_path, shards)


def again(store: CodeStore) -> CodeStore:
    """The store as another process finds it."""
    return CodeStore.create(store.folder.parent, store.settings)


def files(store: CodeStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}


def test_what_is_in_it(store: CodeStore, shards: list) -> None:
    store = again(store)
    assert store.finished()
    assert (store.n_shards, store.rows, store.features) == (3, 66, 32)
    for mapped, shard in zip(store.shards(), shards, strict=True):
        np.testing.assert_array_equal(dense_of(mapped), dense_of(shard))
    assert store.totals()["read"] == sum(shard.stats["read"] for shard in shards)
    assert store.totals()["fvu_error"] == pytest.approx(sum(shard.stats["fvu_error"] for shard in shards))
    store.verify(3)
    np.testing.assert_array_equal(dense_of(CodeStore.open(store.folder).shard(2)), dense_of(shards[2]))


def test_the_manifest_says_what_is_in_each_shard(store: CodeStore, shards: list) -> None:
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["settings"] == store.settings == json.loads((store.folder / "settings.json").read_text())
    assert [entry["file"] for entry in manifest["shards"]] == [f"shard-{n:05d}.safetensors" for n in range(3)]
    for entry, shard in zip(manifest["shards"], shards, strict=True):
        assert entry["rows"] == shard.rows
        assert entry["nonzeros"] == len(shard.feature)
        assert entry["stats"] == shard.stats


def test_the_folder_is_named_by_the_settings(tmp_path: Path) -> None:
    one, other = CodeStore.create(tmp_path, SETTINGS), CodeStore.create(tmp_path, SETTINGS | {"context": 64})
    assert one.folder.name == key_of(SETTINGS) != other.folder.name
    assert CodeStore.create(tmp_path, dict(reversed(SETTINGS.items()))).folder == one.folder


def test_settings_that_say_another_store_are_made_again(store: CodeStore, capsys: Told) -> None:
    """The folder's name is made from the settings, so that other ones in it are damage: they are written anew."""
    before = files(store)
    recorded = store.folder / "settings.json"
    recorded.write_text(json.dumps(store.settings | {"context": 64, "d_sae": 8}))
    whole(again(store), capsys, f"warning: {recorded} is damaged (its settings differ: context, d_sae)")
    assert files(store) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "\udc00", "[" * 100_000])
def test_damaged_settings(store: CodeStore, text: str, capsys: Told) -> None:
    before = files(store)
    recorded = store.folder / "settings.json"
    recorded.write_bytes(text.encode(errors="surrogatepass"))
    whole(again(store), capsys, f"warning: {recorded} is damaged")
    assert files(store) == before


def test_settings_that_are_gone(store: CodeStore, capsys: Told) -> None:
    before = files(store)
    (store.folder / "settings.json").unlink()
    whole(again(store), capsys)
    assert files(store) == before


def whole(store: CodeStore, capsys: Told, *warnings: str) -> None:
    """Nothing is wrong with the store now, and nothing but `warnings` was said."""
    store.verify(3)
    assert store.finished()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(warnings), said
    for line, warning in zip(said, warnings, strict=True):
        assert line.startswith(warning)
        assert line.endswith("made again")


def test_only_a_finished_store_can_be_opened(tmp_path: Path, shards: list) -> None:
    unfinished = written(tmp_path, shards, finish=False)
    assert not unfinished.finished()
    for folder in (unfinished.folder, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="not a finished store"):
            CodeStore.open(folder)


@pytest.mark.parametrize("name", ["settings.json", "manifest.json"])
@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\udc00"])
def test_a_damaged_one_cannot_be_opened_by_its_folder(store: CodeStore, name: str, text: str) -> None:
    (store.folder / name).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError, match="not a finished store"):
        CodeStore.open(store.folder)


def mended(store: CodeStore, shards: list, capsys: Told, *names: str) -> None:
    """What is wrong is named, in one line each, and removed, and nothing else; encoding writes it anew, and the store
    is as it was."""
    mending = again(store)
    capsys.readouterr()
    mending.verify(3)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(names), said
    for line, name in zip(said, names, strict=True):
        assert line.startswith("warning: ")
        assert str(store.folder / name) in line
        assert line.endswith(("it is encoded again", "it is made again"))
    assert not mending.finished()
    wrong = {name for name in names if name.startswith("shard")}
    assert {store.shard_path(n).name for n in range(3) if not mending.has(n)} == {w.split()[0] for w in wrong}
    for number, shard in enumerate(shards):
        if not mending.has(number):
            write_shard(mending.shard_path(number), shard)
    mending.finish(3)
    again(store).verify(3)
    assert capsys.readouterr().err == ""


def damage(path: Path) -> None:
    broken = bytearray(path.read_bytes())
    broken[-5] ^= 4
    path.write_bytes(broken)


def test_a_damaged_shard(store: CodeStore, shards: list, capsys: Told) -> None:
    before = files(store)
    damage(store.shard_path(1))
    mended(store, shards, capsys, "shard-00001.safetensors is damaged (its checksum does not match")
    assert files(store) == before


def test_several_damaged_shards(store: CodeStore, shards: list, capsys: Told) -> None:
    before = files(store)
    damage(store.shard_path(0))
    store.shard_path(2).write_bytes(b"")
    mended(store, shards, capsys, "shard-00000.safetensors is damaged", "shard-00002.safetensors is damaged")
    assert files(store) == before


def test_a_missing_shard_of_a_finished_store(store: CodeStore, shards: list, capsys: Told) -> None:
    before = files(store)
    store.shard_path(2).unlink()
    mended(store, shards, capsys, "shard-00002.safetensors is missing")
    assert files(store) == before


def test_shards_changed_for_valid_ones(store: CodeStore, shards: list, capsys: Told) -> None:
    """Each file is whole; only the manifest knows that they are in the wrong place."""
    before = files(store)
    first, second = store.shard_path(0), store.shard_path(1)
    content = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(content)
    how = "is damaged (it differs from the manifest)"
    mended(store, shards, capsys, f"shard-00000.safetensors {how}", f"shard-00001.safetensors {how}")
    assert files(store) == before


def test_a_shard_from_another_store(store: CodeStore, shards: list, capsys: Told) -> None:
    before = files(store)
    store.shard_path(1).unlink()
    write_shard(store.shard_path(1), random_shard(np.random.default_rng(9), 1, document=1))
    mended(store, shards, capsys, "shard-00001.safetensors is damaged (it differs from the manifest)")
    assert files(store) == before


@pytest.mark.parametrize(
    "text",
    [
        *("", '{"format": "unifeat-co', "[]", "{}", "null", '{"settings": {}, "shards": [{}, {}, {}]}', "SHORT"),
        *("\udc00", "[" * 100_000),
    ],
)
def test_a_damaged_manifest(store: CodeStore, shards: list, text: str, capsys: Told) -> None:
    before = files(store)
    path = store.folder / "manifest.json"
    if text == "SHORT":
        manifest = json.loads(path.read_text())
        text = json.dumps(manifest | {"shards": manifest["shards"][:2]})
    path.write_bytes(text.encode(errors="surrogatepass"))
    mended(store, shards, capsys, "manifest.json is damaged")
    assert files(store) == before


WRONG = {"rows": 5, "nonzeros": 5, "stats": {"read": 5}, "sha256": "5"}


@pytest.mark.parametrize("key", WRONG)
def test_a_manifest_that_is_wrong_about_a_shard(store: CodeStore, shards: list, key: str, capsys: Told) -> None:
    """Its own checksum tells: the shards, which carry theirs, stay."""
    before = files(store)
    path = store.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][1][key] = WRONG[key]
    path.write_text(json.dumps(manifest))
    mended(store, shards, capsys, "manifest.json is damaged (its checksum does not match)")
    assert files(store) == before


@pytest.mark.parametrize("key", WRONG)
def test_a_manifest_without_a_checksum_is_held_against_the_shards(
    store: CodeStore, shards: list, key: str, capsys: Told
) -> None:
    """As older versions wrote it."""
    path = store.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest))
    again(store).verify(3)
    assert again(store).finished()
    assert capsys.readouterr().err == ""
    manifest["shards"][1][key] = WRONG[key]
    path.write_text(json.dumps(manifest))
    mended(store, shards, capsys, "shard-00001.safetensors is damaged (it differs from the manifest)")


NOT_DAMAGE = {errno.EMFILE: "too many open files", errno.EACCES: "permission denied", errno.EIO: "check the disk"}


@pytest.mark.parametrize("number", NOT_DAMAGE)
@pytest.mark.parametrize("name", ["shard-00001.safetensors", "manifest.json"])
def test_errors_of_the_machine_remove_nothing(
    store: CodeStore, monkeypatch: pytest.MonkeyPatch, number: int, name: str, capsys: Told
) -> None:
    """What cannot be opened at the moment is not damaged: hours of encoding would be thrown away."""
    before = files(store)
    opened = Path.open

    def fail(path: Path, *args: object, **kwargs: object) -> object:
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *args, **kwargs)  # type: ignore[call-overload]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail)
        with pytest.raises(UserError, match=NOT_DAMAGE[number]) as caught:
            again(store).verify(3)
    assert str(store.folder / name) in str(caught.value)
    assert capsys.readouterr().err == ""
    assert files(store) == before
    assert again(store).finished()


def test_too_many_maps_remove_nothing(store: CodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(store)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(shard_module.mmap, "mmap", fail)
    with pytest.raises(UserError, match=r"reading .*shard-00000\.safetensors: out of memory"):
        again(store).verify(3)
    assert files(store) == before


def test_what_cannot_be_removed_is_told(store: CodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(store.shard_path(1))

    def fail(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(UserError, match=r"manifest .*manifest\.json cannot be made again: permission denied"):
        again(store).verify(3)


def test_damage_after_the_check(store: CodeStore) -> None:
    """A shard that breaks, or goes, while the codes are in use ends in one line that says what to do."""
    reading = again(store)
    reading.verify(3)
    reading.shard_path(1).write_bytes(b"")
    reading.shard_path(2).unlink()
    for number in (1, 2):
        with pytest.raises(UserError, match=r"was damaged during the run .*run the same command again") as caught:
            reading.shard(number)
        assert str(reading.shard_path(number)) in str(caught.value)


def test_an_unfinished_store_is_checked_as_far_as_it_is(tmp_path: Path, shards: list, capsys: Told) -> None:
    store = written(tmp_path, shards[:2], finish=False)
    again(store).verify(3)
    assert capsys.readouterr().err == ""
    damage(store.shard_path(1))
    again(store).verify(3)
    assert f"shard {store.shard_path(1)} is damaged" in capsys.readouterr().err
    assert store.has(0)
    assert not store.has(1)


def test_what_an_object_remembers_of_the_manifest_ends_with_it(store: CodeStore) -> None:
    path = store.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["rows"] = 1_000
    path.write_text(json.dumps(manifest))
    mending = again(store)
    assert mending.rows == 1_026
    mending.verify(3)
    mending.finish(3)
    assert mending.rows == 66


def test_files_left_by_a_kill_are_no_shards(store: CodeStore) -> None:
    (store.folder / ".partial-123-shard-00000.safetensors").write_bytes(b"half")
    again(store).verify(3)
    assert [shard.rows for shard in again(store).shards()] == [40, 1, 25]
