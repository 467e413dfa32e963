"""A run's results in a few sentences made from its numbers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pandas as pd

from unifeat.matching.methods import mutual_over
from unifeat.report.ceilings import ceiling_sentence, control_sentence, share_text
from unifeat.report.decidable import tally, undecidable
from unifeat.report.tables import (
    SIGNIFICANCE_LEVEL,
    cells,
    decimal,
    is_missing,
    measures,
    percent,
    probability,
    richest,
    role,
    rows_of,
    scores_of,
    span,
    study_of,
)
from unifeat.runs.folder import Run

_MATCH_PHRASES = {
    "mutual": "have a mutual best partner in",
    "max": "have a best partner in",
    "one-to-one": "are paired one to one with a feature of",
    "assignment": "are paired one to one with a feature of",
}


class Summary(NamedTuple):
    """The results in sentences.

    Attributes:
        lead: what is shared, how sure that is, and how alike the geometries are: a few sentences each.
        more: what else the run says, a sentence each.
    """

    lead: list[str]
    more: list[str]

    @property
    def text(self) -> str:
        """All of them."""
        return " ".join([*self.lead, *self.more])


def summary(run: Run) -> Summary:
    """The results in sentences made from the run's numbers."""
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
        return Summary([f"No pair of features was kept in {where} of spaces{most}."], [])
    lead = [_pairs_sentence(run, best, matching), _sure_sentence(run, best), _alike_sentence(run, best)]
    more = [_token_sentence(best), _elsewhere_sentence(run, best), *_grid_sentences(run, table)]
    more += [ceiling_sentence(run, int(best["cell"])), control_sentence(run), _families_sentence(run)]
    if _rearranged(best) is None:  # (where text was rearranged, that is the better comparison, after all filters)
        more.append(shifted_sentence(run, best))
    return Summary(*([sentence for sentence in part if sentence] for part in (lead, more)))


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


def _alike_sentence(run: Run, best: pd.Series) -> str:
    """How alike the paired decoder rows are beside shuffled pairs, a ceiling, and pairs that tokens alone give.

    By RSA if the run has it, else by its first measure.
    """
    ways = measures(run)
    way = next((way for way in ways if way.metric == "rsa"), ways[0] if ways else None)
    own = scores_of(run, way) if way else None
    row = None if own is None else next((r for r in rows_of(own) if r.cell == best["cell"]), None)
    if way is None or row is None or is_missing(row.score):
        return ""
    sentence = f"{way.short} of their decoder rows is {decimal(row.score)}"
    if not is_missing(getattr(row, "ceiling_share", None)):
        sentence += f", {share_text(row)} of what two SAEs of the same activations reach"
    if not is_missing(row.null_mean):
        draws = study_of(run).get("inference", {}).get("permutations")
        sentence += f"; shuffled pairs reach {decimal(row.null_mean)} (p {_equals(row.p, draws)})"
    return f"{sentence}. {_token_alone(row)}".strip()


def _token_alone(row: Any) -> str:
    """Whether pairs that the token alone finds are as alike."""
    if is_missing(getattr(row, "token_mean", None)) or is_missing(row.token_p):
        return ""
    draws = None if is_missing(row.token_draws) else int(row.token_draws)
    alike = "as alike" if row.token_p >= SIGNIFICANCE_LEVEL else "less alike"
    return (
        f"Pairs that the token alone finds are {alike}: {decimal(row.token_mean)}, against {decimal(row.token_score)} "
        f"for as many of these (p {_equals(row.token_p, draws)})."
    )


def _equals(p: float, draws: int | None) -> str:
    """`= 0.175`, or `≤ 0.002` if so many draws give no lower p."""
    least = draws is not None and abs(p - 1 / (draws + 1)) < 1e-9
    return f"{'≤' if least else '='} {probability(p)}"


def _rearranged(best: pd.Series) -> dict[str, Any] | None:
    """What rearranged documents give for a pair of spaces, if they were drawn."""
    facts = best.get("rematch")
    return facts if isinstance(facts, dict) and facts["kept"] else None


def _sure_sentence(run: Run, best: pd.Series) -> str:
    """How many pairs chance, tokens alone and controls give by the same rules, and what correlates beyond the token."""
    parts = []
    if (facts := _rearranged(best)) is not None:
        parts.append(f"{_mean(facts['kept']):,.0f} when the documents of one model are rearranged")
    again = best.get("same_token")
    if isinstance(again, dict) and again["kept"]:
        kept, same = _mean(again["kept"]), _mean(again["same"])
        parts.append(
            f"{kept:,.0f} when rows of one model are permuted within a token ({same:,.0f} of them the very same pairs)"
        )
    parts += _controls(run)
    if not parts:
        return ""
    listed = ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
    sentence = f"The same rules keep {listed}."
    beyond = best.get("beyond_token")
    if isinstance(beyond, dict) and not is_missing(beyond["more_than_a_token"]):
        sentence += (
            f" Of the pairs, {percent(beyond['more_than_a_token'])}{_controls_beyond(run)} are more than a token: they "
            f"still correlate within one, at r {decimal(beyond['mean_correlation_within_token'])} on average."
        )
    return sentence


def _controls(run: Run) -> list[str]:
    """The pairs that controls keep, as ranges over their pairs of layers: of each kind of control."""
    return [f"{span([row.kept for row in of])} beside {what}" for what, of in _of_controls(run).items()]


def _controls_beyond(run: Run) -> str:
    """In brackets, what share of the pairs of each kind of control is more than a token."""
    said = []
    for what, of in _of_controls(run).items():
        shares = [
            facts["more_than_a_token"] for row in of if isinstance(facts := getattr(row, "beyond_token", None), dict)
        ]
        known = [share for share in shares if not is_missing(share)]
        if known:
            said.append(f"{span(known, percent)} with {what}")
    return f" ({', '.join(said)})" if said else ""


def _of_controls(run: Run) -> dict[str, list[Any]]:
    """The pairs of spaces with each kind of control."""
    kinds: dict[str, list[Any]] = {}
    for row in rows_of(cells(run)):
        what = role(run, (row.group_a, row.group_b))
        if what.startswith("control: "):
            kinds.setdefault(what.removeprefix("control: "), []).append(row)
    return kinds


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _families_sentence(run: Run) -> str:
    """How many features all spaces have."""
    facts, sets = run.info.get("families"), run.family_sets
    if facts is None or sets is None:
        return ""
    size = len(facts["spaces"])
    whole = next((row for row in sets.to_dict("records") if row["size"] == size), None)
    if whole is None:
        return ""
    missing = is_missing(whole.get("null_mean"))
    chance = " (how many chance gives was not drawn)" if missing else f", {decimal(whole['null_mean'], 1)} by chance"
    count = _count(int(whole["families"]), "family").capitalize()
    return f"{count} of features have a member in all {size} spaces{chance}."


def shifted_sentence(run: Run, best: pd.Series) -> str:
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
    facts = best.get("beyond_token")
    if not isinstance(facts, dict) or is_missing(facts["mean_correlation_within_token"]):
        return ""
    return (
        f"Among rows of the same token, the mean r of its pairs is {decimal(facts['mean_correlation_within_token'])}; "
        f"{percent(facts['mean_token_share'])} of their features’ variance is the token’s."
    )


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
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"1 {noun}" if n == 1 else f"{n:,} {many}" if n else f"no {many}"
