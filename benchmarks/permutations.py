"""What a shuffle costs, against calling the measure anew and against calibrated-similarity, in one run.

    python benchmarks/permutations.py [--n 10000] [--d-a 512] [--d-b 768] [--decay 0.5] [--measures svcca rsa cka]
    python benchmarks/permutations.py --cell [--decay 0] [--measures ridge_map]

Prints medians of wall-clock seconds, their ratios, the processor time of a null's shuffles and the process's peak
memory so far; then runs shuffles of all the measures together (each with its default settings, every shuffle shared),
from preparing to the last one. The data are two noisy views of a common 64-dimensional space; their singular values
fall as rank^-decay (0 is the worst case for SVCCA: nearly every component is kept). A peer that is not installed is
left out.

`--cell` is a cell of a study: every measure on 1,200 pairs of 576 and 896 dimensions, 500 shuffles and 60 halves (with
the second width cut to the first for a measure that needs equal ones). BLAS uses as many threads as the environment
says: a study runs two measures at a time on two cores, each with one (OMP_NUM_THREADS=1). `--whole` runs every null to
its end, as `permutation_test` does, with shuffles that take long in threads.

`--core-seconds` counts processor time everywhere, for a machine that does other work meanwhile.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from unifeat.geometry import MEASURES
from unifeat.inference import permutation_test, permutations, subsample_interval, with_settings
from unifeat.progress import set_mode

CLOCK = time.perf_counter
CASES: list[tuple[str, dict[str, Any]]] = [
    ("cka", {}),
    ("cka", {"debiased": True}),
    ("svcca", {"dims": 1}),
    ("svcca", {"dims": 64}),
    ("svcca", {"variance": 0.99}),
    ("rsa", {"inner": "cosine"}),
    ("rsa", {"inner": "euclidean", "outer": "pearson"}),
]
OF_A_CELL: list[tuple[str, dict[str, Any]]] = [
    ("svcca", {}),
    ("svcca", {"dims": 64}),
    ("pwcca", {}),
    ("heldout_cca", {}),
    ("heldout_cca", {"dims": 64}),
    ("heldout_cca", {"variance": 1.0}),
    ("rsa", {}),
    ("rsa", {"inner": "euclidean"}),
    ("cka", {}),
    ("cka", {"debiased": True}),
    ("procrustes", {}),
    ("procrustes", {"heldout": True}),
    ("ridge_map", {}),
    ("mutual_knn", {}),
    ("mean_max_cosine", {}),
]


def views(n: int, d_a: int, d_b: int, decay: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 64))

    def view(d: int) -> np.ndarray:
        spectrum = np.arange(1.0, d + 1) ** -decay
        return common @ rng.standard_normal((64, d)) * 0.05 + rng.standard_normal((n, d)) * spectrum

    return view(d_a), view(d_b)


def seconds(work: Callable[[], Any]) -> float:
    start = CLOCK()
    work()
    return CLOCK() - start


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ours(
    left: np.ndarray, right: np.ndarray, cases: list[tuple[str, dict[str, Any]]], anew: int, shuffles: int, count: int
) -> None:
    counted = f"{count} in"
    print(
        f"{'measure':42} {'anew s':>9} {'prepare s':>9} {'shuffle s':>10} {'ratio':>7} {counted:>8} "
        f"{'core s':>7} {'peak':>7}"
    )
    orders = list(permutations(len(left), shuffles + 1, seed=0))
    for name, settings in cases:
        measure = MEASURES[name]
        x, y = left, right[:, : left.shape[1]] if measure.equal_widths else right
        # Small first calls compile the kernels and wake the BLAS threads.
        measure.prepare(x[:50], y[:50], **settings).shuffled(np.arange(50))
        call = partial(measure.function, x, y[orders[0]], **settings)
        whole = [seconds(call) for _ in range(anew)]
        start = CLOCK()
        prepared = measure.prepare(x, y, **settings)
        prepared.shuffled(orders[0])  # the first shuffle also builds what all of them share
        preparing = CLOCK() - start
        cpu = time.process_time()
        each = [seconds(partial(prepared.shuffled, order)) for order in orders[1:]]
        cpu = (time.process_time() - cpu) / len(each)
        label = f"{name} {', '.join(f'{k}={v}' for k, v in settings.items())}"
        if name in ("svcca", "heldout_cca"):
            label += " (k {dims_a}, {dims_b})".format(**prepared.score().details)
        ratio = median(whole) / median(each)
        print(
            f"{label:42} {median(whole):9.2f} {preparing:9.2f} {median(each):10.4f} {ratio:6.0f}x "
            f"{preparing + count * median(each):6.0f} s {count * cpu:7.0f} {peak_gb():4.1f} GB",
            flush=True,
        )
        del prepared


def halves(left: np.ndarray, right: np.ndarray, cases: list[tuple[str, dict[str, Any]]], subsamples: int = 60) -> None:
    """What an interval costs, against preparing the measure anew for each half."""
    print(f"\n{'measure':42} {'anew s':>9} {'half s':>10} {'ratio':>7} {f'{subsamples} in':>8}")
    chosen = [np.sort(order[: len(left) // 2]) for order in permutations(len(left), 6, seed=0)]
    for name, settings in cases:
        measure = MEASURES[name]
        x, y = left, right[:, : left.shape[1]] if measure.equal_widths else right
        anew = [seconds(partial(measure.function, x[rows], y[rows], **settings)) for rows in chosen]
        took = seconds(partial(subsample_interval, measure, x, y, subsamples=subsamples, **settings))
        half = (took - seconds(partial(measure.function, x, y, **settings))) / subsamples
        label = f"{name} {', '.join(f'{k}={v}' for k, v in settings.items())}"
        print(f"{label:42} {median(anew):9.3f} {half:10.4f} {median(anew) / half:6.1f}x {took:6.0f} s", flush=True)


def whole(left: np.ndarray, right: np.ndarray, cases: list[tuple[str, dict[str, Any]]], count: int) -> None:
    """Every null to its end."""
    print(f"\n{'measure':42} {f'{count} shuffles':>16} {'core s':>8}")
    for name, settings in cases:
        measure = with_settings(name, settings)
        y = right[:, : left.shape[1]] if measure.equal_widths else right
        if measure.sees_pairing:
            cpu = time.process_time()
            took = seconds(partial(permutation_test, measure, left, y, permutations=count))
            cpu = time.process_time() - cpu
            label = f"{name} {', '.join(f'{k}={v}' for k, v in settings.items())}"
            print(f"{label:42} {took:14.1f} s {cpu:8.1f}", flush=True)


def together(x: np.ndarray, y: np.ndarray, measures: list[str], shuffles: int) -> None:
    start = CLOCK()
    prepared = [MEASURES[name].prepare(x, y) for name in measures]
    for order in permutations(len(x), shuffles, seed=1):
        for one in prepared:
            one.shuffled(order)
    print(
        f"{shuffles} shuffles of {', '.join(measures)} together: {CLOCK() - start:.0f} s, "
        f"peak memory of this process {peak_gb():.1f} GB",
        flush=True,
    )


def peer(x: np.ndarray, y: np.ndarray) -> None:
    try:
        from calibrated_similarity import calibrate
    except ImportError:
        print("calibrated-similarity is not installed: left out")
        return
    import torch

    def gram_cka(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # the one of its README
        a, b = a - a.mean(0), b - b.mean(0)
        hsic_ab = (a @ a.T * (b @ b.T)).sum()
        hsic_aa = (a @ a.T * (a @ a.T)).sum()
        hsic_bb = (b @ b.T * (b @ b.T)).sum()
        return hsic_ab / torch.sqrt(hsic_aa * hsic_bb)

    a, b = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    runs = [seconds(lambda: calibrate(a, b, gram_cka, K=1)) / 2 for _ in range(2)]
    print(f"calibrated-similarity, CKA of its README, float32: {median(runs):.2f} s a shuffle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--d-a", type=int, default=512)
    parser.add_argument("--d-b", type=int, default=768)
    parser.add_argument("--anew", type=int, default=3, help="calls of the measure (default 3)")
    parser.add_argument("--shuffles", type=int, default=20, help="shuffles timed (default 20)")
    parser.add_argument("--together", type=int, default=1000, help="shuffles of all together (default 1000, 0: none)")
    parser.add_argument("--decay", type=float, default=0.5, help="of the singular values (default 0.5)")
    parser.add_argument("--measures", nargs="+", choices=MEASURES, help="(default svcca rsa cka; with --cell, all)")
    parser.add_argument("--cell", action="store_true", help="every measure on 1,200 pairs of 576 and 896 dimensions")
    parser.add_argument("--whole", action="store_true", help="with --cell: every null to its end")
    parser.add_argument("--core-seconds", action="store_true", help="processor time instead of wall-clock time")
    options = parser.parse_args()
    set_mode("quiet")
    if options.core_seconds:
        global CLOCK
        CLOCK = time.process_time
    if options.cell:
        options.n, options.d_a, options.d_b = 1200, 576, 896
    measures = options.measures or (list(MEASURES) if options.cell else ["svcca", "rsa", "cka"])
    x, y = views(options.n, options.d_a, options.d_b, options.decay)
    print(f"n={options.n}, d={options.d_a} x {options.d_b}, decay {options.decay:g}")
    cases = [case for case in (OF_A_CELL if options.cell else CASES) if case[0] in measures]
    ours(x, y, cases, options.anew, options.shuffles, 500 if options.cell else 1000)
    if options.cell:
        if options.whole:
            whole(x, y, cases, 500)
        else:
            halves(x, y, cases)
        return
    if options.together:
        together(x, y, measures, options.together)
    if "cka" in measures:
        peer(x, y)


if __name__ == "__main__":
    main()
