"""Overhead of the engines over a plain loop, by size of unit, and what two workers make of two cores.

    python benchmarks/engines.py [--engines local ray] [--repeat 3]

A unit multiplies matrices for a given time on one core; its result is a number. The loop runs the same units one after
another in this process. `ray` starts a cluster on this machine. Times are medians; workers are started before the
clock, as in a run of hours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from unifeat.engine import Unit
from unifeat.engine.choose import engine_called
from unifeat.progress import set_mode
from unifeat.store import JSON, Piece
from unifeat.threads import cores, one_blas_thread

_WIDTH = 192  # a product of such matrices stays in a core's own cache


def work(products: int, seed: int) -> float:
    """Multiply matrices so many times."""
    x = np.random.default_rng(seed).normal(size=(_WIDTH, _WIDTH)) / np.sqrt(_WIDTH)
    y = x
    for _ in range(products):
        y = x @ y
    return float(y[0, 0])


def units(name: str, number: int, products: int) -> list[Unit[float]]:
    """Units that nobody has run yet."""
    return [
        Unit(Piece("benchmark", {"of": name, "n": n}, JSON), partial(work, products, n), fills_machine=False)
        for n in range(number)
    ]


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[1, 10, 100, 1000])
    args = parser.parse_args()
    set_mode("quiet")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["UNIFEAT_CACHE"] = cache
        with one_blas_thread():
            work(100, 0)
            a_product = statistics.median(seconds(lambda: work(400, 0)) for _ in range(5)) / 400
        print(f"{cores()} cores; a loop over the same units takes one")
        headings = f"{'loop':>9} {'engine':>9} {'of all cores':>18} {'overhead':>12}"
        print(f"{'engine':8} {'unit':>8} {'units':>6} {headings}")
        for name in args.engines:
            with engine_called(name, None, None) as engine:
                list(engine.map(units(f"{name} first", 8 * cores(), 100)))  # workers start and import
                for unit_ms in args.milliseconds:
                    products = max(round(unit_ms / 1000 / a_product), 1)
                    number = int(min(max(4000 / unit_ms, 8), 400)) // cores() * cores()
                    loops, maps = [], []
                    for turn in range(args.repeat):
                        with one_blas_thread():
                            own = units(f"loop {name} {unit_ms} {turn}", number, products)
                            loops.append(seconds(lambda own=own: [unit.result() for unit in own]))
                        own = units(f"{name} {unit_ms} {turn}", number, products)
                        maps.append(seconds(lambda own=own: list(engine.map(own))))
                    loop, mapped = statistics.median(loops), statistics.median(maps)
                    extra = (mapped * cores() - loop) / number * 1000
                    print(
                        f"{name:8} {unit_ms:>6g}ms {number:>6} {loop:>8.2f}s {mapped:>8.2f}s "
                        f"{loop / mapped / cores():>18.0%} {extra:>7.2f} ms/unit",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
