"""Documents from every kind of source, in order, and one clear line for every way a source can be wrong."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from unifeat.errors import UserError
from unifeat.text.sources import find_source, read_documents

DOCUMENTS = ["First document.\nTwo lines.", "Zweites: ä ö 😀", "第三 document"]


def read(source: Path | str, field: str = "text") -> list[str]:
    return list(read_documents(find_source(str(source)), field, "train", None))


def jsonl(documents: list[Any], field: str = "text") -> bytes:
    return "".join(json.dumps({"id": 1, field: text}) + "\n" for text in documents).encode()


def write_each_kind(folder: Path, field: str = "text") -> dict[str, Path]:
    """The same documents as .jsonl, .jsonl.zst and .parquet."""
    paths = {kind: folder / f"text.{kind}" for kind in ("jsonl", "jsonl.zst", "parquet")}
    paths["jsonl"].write_bytes(jsonl(DOCUMENTS, field))
    # Two frames: what `cat a.zst b.zst` gives.
    half = len(jsonl(DOCUMENTS[:1], field))
    frames = [jsonl(DOCUMENTS, field)[:half], jsonl(DOCUMENTS, field)[half:]]
    paths["jsonl.zst"].write_bytes(b"".join(zstandard.ZstdCompressor().compress(frame) for frame in frames))
    pq.write_table(pa.table({"id": [1, 2, 3], field: DOCUMENTS}), paths["parquet"])
    return paths


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.zst", "parquet"])
@pytest.mark.parametrize("field", ["text", "body"])
def test_a_row_is_a_document(tmp_path: Path, kind: str, field: str):
    assert read(write_each_kind(tmp_path, field)[kind], field) == DOCUMENTS


def test_a_txt_file_is_a_document(tmp_path: Path):
    (tmp_path / "a.txt").write_text(DOCUMENTS[1], encoding="utf-8")
    assert read(tmp_path / "a.txt") == [DOCUMENTS[1]]


def test_folders_and_globs_are_read_in_the_order_of_their_names(tmp_path: Path):
    for name in ("b", "a", "sub/c"):
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "d.jsonl").write_bytes(jsonl(["d"]))
    (tmp_path / "notes.md").write_text("not a document")
    assert read(tmp_path) == ["a", "b", "d", "sub/c"]
    assert read(tmp_path / "*.txt") == ["a", "b"]
    assert read(tmp_path / "**" / "*.txt") == ["a", "b", "sub/c"]
    assert read(tmp_path / "[ad].*") == ["a", "d"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path):
    (tmp_path / "news [2024].txt").write_text("news")
    assert read(tmp_path / "news [2024].txt") == ["news"]


@pytest.mark.parametrize("blank", ["", "  ", "\n\t ", None])
def test_blank_documents_are_left_out(tmp_path: Path, blank: str | None):
    (tmp_path / "a.jsonl").write_bytes(jsonl(["one", blank, "two"]))
    pq.write_table(pa.table({"text": pa.array(["one", blank, "two"], pa.string())}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text(blank or "")
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "a.parquet") == ["one", "two"]
    assert read(tmp_path / "a.txt") == []


def test_blank_lines_of_jsonl_are_skipped(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b"\n" + jsonl(["one"]) + b"  \n" + jsonl(["two"]) + b"\n")
    assert read(tmp_path / "a.jsonl") == ["one", "two"]


def test_a_lone_surrogate_becomes_a_replacement_character(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "half \\ud83d of one"}\n{"text": "whole \\ud83d\\ude00"}\n')
    assert read(tmp_path / "a.jsonl") == ["half � of one", "whole 😀"]


def test_parquet_columns_of_other_string_types(tmp_path: Path):
    for number, kind in enumerate((pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"text": pa.array(DOCUMENTS).cast(kind)}), path)
        assert read(path) == DOCUMENTS


class TestHiddenNames:
    """Copies and notes that other programs leave beside a text."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        top = tmp_path / ".data" / "text"  # names above the folder given may begin with a dot
        for name in (
            ".ipynb_checkpoints/a-checkpoint.jsonl",
            "._a.jsonl",
            ".git/x/b.txt",
            "sub/.c.txt",
            "sub/._d.parquet",
        ):
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\x00\x05\x16\x07Mac OS X")
        (top / "a.jsonl").write_bytes(jsonl(["a"]))
        (top / "sub" / "c.txt").write_text("c")
        return top

    @pytest.mark.parametrize("below", ["", "**/*.*", "*", "*.jsonl"])
    def test_are_not_found_below_a_folder_or_by_a_pattern(self, folder: Path, below: str):
        assert read(folder / below) == (["a"] if below in ("*", "*.jsonl") else ["a", "c"])

    def test_are_read_where_they_are_meant(self, folder: Path):
        (folder / ".git" / "x" / "b.txt").write_text("b")
        assert (
            read(folder / ".git" / "x" / "b.txt") == read(folder / ".git") == read(folder / ".git" / "*" / "*") == ["b"]
        )

    def test_a_folder_of_nothing_else(self, folder: Path):
        (folder / "a.jsonl").unlink()
        (folder / "sub" / "c.txt").unlink()
        with pytest.raises(UserError, match=r"holds none of .* \(names that begin with a dot are not read\)"):
            read(folder)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl.zst"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, kind: str):
    mark = b"\xef\xbb\xbf"
    path = tmp_path / f"a.{kind}"
    if kind == "txt":
        path.write_bytes(mark + "Straße\r\nzwei\ufeff".encode())
        assert read(path) == ["Straße\nzwei\ufeff"]
        path.write_bytes(mark)
        assert read(path) == []
        return
    raw = (mark + jsonl(["eins"]) + mark + jsonl(["\ufeffzwei"]).replace(b"\n", b"\r\n")) + mark
    path.write_bytes(zstandard.ZstdCompressor().compress(raw) if kind.endswith("zst") else raw)
    assert read(path) == ["eins", "\ufeffzwei"]


