"""Articles of a Wikipedia dump as plain prose."""

from __future__ import annotations

import bz2
import html
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

LONGEST = 2000  # characters; an article ends with the paragraph that reaches this many
SHORTEST = 1000  # shorter articles are stubs, or lists
_SHORTEST_PARAGRAPH = 80

_DISAMBIGUATION = re.compile(r"\{\{\s*(disambig|hndis|geodis)|\bmay (also )?refer to:|__DISAMBIG__", re.I)
_HIDDEN = re.compile(r"(?s)<!--.*?-->")
_NOTES = re.compile(r"(?is)<ref\b[^>]*/>|<ref\b[^>]*>.*?</ref>")
_NO_PROSE = re.compile(
    r"(?is)<(math|gallery|timeline|code|source|syntaxhighlight|score|table|sup|sub|imagemap)\b.*?</\1>"
)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_TABLE = re.compile(r"(?s)\{\|(?:(?!\{\|).)*?\|\}")
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_OUTSIDE_LINK = re.compile(r"\[(?:\w+:)?//[^\s\]]+\s*([^\]]*)\]")
_TAG = re.compile(r"<[^<>]+>")
_LEFT_OVER = re.compile(r"\[\[|\]\]|\{\{|\}\}|\||\]\(|^[=*#:;!{]")
# What a template leaves where it gave a pronunciation or a year: "(, from Latin)", "( years ago)", "()".
_OPENED = re.compile(r"\([\s,;:]+")
_EMPTY = re.compile(r" ?\([\s,;:]*\)")


def articles(dump: Path) -> Iterator[str]:
    """The prose of a dump's articles (.xml.bz2), in its order, without headings, lists, tables, notes and formulas.

    Redirects, pages that only point to others, and articles with less than 1,000 characters of prose are left out.
    """
    with bz2.open(dump) as file:
        root = ElementTree.parse(file).getroot()
    name = root.tag.removesuffix("mediawiki")  # the namespace of all tags
    for page in root.iter(f"{name}page"):
        text = page.findtext(f"{name}revision/{name}text") or ""
        if page.find(f"{name}redirect") is not None or _DISAMBIGUATION.search(text):
            continue
        article = prose(text)
        if len(article) >= SHORTEST:
            yield article


def prose(markup: str) -> str:
    """The first paragraphs of an article, of at least 2,000 characters if it has so many."""
    kept: list[str] = []
    for line in plain(markup).split("\n"):
        paragraph = " ".join(line.split())
        if len(paragraph) >= _SHORTEST_PARAGRAPH and not _LEFT_OVER.search(paragraph):
            kept.append(paragraph)
        if sum(map(len, kept)) >= LONGEST:
            break
    return "\n\n".join(kept)


def plain(markup: str) -> str:
    """MediaWiki markup without what is not text. Lists and headings keep the sign that they begin with."""
    text = _HIDDEN.sub("", markup)
    text = _NOTES.sub("", text)
    text = _NO_PROSE.sub("", text)
    text = _innermost_first(_TEMPLATE, text, "")
    text = _innermost_first(_TABLE, text, "")
    text = _innermost_first(_LINK, text, _shown)
    text = _OUTSIDE_LINK.sub(r"\1", text)
    text = _TAG.sub("", text)
    text = re.sub("'{2,}", "", text)
    text = html.unescape(html.unescape(text)).replace("\N{NO-BREAK SPACE}", " ")
    text = _EMPTY.sub("", _OPENED.sub("(", text))
    return re.sub(r" +([,.;:)])", r"\1", text)


def _innermost_first(pattern: re.Pattern[str], text: str, by: str | Callable[[re.Match[str]], str]) -> str:
    """Replace until there is nothing left to replace: templates, tables and links hold others of their kind."""
    found = 1
    while found:
        text, found = pattern.subn(by, text)
    return text


def _shown(link: re.Match[str]) -> str:
    """What a reader sees of a link; nothing of pictures, categories and articles in other languages."""
    target, _, words = link[1].partition("|")
    return "" if ":" in target.split(" ")[0] else words.rsplit("|", 1)[-1] or target
