"""A run's results in a few sentences made from its numbers."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from unifeat.matching.methods import mutual_over
from unifeat.report.ceilings import ceiling_sentence, control_sentence
from unifeat.report.decidable import tally, undecidable
from unifeat.report.tables import SIGNIFICANCE_LEVEL, cells, decimal, is_missing, percent, richest, role, study_of
from unifeat.runs.folder import Run

_MATCH_PHRASES = {
    "mutual": "have a mutual best partner in",
    "max": "have a best partner in",
    "one-to-one": "are paired one to one with a feature of",
    "assignment": "are paired one to one with a feature of",
}


def summary(run: Run) -> list[str]:
    """The results in a few sentences: pairs, their held-out r, the control, scores."""
    whole = cells(run)
    best = whole.iloc[richest(run)]
    table = whole[[role(run, pair) == "" for pair in zip(whole["group_a"], whole["group_b"], strict=True)]]
    table = table if len(table) else whole  # a run with only ceilings and controls
    matching = study_of(run).get("matching", {})
    if best["kept"] == 0:
        reasons = pd.DataFrame(table["dropped"].tolist()).sum().sort_values(ascending=False)
        most = (
            f"; most of the {int(table['candidates'].sum()):,} candidates: {reasons.index[0]}" if len(reasons) else ""
        )
        where = "the one pair" if len(table) == 1 else f"any of the {len(table)} pairs"
        return [f"No pair of features was kept in {where} of spaces{most}."]
    sentences = [_pairs_sentence(run, best, matching), _control_sentence(run, best), _token_sentence(best)]
    sentences.append(_elsewhere_sentence(run, best))
    beside = [ceiling_sentence(run, int(best["cell"])), control_sentence(run)]
    return [*sentences, *_grid_sentences(run, table), *filter(None, beside)]


def _pairs_sentence(run: Run, best: pd.Series, matching: dict[str, Any]) -> str:
    method = matching.get("method", "mutual")
    ours, theirs = ("b", "a") if (method, matching.get("direction")) == ("max", "b_to_a") else ("a", "b")
    kept = run.space_pair(best["space_a"], best["space_b"]).query("kept")
    paired, width = kept[f"feature_{ours}"].nunique(), int(best[f"width_{ours}"])
    above = f" with r > {matching['min_correlation']:g}" if "min_correlation" in matching else ""
    sentence = (
        f"Of the {width:,} features of {best[f'space_{ours}']}, {paired:,} ({percent(paired / width)}) "
        f"{_MATCH_PHRASES.get(method, 'have a partner in')} {best[f'space_{theirs}']}{above}"
    )
    fitted, heldout = best["mean_correlation"], best["mean_correlation_heldout"]
    if math.isnan(heldout):
        return f"{sentence}; their mean r is {decimal(fitted)}, on the same documents that they were found on."
    return (
        f"{sentence}; on held-out documents their mean r is {decimal(heldout)}, "
        f"against {decimal(fitted)} on the documents that they were found on."
    )


def _control_sentence(run: Run, best: pd.Series) -> str:
    """Mutual pairs in aligned and in shifted text, counted in the same way: at r > 0.1, without filters."""
    chance = best.get("mutual_shifted_over_0.1")
    if chance is None or pd.isna(chance):
        return ""
    candidates = run.space_pair(best["space_a"], best["space_b"]).dropna(subset=["correlation"])
    mutual = mutual_over(candidates, 0.1)
    reach = "reaches" if mutual == 1 else "reach"
    return (
        f"Before any filter, {_count(mutual, 'mutual pair')} of these two spaces {reach} r > 0.1; with the "
        f"text of one side shifted, so that no token meets its own counterpart, {int(chance):,} "
        f"{'does' if chance == 1 else 'do'}."
    )


def _token_sentence(best: pd.Series) -> str:
    """What of the pairs the token explains."""
    facts, again = best.get("beyond_token"), best.get("same_token")
    if not isinstance(facts, dict) or is_missing(facts["mean_correlation_within_token"]):
        return ""
    sentence = (
        f"Among rows of the same token, the mean r of its pairs is {decimal(facts['mean_correlation_within_token'])}; "
        f"{percent(facts['mean_token_share'])} of their features’ variance is the token’s."
    )
    if isinstance(again, dict) and again["kept"]:
        kept, same = (sum(again[name]) / len(again[name]) for name in ("kept", "same"))
        sentence += (
            f" With rows permuted among those of the same token, {kept:,.0f} pairs are kept, {same:,.0f} of them the "
            "same ones: so many the tokens alone give."
        )
    return sentence


def _elsewhere_sentence(run: Run, best: pd.Series) -> str:
    """How many of the pairs hold on another kind of text."""
    facts = best.get("elsewhere")
    if not isinstance(facts, dict) or not facts["judged"]:
        return ""
    return (
        f"Elsewhere, on {_count(run.info['elsewhere']['documents'], 'document')} of another kind, "
        f"{percent(facts['hold_share'])} of the {_count(facts['judged'], 'pair')} that can be judged there hold; their "
        f"mean r is {decimal(facts['mean'])}, against {decimal(facts['mean_here'])}."
    )


def _grid_sentences(run: Run, table: pd.DataFrame) -> list[str]:
    sentences = []
    if len(table) > 1:
        low, high = int(table["kept"].min()), int(table["kept"].max())
        sentences.append(f"That is the richest of {len(table)} pairs of spaces; they share {low:,} to {high:,} pairs.")
    why = undecidable(run)
    scores = run.scores.assign(undecidable=why.get("q", ""))
    shown = scores.merge(table[["space_a", "space_b"]], on=["space_a", "space_b"])
    if "q" in shown:
        sentences += _score_sentences(shown[shown["subspace"] == "all"])
    return sentences


def _score_sentences(shown: pd.DataFrame) -> list[str]:
    """How many scores exceed shuffled pairs, of those that could; and how many could not."""
    over, tested, could_not = tally(shown)
    sentences = []
    if tested:
        which = f"{over} of {_count(tested, 'score')}" if over < tested else f"All {_count(tested, 'score')}"
        which = "The one score" if tested == over == 1 else which
        verb = "exceeds" if tested == 1 else "exceed"
        sentences.append(f"{which} of decoder geometry {verb} what shuffled pairs reach (q < {SIGNIFICANCE_LEVEL:g}).")
    if could_not:
        why = shown.loc[shown["q"].notna() & (shown["undecidable"] != ""), "undecidable"].iloc[0]
        others = "other " if tested else ""
        verb = "is" if could_not == 1 else "are"
        sentences.append(f"{_count(could_not, others + 'score').capitalize()} {verb} undecidable ({why}).")
    return sentences


def _count(n: int, noun: str) -> str:
    return f"1 {noun}" if n == 1 else f"{n:,} {noun}s" if n else f"no {noun}s"
