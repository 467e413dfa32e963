"""WordNet's supersenses, from files written here in its format, and from an installed WordNet where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from unifeat.errors import UserError
from unifeat.subspaces.categories import load_categories
from unifeat.subspaces.wordnet import SUPERSENSES, find_wordnet, supersenses

LICENCE = "  1 This software and database is being provided to you …  \n"
PLACES = ("/usr/share/wordnet", "/usr/local/WordNet-3.0/dict")


def write_wordnet(folder: Path, lemmas: dict[str, list[int]], tagged: dict[str, int] | None = None) -> Path:
    """A WordNet of lemmas, each with the lexicographer files of its senses, first sense first; every supersense has
    one word of its own besides. `tagged`: sense key → count."""
    folder.mkdir(parents=True, exist_ok=True)
    lemmas = {f"word{number}": [number] for number in SUPERSENSES} | lemmas
    data, index, offset = LICENCE, LICENCE, 1740
    for lemma in sorted(lemmas):
        offsets = []
        for number in lemmas[lemma]:
            data += f"{offset:08d} {number:02d} n 01 {lemma} 0 001 @ 00001740 n 0000 | a gloss  \n"
            offsets.append(f"{offset:08d}")
            offset += 100
        # Two pointer symbols: the offsets come after them.
        index += f"{lemma} n {len(offsets)} 2 @ ~ {len(offsets)} 0 {' '.join(offsets)}  \n"
    (folder / "data.noun").write_text(data, encoding="utf-8")
    (folder / "index.noun").write_text(index, encoding="utf-8")
    counts = "".join(f"{key} 1 {count}\n" for key, count in (tagged or {}).items())
    (folder / "cntlist.rev").write_text(counts, encoding="utf-8")
    return folder


def test_words_of_the_first_sense_only(tmp_path: Path) -> None:
    folder = write_wordnet(tmp_path, {"spring": [28, 6, 17], "bank": [17, 14], "new_york": [15], "co-op": [14]})
    found = supersenses(folder)
    assert list(found) == list(SUPERSENSES.values())
    assert len(found) == 26
    assert found["noun.time"] == ("spring", "word28")
    assert found["noun.object"] == ("bank", "word17")
    assert found["noun.artifact"] == ("word6",)
    assert found["noun.group"] == ("word14",)
    assert found["noun.location"] == ("word15",)


def test_words_that_are_rather_no_nouns(tmp_path: Path) -> None:
    lemmas = {"well": [6], "hope": [12], "in": [23], "he": [27], "love": [12]}
    tagged = {"well%1:06:00::": 8, "well%4:02:00::": 76, "hope%1:12:00::": 5, "hope%2:31:00::": 5, "love%2:37:00::": 1}
    found = supersenses(write_wordnet(tmp_path, lemmas, tagged))
    assert found["noun.feeling"] == ("hope", "word12")
    assert found["noun.artifact"] == ("word6",)
    assert found["noun.quantity"] == ("word23",)
    assert found["noun.substance"] == ("word27",)


def test_index_sense_will_do_for_the_counts(tmp_path: Path) -> None:
    folder = write_wordnet(tmp_path, {"well": [6]})
    (folder / "cntlist.rev").unlink()
    (folder / "index.sense").write_text("well%1:06:00:: 04572344 1 8\nwell%4:02:00:: 00011093 1 76\n", encoding="utf-8")
    assert "well" not in supersenses(folder)["noun.artifact"]


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WNSEARCHDIR", "WNHOME"):
        monkeypatch.delenv(name, raising=False)
    one, other = write_wordnet(tmp_path / "one", {}), write_wordnet(tmp_path / "home" / "dict", {})
    monkeypatch.setenv("WNHOME", str(tmp_path / "home"))
    assert find_wordnet() == other
    monkeypatch.setenv("WNSEARCHDIR", str(one))
    assert find_wordnet() == one
    assert find_wordnet(other) == other
    assert load_categories(f"wordnet:{other}", ["noun.plant"]) == {"noun.plant": ("word20",)}
    with pytest.raises(UserError, match=r"did you mean 'noun\.plant'"):
        load_categories("wordnet", ["noun.plants"])


def test_places_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WNSEARCHDIR", "WNHOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("unifeat.subspaces.wordnet._PLACES", (str(tmp_path / "nowhere"),))
    with pytest.raises(UserError, match="not installed: apt install wordnet-base"):
        load_categories("wordnet")
    with pytest.raises(UserError, match=r"holds no data\.noun"):
        load_categories(f"wordnet:{tmp_path}")
    folder = write_wordnet(tmp_path / "part", {})
    (folder / "cntlist.rev").unlink()
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    with pytest.raises(UserError, match=r"\$WNSEARCHDIR .* holds no cntlist\.rev or index\.sense"):
        load_categories("wordnet")


@pytest.mark.parametrize("file", ["data.noun", "index.noun", "cntlist.rev"])
@pytest.mark.parametrize("text", ["something else\n", "00001740 99 n 01 x 0 000 | y\n", "\udcff"])
def test_files_that_are_not_wordnets(tmp_path: Path, file: str, text: str) -> None:
    folder = write_wordnet(tmp_path, {})
    (folder / file).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match="wordnet: the files in"):
        supersenses(folder)


def test_cut_short(tmp_path: Path) -> None:
    folder = write_wordnet(tmp_path, {})
    lines = (folder / "index.noun").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "index.noun").write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="have no word of"):
        supersenses(folder)


@pytest.mark.skipif(not any(Path(p, "data.noun").is_file() for p in PLACES), reason="no WordNet is installed")
def test_an_installed_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WNSEARCHDIR", "WNHOME"):
        monkeypatch.delenv(name, raising=False)
    found = load_categories("wordnet")
    where = {word: name for name, words in found.items() for word in words}
    assert sum(map(len, found.values())) == len(where) > 50_000
    expected = {
        "dog": "noun.animal",
        "spring": "noun.time",
        "oak": "noun.plant",
        "joy": "noun.feeling",
        "nurse": "noun.person",
        "harbour": "noun.location",
    }
    assert {word: where.get(word) for word in expected} == expected
    assert not {"a", "in", "he", "us", "well", "may", "cats"} & set(where)
