"""Files that want more memory, depth or digits than there is, and a machine that cannot read them: one line each."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from unifeat.errors import UserError
from unifeat.text.files import LONGEST_FILE, LONGEST_LINE, READERS, read_file
from unifeat.vocabulary.text_files import IN_PARTS, LOCAL_SUFFIXES, PACKED, STREAMED

MIB = 1 << 20


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_file(path, "text"))
    said = str(caught.value)
    assert "\n" not in said
    assert str(path) in said
    return said


def compressed(path: Path, parts: Iterator[bytes]) -> Path:
    with zstandard.ZstdCompressor(level=1).stream_writer(path.open("wb")) as file:
        for part in parts:
            file.write(part)
    return path


def peak_mib(path: Path) -> tuple[int, str]:
    """How much memory reading a file takes above that of the program, in MiB, and what it says."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "import pyarrow.parquet\n"
        "from unifeat.text.files import read_file\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "try:\n"
        "    print(sum(len(text) for text in read_file(Path(sys.argv[1]), 'text')), 'characters')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    *said, peak = done.stdout.strip().splitlines()
    return int(peak), "\n".join(said)


class TestMemory:
    def test_a_small_file_with_a_line_of_gigabytes(self, tmp_path: Path):
        path = compressed(tmp_path / "a.jsonl.zst", (b"x" * MIB for _ in range(3000)))
        assert path.stat().st_size < MIB
        peak, said = peak_mib(path)
        assert said.startswith(f"UserError text file {path}, line 1 is longer than 64 MiB")
        assert peak < 400

    def test_the_longest_line_in_characters_of_four_bytes(self, tmp_path: Path):
        def line() -> Iterator[bytes]:
            yield '{"text": "😀'.encode()
            for _ in range(LONGEST_LINE // MIB - 1):
                yield b"x" * MIB
            yield b'"}\n'

        peak, said = peak_mib(compressed(tmp_path / "a.jsonl.zst", line()))
        assert said == f"{LONGEST_LINE - MIB + 1} characters"
        assert peak < 1000

    def test_a_long_txt_file(self, tmp_path: Path):
        path = tmp_path / "a.txt"
        with path.open("wb") as file:
            file.truncate(20 << 30)  # a hole: 20 GiB of NUL bytes
        peak, said = peak_mib(path)
        assert said.startswith(f"UserError text file {path} is longer than {LONGEST_FILE // MIB} MiB")
        assert peak < 400

    def test_a_long_text_written_once_for_many_rows_of_parquet(self, tmp_path: Path):
        path, rows = tmp_path / "a.parquet", 400
        column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * (20 * MIB)]))
        pq.write_table(pa.table({"text": column}), path, compression="zstd")
        assert path.stat().st_size < MIB
        peak, said = peak_mib(path)
        assert said == f"{rows * 20 * MIB} characters"
        assert peak < 1000

    def test_a_cell_that_is_too_long(self, tmp_path: Path):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": ["x" * (LONGEST_LINE + 1)]}), path, compression="zstd")
        assert "it holds a text longer than 64 MiB" in refusal(path)


class TestContent:
    @pytest.mark.parametrize("opening", ['{"text": ', "[", '{"text": "a", "b": ' + "[" * 10])
    def test_json_nested_too_deeply(self, tmp_path: Path, opening: str):
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "one"}\n' + opening * 200_000 + "\n")
        assert "line 2: JSON nested too deeply" in refusal(path)

    def test_a_number_of_too_many_digits(self, tmp_path: Path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "one", "id": ' + "9" * 5000 + "}\n")
        assert "line 1: it holds a number too long" in refusal(path)

    def test_lines_end_as_on_any_system(self, tmp_path: Path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"text": "one"}\r{"text": "two"}\r\n\r\n{"text": "three"}\nbroken')
        found = read_file(path, "text")
        assert [next(found) for _ in range(3)] == ["one", "two", "three"]
        with pytest.raises(UserError, match="line 5: not JSON"):
            next(found)

    def test_a_nul_byte_is_a_character(self, tmp_path: Path):
        (tmp_path / "a.txt").write_bytes(b"a\0b")
        (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a\0b"}))
        pq.write_table(pa.table({"text": ["a\0b"]}), tmp_path / "a.parquet")
        for path in sorted(tmp_path.glob("a.*")):
            assert list(read_file(path, "text")) == ["a\0b"]

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
    def test_parquet_with_a_text_that_is_not_utf8(self, tmp_path: Path, kind: pa.DataType):
        wide = pa.large_binary() if kind == pa.large_string() else pa.binary()
        column = pa.array([b"Stra\xdfe"], wide).view(kind)
        pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
        assert "it holds a text that is not UTF-8" in refusal(tmp_path / "a.parquet")

    def test_parquet_of_bytes(self, tmp_path: Path):
        pq.write_table(pa.table({"text": [b"one"]}), tmp_path / "a.parquet")
        assert "field 'text' holds bytes, not text" in refusal(tmp_path / "a.parquet")

    def test_parquet_with_a_column_of_many(self, tmp_path: Path):
        rows = [f"document {n}" for n in range(1000)]
        pq.write_table(pa.table({"text": rows, "b": rows}), tmp_path / "a.parquet", row_group_size=300)
        assert list(read_file(tmp_path / "a.parquet", "text")) == rows


@contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(lowest)]  # no gap is left below the limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(held[0], lowest), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl.zst", "json.gz", "csv.xz", "parquet", "arrow"])
class TestMachine:
    def test_a_folder_in_the_place_of_a_file(self, tmp_path: Path, kind: str):
        (tmp_path / f"a.{kind}").mkdir()
        assert "a folder is where a file should be" in refusal(tmp_path / f"a.{kind}")

    def test_a_file_that_went_away(self, tmp_path: Path, kind: str):
        said = refusal(tmp_path / f"a.{kind}")
        assert "cannot be read: No such file" in said

    def test_too_many_open_files(self, tmp_path: Path, kind: str):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(b"")
        list(_quietly(path))  # what is imported when used is imported now
        with no_file_can_be_opened():
            said = refusal(path)
        assert "too many open files: raise the limit" in said

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_no_permission(self, tmp_path: Path, kind: str):
        path = tmp_path / f"a.{kind}"
        path.touch(mode=0)
        assert "permission denied" in refusal(path)


def _quietly(path: Path) -> Iterator[str]:
    try:
        yield from read_file(path, "text")
    except UserError:
        return


def test_every_kind_of_file_has_a_reader() -> None:
    assert tuple(READERS) == (*STREAMED, *IN_PARTS)
    assert {suffix for suffix in LOCAL_SUFFIXES if not suffix.endswith(PACKED)} == set(READERS)
