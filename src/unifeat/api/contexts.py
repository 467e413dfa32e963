"""Contexts of a feature: where it fires most, with every token shaded by how strongly it fires there."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from unifeat.codes.shard import Shard
from unifeat.codes.store import CodeStore
from unifeat.report.contexts import visible
from unifeat.text.corpus import Corpus

_CANDIDATES = 20  # strongest places of a shard that are looked at, for each context wanted
_COLOURS = ("31 95 168", "184 80 11")
_WIDTH = 34  # characters on either side, on a terminal


@dataclass(frozen=True)
class Context:
    """A stretch of text around a token on which a feature fires.

    Attributes:
        document, char_end: the token: the document, and the character at which the token ends.
        activation: of the feature on it.
        tokens: the texts of the stretch's tokens, in order. Masked tokens are part of the next one.
        activations: of the feature, on each of them.
        at: which of them the token is.
    """

    document: int
    char_end: int
    activation: float
    tokens: list[str]
    activations: list[float]
    at: int

    @property
    def token(self) -> str:
        """The token's text."""
        return self.tokens[self.at]

    @property
    def before(self) -> str:
        """The text before it."""
        return "".join(self.tokens[: self.at])

    @property
    def after(self) -> str:
        """The text after it."""
        return "".join(self.tokens[self.at + 1 :])


@dataclass(frozen=True)
class Contexts:
    """The contexts of a feature, strongest first. A notebook shows them with shading, `print` in plain text.

    Attributes:
        space, feature: which feature.
        label: words for it, if the run has any.
        count: tokens on which it fires.
        contexts: the contexts.
    """

    space: str
    feature: int
    label: str
    count: int
    contexts: list[Context]

    @property
    def table(self) -> pd.DataFrame:
        """`document`, `char_end`, `activation`, `before`, `token`, `after`, a row for each context."""
        names = ("document", "char_end", "activation", "before", "token", "after")
        return pd.DataFrame([{name: getattr(c, name) for name in names} for c in self.contexts], columns=list(names))

    def __len__(self) -> int:
        return len(self.contexts)

    def __iter__(self) -> Any:
        return iter(self.contexts)

    @property
    def title(self) -> str:
        """`smollm2@15/831 “House” · fires on 113 tokens`."""
        label = f" {self.label}" if self.label else ""
        return f"{self.space}/{self.feature}{label} · fires on {self.count:,} tokens"

    def __repr__(self) -> str:
        lines = [self.title]
        for one in self.contexts:
            before, after = visible(one.before)[-_WIDTH:], visible(one.after)[:_WIDTH]
            lines.append(f"{one.activation:9.3g}  {before:>{_WIDTH}}[{visible(one.token)}]{after}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.html()

    def html(self, side: int = 0) -> str:
        """The contexts as HTML: a line each, tokens shaded by activation.

        Args:
            side: 0 or 1: the colour of features of A, or of B.
        """
        strongest = max((abs(one.activation) for one in self.contexts), default=1.0) or 1.0
        rows = "".join(_row(one, strongest, _COLOURS[side]) for one in self.contexts)
        empty = "" if rows else "<tr><td>It never fires on this text.</td></tr>"
        style = "border-collapse:collapse;font-size:.9em;line-height:1.6"
        return f"<div><b>{escape(visible(self.title))}</b><table style='{style}'>{rows}{empty}</table></div>"


def _row(one: Context, strongest: float, colour: str) -> str:
    spans = []
    for number, (token, value) in enumerate(zip(one.tokens, one.activations, strict=True)):
        shade = (
            f"background:rgb({colour}/{min(abs(value) / strongest, 1) * 0.5:.2f});border-radius:3px" if value else ""
        )
        weight = "font-weight:600;" if number == one.at else ""
        text = f"<bdi>{escape(visible(token))}</bdi>"
        spans.append(f"<span style='{weight}{shade}' title='{value:.3g}'>{text}</span>" if shade or weight else text)
    cell = f"<td style='text-align:right;padding-right:1em;opacity:.7'>{one.activation:.3g}</td>"
    return f"<tr>{cell}<td style='text-align:left;white-space:pre-wrap'>{''.join(spans)}</td></tr>"


def contexts_of(store: CodeStore, corpus: Corpus, feature: int, n: int, around: int) -> tuple[int, list[Context]]:
    """How many tokens a feature fires on, and its strongest contexts, at least `around` characters apart.

    Reads every shard once, and needs memory for one of them.
    """
    count = 0
    found: list[tuple[float, int, int, int, int]] = []  # −|value|, document, end, shard, row: ties go to the earlier
    for number, shard in enumerate(store.shards()):
        entries = np.flatnonzero(shard.feature == feature)
        count += len(entries)
        value = np.asarray(shard.value, np.float32)[entries]
        best = np.argsort(-np.abs(value), kind="stable")[: _CANDIDATES * n]
        rows = np.searchsorted(shard.indptr, entries[best], side="right") - 1
        places = shard.places
        found += [
            (-abs(float(v)), int(places.document[row]), int(places.char_end[row]), number, int(row))
            for v, row in zip(value[best], rows.tolist(), strict=True)
        ]
    chosen: list[tuple[float, int, int, int, int]] = []
    for one in sorted(found):
        if len(chosen) == n:
            break
        if all(one[1] != other[1] or abs(one[2] - other[2]) >= around for other in chosen):
            chosen.append(one)
    texts = corpus.contexts([(document, end) for _, document, end, _, _ in chosen], around)
    return count, [
        _context(store.shard(shard), feature, row, around, *texts[document, end])
        for _, document, end, shard, row in chosen
    ]


def _context(shard: Shard, feature: int, row: int, around: int, text: str, offset: int) -> Context:
    """The context around a row of a shard; its token ends at `offset` of `text`."""
    places = shard.places
    document, end = int(places.document[row]), int(places.char_end[row])
    begin = end - offset  # the character of the document at which the text begins
    same = np.flatnonzero(
        (places.document == document) & (places.char_end > begin) & (places.char_end <= begin + len(text))
    )
    tokens: list[str] = []
    activations: list[float] = []
    at, last = 0, 0
    for one in same.tolist():
        stop = int(places.char_end[one]) - begin
        entries = slice(int(shard.indptr[one]), int(shard.indptr[one + 1]))
        mine = np.flatnonzero(shard.feature[entries] == feature)
        if one == row:
            at = len(tokens)
        tokens.append(text[last:stop])
        activations.append(float(shard.value[entries][mine[0]]) if len(mine) else 0.0)
        last = stop
    if last < len(text):
        tokens.append(text[last:])
        activations.append(0.0)
    return Context(document, end, activations[at], tokens, activations, at)
