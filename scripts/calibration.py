"""Do the tests keep their promises where nothing is shared? Simulated studies, written up as docs/calibration.md.

    python scripts/calibration.py [--studies 500] [--page docs/calibration.md] [--cache build/calibration]

Works off one piece (a null, a way of choosing pairs, a number of pairs) after another and stores each in the cache:
a second call goes on where the first one stopped. About ten minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binom, kstest

import unifeat as uf
from drawing import table
from sections import put
from studies import carried_out, folder_of, options_of
from unifeat.correlation.shifted import ShiftedCodes, shifts
from unifeat.geometry import MEASURES, Prepared
from unifeat.inference import calibrate, null_scores
from unifeat.vocabulary.paired_codes import PairedCodes, as_paired

D_A, D_B = 16, 24
SIZES = {"below d": 12, "near d": 24, "far above d": 80}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SVCCA": ("svcca", {}),
    "SVCCA, dims 4": ("svcca", {"dims": 4}),
    "SVCCA, dims 1": ("svcca", {"dims": 1}),
    "PWCCA": ("pwcca", {}),
    "held-out CCA, dims 4": ("heldout_cca", {"dims": 4}),
    "RSA": ("rsa", {}),
    "CKA": ("cka", {}),
    "CKA, debiased": ("cka", {"debiased": True}),
    "Procrustes": ("procrustes", {}),
    "Procrustes, held-out": ("procrustes", {"heldout": True}),
    "ridge map": ("ridge_map", {}),
    "mutual kNN, k 5": ("mutual_knn", {"k": 5}),
}
SHUFFLES, REMATCHES, ALPHA = 39, 19, 0.05
COVER_D = (6, 9)
COVER_N, COVER_LEVEL = 80, 0.95
Rows = tuple[np.ndarray, np.ndarray]


def unselected(n: int, seed: int) -> Rows:
    """n pairs of independent decoder rows."""
    return uf.synthetic.plant_rows(n, D_A, D_B, shared=0.0, decay=0.3, seed=seed)


def world_of(n: int, seed: int, shared: float) -> Any:
    """Spaces with room for n matched pairs, decoders independent of the codes and of each other."""
    size = 2 * n if shared else 5 * n  # chance alone makes fewer features each other's best
    return uf.synthetic.plant(
        n_tokens=1000, documents=50, features_a=size, features_b=size, d_a=D_A, d_b=D_B, shared=shared, noise=0.5,
        dropout=0.3, frequency=0.03, decay=0.3, shared_geometry=False, seed=seed,
    )  # fmt: skip


def matched(world: Any, paired: PairedCodes, n: int) -> Rows:
    """Decoder rows of the n mutual pairs with the highest r."""
    pairs = uf.match(uf.correlate(paired, top=1, threads=1), "mutual").head(n)
    assert len(pairs) == n
    return world.decoder_a[pairs["feature_a"]], world.decoder_b[pairs["feature_b"]]


def selected(n: int, seed: int) -> Rows:
    """n pairs chosen by matching codes that share six features in ten; the decoders know nothing of it."""
    world = world_of(n, seed, shared=0.6)
    return matched(world, as_paired(world.codes_a, world.codes_b), n)


def verdict(score: float, null: np.ndarray, tolerance: float, rng: np.random.Generator) -> list[float]:
    """p, p with ties broken at random (uniform on [0, 1] if the score is one of its null), corrected, excess."""
    p, corrected, _ = calibrate(score, null, alpha=ALPHA, tolerance=tolerance)
    above, tied = (null > score + tolerance).sum(), (np.abs(null - score) <= tolerance).sum()
    fair = (above + rng.random() * (1 + tied)) / (null.size + 1)
    return [p, float(fair), corrected, float(score - null.mean())]


def shuffle_study(draw: Callable[[int, int], Rows], n: int, seed: int) -> dict[str, list[float]]:
    """One study under the null that shuffles pairs: case -> `verdict`."""
    x, y = draw(n, seed)
    rng, out = np.random.default_rng([seed, 2]), {}
    for case, (name, settings) in CASES.items():
        prepared: Prepared = MEASURES[name].prepare(x, y, **settings)
        null = null_scores(prepared, SHUFFLES, seed)
        out[case] = verdict(prepared.score().value, null, prepared.tolerance, rng)
    return out


def rematch_study(n: int, seed: int) -> dict[str, list[float]]:
    """One study of spaces that share nothing, under the null that moves B along the text and matches anew."""
    world = world_of(n, seed, shared=0.0)
    paired = as_paired(world.codes_a, world.codes_b)
    at = shifts(np.arange(world.starts.size), world.starts, paired.n_rows, REMATCHES, seed)
    rows = [matched(world, codes, n) for codes in (paired, *(ShiftedCodes(paired, int(world.starts[d])) for d in at))]
    rng, out = np.random.default_rng([seed, 2]), {}
    for case, (name, settings) in CASES.items():
        scores = [MEASURES[name].function(*pair, **settings).value for pair in rows]
        assert len(scores) == REMATCHES + 1
        out[case] = verdict(scores[0], np.array(scores[1:]), 1e-9, rng)
    return out


def cover_pairs(n: int, seed: int, shared: float) -> Rows:
    """n pairs drawn from many, a share of which point the same way."""
    x, y = uf.synthetic.plant_rows(20 * n, *COVER_D, shared=shared, noise=0.6, decay=0.3, seed=seed)
    return x[:n], y[:n]


def cover_study(shared: float, seed: int) -> dict[str, list[float]]:
    """case -> the ends of its interval, and the score of other pairs from the same population."""
    x, y = cover_pairs(COVER_N, seed, shared)
    others = [cover_pairs(COVER_N, 1_000_000 + 2 * seed + i, shared) for i in range(2)]
    out = {}
    for case, (name, settings) in CASES.items():
        low, high = uf.subsample_interval(name, x, y, level=COVER_LEVEL, seed=seed, **settings)
        anew = [MEASURES[name].function(*pair, **settings).value for pair in others]
        out[case] = [low, high, float(np.mean(anew))]
    return out


def pieces(studies: int) -> dict[str, tuple[int, Callable[[int], dict[str, list[float]]]]]:
    """Name -> how many studies, and one study by its seed."""
    out: dict[str, tuple[int, Callable[[int], dict[str, list[float]]]]] = {}
    for n in SIZES.values():
        out[f"shuffle, n {n}"] = (studies, lambda seed, n=n: shuffle_study(unselected, n, seed))
    for n in SIZES.values():
        out[f"shuffle, matched, n {n}"] = (studies, lambda seed, n=n: shuffle_study(selected, n, seed))
    for n in SIZES.values():
        out[f"rematch, n {n}"] = (studies, lambda seed, n=n: rematch_study(n, seed))
    for shared in (0.0, 0.5):
        out[f"cover {shared:g}"] = (max(studies // 4, 2), lambda seed, s=shared: cover_study(s, seed))
    return out


def page(results: dict[str, dict[str, np.ndarray]], studies: int) -> str:
    """The text of docs/calibration.md."""
    tests = {name: cells for name, cells in results.items() if not name.startswith("cover")}
    count = len(tests) * len(CASES)
    tail = 0.05 / count / 2
    bounds = binom.ppf(tail, studies, ALPHA) / studies, binom.ppf(1 - tail, studies, ALPHA) / studies
    plain = binom.ppf([0.025, 0.975], studies, ALPHA) / studies
    # Where scores tie (saturated, or few possible values), p is larger than uniform: then only too many count.
    # (Without ties the two differ by half a step of p on average.)
    ties = {}
    for test, cells in tests.items():
        step = 1 / (1 + (REMATCHES if test.startswith("rematch") else SHUFFLES))
        for case in CASES:
            ties[case, test] = bool(np.mean(cells[case][:, 0] - cells[case][:, 1]) > 0.75 * step)
    rates, ks, corrected, excess, outside, unlike, off = {}, {}, {}, {}, [], [], []
    for test, cells in tests.items():
        for case in CASES:
            p, fair, corr, over = cells[case].T
            rate, key = float(np.mean(p <= ALPHA)), (case, test)
            rates[key], ks[key], corrected[key] = rate, kstest(fair, "uniform").pvalue, corr.mean()
            spread = over.std(ddof=1) / np.sqrt(studies)
            excess[key] = 0.0 if spread < 1e-12 else over.mean() / spread
            if rate > bounds[1] or (rate < bounds[0] and not ties[key]):
                outside.append(f"{case} ({test})")
            if ks[key] < 0.05 / count:
                unlike.append(f"{case} ({test})")
            if abs(excess[key]) > 4:
                off.append(f"{case} ({test})")
    inside_plain = sum(plain[0] <= r <= plain[1] or (ties[k] and r <= plain[1]) for k, r in rates.items())

    def shown(values: dict[Any, float], form: str, mark: bool = False) -> str:
        rows = []
        for case in CASES:
            cells = [format(values[case, t], form) + ("†" if mark and ties[case, t] else "") for t in tests]
            rows.append([case, *cells])
        return table(["", *tests], rows)

    covers = {name: cells for name, cells in results.items() if name.startswith("cover")}
    cover_rows, short = [], []
    cover_count = len(next(iter(next(iter(covers.values())).values())))
    cover_bounds = binom.ppf([0.025, 0.975], cover_count, COVER_LEVEL) / cover_count
    for case in CASES:
        row = [case]
        for name, cells in covers.items():
            low, high, anew = cells[case].T
            coverage = float(np.mean((low <= anew.mean()) & (anew.mean() <= high)))
            row += [f"{anew.mean():.3f}", f"{coverage:.3f}"]
            if coverage < cover_bounds[0]:
                short.append(f"{case} ({'nothing' if name.endswith(' 0') else 'half'} shared)")
        cover_rows.append(row)
    names = "; ".join
    sizes = ", ".join(f"{n} pairs ({where})" for where, n in SIZES.items())
    cover_header = ["", "nothing shared: expected", "coverage", "half shared: expected", "coverage"]
    return f"""# Calibration

