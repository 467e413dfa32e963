"""Every kind of file, packed in every way, gives the same documents; what is wrong with one is one line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from test_files import MIB, peak_mib, refusal

from unifeat.errors import UserError
from unifeat.text import arrow_files, rows
from unifeat.text.arrow_files import unpacked_size
from unifeat.text.corpus import build_corpus
from unifeat.text.files import LONGEST_FILE, read_file
from unifeat.text.sources import find_source, read_documents
from unifeat.vocabulary.text_files import IN_PARTS, OFTEN_NOTES, PACKED, STREAMED

DOCUMENTS = ['First document.\nTwo lines, and a "quote".', "Zweites:\tä ö 😀", "第三 document"]
ROWS = [{"id": 1, "text": text} for text in DOCUMENTS]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_content_size=False).compress,
}


def table(delimiter: str, newline: str = "\n") -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["id", "text"], delimiter=delimiter, lineterminator=newline)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue()


CONTENT = {
    ".txt": DOCUMENTS[0],
    ".md": DOCUMENTS[0],
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    ".ndjson": "".join(json.dumps(row) + "\n" for row in ROWS),
    ".json": json.dumps(ROWS, indent=2, ensure_ascii=False),
    ".csv": table(","),
    ".tsv": table("\t"),
}


def expected(kind: str) -> list[str]:
    return DOCUMENTS[:1] if kind in (".txt", ".md") else DOCUMENTS


def read(path: Path, field: str = "text") -> list[str]:
    return list(read_documents(find_source(str(path)), field, "train", None))


def test_every_kind_is_tried() -> None:
    assert set(CONTENT) == set(STREAMED)
    assert set(PACK) == {"", *PACKED}


@pytest.mark.parametrize("kind", STREAMED)
@pytest.mark.parametrize("packing", PACK)
class TestStreamedKinds:
    def test_the_same_documents(self, tmp_path: Path, kind: str, packing: str) -> None:
        path = tmp_path / f"a{kind}{packing}"
        path.write_bytes(PACK[packing](CONTENT[kind].encode()))
        assert read(path) == expected(kind)
        large = path.rename(tmp_path / f"A{kind}{packing}".upper())
        assert read(large) == expected(kind)
        assert read(tmp_path) == expected(kind)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le"])
    def test_byte_order_marks(self, tmp_path: Path, kind: str, packing: str, encoding: str) -> None:
        mark = "" if encoding == "utf-8-sig" else "\ufeff"
        path = tmp_path / f"a{kind}{packing}"
        path.write_bytes(PACK[packing]((mark + CONTENT[kind]).encode(encoding)))
        assert read(path) == expected(kind)

    def test_a_file_of_nothing(self, tmp_path: Path, kind: str, packing: str) -> None:
        path = tmp_path / f"a{kind}{packing}"
        for nothing in (PACK[packing](b""), b""):
            path.write_bytes(nothing)
            assert read(path) == []

    def test_no_utf8(self, tmp_path: Path, kind: str, packing: str) -> None:
        path = tmp_path / f"a{kind}{packing}"
        path.write_bytes(PACK[packing](CONTENT[kind].replace("F", "ß").encode("latin-1", "replace")))
        assert "is not UTF-8" in refusal(path)


@pytest.mark.parametrize("packing", PACKED)
class TestPackings:
    def whole(self, packing: str) -> bytes:
        return PACK[packing]("".join(json.dumps({"text": f"{n} {n * n}"}) + "\n" for n in range(3000)).encode())

    @pytest.mark.parametrize("kept", [0.3, 0.999])
    def test_cut_off(self, tmp_path: Path, packing: str, kept: float) -> None:
        path = tmp_path / f"a.jsonl{packing}"
        whole = self.whole(packing)
        path.write_bytes(whole[: int(kept * len(whole))])
        assert "is damaged (" in refusal(path)

    def test_damaged(self, tmp_path: Path, packing: str) -> None:
        path = tmp_path / f"a.jsonl{packing}"
        whole = bytearray(self.whole(packing))
        whole[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
        path.write_bytes(whole)
        said = refusal(path)
        assert "is damaged (" in said or "not JSON" in said or "not UTF-8" in said  # (.gz and .zst find it at the end)

    def test_not_packed_at_all(self, tmp_path: Path, packing: str) -> None:
        path = tmp_path / f"a.jsonl{packing}"
        path.write_text(CONTENT[".jsonl"])
        assert "is damaged (at its start)" in refusal(path)

    def test_several_one_after_the_other(self, tmp_path: Path, packing: str) -> None:
        path = tmp_path / f"a.jsonl{packing}"
        half = CONTENT[".jsonl"].encode()
        path.write_bytes(PACK[packing](half[:50]) + PACK[packing](half[50:]))
        assert read(path) == DOCUMENTS

    def test_a_small_file_with_a_line_of_gigabytes(self, tmp_path: Path, packing: str) -> None:
        part = PACK[packing](b"x" * (32 * MIB))
        for kind, said in ((".jsonl", "line 1 is longer than 64 MiB"), (".json", "entry 1: not JSON")):
            path = tmp_path / f"a{kind}{packing}"
            with path.open("wb") as file:
                for _ in range(64):
                    file.write(part)
            peak, answer = peak_mib(path)
            if kind == ".jsonl":
                assert said in answer
            else:
                assert "is longer than 32 MiB, or is not JSON" in answer
            assert peak < 500

    @pytest.mark.slow
    def test_a_text_of_gigabytes(self, tmp_path: Path, packing: str) -> None:
        part = PACK[packing](b"x" * (32 * MIB))
        path = tmp_path / f"a.txt{packing}"
        with path.open("wb") as file:
            for _ in range(64):
                file.write(part)
        peak, answer = peak_mib(path)
        assert f"is longer than {LONGEST_FILE // MIB} MiB" in answer
        assert peak < 500

    def test_a_kind_that_packs_itself(self, tmp_path: Path, packing: str) -> None:
        for kind in IN_PARTS:
            path = tmp_path / f"a{kind}{packing}"
            path.write_bytes(b"x")
            with pytest.raises(UserError, match=rf"unpack it first \({kind} files are packed within\)"):
                read(path)


def test_an_xz_that_asks_for_gigabytes_of_memory(tmp_path: Path) -> None:
    """A dictionary of 2 GiB, said in the header of a file of a hundred bytes."""
    raw = bytearray(lzma.compress(b"x" * 100))
    assert (raw[14], raw[15]) == (0x21, 1)  # LZMA2, one byte of properties: the size of the dictionary
    raw[16] = 38
    end = 12 + 4 * (raw[12] + 1)
    raw[end - 4 : end] = struct.pack("<I", zlib.crc32(bytes(raw[12 : end - 4])))
    (tmp_path / "a.txt.xz").write_bytes(raw)
    peak, said = peak_mib(tmp_path / "a.txt.xz")
    assert said.endswith("is damaged (at its start): Memory usage limit exceeded")
    assert peak < 100


def test_an_xz_with_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    half = CONTENT[".jsonl"].encode()
    path.write_bytes(lzma.compress(half[:50]) + b"\0" * 70_000 + lzma.compress(half[50:]) + b"\0" * 8)
    assert read(path) == DOCUMENTS


class TestJson:
    def read(self, tmp_path: Path, text: str) -> list[str]:
        (tmp_path / "a.json").write_text(text)
        return list(read_file(tmp_path / "a.json", "text"))

    @pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
    @pytest.mark.parametrize(
        "text",
        [
            json.dumps(ROWS),
            json.dumps(DOCUMENTS),
            json.dumps(ROWS[:2]) + "\n" + json.dumps(ROWS[2:]) + "\n[ ]\n",
            CONTENT[".jsonl"],
            "\n\n".join(json.dumps(row, indent=4) for row in ROWS),
        ],
    )
    def test_arrays_lines_and_values(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk: int
    ) -> None:
        monkeypatch.setattr(rows, "_CHUNK", chunk)
        assert self.read(tmp_path, text) == DOCUMENTS

    @pytest.mark.parametrize("text", ["", "[]", " [ ] \n"])
    def test_nothing(self, tmp_path: Path, text: str) -> None:
        assert self.read(tmp_path, text) == []

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('{"data": [{"text": "a"}]}', "entry 1 has no field 'text': set text.field to one of ['data']"),
            ('[{"text": "a"}, {"text": 3}]', "entry 2: field 'text' holds int, not text"),
            ("[1, 2]", "entry 1 has no field 'text': set text.field to one of int"),
            ('[{"text": "a"}, {"text": ]', "entry 2: not JSON"),
            ('[{"text": "a"}, {"text": "b', "entry 2: not JSON"),
            ('[{"text": "a"}, ', "is damaged: it ends before the end of its array"),
            ("[[[" * 100_000, "entry 1: JSON nested too deeply to be read"),
            ('[{"text": "a", "n": ' + "9" * 5000 + "}]", "entry 1: it holds a number too long"),
            ("some text", "entry 1: not JSON"),
        ],
    )
    def test_what_is_wrong_names_the_entry(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "a.json").write_text(text)
        assert said in refusal(tmp_path / "a.json")

    @pytest.mark.slow
    def test_the_longest_entry_in_characters_of_four_bytes(self, tmp_path: Path) -> None:
        with (tmp_path / "a.json").open("w", encoding="utf-8") as file:
            file.write('["😀')
            for _ in range(rows.LONGEST_ENTRY // MIB - 1):
                file.write("x" * MIB)
            file.write('", "b"]')
        peak, said = peak_mib(tmp_path / "a.json")
        assert said == f"{rows.LONGEST_ENTRY - MIB + 2} characters"
        assert peak < 1000

    @pytest.mark.slow
    def test_many_entries_take_no_memory(self, tmp_path: Path) -> None:
        with gzip.open(tmp_path / "a.json.gz", "wt", compresslevel=1) as file:
            file.write("[" + '"' + "x" * 5000 + '"')
            for _ in range(20_000):
                file.write(',\n"' + "x" * 5000 + '"')
            file.write("]")
        peak, said = peak_mib(tmp_path / "a.json.gz")
        assert said == f"{20_001 * 5000} characters"
        assert peak < 80


class TestTables:
    @pytest.mark.parametrize(("kind", "delimiter"), [("csv", ","), ("tsv", "\t")])
    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
    def test_lines_end_as_on_any_system(self, tmp_path: Path, kind: str, delimiter: str, newline: str) -> None:
        path = tmp_path / f"a.{kind}"
        path.write_bytes(("\n" + table(delimiter, newline) + newline).encode())
        assert read(path) == DOCUMENTS

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("id,body\n1,a\n", "has no column 'text': set text.field to one of ['id', 'body']"),
            ("text\n", ""),
            ("id,text\n1,a\n2\n", "line 3: 1 cells, but the first row names 2 columns"),
            ("id,text\n1,a\n2,b,c\n", "line 3: 3 cells, but the first row names 2 columns"),
            ('id,text\n1,a\n2,"b\nc\n', "line 4: not a table with commas (unexpected end of data)"),
            ('id,text\n1,"a" b\n', "line 2: not a table with commas"),
        ],
    )
    def test_what_is_wrong_names_the_line(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "a.csv").write_text(text)
        if not said:
            assert read(tmp_path / "a.csv") == []
            return
        assert said in refusal(tmp_path / "a.csv")

    @pytest.mark.parametrize(
        ("begins", "goes_on", "said"),
        [
            ('id,text\n1,"', "x" * 64 + "\n", "a row longer than 32 MiB, or with a quote that is not closed"),
            ("id,text\n1,", "x", "a row longer than 32 MiB"),
            pytest.param("id,text\n1,", '"a\n","b\n",', "a row longer than 32 MiB", marks=pytest.mark.slow),
        ],
    )
    def test_a_row_of_gigabytes(self, tmp_path: Path, begins: str, goes_on: str, said: str) -> None:
        """A quote that is not closed; a line that does not end; many short cells of several lines."""
        part = gzip.compress((goes_on * (16 * MIB // len(goes_on))).encode(), 1)
        path = tmp_path / "a.csv.gz"
        with path.open("wb") as file:
            file.write(gzip.compress(begins.encode()))
            for _ in range(64):
                file.write(part)
        peak, answer = peak_mib(path)
        assert said in answer
        assert peak < 1000

    def test_a_long_cell(self, tmp_path: Path) -> None:
        """Longer than Python's parser takes by itself."""
        (tmp_path / "a.csv").write_text("text\n" + "x" * MIB + "\n")
        assert read(tmp_path / "a.csv") == ["x" * MIB]


