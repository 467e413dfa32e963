"""What the draws of a null that matches again say: p-values, family-wise p-values, decoys; and when they are enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.inference.nulls import NAN
from unifeat.inference.sequential import Sequential, sequential, sequential_family_wise

Floats = NDArray[np.float64]
R_BINS = np.round(np.linspace(0, 1, 201), 3)  # of the histograms of r
_OF_PAIRS = ("kept", "mean_correlation")
_ROUNDING = 1e-12


@dataclass
class Drawn:
    """What the draws of one cell have given so far.

    Attributes:
        draws: the facts about each draw's pairs.
        scores: for each measure, its score of each draw, as long as it was open.
        own: by number of pairs and measure, the score of so many of the run's own strongest pairs.
        open: the measures that are still scored.
    """

    draws: list[dict[str, Any]]
    scores: list[list[float]]
    own: dict[int, dict[int, float]]
    open: list[int]

    @classmethod
    def none(cls, measures: int) -> Drawn:
        """Before the first draw."""
        return cls([], [[] for _ in range(measures)], {}, list(range(measures)))

    def add(self, found: list[dict[str, Any]]) -> None:
        """Further draws, in which the open measures were scored."""
        self.draws += found
        for draw in found:
            for number, value in zip(self.open, draw["scores"], strict=True):
                self.scores[number].append(value)

    def beside(self, measure: int) -> list[float]:
        """The scores of as many of the run's own pairs as each draw that was scored has."""
        sizes = [draw["pairs_scored"] for draw in self.draws[: len(self.scores[measure])]]
        return [self.own[n][measure] for n in sizes]

    def excess(self, measure: int) -> Floats:
        """Each draw's score beyond that of the run's own pairs, NaN where one of them is undefined."""
        return np.array(self.scores[measure], np.float64) - np.array(self.beside(measure), np.float64)


@dataclass(frozen=True)
class Family:
    """Cells that are tested together.

    Attributes:
        cells: their places among all cells.
        shared: whether they share all draws, so that there are family-wise p-values; else it is a single cell.
    """

    cells: tuple[int, ...]
    shared: bool


def families(roles: list[str], asked: list[int], draws: int) -> list[Family]:
    """The families of a grid: the cells of one role; a cell that cannot have all draws is alone.

    Args:
        roles: what each cell is compared for, see `spaces.role`.
        asked: how many draws each cell can have.
        draws: how many the study asks for.
    """
    full = [i for i, n in enumerate(asked) if n == draws]
    shared = [
        Family(tuple(i for i in full if roles[i] == name), True) for name in dict.fromkeys(roles[i] for i in full)
    ]
    return [*shared, *(Family((i,), False) for i, n in enumerate(asked) if n != draws)]


class Tests:
    """The tests of one family under one null.

    Attributes:
        settled: whether no further draw can change any of them.
        of_pairs: by name, the tests of the number of pairs and of their mean r: of single cells, and family-wise.
        of_scores: the same of each measure.
    """

    def __init__(self, family: Family, drawn: list[Drawn], facts: list[dict[str, Any]], enough: int | None) -> None:
        self.family, self.settled = family, False
        self._drawn, self._facts, self._enough = drawn, facts, enough
        self._measures = range(len(drawn[0].scores))
        self.of_pairs: dict[str, tuple[Sequential, Sequential | None]] = {}
        self.of_scores: dict[int, tuple[Sequential, Sequential | None]] = {}
        self._judge()

    def settle(self) -> bool:
        """Look at the draws so far, and leave out of the next what they settle; returns `settled`.

        The cells of a family are only left out together: what is settled in one still counts in the maxima that the
        others are compared with. For the same reason a measure is left out in all of them or in none.
        """
        self._judge()
        if self._enough is not None:
            for drawn in self._drawn:
                drawn.open = [i for i in drawn.open if not _all_settled(self.of_scores[i])]
            self.settled = not self._drawn[0].open and all(map(_all_settled, self.of_pairs.values()))
        return self.settled

    def _judge(self) -> None:
        for name in _OF_PAIRS:
            known = [own[name] for own in self._facts]
            observed = np.array([NAN if value is None else value for value in known], np.float64)
            null = np.array([[draw[name] for draw in own.draws] for own in self._drawn], np.float64)  # None becomes NaN
            # A draw that keeps no pairs has no mean r, so it does not reach the observed one.
            self.of_pairs[name] = self._tests(observed, np.nan_to_num(null, nan=-1.0), ~np.isnan(observed))
        for measure in self._measures:
            # Each draw beside the run's own pairs at its number.
            excess = np.array([own.excess(measure) for own in self._drawn])
            tested = np.array([not np.isnan(np.array(own.beside(measure), np.float64)).all() for own in self._drawn])
            self.of_scores[measure] = self._tests(np.zeros(len(excess)), excess, tested)

    def _tests(self, observed: Floats, null: Floats, tested: NDArray[np.bool_]) -> tuple[Sequential, Sequential | None]:
        single = sequential(reaches(observed[:, None], null), self._enough)
        single = Sequential(np.where(tested, single.p, NAN), single.settled)
        return single, sequential_family_wise(observed, null, self._enough) if self.family.shared else None


def _all_settled(tests: tuple[Sequential, Sequential | None]) -> bool:
    return all(bool(found.settled.all()) for found in tests if found is not None)


