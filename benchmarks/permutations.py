"""What a shuffle costs, against calling the measure anew and against calibrated-similarity, in one run.

    python benchmarks/permutations.py [--n 10000] [--d-a 512] [--d-b 768] [--decay 0.5] [--measures svcca rsa cka]

Prints medians of wall-clock seconds, their ratios and the process's peak memory so far; then runs shuffles of all
the measures together (each with its default settings, every shuffle shared), from preparing to the last one. The data
are two noisy views of a common 64-dimensional space; their singular values fall as rank^-decay (0 is the worst case
for SVCCA: nearly every component is kept). A peer that is not installed is left out.
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
from unifeat.inference import permutations

CASES: list[tuple[str, dict[str, Any]]] = [
    ("cka", {}),
    ("cka", {"debiased": True}),
    ("svcca", {"dims": 1}),
    ("svcca", {"dims": 64}),
    ("svcca", {"variance": 0.99}),
    ("rsa", {"inner": "cosine"}),
    ("rsa", {"inner": "euclidean", "outer": "pearson"}),
]


def views(n: int, d_a: int, d_b: int, decay: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 64))

    def view(d: int) -> np.ndarray:
        spectrum = np.arange(1.0, d + 1) ** -decay
        return common @ rng.standard_normal((64, d)) * 0.05 + rng.standard_normal((n, d)) * spectrum

    return view(d_a), view(d_b)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ours(x: np.ndarray, y: np.ndarray, measures: list[str], anew: int, shuffles: int) -> None:
    print(f"{'measure':42} {'anew s':>9} {'prepare s':>9} {'shuffle s':>10} {'ratio':>7} {'1000 in':>8} {'peak':>7}")
    orders = list(permutations(len(x), shuffles + 1, seed=0))
    for name, settings in [case for case in CASES if case[0] in measures]:
        measure = MEASURES[name]
        # Small first calls compile the kernels and wake the BLAS threads.
        measure.prepare(x[:50], y[:50], **settings).shuffled(np.arange(50))
        call = partial(measure.function, x, y[orders[0]], **settings)
        whole = [seconds(call) for _ in range(anew)]
        start = time.perf_counter()
        prepared = measure.prepare(x, y, **settings)
        prepared.shuffled(orders[0])  # the first shuffle also builds what all of them share
        preparing = time.perf_counter() - start
        each = [seconds(partial(prepared.shuffled, order)) for order in orders[1:]]
        label = f"{name} {', '.join(f'{k}={v}' for k, v in settings.items())}"
        if name == "svcca":
            label += " (k {dims_a}, {dims_b})".format(**prepared.score().details)
        ratio = median(whole) / median(each)
        thousand = preparing + 1000 * median(each)
        print(
            f"{label:42} {median(whole):9.2f} {preparing:9.2f} {median(each):10.4f} {ratio:6.0f}x "
            f"{thousand:6.0f} s {peak_gb():4.1f} GB",
            flush=True,
        )
        del prepared


def together(x: np.ndarray, y: np.ndarray, measures: list[str], shuffles: int) -> None:
    start = time.perf_counter()
    prepared = [MEASURES[name].prepare(x, y) for name in measures]
    for order in permutations(len(x), shuffles, seed=1):
        for one in prepared:
            one.shuffled(order)
    print(
        f"{shuffles} shuffles of {', '.join(measures)} together: {time.perf_counter() - start:.0f} s, "
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
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=["svcca", "rsa", "cka"])
    options = parser.parse_args()
    x, y = views(options.n, options.d_a, options.d_b, options.decay)
    print(f"n={options.n}, d={options.d_a} x {options.d_b}, decay {options.decay:g}")
    ours(x, y, options.measures, options.anew, options.shuffles)
    if options.together:
        together(x, y, options.measures, options.together)
    if "cka" in options.measures:
        peer(x, y)


if __name__ == "__main__":
    main()
