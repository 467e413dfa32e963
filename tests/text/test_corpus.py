"""The chosen documents: budgets, digest, bounded groups, and text around a place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny import sentences, tiny_tokenizer, write_text
from unifeat.errors import UserError
from unifeat.progress import set_mode
from unifeat.text import corpus as corpus_module
from unifeat.text.corpus import USUAL_CUT, Corpus, Cut, Part, build_corpus


def words(text: str) -> int:
    return len(text.split())


def build(source: Path | str, **settings: Any) -> Corpus:
    settings = {"documents": None, "tokens": None, "count_tokens": words, "tokenizer_digest": "words"} | settings
    return build_corpus(str(source), **settings)


def texts(corpus: Corpus) -> list[str]:
    """Documents put together again from their parts."""
    whole: dict[int, str] = {}
    for group in range(corpus.groups):
        for part in corpus.parts(group):
            assert part.start == len(whole.setdefault(part.document, ""))
            whole[part.document] += part.text
    assert list(whole) == list(range(len(whole)))
    return list(whole.values())


SMALL = 100
SMALL_CUT = Cut(group=SMALL, part=SMALL)  # so that small texts have several groups and parts


def test_holds_all_documents_apart(tmp_path: Path):
    documents = ["one", "  two\n", "three 😀"]
    corpus = build(write_text(tmp_path, [documents[0], " ", *documents[1:]]))
    assert texts(corpus) == documents
    assert (corpus.documents, corpus.characters, corpus.groups) == (3, 3 + 6 + 7, 1)
    assert corpus.budget_tokens is None
    assert corpus.parts(0) == [Part(n, 0, text) for n, text in enumerate(documents)]


class TestBudget:
    DOCUMENTS = ("a b c", "d e", "f g h i", "j", "k l")

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_text(tmp_path, list(self.DOCUMENTS))

    @pytest.mark.parametrize("documents", [1, 3, 5, 9])
    def test_of_documents(self, source: Path, documents: int):
        assert texts(build(source, documents=documents)) == list(self.DOCUMENTS[:documents])

    @pytest.mark.parametrize(("tokens", "expected"), [(1, 1), (3, 1), (4, 2), (5, 2), (6, 3), (12, 5), (99, 5)])
    def test_of_tokens_keeps_the_document_that_reaches_it_whole(self, source: Path, tokens: int, expected: int):
        corpus = build(source, tokens=tokens)
        assert texts(corpus) == list(self.DOCUMENTS[:expected])
        assert corpus.budget_tokens == sum(words(text) for text in self.DOCUMENTS[:expected])

    def test_of_both_ends_at_the_smaller(self, source: Path):
        assert texts(build(source, tokens=9, documents=2)) == list(self.DOCUMENTS[:2])
        assert texts(build(source, tokens=3, documents=4)) == list(self.DOCUMENTS[:1])

    def test_skips_documents_first(self, source: Path):
        assert texts(build(source, skip=1, documents=2)) == list(self.DOCUMENTS[1:3])
        assert texts(build(source, skip=3, tokens=2)) == list(self.DOCUMENTS[3:5])

    def test_skipped_and_taken_are_disjoint_and_complete(self, source: Path):
        taken, rest = build(source, documents=2), build(source, skip=2)
        assert texts(taken) + texts(rest) == list(self.DOCUMENTS)

    def test_counts_with_a_real_tokenizer(self, tmp_path: Path):
        tokenizer = tiny_tokenizer("bpe")

        def count(text: str) -> int:
            return len(tokenizer(text, add_special_tokens=False)["input_ids"])

        documents = sentences(20, seed=3)
        corpus = build(write_text(tmp_path, documents), tokens=300, count_tokens=count)
        spent = [count(text) for text in texts(corpus)]
        assert sum(spent) == corpus.budget_tokens >= 300
        assert sum(spent[:-1]) < 300


def test_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_text(tmp_path, sentences(5))
    first = build(source, tokens=50)

    def never(*_: object) -> Iterator[str]:
        raise AssertionError("read again")

    monkeypatch.setattr(corpus_module, "read_documents", never)
    assert build(source, tokens=50) == first
    for changed in ({"skip": 1}, {"tokens": 51}, {"tokenizer_digest": "other"}, {"documents": 2}, {"field": "body"}):
        with pytest.raises(AssertionError, match="read again"):
            build(source, **({"tokens": 50} | changed))


def test_a_damaged_corpus_is_made_again(tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]):
    source = write_text(tmp_path, sentences(5))
    first = build(source)
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-40] + b"?" * 40)
    set_mode("log")
    assert build(source) == first
    assert first.path.read_bytes() == whole
    assert "is damaged" in capsys.readouterr().err


def test_a_corpus_that_is_lost_in_the_middle_of_a_run(tmp_path: Path):
    """Somebody empties the cache: no step meets an error of Arrow's."""
    corpus = build(write_text(tmp_path, sentences(5)))
    corpus.path.write_bytes(corpus.path.read_bytes()[:-40])
    with pytest.raises(UserError, match="was whole and is not: run the same command again"):
        corpus.parts(0)
    corpus.path.unlink()
    with pytest.raises(UserError, match="was whole and is not: run the same command again"):
        corpus.contexts([(0, 1)])


