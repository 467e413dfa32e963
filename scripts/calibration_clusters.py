"""Do intervals and tests keep their promises where pairs come in clusters of near-copies? A section of calibration.md.

    python scripts/calibration_clusters.py [--studies 600] [--page docs/calibration.md] [--cache build/calibration]

Clusters are those that `find_clusters` finds in the simulated rows, not the planted ones. Each kind of study is stored
in the cache: a second call goes on where the first one stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binom

import unifeat as uf
from drawing import table
from sections import put
from studies import carried_out, folder_of, options_of
from unifeat.geometry import MEASURES
from unifeat.inference import cluster_test, effective_pairs, find_clusters

D_A, D_B, N = 24, 32, 120
SPREAD = 0.3  # distance of a copy from the middle of its cluster; cosine between copies 1 / (1 + SPREAD²) = 0.92
# Sizes of the clusters, repeated until there are N pairs.
KINDS: dict[str, tuple[int, ...]] = {
    "alone": (1,),
    "of 2": (2,),
    "of 4": (4,),
    "of 8": (8,),
    "of 1 to 16": (1, 1, 1, 2, 2, 3, 5, 1, 16),
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "RSA": ("rsa", {}),
    "CKA, debiased": ("cka", {"debiased": True}),
    "SVCCA, dims 4": ("svcca", {"dims": 4}),
    "held-out CCA, dims 4": ("heldout_cca", {"dims": 4}),
    "mutual kNN, k 5": ("mutual_knn", {"k": 5}),
}
SHUFFLES, CHOICES, ALPHA, LEVEL = 39, 5, 0.05, 0.95
POWER = 0.7  # share of the clusters whose direction both spaces have, where something is to be found
HALF = 0.5  # the same for intervals
Rows = tuple[np.ndarray, np.ndarray]
Study = Callable[[int], dict[str, list[float]]]


def drawn(kind: str, shared: float, seed: int) -> Rows:
    """N pairs in clusters of near-copies in both spaces; their directions are drawn from many, some of them common."""
    sizes = np.resize(KINDS[kind], N)
    labels = np.repeat(np.arange(N), sizes)[:N]
    count = int(labels[-1]) + 1
    rng = np.random.default_rng([seed, 3])
    # Which clusters are shared is a matter of chance too, and so is which of them is large.
    middles = uf.synthetic.plant_rows(20 * count, D_A, D_B, shared=shared, noise=0.6, decay=0.3, seed=seed)
    sides = []
    for middle in middles:
        error = rng.standard_normal((N, middle.shape[1]))
        rows = middle[:count][labels] + SPREAD * error / np.linalg.norm(error, axis=1, keepdims=True)
        sides.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    order = rng.permutation(N)
    return sides[0][order], sides[1][order]


def test_study(kind: str, shared: float, seed: int) -> dict[str, list[float]]:
    """case -> p of `permutation_test`, p of `cluster_test` with one choice and with several, K and effective pairs."""
    x, y = drawn(kind, shared, seed)
    labels = find_clusters(x, y)
    out = {}
    for case, (name, settings) in CASES.items():
        plain = uf.permutation_test(name, x, y, permutations=SHUFFLES, seed=seed, **settings)
        one, several = (
            cluster_test(name, x, y, labels, permutations=SHUFFLES, choices=choices, seed=seed, **settings)
            for choices in (1, CHOICES)
        )
        out[case] = [plain.p, one.p, several.p, float(several.clusters), effective_pairs(labels)]
    return out


def cover_study(kind: str, seed: int) -> dict[str, list[float]]:
    """case -> ends of the plain interval and of that by clusters, and the score of other draws of the same kind."""
    x, y = drawn(kind, HALF, seed)
    labels = find_clusters(x, y)
    others = [drawn(kind, HALF, 1_000_000 + 2 * seed + i) for i in range(2)]
    out = {}
    for case, (name, settings) in CASES.items():
        plain, grouped = (
            uf.subsample_interval(name, x, y, level=LEVEL, seed=seed, clusters=clusters, **settings)
            for clusters in (None, labels)
        )
        anew = [MEASURES[name].function(*pair, **settings).value for pair in others]
        out[case] = [plain.low, plain.high, grouped.low, grouped.high, float(np.mean(anew))]
    return out


def pieces(studies: int) -> dict[str, tuple[int, Study]]:
    """Name -> how many studies, and one study by its seed."""
    out: dict[str, tuple[int, Study]] = {}
    for kind in KINDS:
        out[f"test {kind}"] = (studies, lambda seed, kind=kind: test_study(kind, 0.0, seed))
        out[f"power {kind}"] = (max(studies // 6, 2), lambda seed, kind=kind: test_study(kind, POWER, seed))
        out[f"cover {kind}"] = (max(studies // 6, 2), lambda seed, kind=kind: cover_study(kind, seed))
    return out


def section(results: dict[str, dict[str, np.ndarray]]) -> str:
    """The text of the section."""
    count, few = (len(results[f"{what} alone"]["RSA"]) for what in ("test", "cover"))
    cells = len(KINDS) * len(CASES)

    def limits(studies: int, rate: float, outside: float) -> tuple[float, float]:
        low, high = binom.ppf([outside / 2, 1 - outside / 2], studies, rate) / studies
        return float(low), float(high)

    one, all_ = limits(count, ALPHA, 0.05), limits(count, ALPHA, 0.05 / cells)
    cover = limits(few, LEVEL, 0.05)
    short, high, rates = [], [], {}
    for kind in KINDS:
        for case in CASES:
            rates[kind, case] = (results[f"test {kind}"][case][:, :3] <= ALPHA).mean(axis=0)
            if rates[kind, case][2] > all_[1]:
                high.append(f"{case} (clusters {kind})")

    def by_kind(shown: Any) -> str:
        return table(["", *KINDS], [[case, *[shown(kind, case) for kind in KINDS]] for case in CASES])

    def rejected(kind: str, case: str) -> str:
        plain, single, several = rates[kind, case]
        return f"{plain:.2f} / {single:.3f} / {several:.3f}"

    def found(kind: str, case: str) -> str:
        _, single, several = (results[f"power {kind}"][case][:, :3] <= ALPHA).mean(axis=0)
        return f"{single:.2f} / {several:.2f}"

    def covered(kind: str, case: str) -> str:
        low, high_, low_c, high_c, anew = results[f"cover {kind}"][case].T
        truth = anew.mean()
        plain, grouped = (float(np.mean((a <= truth) & (truth <= b))) for a, b in ((low, high_), (low_c, high_c)))
        if grouped < cover[0]:
            short.append(f"{case} (clusters {kind}: {grouped:.3f})")
        return f"{plain:.2f} / {grouped:.3f}"

    covers = by_kind(covered)
    sizes = []
    for kind, of in KINDS.items():
        planted = int(np.repeat(np.arange(N), np.resize(of, N))[:N][-1]) + 1
        values = results[f"test {kind}"]["RSA"]
        sizes.append([kind, str(planted), f"{values[:, 3].mean():.1f}", f"{values[:, 4].mean():.1f}"])
    names = "; ".join
    return f"""## Clusters of near-copies
