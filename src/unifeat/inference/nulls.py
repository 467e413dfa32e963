"""The nulls that scores are compared with: their columns in `scores.parquet`, and their versions.

To add a null, add a row to `NULLS` and a step that fills its columns (as `pipeline/rematch.py` does). The q-values, the
report's table of scores and the keys of stored results follow from the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAN = float("nan")


@dataclass(frozen=True)
class Null:
    """One null.

    Attributes:
        columns: its columns in `scores.parquet`, in order, each with its value where the null was not computed.
        p, q: the columns of its p-value and q-value. What is least possible for p is in the column `least_` + p, where
            it is not the same for all scores of a cell.
        headings: the columns that the report's table of scores shows: (heading, column).
        version: raised whenever the null's results change; part of the keys of stored results.
    """

    columns: Mapping[str, Any]
    p: str
    q: str
    headings: tuple[tuple[str, str], ...]
    version: int = 1


@dataclass(frozen=True)
class Again:
    """What a null that matches again on rearranged text is called.

    Attributes:
        prefix: the beginning of its columns' names.
        label: its short name.
        what: what is rearranged.
    """

    prefix: str
    label: str
    what: str


AGAIN = {
    "rematch": Again("rematch", "other text", "with the documents of one model beside others"),
    "same_token": Again("token", "same token", "with rows of one model permuted among those of the same token"),
    "same_two_tokens": Again("two_tokens", "same two tokens", "the same, if the token before is the same, too"),
}


def _again(name: str) -> Null:
    """A null that matches again. `score` is that of as many of the run's own pairs as the null has."""
    prefix, label = AGAIN[name].prefix, AGAIN[name].label
    nothing = dict.fromkeys(("score", "mean", "sd", "p", "p_family", "q"), NAN) | {"draws": 0, "stopped": False}
    return Null(
        columns={f"{prefix}_{column}": value for column, value in nothing.items()},
        p=f"{prefix}_p",
        q=f"{prefix}_q",
        headings=(
            (f"{label} mean", f"{prefix}_mean"),
            ("own at that n", f"{prefix}_score"),
            (f"{label} p", f"{prefix}_p"),
            ("family-wise p", f"{prefix}_p_family"),
            (f"{label} q", f"{prefix}_q"),
        ),
        version=4,  # no two draws of few documents are the same; rows that stay are counted
    )


NULLS: dict[str, Null] = {
    # Does the pairing of rows matter, given the pairs?
    "shuffle": Null(
        columns=dict.fromkeys(("null_mean", "null_sd", "corrected", "p", "p_family", "q", "least_p"), NAN),
        p="p",
        q="q",
        headings=(
            ("null mean", "null_mean"),
            ("null sd", "null_sd"),
            ("corrected", "corrected"),
            ("p", "p"),
            ("family-wise p", "p_family"),
            ("q", "q"),
        ),
        version=3,  # knows its least p
    ),
    # The same among pairs that are alike in what the study's `inference.strata` names.
    "strata": Null(
        columns=dict.fromkeys(("null_strata_mean", "p_strata", "p_strata_family", "q_strata", "least_p_strata"), NAN),
        p="p_strata",
        q="q_strata",
        headings=(
            ("null mean within strata", "null_strata_mean"),
            ("p within strata", "p_strata"),
            ("family-wise p within strata", "p_strata_family"),
            ("q within strata", "q_strata"),
        ),
        version=2,  # knows its least p
    ),
    # Does the pairing of clusters of near-copies matter, when one pair of each is scored?
    "cluster": Null(
        columns={"clusters": 0}
        | dict.fromkeys(
            ("effective_pairs", "cluster_score", "null_cluster_mean", "p_cluster", "q_cluster", "least_p_cluster"), NAN
        ),
        p="p_cluster",
        q="q_cluster",
        headings=(
            ("clusters", "clusters"),
            ("effective pairs", "effective_pairs"),
            ("score of clusters", "cluster_score"),
            ("null mean of clusters", "null_cluster_mean"),
            ("p of clusters", "p_cluster"),
            ("q of clusters", "q_cluster"),
        ),
        version=2,  # knows its least p
    ),
    # Is the score higher than with the same matching where no token meets its own text?
    "rematch": _again("rematch"),
    # … where every token meets its own kind, but not its own context?
    "same_token": _again("same_token"),
    # … where the token before is the same, too?
    "same_two_tokens": _again("same_two_tokens"),
    # Are a category's pairs more (or less) alike than other pairs that fire as often?
    "subset": Null(
        columns={"subset_n": 0}
        | dict.fromkeys(("subset_score", "subset_mean", "subset_sd", "subset_p", "subset_q"), NAN),
        p="subset_p",
        q="subset_q",
        headings=(),
    ),
}