class TestDataset:
    """Hugging Face datasets: no network here, so `load_dataset` is replaced, where it matters by a local one."""

    def test_rows_of_a_streamed_dataset(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        paths = write_each_kind(tmp_path, "body")
        real = datasets.load_dataset
        asked: list[Any] = []

        def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Any:
            asked.append((name, config, split, streaming))
            return real("json", data_files=str(paths["jsonl"]), split="train", streaming=True, cache_dir=str(tmp_path))

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        found = find_source("some/news")
        assert found == "some/news"
        assert list(read_documents(found, "body", "validation", "en")) == DOCUMENTS
        assert asked == [("some/news", "en", "validation", True)]

    def test_an_endless_dataset_is_read_one_row_at_a_time(self, monkeypatch: pytest.MonkeyPatch):
        given = 0

        def endless() -> Iterator[dict[str, str | None]]:
            nonlocal given
            for given in itertools.count(1):
                yield {"text": None if given == 2 else f"document {given}"}
                assert given < 50

        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: endless())
        texts = read_documents("some/news", "text", "train", None)
        assert [next(texts) for _ in range(3)] == ["document 1", "document 3", "document 4"]
        assert given <= 5

    @pytest.mark.parametrize("name", ["text", "csv", "json", "parquet", "imagefolder", "webdataset", "arrow", "pandas"])
    def test_a_reader_of_datasets_is_no_dataset(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "secret.env").write_text("TOKEN=1")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=f"'{name}': that is a reader of the datasets library, not a text"):
            read(name)
        with pytest.raises(UserError, match="a reader of the datasets library"):
            next(read_documents(name, "text", "train", None))
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("a folder of that name is a folder")
        assert read(name) == ["a folder of that name is a folder"]

    @pytest.mark.parametrize("name", ["some/news", "news"])
    def test_nothing_on_the_disk_is_opened_in_its_place(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        found = find_source(name)
        (tmp_path / name).mkdir(parents=True)  # between finding and reading, or where another machine reads
        (tmp_path / name / "a.txt").write_text("local")
        with pytest.raises(UserError, match="there is a file or folder of that name too"):
            list(read_documents(found, "text", "train", None))

    @pytest.mark.parametrize(
        "name", ["hf://datasets/text", "a/b/c", "buckets/a/b/c", "some/script.py", "https://x.y/z", "a b"]
    )
    def test_a_name_that_none_can_have(self, name: str):
        with pytest.raises(UserError, match="a dataset on the hub is called ORG/NAME") as caught:
            read(name)
        assert "\n" not in str(caught.value)

    def test_an_unknown_dataset_is_a_users_error(self):
        with pytest.raises(UserError, match="'no-such/dataset' is neither a local file nor a dataset") as caught:
            read("no-such/dataset")
        assert "\n" not in str(caught.value)

    def test_a_wrong_field_names_the_right_ones(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"body": "a", "title": "b"}])
        with pytest.raises(UserError, match=r"dataset some/news has no field 'text'.*\['body', 'title'\]"):
            read("some/news")

    def test_a_break_in_the_stream_is_a_users_error(self, monkeypatch: pytest.MonkeyPatch):
        def broken() -> Iterator[dict[str, str]]:
            yield {"text": "one"}
            raise ConnectionError("the hub is gone")

        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: broken())
        with pytest.raises(UserError, match=r"some/news.*the hub is gone"):
            read("some/news")


