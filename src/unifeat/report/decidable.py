"""Which tests of a run could have come out significant at all: with few draws, or among many tests, some could not."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.inference.multiplicity import false_discovery_rate
from unifeat.inference.nulls import AGAIN, NULLS
from unifeat.report.tables import SIGNIFICANCE_LEVEL, Measure, is_missing, probability, scores_of, study_of
from unifeat.runs.folder import Run
from unifeat.runs.roles import questions, role_of

Floats = NDArray[np.float64]
MARK = "°"
LEGEND = f"{MARK} undecidable: it could not have been significant"
_SHUFFLES = {"shuffle": "shuffles", "strata": "shuffles within strata", "cluster": "shuffles of clusters"}
_LABELS = _SHUFFLES | {"subset": "random subsets, two-sided"} | {name: again.label for name, again in AGAIN.items()}
_MOST_FACTORIAL = 12  # more pairs have more pairings than there are draws
_NOTE, _OF_RATES = "undecidable", "undecidable rates"


def undecidable(run: Run) -> pd.DataFrame:
    """For each score and each null, why its q could not have been below 0.05; empty where it could.

    With m draws no p is below 1 / (m + 1). The least q of a test is what Benjamini–Hochberg gives it at that p, with
    the other tests of its question as they are.

    Returns:
        Text, with the index of `run.scores` and a column for each null's q, of those that the run has; empty text where
        the test was not made.
    """
    if _NOTE not in run.notes:
        run.notes[_NOTE] = _undecidable(run)
    found: pd.DataFrame = run.notes[_NOTE]
    return found


def undecidable_rates(run: Run) -> pd.Series:
    """The same for the match rates of categories, by their exact tests; with the index of `run.rates`."""
    if _OF_RATES not in run.notes:
        run.notes[_OF_RATES] = _undecidable_rates(run)
    found: pd.Series = run.notes[_OF_RATES]
    return found


def _undecidable_rates(run: Run) -> pd.Series:
    rates = run.rates
    if rates is None:
        return pd.Series([], dtype=object)
    if "least_p" not in rates:  # an older run
        return pd.Series("", rates.index, dtype=object)
    roles = [_role(run, *pair) for pair in zip(rates["space_a"], rates["space_b"], strict=True)]
    return _reasons(rates["p"], rates["least_p"], roles, ["so few features"] * len(rates), rates.index)


def any_undecidable(run: Run) -> bool:
    """Whether any test of the run could not have been significant, so that the marks need their legend."""
    return bool((undecidable(run) != "").any(axis=None) or (undecidable_rates(run) != "").any())


def draws_of(run: Run) -> str:
    """`shuffles: 500, no p below 0.002; other text: 99, no p below 0.010 (7 of 40 settled early)`: all nulls' draws."""
    said = []
    for name, null, (draws, _) in _draws_of_nulls(run):
        tested = ~np.isnan(draws) & run.scores[null.p].notna().to_numpy()
        if not tested.any():
            continue
        most = float(np.median(draws[tested]))
        least = 2 / (most + 1) if name == "subset" else 1 / (most + 1)
        early = int(_stopped(run, name)[tested].sum())
        settled = f" ({early:,} of {tested.sum():,} settled early)" if early else ""
        said.append(f"{_LABELS.get(name, name)}: {most:,.0f}, no p below {probability(min(least, 1.0))}{settled}")
    return "; ".join(said)


def stopped_early(run: Run) -> str:
    """A sentence on the draws that were spared, since what they were for was settled; empty where none were."""
    said = []
    for name in AGAIN:
        of_cells = [facts[name] for facts in run.info["pairs"] if isinstance(facts.get(name), dict)]
        cells = sum(bool(facts.get("stopped")) for facts in of_cells)
        scores = int(_stopped(run, name).sum())
        if scores or cells:
            said.append(f"{AGAIN[name].label}, {cells:,} of {len(of_cells):,} pairs of spaces and {scores:,} scores")
    enough = (study_of(run).get("inference") or {}).get("enough")
    if not said or not enough:
        return ""
    return (
        f"Drawing stopped early where every test was settled, because {enough} draws had reached its score; p is then "
        f"{enough} over the number of draws until they had (Besag & Clifford 1991). Stopped: {'; '.join(said)}."
    )


def _stopped(run: Run, name: str) -> NDArray[np.bool_]:
    """For which scores drawing under a null stopped early."""
    column = f"{AGAIN[name].prefix}_stopped" if name in AGAIN else ""
    scores = run.scores
    return scores[column].eq(True).to_numpy() if column in scores else np.zeros(len(scores), bool)


def least_p(run: Run) -> pd.DataFrame:
    """The least p that each score's tests could give, with the index of `run.scores` and a column for each null's p."""
    return pd.DataFrame({null.p: found[1] for _, null, found in _draws_of_nulls(run)}, index=run.scores.index)


def scores_with_reasons(run: Run, measure: Measure) -> pd.DataFrame:
    """`scores_of`, with a column `undecidable`: why the test against shuffles could not have been significant."""
    table = scores_of(run, measure)
    why = undecidable(run)
    return table.assign(undecidable=why["q"].loc[table["row"]].to_numpy() if "q" in why else "")