Written by `python scripts/calibration.py`; every number is from its run. {studies} simulated studies per column,
decoders of {D_A} × {D_B} dimensions that are independent of each other.

* `shuffle`: {SHUFFLES} shuffles of which row goes with which; {sizes}.
* `matched`: the pairs were selected: codes that share six features in ten are correlated and matched (mutual best, the
  n with the highest r), and the decoders of those features are tested. Selection does no harm as long as the decoders
  are independent of what the codes share.
* `rematch`: codes that share nothing either; B is moved along the text by whole documents, {REMATCHES} times, and
  matched and scored again each time.

What plain shuffles take for shared geometry though it is not, such as firing frequency, is in
[confounds.md](confounds.md), with the tests that take it out.

## False positives
Share of studies with p ≤ {ALPHA}. At a true rate of {ALPHA}, 95 % of cells lie from {plain[0]:.3f} to {plain[1]:.3f}:
{inside_plain} of {count} do. All {count} at once lie from {bounds[0]:.3f} to {bounds[1]:.3f} with probability .95;
outside: {names(outside) or "none"}.
† scores tie often (saturated, or few possible values): p is then larger than necessary, never smaller, and a rate
below the range is no violation.

{shown(rates, ".3f", True)}
## Uniform p-values
p of the Kolmogorov–Smirnov test that p, ties broken at random, is uniform on [0, 1]. Smallest of {count}:
{min(ks.values()):.4f}. Below 0.05 / {count} = {0.05 / count:.5f}: {names(unlike) or "none"}.