def arrow_table(kind: pa.DataType | None = None, texts: list[str | None] | None = None) -> pa.Table:
    column = pa.array(DOCUMENTS if texts is None else texts, pa.string())
    return pa.table({"id": pa.array(range(len(column))), "text": column.cast(kind) if kind else column})


def write_arrow(path: Path, held: pa.Table, *, stream: bool = True, packing: str | None = None) -> Path:
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(path), held.schema, options=pa.ipc.IpcWriteOptions(compression=packing)) as writer:
        writer.write_table(held, max_chunksize=2)
    return path


class TestArrow:
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("packing", [None, "lz4", "zstd"])
    @pytest.mark.parametrize(
        "kind", [None, pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    )
    def test_files_and_streams(
        self, tmp_path: Path, stream: bool, packing: str | None, kind: pa.DataType | None
    ) -> None:
        held = arrow_table(kind)
        for ending in ("arrow", "feather"):
            assert read(write_arrow(tmp_path / f"a.{ending}", held, stream=stream, packing=packing)) == DOCUMENTS

    @pytest.mark.parametrize("packing", [None, "zstd"])
    def test_files_with_room_before_their_batches(self, tmp_path: Path, packing: str | None) -> None:
        """As polars writes them: only the footer says where a batch begins."""
        path = write_arrow(tmp_path / "a.arrow", arrow_table(), stream=False, packing=packing)
        whole = path.read_bytes()
        shift = 56
        length = int.from_bytes(whole[-10:-6], "little")
        footer = bytearray(whole[-10 - length : -10])
        batches = len(arrow_table().to_batches(max_chunksize=2))
        moved = 0
        for at in range(length - 7):
            offset = int.from_bytes(footer[at : at + 8], "little")
            # a block: where a message begins, in 8 bytes, of which it says again how long its metadata are
            if 8 <= offset < len(whole) - 8 and whole[offset : offset + 4] == b"\xff" * 4:
                footer[at : at + 8] = (offset + shift).to_bytes(8, "little")
                moved += 1
        assert moved == batches
        path.write_bytes(whole[:8] + bytes(shift) + whole[8 : -10 - length] + bytes(footer) + whole[-10:])
        assert pa.ipc.open_file(str(path)).read_all().num_rows == len(DOCUMENTS)
        assert read(path) == DOCUMENTS

    def test_what_the_datasets_library_saves(self, tmp_path: Path) -> None:
        """A folder with its facts in .json beside the text."""
        import datasets

        datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
        assert (tmp_path / "saved" / "dataset_info.json").exists()
        assert read(tmp_path / "saved") == DOCUMENTS

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("damage", ["noise", "empty", "cut", "body"])
    def test_damaged(self, tmp_path: Path, stream: bool, damage: str) -> None:
        held = arrow_table(texts=[f"document {n}" for n in range(500)])
        path = write_arrow(tmp_path / "a.arrow", held, stream=stream, packing="lz4")
        whole = path.read_bytes()
        middle = whole.index(b"\xff\xff\xff\xff", len(whole) // 2)
        broken = {"noise": b"no arrow" * 50, "empty": b"", "cut": whole[: middle + 40]}
        broken["body"] = whole[: middle + 16] + b"\xff" * 64 + whole[middle + 80 :]
        path.write_bytes(broken[damage])
        assert "is not an Arrow file, or is damaged" in refusal(path)

    def test_offsets_that_point_outside(self, tmp_path: Path) -> None:
        path = write_arrow(tmp_path / "a.arrow", pa.table({"text": ["one", "two"]}))
        raw = path.read_bytes()
        offsets = struct.pack("<iii", 0, 3, 6)
        assert raw.count(offsets) == 1
        path.write_bytes(raw.replace(offsets, struct.pack("<iii", 0, 3, 1 << 30)))
        assert "is not an Arrow file, or is damaged" in refusal(path)

    def test_no_utf8(self, tmp_path: Path) -> None:
        column = pa.array([b"Stra\xdfe"], pa.binary()).view(pa.string())
        assert "Invalid UTF8" in refusal(write_arrow(tmp_path / "a.arrow", pa.table({"text": column})))

    def test_a_wrong_column(self, tmp_path: Path) -> None:
        write_arrow(tmp_path / "a.arrow", arrow_table())
        with pytest.raises(UserError, match=r"has no column 'body': set text.field to one of \['id', 'text'\]"):
            read(tmp_path / "a.arrow", "body")
        write_arrow(tmp_path / "a.arrow", pa.table({"text": [1, 2]}))
        assert "field 'text' holds int, not text" in refusal(tmp_path / "a.arrow")

    @pytest.mark.parametrize("kind", [None, pa.dictionary(pa.int32(), pa.string())])
    @pytest.mark.parametrize("packing", ["lz4", "zstd"])
    def test_what_a_batch_will_take_is_read_first(self, tmp_path: Path, packing: str, kind: Any) -> None:
        """What the messages say of themselves is what Arrow then needs."""
        held = arrow_table(kind, [chr(97 + n) * 50_000 for n in range(4)])
        path = write_arrow(tmp_path / "a.arrow", held, packing=packing)
        with pa.memory_map(str(path)) as source:
            said = sum(unpacked_size(bytes(m.metadata), m.body) for m in messages(source))
        assert 200_000 <= said < 201_000
        plain = write_arrow(tmp_path / "b.arrow", held)
        with pa.memory_map(str(plain)) as source:
            assert sum(unpacked_size(bytes(m.metadata), m.body) for m in messages(source)) == 0

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_small_file_with_a_batch_of_gigabytes(
        self, tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arrow_files, "_LARGEST_BATCH", 3 * MIB)
        held = arrow_table(texts=["x" * MIB] * 8)
        path = write_arrow(tmp_path / "a.arrow", held, stream=stream, packing="zstd")
        assert path.stat().st_size < 10_000
        assert len(read(path)) == 8  # two to a batch
        monkeypatch.setattr(arrow_files, "_LARGEST_BATCH", MIB)
        assert "it holds a batch of 2 MiB, more than 1: write it in smaller batches" in refusal(path)


def messages(source: Any) -> Iterator[Any]:
    reader = pa.ipc.MessageReader.open_stream(source)
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


class TestStreams:
    """Standard input and what the shell's `<(…)` gives: pipes, which have no names."""

    @staticmethod
    def through_a_pipe(raw: bytes, read_it: Callable[[str], Any], *, at_once: int = 1 << 20) -> Any:
        reader, writer = os.pipe()

        def write() -> None:
            with os.fdopen(writer, "wb", buffering=0) as file:
                for start in range(0, len(raw), at_once):
                    file.write(raw[start : start + at_once])

        thread = threading.Thread(target=write)
        thread.start()
        try:
            return read_it(f"/dev/fd/{reader}")
        finally:
            os.close(reader)
            thread.join()

    @pytest.mark.parametrize("packing", PACK)
    @pytest.mark.parametrize("kind", [".txt", ".jsonl", ".json"])
    @pytest.mark.parametrize("at_once", [1, 1 << 20])
    def test_what_is_in_them_is_told_by_how_it_begins(self, packing: str, kind: str, at_once: int) -> None:
        raw = PACK[packing](("\ufeff" + CONTENT[kind]).encode())
        found = self.through_a_pipe(raw, lambda name: read(Path(name)), at_once=at_once)
        assert found == expected(kind)

    @pytest.mark.parametrize("text", ["[Illustration]\n\nCHAPTER I", "{not JSON}", "[1] A footnote", "a,b\nc,d"])
    def test_text_that_begins_with_a_bracket(self, text: str) -> None:
        assert self.through_a_pipe(text.encode(), lambda name: read(Path(name))) == [text]

    def test_a_corpus_of_one(self) -> None:
        def build(name: str) -> Any:
            return build_corpus(name, documents=2, tokens=None, count_tokens=len, tokenizer_digest="")

        corpus = self.through_a_pipe(CONTENT[".jsonl"].encode(), build)
        assert corpus.documents == 2
        assert [part.text for part in corpus.parts(0)] == DOCUMENTS[:2]

    @pytest.mark.parametrize("name", ["-", "/dev/stdin"])
    @pytest.mark.parametrize("piped", [True, False])
    def test_standard_input(self, tmp_path: Path, name: str, piped: bool) -> None:
        code = (
            "import sys\n"
            "from unifeat.text.sources import find_source, read_documents\n"
            "for text in read_documents(find_source(sys.argv[1]), 'text', 'train', None): print(ascii(text))"
        )
        (tmp_path / "in").write_bytes(gzip.compress(CONTENT[".jsonl"].encode()))
        command = [sys.executable, "-c", code, name]
        given: dict[str, Any] = {"input": (tmp_path / "in").read_bytes()} if piped else {"stdin": None}
        with (tmp_path / "in").open("rb") as file:
            if not piped:
                given = {"stdin": file}
            done = subprocess.run(command, capture_output=True, check=False, **given)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().splitlines() == [ascii(text) for text in DOCUMENTS]

    def test_a_terminal(self) -> None:
        one, other = os.openpty()
        try:
            with pytest.raises(UserError, match="is a terminal or a device: give a file, or pipe a text into it"):
                read(Path(f"/dev/fd/{other}"))
        finally:
            os.close(one)
            os.close(other)

    def test_one_that_is_not_open(self) -> None:
        with pytest.raises(UserError, match="/dev/fd/987: no such file"):
            read(Path("/dev/fd/987"))

    def test_what_is_wrong_with_one(self) -> None:
        whole = gzip.compress(CONTENT[".jsonl"].encode())
        for raw, said in ((whole[:-9], "is damaged"), (b'{"text": "a"}\n{"text": ', "entry 2: not JSON")):
            with pytest.raises(UserError, match=said) as caught:
                self.through_a_pipe(raw, lambda name: read(Path(name)))
            assert "\n" not in str(caught.value)


class TestFolders:
    def test_notes_and_facts_beside_a_text_are_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(CONTENT[".jsonl"].encode()))
        for kind in OFTEN_NOTES:
            (tmp_path / f"notes{kind}").write_text("{notes}")
        assert read(tmp_path) == DOCUMENTS
        assert read(tmp_path / "*.jsonl.gz") == DOCUMENTS

    @pytest.mark.parametrize("kind", OFTEN_NOTES)
    def test_where_there_is_nothing_else_they_are_the_text(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / f"a{kind}").write_bytes(CONTENT[kind].encode())
        assert read(tmp_path) == expected(kind)
