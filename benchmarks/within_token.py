"""Correlation within token beside plain correlation, of two spaces of a finished run whose codes are in the cache.

    python benchmarks/within_token.py runs/demo smollm2@15 gemma3@9 [--repeat 5]

Prints medians of wall-clock seconds for all pairs of features, in both directions, and their ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import unifeat as uf
from unifeat.codes.align import align
from unifeat.codes.store import CodeStore
from unifeat.codes.token_types import ByTokenType
from unifeat.correlation.correlate import correlate, correlate_within
from unifeat.progress import set_mode


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("space_a")
    parser.add_argument("space_b")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    set_mode("quiet")
    spaces = uf.open(options.run).info["spaces"]
    codes = align(*(CodeStore.open(Path(spaces[name]["codes"])) for name in (options.space_a, options.space_b)))
    grouped = ByTokenType(codes)
    correlate(codes), correlate_within(grouped)  # compile
    both = [
        (seconds(lambda: correlate(codes)), seconds(lambda: correlate_within(grouped))) for _ in range(options.repeat)
    ]
    plain, within = (median(times) for times in zip(*both, strict=True))
    print(
        f"{options.space_a} × {options.space_b}: {codes.n_rows:,} tokens of {len(grouped.sizes):,} types; "
        f"plain {plain:.2f} s, within token {within:.2f} s ({within / plain:.1f} ×)"
    )


if __name__ == "__main__":
    main()
