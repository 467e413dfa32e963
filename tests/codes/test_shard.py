"""Shards: what is written is read, mapped not copied; what is not whole is damaged, what cannot be read is not."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from stores import dense_of, is_mapped, places, random_dense, random_shard, shard_of
from unifeat import UserError
from unifeat.codes import shard as shard_module
from unifeat.codes.shard import Shard, narrow_ids, narrow_values, read_shard, write_shard
from unifeat.store.pieces import DamagedError
from unifeat.vocabulary.places import Places


@pytest.fixture
def shard() -> Shard:
    return random_shard(np.random.default_rng(0), rows=20)


@pytest.fixture
def path(tmp_path: Path, shard: Shard) -> Path:
    path = tmp_path / "shard-00007.safetensors"
    write_shard(path, shard)
    return path


def assert_same(one: Shard, other: Shard) -> None:
    for name, array in one.arrays().items():
        assert array.dtype == other.arrays()[name].dtype, name
        np.testing.assert_array_equal(array, other.arrays()[name], strict=True)
    assert one.stats == other.stats


def refused(path: Path, *, verify: bool = True) -> str:
    """How a damaged shard is said to be damaged; who reads it names the file."""
    with pytest.raises(DamagedError) as caught:
        read_shard(path, verify=verify)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("verify", [True, False])
def test_what_is_written_is_read(path: Path, shard: Shard, verify: bool) -> None:
    back, _ = read_shard(path, verify=verify)
    assert_same(shard, back)
    assert back.rows == 20


def test_arrays_are_mapped_not_copied(path: Path) -> None:
    back, _ = read_shard(path, verify=True)
    for name, array in back.arrays().items():
        assert is_mapped(array), name
        assert not array.flags.writeable


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_shards_without_codes(tmp_path: Path, rows: int) -> None:
    empty = shard_of(np.zeros((rows, 32), np.float32), places([0] * rows, range(rows)), {"read": rows})
    write_shard(tmp_path / "empty.safetensors", empty)
    back, _ = read_shard(tmp_path / "empty.safetensors", verify=True)
    assert_same(empty, back)
    assert back.rows == rows


def test_the_safetensors_library_reads_it_too(path: Path, shard: Shard) -> None:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        assert sorted(file.keys()) == sorted(shard.arrays())
        for name, array in shard.arrays().items():
            np.testing.assert_array_equal(file.get_tensor(name), array, strict=True)
        assert json.loads(file.metadata()["unifeat"])["format"] == "unifeat-codes/2"


def test_the_same_shard_is_the_same_file(tmp_path: Path, path: Path, shard: Shard) -> None:
    digest = write_shard(tmp_path / "again", shard)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert digest == read_shard(path, verify=True)[1]


def test_the_checksum_depends_on_everything(tmp_path: Path, shard: Shard) -> None:
    def digest(other: Shard) -> str:
        return write_shard(tmp_path / "other", other)

    changed = [replace(shard, stats=shard.stats | {"read": 24})]
    for name in ("feature", "value"):
        array = getattr(shard, name).copy()
        array[3] += 1
        changed.append(replace(shard, **{name: array}))
    for field in fields(Places):
        array = getattr(shard.places, field.name).copy()
        array[3] += 1
        changed.append(replace(shard, places=replace(shard.places, **{field.name: array})))
    indptr = shard.indptr.copy()
    indptr[3] += 1
    changed.append(replace(shard, indptr=indptr))
    assert len({digest(shard), *map(digest, changed)}) == len(changed) + 1


@pytest.mark.parametrize("verify", [True, False])
def test_truncated_anywhere(path: Path, verify: bool) -> None:
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    lengths = {*range(12), *range(header - 3, header + 3), *range(len(whole) - 9, len(whole))}
    for length in sorted(lengths | set(range(0, len(whole), 97))):
        path.write_bytes(whole[:length])
        refused(path, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_longer_than_it_should_be(path: Path, verify: bool) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, verify=verify)


def test_one_flipped_bit_anywhere(path: Path) -> None:
    """Every byte of the header, checksum and statistics included, and every seventh of the data; one bit each."""
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(header), *range(header, len(whole), 7), len(whole) - 1]:
        broken = bytearray(whole)
        broken[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        refused(path)


def test_overwritten_stretches(path: Path) -> None:
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(300):
        broken = bytearray(whole)
        start, length = int(rng.integers(len(whole))), int(rng.integers(1, 40))
        # Digits and brackets make headers that still parse, which is where a reader trips.
        letters = rng.choice(list(b'0123456789-[]{}",:. eIF'), length) if rng.random() < 0.5 else rng.bytes(length)
        broken[start : start + length] = bytes(letters)[: len(whole) - start]
        if broken != whole:
            path.write_bytes(broken)
            refused(path)


def header_of(path: Path) -> tuple[dict, bytes]:
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def with_header(path: Path, header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def said(header: dict, key: str, value: object) -> None:
    metadata = json.loads(header["__metadata__"]["unifeat"]) | {key: value}
    header["__metadata__"]["unifeat"] = json.dumps(metadata, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["value"].update(data_offsets=[-8, 4]),
        lambda h: h["value"].update(data_offsets=[0, 1 << 70]),
        lambda h: h["value"].update(data_offsets=[0.5, 4.5]),
        lambda h: h["value"].update(data_offsets="04"),
        lambda h: h["value"].update(data_offsets=[4]),
        lambda h: h["value"].update(shape=[]),
        lambda h: h["value"].update(shape=[-1]),
        lambda h: h["value"].update(shape=[1 << 40]),
        lambda h: h["value"].update(shape=7),
        lambda h: h["value"].update(dtype="F16"),
        lambda h: h["value"].update(dtype="I32"),
        lambda h: h["value"].update(dtype=[]),
        lambda h: h.update(value=[]),
        lambda h: h.update(value=None),
        lambda h: h.pop("token"),
        lambda h: h.pop("__metadata__"),
        lambda h: h.update(__metadata__=[]),
        lambda h: h["__metadata__"].pop("unifeat"),
        lambda h: h["__metadata__"].update(unifeat=None),
        lambda h: h["__metadata__"].update(unifeat="{"),
        lambda h: h["__metadata__"].update(unifeat="[]"),
        lambda h: said(h, "sha256", None),
        lambda h: said(h, "stats", 3),
        lambda h: said(h, "stats", {"read": 999}),
        lambda h: said(h, "format", "unifeat-codes/0"),
        lambda h: said(h, "more", 1),
    ],
)
def test_headers_that_say_something_else(path: Path, change: object) -> None:
    header, data = header_of(path)
    change(header)
    with_header(path, header, data)
    refused(path)


@pytest.mark.parametrize("header", [[], 3, None, "x", {}])
def test_headers_of_another_kind(path: Path, header: object) -> None:
    with_header(path, header, header_of(path)[1])
    refused(path)


def test_another_safetensors_file_is_not_a_shard(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros((3, 4), np.float32)}, path)
    assert re.search("format", refused(path, verify=False))


def test_a_missing_shard_is_not_a_damaged_one(tmp_path: Path) -> None:
    for verify in (True, False):
        with pytest.raises(FileNotFoundError):
            read_shard(tmp_path / "shard-00000.safetensors", verify=verify)


OF_THE_MACHINE = {
    errno.EMFILE: "too many open files: raise the limit",
    errno.ENFILE: "too many open files on this machine",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EIO: "the disk cannot read or write it",
    errno.ENOMEM: "out of memory",
    errno.ESTALE: "the network file system lost it",
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("number", OF_THE_MACHINE)
@pytest.mark.parametrize("of", ["stat", "open", "map"])
def test_errors_of_the_machine_are_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool, number: int, of: str
) -> None:
    """Whichever call meets them: a whole shard must not be taken for a damaged one, which is removed."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    if of == "map":
        monkeypatch.setattr(shard_module.mmap, "mmap", fail)
    else:
        monkeypatch.setattr(Path, of, fail)
    with pytest.raises(UserError, match=OF_THE_MACHINE[number]) as caught:
        read_shard(path, verify=verify)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


