"""Does `p_equivalent` keep its promise? A section of calibration.md.

    python scripts/calibration_equivalence.py [--studies 100] [--page docs/calibration.md] [--cache build/calibration]

At a true difference of exactly the margin, equivalence may be claimed in 5 % of studies at most; where nothing is
shared and there are enough pairs, it must be found. Each kind of study is stored in the cache: a second call goes on
where the first one stopped.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import binom

import unifeat as uf
from drawing import table
from sections import put
from studies import carried_out, folder_of, options_of
from unifeat.geometry import MEASURES
from unifeat.inference.equivalence import equivalence_p

D_A, D_B, NOISE = 16, 24, 0.6
NUMBERS = (80, 320)  # of pairs
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "RSA": ("rsa", {}),
    "CKA, debiased": ("cka", {"debiased": True}),
    "SVCCA, dims 4": ("svcca", {"dims": 4}),
    "SVCCA, dims 1": ("svcca", {"dims": 1}),
    "held-out CCA, dims 4": ("heldout_cca", {"dims": 4}),
    "Procrustes, held-out": ("procrustes", {"heldout": True}),
    "mutual kNN, k 5": ("mutual_knn", {"k": 5}),
}
MARGIN, ALPHA, HALVES, SHUFFLES = 0.05, 0.05, 60, 100
GRID, DRAWS = np.linspace(0, 0.6, 9), 120  # shares at which the true difference is measured, and draws at each


def drawn(n: int, shared: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n pairs drawn from many, a share of which have a common direction."""
    x, y = uf.synthetic.plant_rows(10 * n, D_A, D_B, shared=shared, noise=NOISE, seed=seed)
    return x[:n], y[:n]


def differences(n: int, seed: int) -> dict[str, list[float]]:
    """case -> score less the mean of five shuffles, at each share of the grid."""
    out: dict[str, list[float]] = {case: [] for case in CASES}
    orders = [np.random.default_rng([seed, i]).permutation(n) for i in range(5)]
    for place, shared in enumerate(GRID):
        x, y = drawn(n, float(shared), 10_000_000 + 100 * seed + place)
        for case, (name, settings) in CASES.items():
            ready = MEASURES[name].prepare(x, y, **settings)
            out[case].append(ready.score().value - float(np.mean([ready.shuffled(order) for order in orders])))
    return out


def share_at_margin(found: np.ndarray) -> float:
    """The share at which the true difference is the margin: from a polynomial through the means over the grid.

    found: (draws, shares) differences.
    """
    fit = np.polynomial.Polynomial.fit(GRID, found.mean(axis=0), 4)
    roots = [root.real for root in (fit - MARGIN).roots() if abs(root.imag) < 1e-9 and 0 < root.real < GRID[-1]]
    return float(min(roots))


def p_of(case: str, x: np.ndarray, y: np.ndarray, seed: int) -> list[float]:
    """p_equivalent as a study has it, and the difference."""
    name, settings = CASES[case]
    interval = uf.subsample_interval(name, x, y, subsamples=HALVES, seed=seed, **settings)
    test = uf.permutation_test(name, x, y, permutations=SHUFFLES, seed=seed, **settings)
    difference = test.score - test.null_mean
    sd = math.hypot(interval.sd, test.null_sd / math.sqrt(SHUFFLES))
    return [equivalence_p(difference, sd, MARGIN, HALVES - 1), difference]


def study(n: int, shares: dict[str, float], seed: int) -> dict[str, list[float]]:
    """case -> p_equivalent and difference where the true difference is the margin, and where nothing is shared."""
    nothing = drawn(n, 0.0, 2_000_000 + seed)
    return {
        case: [*p_of(case, *drawn(n, share, 1_000_000 + seed), seed), *p_of(case, *nothing, seed)]
        for case, share in shares.items()
    }


def section(results: dict[int, dict[str, np.ndarray]], shares: dict[int, dict[str, float]]) -> str:
    """The text of the section."""
    count = len(results[NUMBERS[0]]["RSA"])
    cells = len(CASES) * len(NUMBERS)
    one, all_ = (binom.ppf(1 - outside, count, ALPHA) / count for outside in (0.025, 0.05 / cells))
    rows, high = [], []
    for case in CASES:
        row = [case]
        for n in NUMBERS:
            p, difference, p_nothing, _ = results[n][case].T
            rate = float(np.mean(p <= ALPHA))
            row += [f"{shares[n][case]:.2f}", f"{difference.mean():.3f}", f"{rate:.3f}"]
            row.append(f"{float(np.mean(p_nothing <= ALPHA)):.2f}")
            if rate > all_:
                high.append(f"{case}, {n} pairs ({rate:.3f})")
        rows.append(row)
    heads = [f"{head}, n {n}" for n in NUMBERS for head in ("shared", "difference", "at the margin", "nothing shared")]
    return f"""## No more than chance
Written by `python scripts/calibration_equivalence.py`; every number is from its run. `p_equivalent` with a margin of
{MARGIN}, from {HALVES} halves and {SHUFFLES} shuffles, {D_A} × {D_B} dimensions, {count} studies per cell. The share of
pairs with a common direction is chosen so that the true difference from the mean of the shuffles is the margin
(*shared*; *difference* is the mean over the studies). *At the margin*: share of studies with p ≤ {ALPHA}, {ALPHA} at
most; {one:.3f} and more is expected in 2.5 % of cells, and {all_:.3f} and more anywhere among {cells} with probability
.05. Above that: {"; ".join(high) or "none"}. *Nothing shared*: the same where the truth is 0 and equivalence
should be found, which takes enough pairs: with fewer, a score varies too much, and the answer is that nothing is shown.

{table(["", *heads], rows)}"""


def main() -> None:
    options = options_of(__doc__, 100)
    settings = [D_A, D_B, NOISE, CASES, MARGIN, ALPHA, HALVES, SHUFFLES, GRID.tolist(), DRAWS]
    cache = folder_of(options.cache, "equivalence", settings)
    results, shares = {}, {}
    for n in NUMBERS:
        draws = max(2, DRAWS * min(NUMBERS) // n)  # scores of more pairs vary less
        found = carried_out(f"differences {n}", draws, lambda seed, n=n: differences(n, seed), cache)
        shares[n] = {case: share_at_margin(values) for case, values in found.items()}
        own = shares[n]
        results[n] = carried_out(f"studies {n}", options.studies, lambda seed, n=n, own=own: study(n, own, seed), cache)
    put(options.page, "scripts/calibration_equivalence.py", section(results, shares))


if __name__ == "__main__":
    main()
