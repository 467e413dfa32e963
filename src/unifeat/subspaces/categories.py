"""Categories: lists of words with a meaning, from a file, from the paper, or from WordNet."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from unifeat.errors import UserError, did_you_mean
from unifeat.subspaces.wholewords import fold, is_whole_word
from unifeat.subspaces.wordnet import find_wordnet, supersenses

Categories = dict[str, tuple[str, ...]]
"""Name of a category → its words, folded (`wholewords.fold`), each once, in the order of the list."""

NAMED = ("paper", "wordnet")
"""Sources that are no files; `wordnet:FOLDER` says where WordNet is."""


def load_categories(source: str, only: Iterable[str] | None = None) -> Categories:
    """Categories and their words.

    Words are compared folded: case does not matter, so `May` also stands for the verb, and `US` for the pronoun.
    A word given twice counts once.

    Args:
        source: a YAML (or JSON) file that maps each category to its list of words; `paper`, the eight lists of
            arXiv 2410.06981 as given there; `wordnet` or `wordnet:FOLDER`, WordNet's 26 noun supersenses (see
            `wordnet.supersenses`).
        only: the categories wanted, in the order wanted; all of them if None.

    Raises:
        UserError: no such file, not a mapping of lists, an empty category, an entry that is not one whole word, WordNet
            not installed, or `only` naming what is not there.
    """
    if source == "paper":
        text = (files("unifeat.subspaces") / "data" / "paper_keywords.json").read_text(encoding="utf-8")
        known = _checked(json.loads(text), source)
    elif source == "wordnet" or source.startswith("wordnet:"):
        known = supersenses(find_wordnet(source.partition(":")[2] or None))
    else:
        known = _checked(_read(Path(source).expanduser()), source)
    if only is None:
        return known
    wanted = list(dict.fromkeys(only))
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known) or f": there are {', '.join(known)}"
            raise UserError(f"categories {source}: there is no category {name!r}{near}")
    if not wanted:
        raise UserError(f"categories {source}: `only` names no category; leave it out to have all {len(known)}")
    return {name: known[name] for name in wanted}


def _read(path: Path) -> Any:
    if not path.is_file():
        named = "" if path.suffix else did_you_mean(str(path), NAMED)
        raise UserError(f"categories {path}: no such file{named}; give a YAML file of word lists, paper or wordnet")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"categories {path}{where}: not valid YAML ({problem})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"categories {path} is not UTF-8 (byte {error.start}): convert it first") from error


def _checked(data: Any, source: str) -> Categories:
    if not isinstance(data, dict) or not data:
        raise UserError(f"categories {source}: expected names of categories, each with a list of words")
    checked: Categories = {}
    for name, words in data.items():
        if not isinstance(name, str):
            raise UserError(f"categories {source}: the name {name!r} is not text: put it in quotes")
        if not isinstance(words, list):
            raise UserError(f"categories {source}, {name}: expected a list of words")
        if not words:
            raise UserError(f"categories {source}, {name}: the list is empty; add words or take the category out")
        checked[name] = tuple(dict.fromkeys(_word(word, f"categories {source}, {name}") for word in words))
    return checked


def _word(entry: Any, where: str) -> str:
    if not isinstance(entry, str):
        # YAML reads no, on and 1984 as other things than words.
        raise UserError(f"{where}: {entry!r} is not text: put it in quotes")
    word = entry.strip()
    if not is_whole_word(word):
        raise UserError(f"{where}: {entry!r} is not one whole word (letters, digits, apostrophes): none can match it")
    return fold(word)