TOO_MANY = """
import os, resource, sys
from pathlib import Path
from unifeat import UserError
from unifeat.codes.shard import read_shard
from unifeat.vocabulary.places import Places

path = Path(sys.argv[1])
read_shard(path, verify=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
told = []
while len(told) < 3:
    try:
        read_shard(path, verify=True)
        break
    except UserError as error:
        told.append(str(error))
        os.close(held.pop())
for number in held:
    os.close(number)
read_shard(path, verify=True)
print(told)
"""


def test_too_many_open_files_in_earnest(path: Path) -> None:
    """A process that has no file number left, then one: opening fails first, then mapping; the shard is whole."""
    done = run_python(TOO_MANY, path)
    assert done.count("too many open files: raise the limit (ulimit -n)") >= 1
    assert done.count(str(path)) == done.count("too many open files")


def run_python(code: str, *args: object, umask: int = -1) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, umask=umask, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MODES = """
import os, sys
from pathlib import Path
import numpy as np
from unifeat.codes.shard import Shard, write_shard
from unifeat.store import write_text
from unifeat.vocabulary.places import Places

folder = Path(sys.argv[1])
none = np.zeros(0, np.int32)
write_shard(folder / "shard", Shard(np.zeros(1, np.int64), none, none.astype(np.float32), Places(*[none] * 4), {}))
write_text(folder / "text", "")
(folder / "plain").write_text("")
print(*(oct(os.stat(folder / name).st_mode & 0o777) for name in ("shard", "text", "plain")))
"""


