"""What the plain shuffle takes for shared geometry and is not, and what is left when that is taken out.

    python scripts/confounds.py [--studies 200] [--page docs/confounds.md] [--cache build/confounds]

Works off one row after another and stores each in the cache: a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

import unifeat as uf
from drawing import table
from unifeat.geometry import MEASURES
from unifeat.inference import calibrate, permutation_test, permutations, strata_of
from unifeat.progress import set_mode
from unifeat.store import written_aside

SHUFFLES, ALPHA = 39, 0.05
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "RSA": ("rsa", {}),
    "CKA, debiased": ("cka", {"debiased": True}),
    "SVCCA, dims 8": ("svcca", {"dims": 8}),
    "Procrustes, held-out": ("procrustes", {"heldout": True}),
    "mutual kNN": ("mutual_knn", {}),
}
SPLIT_CASES: dict[str, tuple[str, dict[str, Any]]] = CASES | {"ridge map": ("ridge_map", {})}
WIDTHS = (32, 40)
SLOPE, STEEP = 0.5, 1.0
BINS = (5, 10, 20, 30)
ERRORS = (0.02, 0.05, 0.1)
SHARES = (0.15, 0.25, 0.4, 0.6)
PARTS = (0.3, 0.45, 0.6, 0.8)


def by_frequency(n: int, seed: int, *, slope: float = SLOPE, shared: float = 0.0) -> tuple[Any, Any, Any]:
    """Two sides whose mean direction grows with frequency, up to a shared part of the pairs; and the frequencies."""
    rng = np.random.default_rng(seed)
    frequency = rng.random(n)
    common = rng.standard_normal((n, WIDTHS[0]))
    common[rng.random(n) >= shared] = 0
    sides = []
    for width in WIDTHS:
        rows, mean = rng.standard_normal((n, width)), rng.standard_normal(width)
        rows += 1.5 * common @ np.linalg.qr(rng.standard_normal((width, WIDTHS[0])))[0].T
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        sides.append(rows + slope * frequency[:, None] * mean / np.linalg.norm(mean))
    return *sides, frequency


def rejects(case: str, x: Any, y: Any, seed: int, **how: Any) -> bool:
    name, settings = CASES[case]
    return permutation_test(name, x, y, permutations=SHUFFLES, seed=seed, **how, **settings).p <= ALPHA


def frequency_alone(n: int, slope: float, seed: int) -> list[bool]:
    """RSA: the plain shuffle, then strata of each size."""
    x, y, frequency = by_frequency(n, seed, slope=slope)
    return [
        rejects("RSA", x, y, seed),
        *(rejects("RSA", x, y, seed, strata=strata_of(frequency, size=s)) for s in BINS),
    ]


def noisy_strata(n: int, slope: float, seed: int) -> list[bool]:
    """RSA within strata of an estimate of what the directions depend on: without an error, and with each error."""
    x, y, frequency = by_frequency(n, seed, slope=slope)
    noise = np.random.default_rng([seed, 1]).standard_normal(n)
    return [rejects("RSA", x, y, seed, strata=strata_of(frequency + error * noise)) for error in (0.0, *ERRORS)]


def each_measure(n: int, within: bool, seed: int) -> list[bool]:
    x, y, frequency = by_frequency(n, seed)
    how = {"strata": strata_of(frequency)} if within else {}
    return [rejects(case, x, y, seed, **how) for case in CASES]


def power(n: int, size: int, seed: int) -> list[bool]:
    """RSA with some pairs shared and no mean direction: plain (size 0), or in strata."""
    found = []
    for share in SHARES:
        x, y, frequency = by_frequency(n, seed, slope=0.0, shared=share)
        found.append(rejects("RSA", x, y, seed, **({"strata": strata_of(frequency, size=size)} if size else {})))
    return found


def by_embedding(n: int, seed: int, *, d_z: int, strength: float, shared: float = 0.0) -> tuple[Any, Any, Any]:
    """Two sides that are linear in z, each in its own way, plus noise and a shared part; and z."""
    rng = np.random.default_rng(seed)
    z, common = rng.standard_normal((n, d_z)), rng.standard_normal((n, 6))
    sides = []
    for width in WIDTHS:
        parts = [(strength, z @ rng.standard_normal((d_z, width))), (1.0, rng.standard_normal((n, width)))]
        parts.append((shared, common @ np.linalg.qr(rng.standard_normal((width, 6)))[0].T))
        sides.append(sum(size * part / np.sqrt((part**2).sum(axis=1).mean()) for size, part in parts))
    return *sides, z


def embedding_alone(n: int, d_z: int, strength: float, seed: int) -> list[bool]:
    """Plain RSA; partial RSA with whole rows of y shuffled; partial RSA as it is."""
    x, y, z = by_embedding(n, seed, d_z=d_z, strength=strength)
    null = [float(uf.rsa(x, y[order], given=z)) for order in permutations(n, SHUFFLES, seed)]
    whole = calibrate(float(uf.rsa(x, y, given=z)), null, tolerance=1e-9).p <= ALPHA
    return [rejects("RSA", x, y, seed), whole, rejects("RSA", x, y, seed, given=z)]


def embedding_power(n: int, d_z: int, given: bool, seed: int) -> list[bool]:
    """Sides that depend on z, or (not `given`) not at all, and share something else: partial or plain RSA finds it."""
    found = []
    for shared in PARTS:
        x, y, z = by_embedding(n, seed, d_z=d_z, strength=1.0 if given else 0.0, shared=shared)
        found.append(rejects("RSA", x, y, seed, **({"given": z} if given else {})))
    return found


def split_features(n: int, seed: int, *, shared: bool = False) -> tuple[Any, Any, Any]:
    """n features of A, each paired with one to four near copies in B; A's rows are noise unless `shared`. And which."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(n), rng.integers(1, 5, n))
    x, y = rng.standard_normal((n, WIDTHS[0])), rng.standard_normal((n, WIDTHS[1]))
    if shared:
        y[:, : WIDTHS[0]] += x
    return x[label], y[label] + 0.3 * rng.standard_normal((len(label), WIDTHS[1])), label