class Tally(NamedTuple):
    """How the tests of some scores against shuffles came out.

    Attributes:
        significant: how many have q < 0.05.
        decided: how many could have had.
        undecidable: how many could not.
    """

    significant: int
    decided: int
    undecidable: int

    def __str__(self) -> str:
        """`7 of 9`, `2 of 3, 1 undecidable` or `undecidable`."""
        if not self.decided and self.undecidable:
            return "undecidable"
        more = f", {self.undecidable:,} undecidable" if self.undecidable else ""
        return f"{self.significant:,} of {self.decided:,}{more}"


def tally(table: pd.DataFrame) -> Tally:
    """Count tests. Those that could not have been significant are not among those that were not.

    Args:
        table: scores with `q` and `undecidable`.
    """
    could_not = table["undecidable"] != ""
    tested = table["q"].notna()
    significant = int((table["q"] < SIGNIFICANCE_LEVEL).sum())
    return Tally(significant, int((tested & ~could_not).sum()), int((tested & could_not).sum()))


def mark(q: Any, why_not: str) -> str:
    """`*` for q < 0.05, `°` for a test that could not have had that."""
    return "*" if q < SIGNIFICANCE_LEVEL else MARK if why_not else ""


def _undecidable(run: Run) -> pd.DataFrame:
    scores = run.scores
    of_scores = questions(scores, partial(_role, run))
    found = {}
    for name, null, (draws, least) in _draws_of_nulls(run):
        what = "shuffles" if name in _SHUFFLES else "draws"
        words = [f"{n:,.0f} {what}" if n == n else "" for n in draws]
        found[null.q] = _reasons(scores[null.p], pd.Series(least, scores.index), of_scores, words, scores.index)
    return pd.DataFrame(found, index=scores.index, dtype=object)


def _draws_of_nulls(run: Run) -> list[tuple[str, Any, tuple[Floats, Floats]]]:
    """For each null that the run has: its name, itself, and each score's number of draws and least p."""
    return [(name, null, _draws(run, name)) for name, null in NULLS.items() if {null.p, null.q} <= {*run.scores}]


def _draws(run: Run, name: str) -> tuple[Floats, Floats]:
    """How many draws a null had for each score, and the least p that they can give; NaN where it is not known."""
    scores, study = run.scores, study_of(run)
    if name in AGAIN:
        cells = {(facts["space_a"], facts["space_b"]): facts.get(name) for facts in run.info["pairs"]}
        pairs = zip(scores["space_a"], scores["space_b"], strict=True)
        draws = np.array([_draws_of_facts(cells.get(pair)) for pair in pairs], np.float64)
        return draws, 1 / (draws + 1)
    if name == "subset":  # two-sided
        draws = np.full(len(scores), float((study.get("subspaces") or {}).get("subsets") or np.nan))
        return draws, np.minimum(2 / (draws + 1), 1)
    draws = np.full(len(scores), float((study.get("inference") or {}).get("permutations") or np.nan))
    pairings = [math.factorial(min(int(n), _MOST_FACTORIAL)) for n in scores["n_pairs"]]
    least = np.maximum(1 / (draws + 1), 1 / np.array(pairings, np.float64))
    if f"least_{NULLS[name].p}" not in scores:  # an older run
        return draws, least
    known = scores[f"least_{NULLS[name].p}"].to_numpy(np.float64)
    return draws, np.where(np.isnan(known), least, known)


def _draws_of_facts(facts: Any) -> float:
    if not isinstance(facts, dict):
        return math.nan
    return float(draws_asked(facts) or math.nan)


def draws_asked(facts: dict[str, Any]) -> int:
    """How many draws a cell could have had under a null that matches again; fewer are made where all is settled."""
    return int(facts.get("asked") or facts.get("draws") or len(facts.get("kept") or []))


def _role(run: Run, a: str, b: str) -> str:
    return role_of(run.info["spaces"][a], run.info["spaces"][b])


def _reasons(p: pd.Series, least: pd.Series, asked: list[str], draws: list[str], index: pd.Index) -> pd.Series:
    """Why each test could not have been significant; empty where it could, or where that is not known."""
    values, floors, names = p.to_numpy(np.float64), least.to_numpy(np.float64), np.array(asked, dtype=object)
    reasons = np.full(len(values), "", dtype=object)
    for name in dict.fromkeys(asked):
        own = np.flatnonzero((names == name) & ~np.isnan(values))
        floor_q = _least_q(values[own], floors[own])
        for i, q in zip(own[floor_q >= SIGNIFICANCE_LEVEL], floor_q[floor_q >= SIGNIFICANCE_LEVEL], strict=True):
            reasons[i] = f"{draws[i]}: p cannot be below {probability(floors[i])}"
            if floors[i] < SIGNIFICANCE_LEVEL:
                reasons[i] += f", nor q among {len(own):,} tests, with the others as they are, below {probability(q)}"
    return pd.Series(reasons, index, dtype=object)


def _least_q(p: Floats, least: Floats) -> Floats:
    """The q of each test if its p were the least, and the others' as they are; NaN where the least is not known."""
    found = np.full(len(p), np.nan)
    known: dict[tuple[float, float], float] = {}  # tests with the same p and the same least have the same
    for i, pair in enumerate(zip(p.tolist(), least.tolist(), strict=True)):
        if is_missing(pair[1]):
            continue
        if pair not in known:
            at_least = p.copy()
            at_least[i] = min(pair)
            known[pair] = float(false_discovery_rate(at_least)[i])
        found[i] = known[pair]
    return found
