"""The pairs that the report shows, and the text around the tokens on which their features fire."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unifeat.pipeline.spaces import Space
from unifeat.store import written_aside
from unifeat.text.corpus import Corpus

STRONGEST = 15
RANDOM = 15
EXAMPLES = 5
CONTEXT_CHARACTERS = 70


def pick_shown(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The pairs of two spaces that the report lists: the strongest, and a random sample of the rest.

    Args:
        pairs: their rows of `pairs.parquet`.

    Returns:
        Some of the kept rows, with a column `chosen`: "strongest" or "random".
    """
    kept = pairs[pairs["kept"]]
    strongest = kept.nlargest(STRONGEST, "correlation")
    rest = kept.drop(strongest.index)
    drawn = rest.sample(min(RANDOM, len(rest)), random_state=seed)
    return pd.concat([strongest.assign(chosen="strongest"), drawn.assign(chosen="random")], ignore_index=True)


def around_token(text: str, end: int, written: str) -> tuple[str, str, str]:
    """A text before, at and after a token.

    Args:
        end: the character of the text where the token ends.
        written: the token decoded by itself. If the text does not have it there, its last character stands for it.
    """
    start = end - len(written) if text[:end].endswith(written) else max(end - 1, 0)
    return text[:start], text[start:end], text[end:]


def write_examples(path: Path, shown: pd.DataFrame, corpus: Corpus, spaces: list[Space]) -> None:
    """Write the strongest activations of every shown feature with the text around them.

    Columns: `space`, `feature`, `rank`, `activation`, `document`, `before`, `token`, `after`.
    """
    wanted = pd.concat(
        [shown[[f"space_{side}", f"feature_{side}"]].set_axis(["space", "feature"], axis=1) for side in ("a", "b")]
    ).drop_duplicates()
    tables = []
    for space in spaces:
        features = wanted.loc[wanted["space"] == space.name, "feature"]
        if features.empty:
            continue
        top = space.tops
        tables.append(top[top["feature"].isin(features) & (top["rank"] < EXAMPLES)].assign(space=space.name))
    rows = pd.concat(tables or [spaces[0].tops.head(0).assign(space="")], ignore_index=True)
    places = list(zip(rows["document"].astype(int), rows["char_end"].astype(int), strict=True))
    contexts = corpus.contexts(places, around=CONTEXT_CHARACTERS)
    decoders = {space.name: space.tokenizer() for space in spaces if space.name in set(rows["space"])}
    parts = []
    for place, space, token in zip(places, rows["space"], rows["token"], strict=True):
        parts.append(around_token(*contexts[place], decoders[space].decode([int(token)])))
    rows = rows.assign(before=[p[0] for p in parts], word=[p[1] for p in parts], after=[p[2] for p in parts]).drop(
        columns=["token", "char_end"]
    )
    rows = rows.rename(columns={"word": "token"})[
        ["space", "feature", "rank", "activation", "document", "before", "token", "after"]
    ]
    shown_path = path.with_name("shown.parquet")
    with written_aside(shown_path) as aside:
        shown.to_parquet(aside, index=False)
    with written_aside(path) as aside:
        rows.to_parquet(aside, index=False)