{shown(ks, ".3f")}
## Corrected scores
Mean chance-corrected score, (s − τ) / (1 − τ) clipped at 0, a τ below 0 counting as 0: all of it comes
from the few studies above τ. (The ridge map has none: its R² is below 0 where nothing is shared.)

{shown(corrected, ".4f")}
Before clipping: the score minus the mean of its null, averaged over studies, in standard errors of that average.
Beyond ±4: {names(off) or "none"}.

{shown(excess, "+.1f")}
## Intervals
`subsample_interval`: {COVER_LEVEL:.0%} intervals from 60 halves, {cover_count} studies of {COVER_N} pairs in
{COVER_D[0]} × {COVER_D[1]} dimensions. Coverage: the share of them that hold the expected score of {COVER_N} pairs,
itself the mean over {2 * cover_count} other draws. At a true coverage of {COVER_LEVEL}, 95 % of cells lie from
{cover_bounds[0]:.3f} to {cover_bounds[1]:.3f}. Below it, intervals are too short: {names(short) or "none"}. Above it,
they are too wide, as a jackknife's are if the variance falls as 1/n², which it does if nothing is shared.

{table(cover_header, cover_rows)}"""


def main() -> None:
    options = options_of(__doc__, 500)
    settings = [D_A, D_B, CASES, SHUFFLES, REMATCHES, ALPHA, COVER_D, COVER_N, COVER_LEVEL]
    cache = folder_of(options.cache, "calibration", settings)
    results = {name: carried_out(name, count, study, cache) for name, (count, study) in pieces(options.studies).items()}
    put(options.page, "scripts/calibration.py", page(results, options.studies))


if __name__ == "__main__":
    main()
