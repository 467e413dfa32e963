"""Categories: lists of words with a meaning, from a file, from the paper, or from WordNet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from unifeat.errors import UserError, did_you_mean
from unifeat.store.paths import user_path
from unifeat.study.yaml_file import read_yaml
from unifeat.subspaces.wholewords import fold, is_whole_word
from unifeat.subspaces.wordnet import find_wordnet, supersenses

Categories = dict[str, tuple[str, ...]]
"""Name of a category → its words, folded (`wholewords.fold`), each once, in the order of the list."""

NAMED = ("paper", "wordnet")
"""Sources that are not files. `wordnet:FOLDER` says where WordNet is."""

_LONGEST_NAME = 200  # characters
_CONTROL_NAME = re.compile(r" · random words( \d+)?\Z")  # names of control lists, see `pipeline.subspaces`


def load_categories(source: str, only: Iterable[str] | None = None) -> Categories:
    """Categories and their words.

    Words are compared folded: case does not matter, so `May` also matches the verb, and `US` the pronoun. A word given
    twice counts once.

    Args:
        source: a YAML (or JSON) file that maps each category to its list of words; `paper`, the eight lists of
            arXiv 2410.06981 as given there; `wordnet` or `wordnet:FOLDER`, WordNet's 26 noun supersenses (see
            `wordnet.supersenses`).
        only: which categories, in this order; None for all.

    Raises:
        UserError: no such file, or not a mapping of lists; a category that is given twice, empty, or has a reserved
            name; an entry that is not one whole word; WordNet is not installed; or `only` names an unknown category.
    """
    if source == "paper":
        text = (files("unifeat.subspaces") / "data" / "paper_keywords.json").read_text(encoding="utf-8")
        known = _checked(json.loads(text), source)
    elif source == "wordnet" or source.startswith("wordnet:"):
        known = supersenses(find_wordnet(source.partition(":")[2] or None))
    else:
        known = _checked(_read(user_path(source, "categories")), source)
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
    try:
        path.stat()
    except FileNotFoundError as error:
        named = "" if path.suffix else did_you_mean(str(path), NAMED)
        raise UserError(
            f"categories {path}: no such file{named}; give a YAML file of word lists, paper or wordnet"
        ) from error
    except OSError:
        pass  # `read_yaml` reports it
    return read_yaml(path, f"categories {path}")


def _checked(data: Any, source: str) -> Categories:
    if not isinstance(data, dict) or not data:
        raise UserError(f"categories {source}: expected names of categories, each with a list of words")
    checked: Categories = {}
    for name, words in data.items():
        if not isinstance(name, str):
            raise UserError(f"categories {source}: the name {name!r} is not text: put it in quotes")
        if name == "all" or not name.strip() or len(name) > _LONGEST_NAME or _CONTROL_NAME.search(name):
            raise UserError(f"categories {source}: no category can be called {_short(name)}: {_why(name)}")
        if not isinstance(words, list):
            raise UserError(f"categories {source}, {name}: expected a list of words")
        if not words:
            raise UserError(f"categories {source}, {name}: the list is empty; add words or remove the category")
        checked[name] = tuple(dict.fromkeys(_word(word, f"categories {source}, {name}") for word in words))
    return checked


def _word(entry: Any, where: str) -> str:
    if isinstance(entry, list | dict):
        raise UserError(f"{where}: {_short(entry)} is where a word should be")
    if not isinstance(entry, str):
        # YAML reads 1984 as a number and true as a truth value.
        raise UserError(f"{where}: {_short(entry)} is not text: put it in quotes")
    word = entry.strip()
    if not is_whole_word(word):
        raise UserError(
            f"{where}: {_short(entry)} is not one whole word (letters, digits, apostrophes), so nothing would match it"
        )
    return fold(word)


def _why(name: str) -> str:
    if name == "all":
        return "it is reserved for the pairs of all features"
    if _CONTROL_NAME.search(name):
        return "such names are reserved for lists of random words"
    return f"give it a name of 1 to {_LONGEST_NAME} characters"


def _short(entry: Any) -> str:
    text = repr(entry)
    return text if len(text) <= 60 else f"{text[:45]}…{text[-10:]}"