def test_a_changed_file_is_read_again(tmp_path: Path):
    source = write_text(tmp_path, ["one"])
    before = build(source)
    write_text(tmp_path, ["another"])
    assert texts(build(source)) == ["another"]
    assert build(source).digest != before.digest


def test_the_digest_tells_texts_apart_and_nothing_else(tmp_path: Path):
    def digest(texts: list[str], name: str = "a.jsonl", **settings: Any) -> str:
        return build(write_text(tmp_path, texts, name), **settings).digest

    documents = ["one", "two", "three"]
    assert digest(documents) == digest(documents, "b.jsonl") == digest([*documents, "four"], "c.jsonl", documents=3)
    assert digest(["zero", *documents], "d.jsonl", skip=1) == digest(documents)
    others = [
        ["one", "twothree"],
        ["onetwo", "three"],
        ["two", "one", "three"],
        ["one", "two"],
        ["one", "two", "Three"],
    ]
    digests = {digest(other, f"e{n}.jsonl") for n, other in enumerate(others)} | {digest(documents)}
    assert len(digests) == len(others) + 1


class TestDuplicates:
    DOCUMENTS = ("a b", "c", "a b", "d e", "c", "a b ", "a b", "f")

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_text(tmp_path, list(self.DOCUMENTS))

    def test_are_counted_and_told_once(self, source: Path, capsys: pytest.CaptureFixture[str]):
        set_mode("log")
        corpus = build(source)
        assert texts(corpus) == list(self.DOCUMENTS)
        assert corpus.duplicates == 3
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{source}: 3 of 8 documents repeat an earlier one" in said
        assert "text.drop_duplicates: true" in said
        assert build(source) == corpus
        assert capsys.readouterr().err == ""

    def test_only_the_chosen_ones_count(self, source: Path, capsys: pytest.CaptureFixture[str]):
        set_mode("log")
        assert build(source, skip=1, documents=3).duplicates == 0
        assert capsys.readouterr().err == ""

    def test_are_left_out_if_asked(self, source: Path, capsys: pytest.CaptureFixture[str]):
        set_mode("log")
        corpus = build(source, drop_duplicates=True)
        assert texts(corpus) == ["a b", "c", "d e", "a b ", "f"]
        assert (corpus.documents, corpus.duplicates) == (5, 3)
        assert "3 documents that repeat an earlier one are left out" in capsys.readouterr().err
        kept = write_text(source.parent, ["a b", "c", "d e", "a b ", "f"], "kept.jsonl")
        assert build(kept).digest == corpus.digest
        assert build(source).digest != corpus.digest

    def test_budgets_and_skipping_count_what_is_left(self, source: Path):
        assert texts(build(source, drop_duplicates=True, documents=3)) == ["a b", "c", "d e"]
        assert texts(build(source, drop_duplicates=True, tokens=6)) == ["a b", "c", "d e", "a b "]
        taken, rest = (build(source, drop_duplicates=True, **own) for own in ({"documents": 2}, {"skip": 2}))
        assert texts(taken) + texts(rest) == ["a b", "c", "d e", "a b ", "f"]

    def test_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        set_mode("log")
        source = write_text(tmp_path, sentences(5))
        assert build(source).duplicates == build(source, drop_duplicates=True).duplicates == 0
        assert capsys.readouterr().err == ""