@pytest.mark.parametrize(("umask", "mode"), [(0o022, "0o644"), (0o027, "0o640"), (0o002, "0o664"), (0o077, "0o600")])
def test_a_shard_can_be_read_by_whoever_reads_other_files(tmp_path: Path, umask: int, mode: str) -> None:
    """(safetensors by itself writes for the owner alone.)"""
    assert run_python(MODES, tmp_path, umask=umask).split() == [mode] * 3


def test_in_this_process_too(path: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_dense_round_trip(tmp_path: Path) -> None:
    dense = random_dense(np.random.default_rng(4), 30)
    write_shard(tmp_path / "s", shard_of(dense, places([0] * 30, range(30))))
    np.testing.assert_array_equal(dense_of(read_shard(tmp_path / "s", verify=True)[0]), dense)


class TestWidths:
    """Two-byte ids and values: format 2. Shards of format 1 had four bytes for each."""

    def test_a_shard_of_format_1_is_read(self, tmp_path: Path, shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as before:
            before.setattr(shard_module, "FORMAT", "unifeat-codes/1")
            before.setattr(shard_module._metadata_text, "__defaults__", ("unifeat-codes/1",))
            write_shard(tmp_path / "old", shard)
        assert b'\\"format\\":\\"unifeat-codes/1\\"' in (tmp_path / "old").read_bytes()
        back, _ = read_shard(tmp_path / "old", verify=True)
        assert_same(shard, back)

    def test_another_number_is_refused(self, tmp_path: Path, shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shard_module._metadata_text, "__defaults__", ("unifeat-codes/3",))
        write_shard(tmp_path / "new", shard)
        with pytest.raises(DamagedError, match=r"format 'unifeat-codes/3', expected unifeat-codes/2"):
            read_shard(tmp_path / "new", verify=True)

    @pytest.mark.parametrize(("features", "ids"), [(1, np.uint16), (65_536, np.uint16), (65_537, np.int32)])
    def test_ids_take_two_bytes_where_they_fit(self, features: int, ids: type) -> None:
        assert narrow_ids(features) == ids
        assert features - 1 <= np.iinfo(ids).max

    def test_narrow_shards_are_written_and_read(self, tmp_path: Path, shard: Shard) -> None:
        narrow = replace(shard, feature=shard.feature.astype(np.uint16), value=narrow_values(shard.value))
        write_shard(tmp_path / "narrow", narrow)
        back, _ = read_shard(tmp_path / "narrow", verify=True)
        assert (back.feature.dtype, back.value.dtype) == (np.uint16, np.float16)
        assert_same(narrow, back)
        np.testing.assert_allclose(back.value, shard.value, rtol=2.0**-11)

    def test_float16_rounds_to_the_nearest_and_keeps_what_fires(self) -> None:
        given = np.array([1.0004, -3.0, 1e-12, -1e-12, 65_504, 6.1e-8], np.float32)
        got = narrow_values(given)
        assert (got != 0).all()
        assert np.sign(got).tolist() == np.sign(given).tolist()
        assert got[[0, 1, 4]].tolist() == [1.0, -3.0, 65_504.0]
        assert got[2] == np.finfo(np.float16).smallest_subnormal == -got[3]

    @pytest.mark.parametrize("value", [65_520.0, -1e9])
    def test_what_float16_cannot_hold_is_refused(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"beyond the range of float16"):
            narrow_values(np.array([1.0, value], np.float32))
