"""The pairs that the report shows, and the text around the tokens on which their features fire."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unifeat.matching.disputed import against
from unifeat.pipeline.spaces import Space
from unifeat.store import written_aside
from unifeat.text.corpus import Corpus

STRONGEST = 15
RANDOM = 15
DISPUTED = 15
EXAMPLES = 5
CONTEXT_CHARACTERS = 70


def pick_shown(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The pairs of two spaces that the report lists: the strongest, a random sample of the rest, and disputed ones.

    The strongest have the largest r among those that fire on more than one word: detectors of a single word have the
    largest r of all and say the least about what models share. They follow where there are not enough others.

    Args:
        pairs: their rows of `pairs.parquet`.

    Returns:
        Some of the kept rows, with a column `chosen`: "strongest", "random" or "disputed", and `disputed`: what speaks
        against the pair, empty if nothing does. A pair may be chosen twice. Disputed ones are those that most evidence
        speaks against, the strongest first among equals.
    """
    kept = pairs[pairs["kept"]]
    reasons = against(kept)
    kept = kept.assign(disputed=["; ".join(reasons.columns[row]) for row in reasons.to_numpy(bool)])
    one_word = kept.apply(_fires_on_one_word, axis=1) if len(kept) else pd.Series(dtype=bool)
    order = kept.assign(one_word=one_word).sort_values(["one_word", "correlation"], ascending=[True, False])
    strongest = kept.loc[order.index[:STRONGEST]]
    rest = kept.drop(strongest.index)
    drawn = rest.sample(min(RANDOM, len(rest)), random_state=seed)
    ranked = kept.assign(against=reasons.sum(axis=1)).sort_values(["against", "correlation"], ascending=False)
    disputed = kept.loc[ranked.index[ranked["against"] > 0][:DISPUTED]]
    lists = {"strongest": strongest, "random": drawn, "disputed": disputed}
    return pd.concat([rows.assign(chosen=name) for name, rows in lists.items()], ignore_index=True)


def _fires_on_one_word(pair: pd.Series) -> bool:
    words = {str(token).strip().casefold() for side in "ab" for token in pair[f"top_tokens_{side}"]}
    return len(words) <= 1


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
