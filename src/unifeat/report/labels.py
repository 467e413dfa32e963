"""Words for features in what the terminal and the report show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from unifeat.labels.files import read_labels
from unifeat.labels.lines import MARK
from unifeat.report.tables import number, percent, probability
from unifeat.runs.folder import Run
from unifeat.runs.given import by_space


def labels_given(run: Run, given: Iterable[str]) -> dict[str, dict[int, str]]:
    """The labels that `--labels SPACE=PATH` names, by space.

    Raises:
        UserError: not of that form, a space that the run does not have, or as `read_labels` does.
    """
    spaces = run.info["spaces"]
    return {
        space: read_labels(path, features=spaces[space]["d_sae"], what=f"--labels {space}")
        for space, path in by_space(run, given, "--labels", "PATH", "labels.csv").items()
    }


def with_labels(pairs: pd.DataFrame, labels: Mapping[str, Mapping[int, str]]) -> pd.DataFrame:
    """Pairs of two spaces with other labels, in the place of theirs."""
    for side in "ab":
        own = labels.get(str(pairs[f"space_{side}"].iloc[0])) if len(pairs) else None
        if own is not None:
            named = [own.get(feature, "") for feature in pairs[f"feature_{side}"].tolist()]
            pairs = pairs.assign(**{f"label_{side}": named})
    if any(f"label_{side}" in pairs for side in "ab"):
        pairs = pairs.assign(**{name: "" for name in ("label_a", "label_b") if name not in pairs})
    return pairs


def matching(pairs: pd.DataFrame, search: str) -> pd.DataFrame:
    """The pairs of which a label or a top token contains a text, whatever its case."""
    wanted = search.casefold()

    def has(texts: Iterable[Any]) -> bool:
        return any(wanted in str(text).casefold() for text in texts)

    labels = [name for name in ("label_a", "label_b") if name in pairs]
    rows = [
        has([*tokens_a, *tokens_b, *own])
        for tokens_a, tokens_b, *own in zip(
            pairs["top_tokens_a"], pairs["top_tokens_b"], *(pairs[name] for name in labels), strict=True
        )
    ]
    return pairs[pd.Series(rows, pairs.index, dtype=bool)]


def label_of_family(labels: Mapping[str, Mapping[int, str]], members: Mapping[str, int]) -> str:
    """What most members of a family are called; names that were given come before automatic labels.

    Args:
        labels: by space and feature.
        members: the feature of each space that has one.
    """
    called = Counter(label for space, feature in members.items() if (label := labels[space].get(feature)))
    best = max(called.items(), key=lambda item: (not item[0].startswith(MARK), item[1]), default=("", 0))
    return best[0]


def labels_sentence(cell: Any) -> str:
    """How well the labels of partners agree, beside random pairs; empty where that is not known."""
    facts = getattr(cell, "labels", None)
    if not isinstance(facts, dict):
        return ""
    made = " made from contexts" if facts["automatic"] else ""
    return (
        f"labels{made}: partners have {percent(facts['mean'])} of their word stems in common, partners at random "
        f"{percent(facts['chance'])} (p {probability(facts['p'])}, {number(facts['pairs'])} pairs)"
    )