Written by `python scripts/calibration_clusters.py`; every number is from its run. {N} pairs in {D_A} × {D_B} dimensions
come in clusters: the rows of a cluster lie about a common direction in both spaces, at cosines of about
{1 / (1 + SPREAD**2):.2f} to each other, as the parts of a split feature do. Columns: pairs alone, clusters of 2, 4 and
8, and of 1 to 16 mixed. The clusters used are those that `find_clusters` finds:

{table(["clusters", "planted", "found", "effective pairs"], sizes)}
### False positives
Directions of the clusters are independent between the spaces. Share of {count} studies with p ≤ {ALPHA} ({SHUFFLES}
shuffles): `permutation_test` / `cluster_test` with one choice of a pair of each cluster / with {CHOICES}. At a true
rate of {ALPHA}, 95 % of cells lie from {one[0]:.3f} to {one[1]:.3f}, and all {cells} of a kind at once from
{all_[0]:.3f} to {all_[1]:.3f} with probability .95. `cluster_test` with {CHOICES} above that: {names(high) or "none"}.

{by_kind(rejected)}
### Power
{POWER:.0%} of the clusters have a direction that both spaces share, with noise. Share of {few} studies in which
`cluster_test` with one choice / with {CHOICES} has p ≤ {ALPHA}. (There are fewer clusters to the right, since the
number of pairs is the same. `permutation_test` would find everything there, shared or not.)

{by_kind(found)}
### Intervals
{HALF:.0%} of the clusters have a direction in common. Coverage of {LEVEL:.0%} intervals: `subsample_interval` /
`subsample_interval(..., clusters=find_clusters(x, y))`, {few} studies; the expected score is the mean over
{2 * few} other draws. At a true coverage of {LEVEL}, 95 % of cells lie from {cover[0]:.3f} to {cover[1]:.3f}. Below
it, with clusters: {names(short) or "none"}.

{covers}"""


def main() -> None:
    options = options_of(__doc__, 600)
    settings = [D_A, D_B, N, SPREAD, KINDS, CASES, SHUFFLES, CHOICES, ALPHA, LEVEL, POWER, HALF]
    cache = folder_of(options.cache, "clusters", settings)
    results = {name: carried_out(name, count, study, cache) for name, (count, study) in pieces(options.studies).items()}
    put(options.page, "scripts/calibration_clusters.py", section(results))


if __name__ == "__main__":
    main()
