"""What does a share of the ceiling recover, and do its intervals keep their promise? A section of calibration.md.

    python scripts/calibration_ceilings.py [--studies 100] [--page docs/calibration.md] [--cache build/calibration]

Two models with directions of their own, some of them common; two noisy SAEs of each. The share is compared with the
score of the directions without noise. Each kind of study is stored in the cache: a second call goes on where the first
one stopped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binom

import unifeat as uf
from drawing import table
from sections import put
from studies import carried_out, folder_of, options_of
from unifeat.geometry import MEASURES
from unifeat.inference.ceiling import Estimate, score_at, share_of_ceiling

D_A, D_B = 16, 24
PAIRS = {"ab": 80, "aa": 200, "bb": 150}  # of the cell and of both ceilings; the cell's features are in both ceilings
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "RSA": ("rsa", {}),
    "CKA, debiased": ("cka", {"debiased": True}),
    "held-out CCA, dims 4": ("heldout_cca", {"dims": 4}),
    "Procrustes, held-out": ("procrustes", {"heldout": True}),
    "SVCCA, dims 4": ("svcca", {"dims": 4}),
    "mutual kNN, k 5": ("mutual_knn", {"k": 5}),
}
# What the models share, and how long the error of an SAE's row is, as a multiple of its direction.
KINDS: dict[str, tuple[float, float]] = {
    "nothing shared, SAE noise 0.5": (0.0, 0.5),
    "half shared, SAE noise 0.25": (0.5, 0.25),
    "half shared, SAE noise 0.5": (0.5, 0.5),
    "all shared, SAE noise 0.5": (1.0, 0.5),
}
LEVEL, HALVES = 0.95, 60
Rows = tuple[np.ndarray, np.ndarray]


def world(shared: float, error: float, seed: int) -> dict[str, Rows]:
    """The rows of the cell and of both ceilings; `true`: those of the cell without the SAEs' noise."""
    n, aa, bb = PAIRS["ab"], PAIRS["aa"], PAIRS["bb"]
    count = aa + bb - n
    # Directions are drawn from many, so that which of them are shared is a matter of chance.
    true_a, true_b = (
        side[:count] for side in uf.synthetic.plant_rows(10 * count, D_A, D_B, shared=shared, noise=0.2, seed=seed)
    )
    rng = np.random.default_rng([seed, 11])

    def sae(true: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal(true.shape)
        rows = true + error * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    a, a2, b, b2 = sae(true_a), sae(true_a), sae(true_b), sae(true_b)
    of_b = np.r_[:n, aa:count]  # the cell's features, and others that A lacks
    return {
        "ab": (a[:n], b[:n]),
        "aa": (a[:aa], a2[:aa]),
        "bb": (b[of_b], b2[of_b]),
        "true": (true_a[:n], true_b[:n]),
    }


def study(shared: float, error: float, seed: int) -> dict[str, list[float]]:
    """case -> score, share, its ends; and of another world, the scores at n of the cell, both ceilings, the truth."""
    rows, other = world(shared, error, seed), world(shared, error, 1_000_000 + seed)
    n = min(PAIRS.values())
    out = {}
    for case, (name, settings) in CASES.items():
        found = {
            what: score_at(name, *rows[what], n, subsamples=HALVES, seed=seed, **settings)
            for what in ("ab", "aa", "bb")
        }
        own, *sides = (Estimate(one.score, one.sd) for one in found.values())
        share = share_of_ceiling(own, [[side] for side in sides], level=LEVEL, df=HALVES - 1)
        anew = [MEASURES[name].function(x[:n], y[:n], **settings).value for x, y in other.values()]
        out[case] = [own.score, share.share, share.low, share.high, *anew]
    return out


def section(results: dict[str, dict[str, np.ndarray]]) -> str:
    """The text of the section."""
    count = len(next(iter(results.values()))["RSA"])
    low, high = binom.ppf([0.025, 0.975], count, LEVEL) / count
    rows, short = [], []
    for case in CASES:
        row = [case]
        for kind, cells in results.items():
            score, share, below, above, ab, aa, bb, true = cells[case].T
            # The share that the same cells would have without sampling: of expected scores.
            expected = ab.mean() / np.sqrt(aa.mean() * bb.mean())
            covered = float(np.mean((below <= expected) & (expected <= above)))
            row.append(f"{score.mean():.2f} / **{share.mean():.2f}** / {true.mean():.2f}; {covered:.3f}")
            if covered < low:
                short.append(f"{case} ({kind}: {covered:.3f})")
        rows.append(row)
    kinds = ("half shared, SAE noise 0.25", "half shared, SAE noise 0.5")
    less, more = (results[kind]["RSA"].mean(axis=0) for kind in kinds)
    undone = (
        f"where half is shared and the noise doubles, RSA is {less[0]:.2f} and {more[0]:.2f}, its share {less[1]:.2f} "
        f"and {more[1]:.2f}, and the directions themselves give {less[-1]:.2f}"
    )
    return f"""## Shares of the ceiling
Written by `python scripts/calibration_ceilings.py`; every number is from its run. Two models with directions in {D_A}
and {D_B} dimensions, some of them common (noise 0.2); two SAEs of each, whose rows are those directions with an error
of the given length. The cell has {PAIRS["ab"]} pairs, the ceilings {PAIRS["aa"]} and {PAIRS["bb"]}, the cell's features
among them; all are scored at {min(PAIRS.values())}. Means over {count} studies: the score / **its share of the
ceiling** / the score of the directions without the SAEs' noise; then the coverage of {LEVEL:.0%} intervals of the
share, whose truth is that of expected scores in {count} other studies. At a true coverage of {LEVEL}, 95 % of cells lie
from {low:.3f} to {high:.3f}. Below it: {"; ".join(short) or "none"}. (Cells that share a space err in the same
direction, so intervals are rather too wide.)

The share undoes the SAEs' noise: {undone}. Of a measure that is not 0 when nothing is shared (SVCCA, neighbours), the
share is not 0 either: compare it with `ceiling_share_chance`.

{table(["", *results], rows)}"""


def main() -> None:
    options = options_of(__doc__, 100)
    settings = [D_A, D_B, PAIRS, CASES, KINDS, LEVEL, HALVES]
    cache = folder_of(options.cache, "ceilings", settings)
    results = {
        kind: carried_out(f"ceilings {kind}", options.studies, lambda seed, given=given: study(*given, seed), cache)
        for kind, given in KINDS.items()
    }
    put(options.page, "scripts/calibration_ceilings.py", section(results))


if __name__ == "__main__":
    main()