def reaches(observed: Floats | float, null: Floats) -> NDArray[np.bool_]:
    """Which draws reach a score. One that cannot be scored does."""
    return ~(null < observed - _ROUNDING)


def summary(drawn: Drawn, asked: int, tests: Tests, place: int) -> dict[str, Any]:
    """The facts of one cell under one null.

    `draws` made of those `asked`, `stopped` (early), `least_p`; over the draws `kept`, `mean_correlation`, `same` (how
    many of the run's very pairs are kept again), `pairs_scored`; `p_kept`, `p_mean_correlation` and the same over the
    family, `p_kept_family` and `p_mean_correlation_family`; `r` (a histogram of r of the pairs that the method chooses,
    summed over the draws); of nulls of token types `rows` and `rows_alone`, which no draw moves; and for each measure
    of the geometry, in order, `scores` and `observed`, its values over the draws that were scored, and of as many of
    the run's own pairs; `p` and `p_family`.

    Args:
        place: the cell's place in its family.
    """
    made, measures = len(drawn.draws), range(len(drawn.scores))
    return {
        "draws": made,
        "asked": asked,
        "stopped": made < asked,
        "least_p": 1 / (asked + 1) if asked else None,
        **{name: [draw[name] for draw in drawn.draws] for name in (*_OF_PAIRS, "same", "pairs_scored")},
        **{name: drawn.draws[0][name] for name in ("rows", "rows_alone") if made and name in drawn.draws[0]},
        **{f"p_{name}": _p_at(found[0], place) for name, found in tests.of_pairs.items()},
        **{f"p_{name}_family": _p_at(found[1], place) for name, found in tests.of_pairs.items()},
        "r": np.sum([draw["r"] for draw in drawn.draws], axis=0, dtype=int).tolist() if made else [],
        "scores": drawn.scores,
        "observed": [drawn.beside(i) for i in measures],
        "p": [_p_at(tests.of_scores[i][0], place) for i in measures],
        "p_family": [_p_at(tests.of_scores[i][1], place) for i in measures],
    }


def _p_at(found: Sequential | None, place: int) -> float | None:
    return None if found is None or np.isnan(found.p[place]) else float(found.p[place])


def add_rematch(
    scores: pd.DataFrame, prefix: str, cells: list[tuple[str, str]], facts: list[dict[str, Any]]
) -> pd.DataFrame:
    """The scores of all kept pairs with a null's columns, except q.

    Args:
        prefix: the beginning of the columns' names (see `AGAIN`).
        cells: the names of both spaces of each cell.
        facts: of `rematch_cells`.
    """
    names = ("score", "mean", "sd", "p", "p_family")
    found: dict[str, Floats] = {name: np.full(len(scores), NAN) for name in names}
    draws, stopped = np.zeros(len(scores), np.int64), np.zeros(len(scores), bool)
    for (a, b), own in zip(cells, facts, strict=True):
        of_cell = (scores["space_a"] == a) & (scores["space_b"] == b) & (scores["subspace"] == "all")
        columns = zip(own["scores"], own["observed"], own["p"], own["p_family"], strict=True)
        for row, (drawn, beside, p, family) in zip(np.flatnonzero(of_cell).tolist(), columns, strict=True):
            known, own_known = _known(drawn), _known(beside)
            found["score"][row] = own_known.mean() if len(own_known) else NAN
            found["mean"][row] = known.mean() if len(known) else NAN
            found["sd"][row] = known.std(ddof=1) if len(known) > 1 else NAN
            found["p"][row], found["p_family"][row] = (NAN if value is None else value for value in (p, family))
            draws[row], stopped[row] = len(drawn), len(drawn) < own["asked"]
    whole = found | {"draws": draws, "stopped": stopped}
    return scores.assign(**{f"{prefix}_{name}": values for name, values in whole.items()})


def _known(values: list[float]) -> Floats:
    return np.array([value for value in values if value is not None and not np.isnan(value)], np.float64)


def decoys(r: pd.Series, found: dict[str, Any]) -> Floats:
    """For each kept pair, the false discoveries to expect among pairs at least as strong.

    The mean number of pairs in rearranged text with r in its bin or above, over the number of the run's own pairs with
    r at or above it, made monotone: at most that of any weaker pair. (Target–decoy: Elias & Gygi 2007, "Target-decoy
    search strategy", Nat. Methods 4. Bins are 0.005 wide, and the decoys of a pair's own bin count in full.)

    Args:
        r: the kept pairs' r.
        found: the cell's facts of `rematch_cells`.

    Returns:
        (pairs,) float64 in [0, 1]; NaN without draws.
    """
    if not found["draws"]:
        return np.full(len(r), NAN)
    from_here = np.cumsum(np.array(found["r"], np.float64)[::-1])[::-1] / found["draws"]
    values = r.to_numpy(np.float64)
    at = np.clip(np.searchsorted(R_BINS, values, side="right") - 1, 0, len(from_here) - 1)
    order = np.argsort(values, kind="stable")
    above = len(values) - np.searchsorted(values[order], values, side="left")
    share = np.minimum(from_here[at] / above, 1.0)
    monotone = np.minimum.accumulate(share[order])
    result = np.empty(len(values))
    result[order] = monotone
    return result
