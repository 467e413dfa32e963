"""Categories from files, from the paper and from WordNet; wrong ones end in one clear line."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

import pytest

from unifeat.errors import UserError
from unifeat.subspaces.categories import load_categories
from unifeat.subspaces.wholewords import fold, is_whole_word, word_pattern

# Each name stands for ten times what the one before does: ten to the ninth words in the end.
LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))


def listed(folder: Path, text: str, name: str = "lists.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_of_lists(tmp_path: Path) -> None:
    source = listed(tmp_path, "Sea: [tide, Ship, ship, 'o’clock']\nCity:\n- bus\n- ' mayor '\n")
    assert load_categories(source) == {"Sea": ("tide", "ship", "o'clock"), "City": ("bus", "mayor")}
    assert load_categories(source, ["City"]) == {"City": ("bus", "mayor")}
    assert list(load_categories(source, ["City", "Sea", "City"])) == ["City", "Sea"]


def test_json_is_yaml(tmp_path: Path) -> None:
    assert load_categories(listed(tmp_path, json.dumps({"Sea": ["tide"]}), "lists.json")) == {"Sea": ("tide",)}


def test_the_papers_lists_are_carried_as_given() -> None:
    categories = load_categories("paper")
    given = json.loads((files("unifeat.subspaces") / "data" / "paper_keywords.json").read_text(encoding="utf-8"))
    assert list(categories) == list(given)
    assert {name: len(words) for name, words in given.items()} == {
        "Time": 86,
        "Calendar": 37,
        "People/Roles": 28,
        "Nature": 46,
        "Emotions": 49,
        "MonthNames": 12,
        "Countries": 19,
        "Biology": 29,
    }
    for name, words in given.items():
        assert set(categories[name]) == {word.lower() for word in words}
        assert len(categories[name]) == len(set(categories[name]))
    assert categories["MonthNames"][4] == "may"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Sea: []", "Sea: the list is empty"),
        ("Sea:", "Sea: expected a list of words"),
        ("Sea: tide", "Sea: expected a list of words"),
        ("- tide", "expected names of categories"),
        ("", "expected names of categories"),
        ("{}", "expected names of categories"),
        ("Sea: [tide, true]", "Sea: True is not text: put it in quotes"),
        ("Sea: [tide, ~]", "Sea: None is not text: put it in quotes"),
        ("Sea: [tide, [ebb]]", r"Sea: \['ebb'\] is where a word should be"),
        ("Sea: [tide, {ebb: flow}]", r"Sea: \{'ebb': 'flow'\} is where a word should be"),
        ("Sea: {tide: ebb}", "Sea: expected a list of words"),
        ("Sea: [tide]\nCity: [bus]\nSea: [ebb]", "line 3: the key 'Sea' is given a second time .first in line 1."),
        ("all: [tide]", "no category can be called 'all': it is reserved for the pairs of all features"),
        (
            "Sea · random words: [tide]",
            "no category can be called 'Sea · random words': such names are reserved for lists of random words",
        ),
        ("Sea: [tide]\nSea · random words 2: [ebb]", "called 'Sea · random words 2'"),
        ("' ': [tide]", "no category can be called ' ': give it a name of 1 to 200 characters"),
        (f"{'x' * 201}: [tide]", "no category can be called 'xx.*…x*': give it a name of 1 to 200 characters"),
        (f"Sea: [{'x ' * 5000}]", "Sea: 'x x .*…x x.* is not one whole word"),
        (r'Sea: ["\ud800"]', "line 1: text with half a character"),
        ("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + LAUGHS, "its aliases expand to more than 100,000 entries"),
        ("Sea: &sea [*sea]", "line 1: an alias refers to something that contains it"),
        ("[" * 20_000, "nested more than 50 deep"),
        ("Sea: " + "[" * 20_000 + "]" * 20_000, "nested more than 50 deep"),
        ("Sea: [!!timestamp 2001-01-01]", "not valid YAML .could not determine a constructor"),
        ("Sea: [1984]", "Sea: 1984 is not text: put it in quotes"),
        ("1984: [tide]", "the name 1984 is not text"),
        ("Sea: [high tide]", "'high tide' is not one whole word"),
        ("Sea: ['']", "'' is not one whole word"),
        ("Sea: [sea-side]", "'sea-side' is not one whole word"),
        ("Sea: [tide", "line 1: not valid YAML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    source = listed(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        load_categories(source)
    assert source in str(caught.value)
    assert "\n" not in str(caught.value)


def test_words_that_yaml_1_1_reads_as_other_things(tmp_path: Path) -> None:
    source = listed(tmp_path, "Short: [no, on, yes, y, off, 0o]\n010: [x]\n")
    with pytest.raises(UserError, match="the name 10 is not text"):
        load_categories(source)
    assert load_categories(listed(tmp_path, "Short: [no, on, yes, y, off]")) == {
        "Short": ("no", "on", "yes", "y", "off")
    }


def test_an_alias_is_what_it_names(tmp_path: Path) -> None:
    source = listed(tmp_path, "Sea: &sea [tide]\nWater: *sea\n")
    assert load_categories(source) == {"Sea": ("tide",), "Water": ("tide",)}


def test_escapes_of_json(tmp_path: Path) -> None:
    """A character beyond the first 65,536 comes in two halves."""
    source = listed(tmp_path, json.dumps({"\U0001d49c": ["\U0001d4b7\U0001d4b7"]}), "lists.json")
    assert load_categories(source) == {"\U0001d49c": (fold("\U0001d4b7\U0001d4b7"),)}


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "round.yaml").symlink_to("round.yaml")
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(20_000_000)
    for name, message in {
        "pipe.yaml": "no such file .it is not a regular file",
        ".": "no such file .it is a folder",
        "round.yaml": "links form a loop",
        "huge.yaml": "is larger than 10 MB",
        "lists.yaml/below": "no such file|a file is where a folder should be",
        "x" * 300: "longer than a file name may be",
        "nul\0.yaml": "cannot hold a NUL byte",
    }.items():
        listed(tmp_path, "Sea: [tide]")
        with pytest.raises(UserError, match=message) as caught:
            load_categories(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="~nobody-here has no home directory"):
        load_categories("~nobody-here/lists.yaml")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.yaml: no such file; give a YAML file of word lists"):
        load_categories(str(tmp_path / "nothing.yaml"))
    with pytest.raises(UserError, match=r"no such file \(did you mean 'wordnet'\?\)"):
        load_categories("wordnt")
    path = tmp_path / "latin.yaml"
    path.write_bytes("Sea: [marée]".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        load_categories(str(path))


def test_only_names_what_is_there() -> None:
    with pytest.raises(UserError, match=r"no category 'Emotion' \(did you mean 'Emotions'\?\)"):
        load_categories("paper", ["Time", "Emotion"])
    with pytest.raises(UserError, match="no category 'Xyz': there are Time, Calendar"):
        load_categories("paper", ["Xyz"])
    with pytest.raises(UserError, match="names no category"):
        load_categories("paper", [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Daylight, don't 'quote' it’s", ["daylight", "don't", "quote", "it's"]),
        ("snake_case co-op 3rd 1,000", ["snake", "case", "co", "op", "3rd", "1", "000"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("cafe\u0301 café", ["café", "café"]),  # the accent as a mark of its own
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("рыба и море", ["рыба", "и", "море"]),
        ("dogs' 'tis rock'n'roll", ["dogs", "tis", "rock'n'roll"]),
        ("... — \n\t", []),
    ],
)
def test_whole_words(text: str, words: list[str]) -> None:
    assert [fold(word) for word in word_pattern().findall(text)] == [fold(word) for word in words]


def test_a_word_is_whole_or_not() -> None:
    assert is_whole_word("o'clock")
    assert not any(map(is_whole_word, ["", "two words", "a-b", "'", "day.", "day\n"]))
