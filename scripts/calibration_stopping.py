"""Is p what it promises when drawing stops early? Simulated texts, written up in docs/calibration.md.

    python scripts/calibration_stopping.py [--studies 400] [--page docs/calibration.md]

The texts and the null are those of calibration_rematch.py: documents of one side beside others. A study has three pairs
of spaces, each with a text of its own, for the family-wise p-values. A few minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from calibration_rematch import FEATURES, WORLDS, World, mean_r, pairs_of, text_of
from drawing import table
from sections import put
from studies import options_of
from unifeat.correlation.rearranged import Draw, taken
from unifeat.inference.sequential import sequential, sequential_family_wise
from unifeat.pipeline.rematch import rounds
from unifeat.vocabulary.paired_codes import InMemoryCodes

DRAWS, ENOUGH, FAMILY = 59, 5, 3
LEVELS = (0.05, 0.1, 0.25, 0.5)


class Found(NamedTuple):
    """What one study gives.

    Attributes:
        single: p of the number of pairs and of their mean r in the first pair of spaces, with stopping.
        usual: the same from all draws, (b + 1)/(m + 1).
        family: the least family-wise p of each.
        made: the draws that were made.
    """

    single: tuple[float, ...]
    usual: tuple[float, ...]
    family: tuple[float, ...]
    made: int


def values_of(world: World, seed: int) -> np.ndarray:
    """(2, draws + 1) the number of pairs and their mean r, the text as it is first. Ties are broken at random."""
    text = text_of(world, seed)
    found = [pairs_of(InMemoryCodes(text.a, text.b, FEATURES, FEATURES))]
    for number in range(DRAWS):
        rows_a, rows_b = Draw("documents", seed, number).rows(text)
        found.append(pairs_of(InMemoryCodes(taken(text.a, rows_a), taken(text.b, rows_b), FEATURES, FEATURES)))
    rng = np.random.default_rng([seed, 2])
    values = np.array([[len(pairs), mean_r(pairs)] for pairs in found])
    return values.T + rng.uniform(0, 1e-6, (2, DRAWS + 1))


def study(worlds: list[World], seed: int) -> Found:
    """One study: a family of pairs of spaces."""
    cells = np.array([values_of(world, FAMILY * seed + i) for i, world in enumerate(worlds)])
    single, usual, family, settled = [], [], [], []
    for values in cells.transpose(1, 0, 2):
        observed, null = values[:, 0], values[:, 1:]
        reached = null >= observed[:, None]
        alone, together = sequential(reached, ENOUGH), sequential_family_wise(observed, null, ENOUGH)
        single.append(float(alone.p[0]))
        usual.append((int(reached[0].sum()) + 1) / (DRAWS + 1))
        family.append(float(together.p.min()))
        settled.append(_settled_after(observed, null))
    return Found(tuple(single), tuple(usual), tuple(family), max(settled))


def _settled_after(observed: np.ndarray, null: np.ndarray) -> int:
    """After how many draws every test is settled, at the end of a round."""
    for end in rounds(DRAWS)[1:]:
        early = null[:, :end]
        alone = sequential(early >= observed[:, None], ENOUGH)
        if alone.settled.all() and sequential_family_wise(observed, early, ENOUGH).settled.all():
            return end
    return DRAWS


def shares(found: list[Found], which: str) -> list[str]:
    """The share of studies with p at most each level, of the number of pairs and of their mean r together."""
    p = np.array([getattr(one, which) for one in found])
    return [f"{(p <= level + 1e-12).mean():.3f}" for level in LEVELS]


def results_of(studies: int, say: Callable[[str], None]) -> dict[str, list[Found]]:
    """All studies of both kinds."""
    nothing, shared = WORLDS["nothing shared"], WORLDS["token and context shared"]
    kinds = {"nothing shared": [nothing] * FAMILY, "one of three shares": [shared] + [nothing] * (FAMILY - 1)}
    results = {}
    for name, worlds in kinds.items():
        results[name] = [study(worlds, seed) for seed in range(studies)]
        say(f"{name}: {studies} studies")
    return results


def section(results: dict[str, list[Found]], studies: int) -> str:
    """The section of docs/calibration.md."""
    nothing, shared = results["nothing shared"], results["one of three shares"]
    low, high = binom.ppf([0.025, 0.975], studies, LEVELS[0]) / studies
    rows = [
        ["all draws, (b + 1)/(m + 1)", *shares(nothing, "usual")],
        ["stopping", *shares(nothing, "single")],
        [f"stopping, least family-wise p of {FAMILY}", *shares(nothing, "family")],
    ]
    made = np.mean([one.made for one in nothing])
    power = np.mean([max(one.family) <= LEVELS[0] for one in shared])
    stopped = sum(one.made < DRAWS for one in shared)
    return f"""## Nulls that match again: stopping early

`python scripts/calibration_stopping.py --studies {studies}`: texts and the null `documents` as in
calibration_rematch.py; families of {FAMILY} pairs of spaces; up to {DRAWS} draws, of which {ENOUGH} that reach a score
settle its test. The columns are the share of p-values at most the level, of the number of pairs and of their mean r
(ties broken at random). Nothing is shared, so it should be the level (of one of the two statistics, 95 % of the time
between {low:.3f} and {high:.3f} at {LEVELS[0]:g}), or less for the least p of a family.

{table(["p", *(f"≤ {level:g}" for level in LEVELS)], rows)}
Stopping leaves p as it is: where it is larger than it should be, it is so from all draws. On average
{made:.0f} of {DRAWS} draws were made. Where one of the three pairs of spaces shares something, the least family-wise
p of both statistics is at most {LEVELS[0]:g} in {100 * power:.0f} % of the studies, and drawing stopped early in
{stopped} of {studies}.
"""


def main() -> None:
    options = options_of(__doc__, 400)
    results = results_of(options.studies, lambda line: print(line, flush=True))
    put(options.page, "scripts/calibration_stopping.py", section(results, options.studies))


if __name__ == "__main__":
    main()