def test_tokens_of_a_very_long_document_are_counted_in_stretches(tmp_path: Path):
    longest: list[int] = []

    def count(text: str) -> int:
        longest.append(len(text))
        return len(text)

    size = 10_000_000
    (tmp_path / "a.txt").write_text("x" * size)
    assert build(tmp_path / "a.txt", tokens=5, count_tokens=count).budget_tokens == size
    assert max(longest) < size / 2


class TestGroups:
    def test_a_long_document_is_cut_in_bounded_parts(self, tmp_path: Path):
        documents = ["x" * 40, "0123456789" * 33 + "end", "y" * 40]
        corpus = build(write_text(tmp_path, documents), cut=SMALL_CUT)
        assert texts(corpus) == documents
        assert corpus.documents == 3
        assert corpus.groups > 3
        sizes = [sum(len(part.text) for part in corpus.parts(group)) for group in range(corpus.groups)]
        assert corpus.group_characters == sizes
        assert max(sizes) < 2 * SMALL
        assert max(len(part.text) for group in range(corpus.groups) for part in corpus.parts(group)) == SMALL

    def test_many_short_documents_share_groups(self, tmp_path: Path):
        documents = [f"document {n}" for n in range(100)]
        corpus = build(write_text(tmp_path, documents), cut=SMALL_CUT)
        assert texts(corpus) == documents
        sizes = corpus.group_characters
        assert all(SMALL <= size < SMALL + 20 for size in sizes[:-1])

    def test_real_sizes_bound_a_group(self, tmp_path: Path):
        corpus = build(write_text(tmp_path, ["word " * 60_000, "short"]))
        assert corpus.groups > 3
        assert max(corpus.group_characters) < USUAL_CUT.group + USUAL_CUT.part


class TestContexts:
    def test_gives_the_text_around_a_place(self, tmp_path: Path):
        corpus = build(write_text(tmp_path, ["The sailor lost it.", "A red 😀 rose."]))
        found = corpus.contexts([(0, 10), (1, 7), (1, 0), (0, 19)], around=5)
        assert found == {
            (0, 10): ("ailor lost", 5),
            (1, 7): ("red 😀 rose", 5),
            (1, 0): ("A red", 0),
            (0, 19): ("t it.", 5),
        }

    def test_reads_only_the_groups_it_needs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        corpus = build(write_text(tmp_path, [f"document {n:06d}" for n in range(100)]), cut=SMALL_CUT)
        read: list[int] = []
        real: Callable[[Corpus, int], list[Part]] = Corpus.parts
        monkeypatch.setattr(Corpus, "parts", lambda self, group: read.append(group) or real(self, group))
        assert corpus.contexts([(50, 15)]) == {(50, 15): ("document 000050", 15)}
        assert len(read) == 1

    def test_a_place_at_the_cut_belongs_to_the_part_before(self, tmp_path: Path):
        text = "".join(f"{n:05d}" for n in range(60))
        corpus = build(write_text(tmp_path, [text]), cut=SMALL_CUT)
        found = corpus.contexts([(0, 100), (0, 101), (0, 300)], around=10)
        assert found[0, 100] == (text[90:100], 10)
        assert found[0, 101] == (text[100:111], 1)
        assert found[0, 300] == (text[290:], 10)

    def test_places_that_do_not_exist_are_left_out(self, tmp_path: Path):
        corpus = build(write_text(tmp_path, ["short"]))
        assert corpus.contexts([(0, 99), (7, 0)]) == {}


class TestWrongInput:
    @pytest.mark.parametrize("documents", [[], ["", "  \n"]])
    def test_empty_text(self, tmp_path: Path, own_cache: Path, documents: list[str]):
        source = write_text(tmp_path, documents)
        with pytest.raises(UserError, match=r"text\.jsonl holds no text: it has no documents, or all are blank"):
            build(source)
        assert not [p for p in own_cache.rglob("*") if p.is_file()]

    def test_more_skipped_than_there_is(self, tmp_path: Path):
        with pytest.raises(UserError, match="holds no text after skipping 3"):
            build(write_text(tmp_path, ["a", "b", "c"]), skip=3)

    def test_an_error_on_the_way_leaves_nothing_behind(self, tmp_path: Path, own_cache: Path):
        source = tmp_path / "a.jsonl"
        source.write_text('{"text": "one"}\n{"text": "two"}\nbroken\n')
        with pytest.raises(UserError, match="line 3: not JSON"):
            build(source)
        assert not [p for p in own_cache.rglob("*") if p.is_file()]
        assert texts(build(source, documents=1)) == ["one"]