def splitting(n: int, units: bool, shared: bool, seed: int) -> list[bool]:
    x, y, label = split_features(n, seed, shared=shared)
    found = []
    for name, settings in SPLIT_CASES.values():
        groups = {"groups": label} if units and "groups" in MEASURES[name].row_settings else {}
        how = {"units": label} if units else {}
        test = permutation_test(name, x, y, permutations=SHUFFLES, seed=seed, **how, **groups, **settings)
        found.append(test.p <= ALPHA)
    return found


def rates(cache: Path, study: Callable[..., list[bool]], *arguments: Any, studies: int) -> list[float]:
    """Share of studies that reject, for each of a study's tests; stored."""
    source = "".join(inspect.getsource(f) for f in (study, WORLDS[study], rejects))
    settings = [source, arguments, studies, SHUFFLES, ALPHA, CASES, WIDTHS, BINS, SHARES, PARTS, ERRORS, uf.__version__]
    path = cache / f"{study.__name__}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}.json"
    if not path.exists():
        found = np.mean([study(*arguments, seed) for seed in range(studies)], axis=0).tolist()
        with written_aside(path) as aside:
            aside.write_text(json.dumps(found))
        print(study.__name__, *arguments, *found, flush=True)
    stored: list[float] = json.loads(path.read_text())
    return stored


WORLDS: dict[Any, Any] = {
    **dict.fromkeys((frequency_alone, noisy_strata, each_measure, power), by_frequency),
    **dict.fromkeys((embedding_alone, embedding_power), by_embedding),
    splitting: split_features,
}


