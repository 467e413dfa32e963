"""A store of codes: its key, its manifest, what is missing, damaged, foreign, and how it is mended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from stores import SETTINGS, dense_of, random_shard, written
from unifeat import UserError
from unifeat.codes.shard import write_shard
from unifeat.codes.store import CodeStore
from unifeat.store import key_of


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
    store.verify(3, repair=False)
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


def test_a_store_made_with_other_settings(store: CodeStore) -> None:
    recorded = store.folder / "settings.json"
    recorded.write_text(json.dumps(store.settings | {"context": 64, "d_sae": 8}))
    before = files(store)
    with pytest.raises(UserError, match=r"other settings \(context, d_sae\)") as caught:
        again(store)
    assert str(store.folder) in str(caught.value)
    assert files(store) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_damaged_settings(store: CodeStore, text: str) -> None:
    (store.folder / "settings.json").write_text(text)
    with pytest.raises(UserError, match=r"settings\.json"):
        again(store)


def test_only_a_finished_store_can_be_opened(tmp_path: Path, shards: list) -> None:
    unfinished = written(tmp_path, shards, finish=False)
    assert not unfinished.finished()
    for folder in (unfinished.folder, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="not a finished store"):
            CodeStore.open(folder)


def refused(store: CodeStore, names: str) -> None:
    with pytest.raises(UserError, match="--repair") as caught:
        again(store).verify(3, repair=False)
    assert str(store.folder / names) in str(caught.value)


def repaired(store: CodeStore, shards: list) -> None:
    """`--repair` removes what is wrong and nothing else; encoding writes it anew, and the store is as it was."""
    mending = again(store)
    mending.verify(3, repair=True)
    assert not mending.finished()
    for number, shard in enumerate(shards):
        if not mending.has(number):
            write_shard(mending.shard_path(number), shard)
    mending.finish(3)
    again(store).verify(3, repair=False)


def damage(path: Path) -> None:
    broken = bytearray(path.read_bytes())
    broken[-5] ^= 4
    path.write_bytes(broken)


def test_a_damaged_shard(store: CodeStore, shards: list) -> None:
    before = files(store)
    damage(store.shard_path(1))
    refused(store, "shard-00001.safetensors")
    mending = again(store)
    mending.verify(3, repair=True)
    assert [mending.has(number) for number in range(3)] == [True, False, True]
    repaired(store, shards)
    assert files(store) == before


def test_several_damaged_shards(store: CodeStore, shards: list) -> None:
    before = files(store)
    damage(store.shard_path(0))
    store.shard_path(2).write_bytes(b"")
    refused(store, "shard-00000.safetensors")
    repaired(store, shards)
    assert files(store) == before


def test_a_missing_shard_of_a_finished_store(store: CodeStore, shards: list) -> None:
    before = files(store)
    store.shard_path(2).unlink()
    refused(store, "shard-00002.safetensors")
    repaired(store, shards)
    assert files(store) == before


def test_shards_changed_for_valid_ones(store: CodeStore, shards: list) -> None:
    """Each file is whole; only the manifest knows that they are in the wrong place."""
    before = files(store)
    first, second = store.shard_path(0), store.shard_path(1)
    content = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(content)
    refused(store, "shard-00000.safetensors is not the one in the manifest")
    repaired(store, shards)
    assert files(store) == before


def test_a_shard_from_another_store(store: CodeStore, shards: list) -> None:
    before = files(store)
    write_shard(store.shard_path(1), random_shard(np.random.default_rng(9), 1, document=1))
    refused(store, "shard-00001.safetensors")
    repaired(store, shards)
    assert files(store) == before


@pytest.mark.parametrize(
    "text",
    ["", '{"format": "unifeat-co', "[]", "{}", "null", '{"settings": {}, "shards": [{}, {}, {}]}', "SHORT", "\udc00"],
)
def test_a_damaged_manifest(store: CodeStore, shards: list, text: str) -> None:
    before = files(store)
    path = store.folder / "manifest.json"
    if text == "SHORT":
        manifest = json.loads(path.read_text())
        text = json.dumps(manifest | {"shards": manifest["shards"][:2]})
    path.write_bytes(text.encode(errors="surrogatepass"))
    refused(store, "manifest.json")
    repaired(store, shards)
    assert files(store) == before


@pytest.mark.parametrize("key", ["rows", "nonzeros", "stats", "sha256"])
def test_a_manifest_that_is_wrong_about_a_shard(store: CodeStore, shards: list, key: str) -> None:
    before = files(store)
    path = store.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][1][key] = {"read": 5} if key == "stats" else "5" if key == "sha256" else 5
    path.write_text(json.dumps(manifest))
    refused(store, "shard-00001.safetensors")
    repaired(store, shards)
    assert files(store) == before


def test_an_unfinished_store_is_checked_as_far_as_it_is(tmp_path: Path, shards: list) -> None:
    store = written(tmp_path, shards[:2], finish=False)
    again(store).verify(3, repair=False)
    damage(store.shard_path(1))
    refused(store, "shard-00001.safetensors")
    again(store).verify(3, repair=True)
    assert store.has(0)
    assert not store.has(1)


def test_what_an_object_remembers_of_the_manifest_ends_with_a_repair(store: CodeStore) -> None:
    path = store.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["rows"] = 1_000
    path.write_text(json.dumps(manifest))
    mending = again(store)
    assert mending.rows == 1_026
    content = mending.shard_path(0).read_bytes()
    mending.verify(3, repair=True)
    mending.shard_path(0).write_bytes(content)
    mending.finish(3)
    assert mending.rows == 66


def test_files_left_by_a_kill_are_no_shards(store: CodeStore) -> None:
    (store.folder / ".partial-123-shard-00000.safetensors").write_bytes(b"half")
    again(store).verify(3, repair=False)
    assert [shard.rows for shard in again(store).shards()] == [40, 1, 25]
