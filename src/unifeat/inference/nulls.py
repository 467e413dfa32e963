"""The nulls that scores stand beside: what each asks, which columns of `scores.parquet` it fills, its version.

A new null is a row of `NULLS` and a step that fills its columns (as `pipeline/rematch.py` does); q-values, the report's
table of scores and the keys of what is stored follow from the row.
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
        question: what a small p says.
        columns: its columns in `scores.parquet`, in order, each with what it holds where the null was not asked.
        p, q: which of them are its p-value, and the q-value of that.
        headings: what the report's table of scores shows of it: (heading, column).
        version: raised whenever it comes out otherwise than before; part of the key of what is stored.
    """

    question: str
    columns: Mapping[str, Any]
    p: str
    q: str
    headings: tuple[tuple[str, str], ...]
    version: int = 1


NULLS: dict[str, Null] = {
    "shuffle": Null(
        question="is the pairing of rows worth more than chance, given the pairs?",
        columns=dict.fromkeys(("null_mean", "null_sd", "corrected", "p", "p_family", "q"), NAN),
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
    ),
    "rematch": Null(
        question="is it more than the same matching gives on text shifted by documents?",
        columns=dict.fromkeys(("rematch_mean", "rematch_sd", "rematch_p", "rematch_q"), NAN),
        p="rematch_p",
        q="rematch_q",
        headings=(("rematch mean", "rematch_mean"), ("rematch p", "rematch_p"), ("rematch q", "rematch_q")),
    ),
    "subset": Null(
        question="are a category's pairs more (or less) alike than other pairs that fire as often?",
        columns={"subset_n": 0}
        | dict.fromkeys(("subset_score", "subset_mean", "subset_sd", "subset_p", "subset_q"), NAN),
        p="subset_p",
        q="subset_q",
        headings=(),
    ),
}