class TestWrongInput:
    @pytest.mark.parametrize("name", ["nowhere.txt", "./nowhere", "/no/where", "~/no-where-at-all", "data/x.parquet"])
    def test_a_missing_file(self, name: str):
        with pytest.raises(UserError, match=f"{name}: no such file"):
            read(name)

    @pytest.mark.parametrize("name", ["", " ", "\n"])
    def test_an_empty_source(self, name: str):
        with pytest.raises(UserError, match="it is empty"):
            read(name)

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("~nobody-at-all/a.txt", "has no home directory"),
            ("a\0b.txt", "cannot hold a NUL byte"),
            ("x" * 300 + ".txt", "longer than a file name may be"),
            ("x/" * 3000 + "a.txt", "longer than a file name may be"),
            ("half\ud800.txt", "half a character"),
            ("loop", "links form a loop"),
            ("loop/a.txt", "links form a loop"),
            ("file.txt/a.txt", "a file is where a folder should be"),
            ("pipe.txt", "neither a file nor a folder"),
        ],
    )
    def test_what_is_no_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str):
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "file.txt").write_text("a")
        os.mkfifo(tmp_path / "pipe.txt")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=says) as caught:
            read(name)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300

    def test_a_dataset_beside_a_file_of_its_organisation(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        (tmp_path / "some").write_text("a file")
        monkeypatch.chdir(tmp_path)
        assert find_source("some/news") == "some/news"

    def test_links_in_a_folder(self, tmp_path: Path):
        (tmp_path / "a.txt").write_text("a")
        (tmp_path / "b.txt").symlink_to("a.txt")
        (tmp_path / "gone.txt").symlink_to("nowhere.txt")
        assert read(tmp_path) == ["a", "a"]
        (tmp_path / "loop.txt").symlink_to("loop.txt")
        with pytest.raises(UserError, match="links form a loop"):
            read(tmp_path)

    def test_a_pattern_without_files(self, tmp_path: Path):
        with pytest.raises(UserError, match="no file matches this pattern"):
            read(tmp_path / "*.txt")

    def test_a_folder_without_text(self, tmp_path: Path):
        (tmp_path / "a.docx").write_text("a")
        with pytest.raises(UserError, match=r"the folder holds none of \.txt, \.jsonl"):
            read(tmp_path)

    @pytest.mark.parametrize("pattern", ["a.docx", "*"])
    def test_another_kind_of_file(self, tmp_path: Path, pattern: str):
        (tmp_path / "a.docx").write_text("a")
        (tmp_path / "b.txt").write_text("b")
        with pytest.raises(UserError, match=r"a\.docx: unifeat reads \.txt, \.jsonl"):
            read(tmp_path / pattern)

    @pytest.mark.parametrize("kind", ["jsonl", "jsonl.zst", "parquet"])
    def test_a_wrong_field(self, tmp_path: Path, kind: str):
        path = write_each_kind(tmp_path, "body")[kind]
        with pytest.raises(UserError, match=r"has no (field|column) 'text': set text\.field to one of .*'body'"):
            read(path)

    def test_a_field_that_is_not_text(self, tmp_path: Path):
        (tmp_path / "a.jsonl").write_bytes(jsonl(["one", 2]))
        pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=r"a\.jsonl, line 2: field 'text' holds int, not text"):
            read(tmp_path / "a.jsonl")
        with pytest.raises(UserError, match=r"a\.parquet: field 'text' holds int, not text"):
            read(tmp_path / "a.parquet")

    @pytest.mark.parametrize("line", [b"not json", b'{"text": "cut', b'{"text": }'])
    def test_bad_json_names_the_line(self, tmp_path: Path, line: bytes):
        (tmp_path / "a.jsonl").write_bytes(jsonl(["one", "two"]) + line + b"\n")
        with pytest.raises(UserError, match=r"a\.jsonl, line 3: not JSON \("):
            read(tmp_path / "a.jsonl")

    def test_json_that_is_no_object(self, tmp_path: Path):
        (tmp_path / "a.jsonl").write_text('["text"]\n')
        with pytest.raises(UserError, match=r"line 1 has no field 'text'"):
            read(tmp_path / "a.jsonl")

    @pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
    def test_not_utf8(self, tmp_path: Path, name: str):
        (tmp_path / name).write_bytes('{"text": "Straße"}\n'.encode("latin-1"))
        with pytest.raises(UserError, match=rf"{name} is not UTF-8"):
            read(tmp_path / name)

    @pytest.mark.parametrize("kept", [0.3, 0.9])
    def test_a_truncated_zst(self, tmp_path: Path, kept: float):
        path = write_each_kind(tmp_path)["jsonl.zst"]
        whole = zstandard.ZstdCompressor().compress(jsonl([f"document {n * n}" for n in range(3000)]))
        path.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(UserError, match=r"text\.jsonl\.zst is damaged"):
            read(path)

    def test_a_file_that_is_not_zst(self, tmp_path: Path):
        (tmp_path / "a.jsonl.zst").write_bytes(jsonl(DOCUMENTS))
        with pytest.raises(UserError, match=r"a\.jsonl\.zst is damaged"):
            read(tmp_path / "a.jsonl.zst")

    @pytest.mark.parametrize("damage", ["noise", "empty", "truncated", "page"])
    def test_an_unreadable_parquet_file(self, tmp_path: Path, damage: str):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": [f"document {n}" for n in range(5000)]}), path, compression="snappy")
        whole = path.read_bytes()
        broken = {"noise": b"no parquet" * 50, "empty": b"", "truncated": whole[: len(whole) // 2]}
        broken["page"] = whole[:200] + b"\xff" * 5000 + whole[5200:]
        path.write_bytes(broken[damage])
        with pytest.raises(UserError, match=r"a\.parquet is not a parquet file, or is damaged"):
            read(path)