def shown(values: Sequence[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]


def frequency_section(cache: Path, studies: int) -> str:
    alone = [
        [f"{n} pairs, slope {slope:g}", *shown(rates(cache, frequency_alone, n, slope, studies=studies))]
        for slope in (SLOPE, STEEP)
        for n in (60, 120, 300)
    ]
    noisy = [
        [f"{n} pairs, slope {SLOPE:g}", *shown(rates(cache, noisy_strata, n, SLOPE, studies=studies))]
        for n in (120, 300)
    ]
    measures = [
        [label, *shown(rates(cache, each_measure, 120, within, studies=studies))]
        for label, within in (("plain", False), ("within strata of 10", True))
    ]
    sizes = {"plain": 0, **{f"within strata of {size}": size for size in BINS}}
    powers = [
        [f"{label}, n {n}", *shown(rates(cache, power, n, size, studies=studies))]
        for n in (60, 300)
        for label, size in sizes.items()
    ]
    return f"""## Firing frequency
{WIDTHS[0]} × {WIDTHS[1]} dimensions. Row i of a side is a random unit vector plus slope · f_i times a fixed unit
vector of that side, with f_i uniform on [0, 1] the same for both. The sides share nothing but f. Share of studies with
p ≤ {ALPHA:g} for RSA, against plain shuffles and within quantile strata of f (`strata_of(f, size=…)`):

{table(["", "plain", *(f"strata of {size}" for size in BINS)], alone)}
What varies within a stratum is not taken out, so few pairs in wide strata still reject. That is why strata have about
ten pairs. A token share (`strata: token_share`, `both`) is an estimate, and strata of an estimate take out less. Strata
of ten of f with an error of this standard deviation:

{table(["error of f", *(f"{error:g}" for error in (0, *ERRORS))], noisy)}
Other measures, 120 pairs, slope {SLOPE:g}:

{table(["", *CASES], measures)}
Power: no mean direction (slope 0), but a share of the pairs point the same way in both spaces, up to a rotation and
noise. Share of studies that find it with RSA:

{table(["shared:", *(f"{share:.0%}" for share in SHARES)], powers)}
Small strata cost RSA no power that shows here. They do raise the null's mean, since a row often meets its own partner.
"""


def embedding_section(cache: Path, studies: int) -> str:
    alone = [
        [
            f"{n} pairs, z of {d_z}, {strength:g} × noise",
            *shown(rates(cache, embedding_alone, n, d_z, strength, studies=studies)),
        ]
        for n in (60, 120)
        for d_z in (3, 20, 100)
        for strength in (0.7, 1.5)
    ]
    powers = [
        [label, *shown(rates(cache, embedding_power, 60, 20, given, studies=studies))]
        for label, given in (("plain RSA, no z", False), ("partial RSA, z of 20, 1 × noise", True))
    ]
    return f"""## Embeddings
x = z W + noise and y = z V + noise, with W and V independent: the sides share z (the embedding of a pair's top token,
say) and nothing else. Share of studies with p ≤ {ALPHA:g}: plain RSA; `uf.rsa(x, y, given=z)` if whole rows of y are
shuffled; and as `permutation_test` does it, which exchanges only what z does not predict of y:

{table(["", "plain", "given z, rows of y", "given z"], alone)}
Taking the similarities of z out of the score is not enough: x and y depend on z by other metrics than that of z itself,
and both lengths of rows and ranks make the dependence nonlinear. Where z says much, the test is careful.

Power, 60 pairs: six directions are shared besides, so many times as long as the noise. Share of studies that find it:

{table(["shared part:", *(f"{part:g}" for part in PARTS)], powers)}"""


def splitting_section(cache: Path, studies: int) -> str:
    rows = [
        [f"{what}, {n} features, {label}", *shown(rates(cache, splitting, n, units, shared, studies=studies))]
        for what, shared in (("nothing shared", False), ("shared", True))
        for n in (20, 60)
        for label, units in (("rows", False), ("units", True))
        if units or not shared
    ]
    return f"""## One feature with several partners
Matching by `max` pairs a feature of A with several of B, where B splits what A has. Its row of A is then there several
times, beside near copies in B. Each of n features of A has one to four partners, near copies of each other (noise of
0.3 a coordinate); the rows of A are noise, or (`shared`) a part of those of B. Share of studies with p ≤ {ALPHA:g} if
rows are shuffled, and if pairs that share a feature are shuffled as one (`units=`) and held out as one (`groups=`), as
a study does:

{table(["", *SPLIT_CASES], rows)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--page", type=Path, default=Path("docs/confounds.md"))
    parser.add_argument("--cache", type=Path, default=Path("build/confounds"))
    options = parser.parse_args()
    set_mode("quiet")
    sections = [
        section(options.cache, options.studies) for section in (frequency_section, embedding_section, splitting_section)
    ]
    low, high = (binom.ppf(q, options.studies, ALPHA) / options.studies for q in (0.025, 0.975))
    head = f"""# Confounds: what a plain shuffle takes for shared geometry

Written by `python scripts/confounds.py --studies {options.studies}`; every number is from its run.
{options.studies} simulated studies per number, {SHUFFLES} shuffles each.
At a true rate of {ALPHA:g}, 95 % of numbers lie from {low:.3f} to {high:.3f}.

"""
    options.page.write_text(head + "\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
