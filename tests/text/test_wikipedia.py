"""The demo's articles: what is left of a Wikipedia dump."""

from __future__ import annotations

import bz2
from html import escape
from pathlib import Path

import pytest

from unifeat.demo.wikipedia import LONGEST, SHORTEST, articles, plain, prose

SENTENCE = "The common aardvark digs its burrow at night and leaves it again before the morning comes. "


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("an [[anteater]] and [[Aardvark|another one]]s", "an anteater and another ones"),
        ("[[File:A.jpg|thumb|A [[bee]] on a [[red rose|rose]].]]after", "after"),
        ("[[Category:Bees]][[de:Biene]]left", "left"),
        ("'''Bees''' (''Apis'') are '''''small'''''", "Bees (Apis) are small"),
        ("one{{cite|a={{b}}|{{c|{{d}}}}}} two", "one two"),
        (
            'fact.<ref name="x">Smith {{p|3}}</ref> More<ref name="x" />, and <small>less</small>',
            "fact. More, and less",
        ),
        ("{| class=x\n|-\n| {|\n| inner\n|}\n|}\nbelow", "\nbelow"),
        (
            "see [http://example.org/a?b the page] and [//example.org] and [ftp://a.b/c files]",
            "see the page and and files",
        ),
        ("a&nbsp;b &amp;ndash; c &lt;", "a b – c <"),
        ("<!-- hidden\n'''words''' -->shown", "shown"),
        ("E = <math>mc^{2}</math>, H<sub>2</sub>O", "E =, HO"),
        ("Abacus ({{IPA|x}}, from Greek) and Ada ({{lang|y}}) and ( {{z}} ; )", "Abacus (from Greek) and Ada and"),
        ("= Head =\n* item\n# one\n: note", "= Head =\n* item\n# one\n: note"),
    ],
)
def test_what_a_reader_sees(markup: str, text: str) -> None:
    found = plain(markup)
    assert found.replace("  ", " ").rstrip() == text


def test_paragraphs_up_to_a_length() -> None:
    markup = "== Head ==\n* a list of some length, which is as long as a paragraph, or even longer\nShort.\n"
    markup += "\n\n".join(f"{number}. {SENTENCE * 5}" for number in range(30)) + "\nbroken [[link|" + SENTENCE
    text = prose(markup)
    paragraphs = text.split("\n\n")
    assert LONGEST <= len(text) < LONGEST + 6 * len(SENTENCE)
    assert sum(map(len, paragraphs[:-1])) < LONGEST
    assert [paragraph.split(".")[0] for paragraph in paragraphs] == [str(number) for number in range(len(paragraphs))]
    assert "list" not in text
    assert "broken" not in prose("broken [[link|" + SENTENCE)


def test_articles_of_a_dump(tmp_path: Path) -> None:
    long = SENTENCE * (SHORTEST // len(SENTENCE) + 1)
    pages = {
        "Aardvark": long,
        "Ants": "#REDIRECT [[Ant]]" + long,
        "Ada": "'''Ada''' may refer to:\n" + long,
        "Austin": "{{disambiguation}}" + long,
        "Stub": SENTENCE,
        "Abacus": "{{Infobox}} '''It''' [[refer]]s & " + long,
    }
    written = ""
    for title, text in pages.items():
        redirect = "<redirect title='Ant'/>" if title == "Ants" else ""
        page = f"<title>{title}</title>{redirect}<revision><text>{escape(text)}</text></revision>"
        written += f"<page>{page}</page>"
    dump = tmp_path / "dump.xml.bz2"
    dump.write_bytes(bz2.compress(f'<mediawiki xmlns="http://www.mediawiki.org/x/">{written}</mediawiki>'.encode()))
    found = list(articles(dump))
    assert found == [long.strip(), f"It refers & {long.strip()}"]
