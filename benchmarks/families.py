"""Seconds and memory of families over many spaces, beside SciPy's connected components of the same graph.

    python benchmarks/families.py [--spaces 30] [--pairs 1000000] [--methods scipy consistent]

Plants families that most spaces have a member of, with a share of the pairs missing and others that are by chance, so
that many components have some space twice. Each method runs in a process of its own, first on a small graph, since
numba reads or compiles its kernels. Printed are the core seconds from the tables of pairs to the table of families, and
by how much the process's peak memory rose in that time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from unifeat.multiway import METHODS, find_families
from unifeat.multiway.graph import Pairs, graph_of

HELD, MISSING, CHANCE = 0.8, 0.2, 0.1  # share of spaces with a member, of pairs that are lost, of pairs by chance


def plant(spaces: int, pairs: int, seed: int = 0) -> dict[tuple[str, str], pd.DataFrame]:
    """About so many pairs, each feature in at most one pair of any two spaces."""
    rng = np.random.default_rng(seed)
    families = round(pairs / (spaces * (spaces - 1) / 2 * HELD**2 * (1 - MISSING) * (1 + CHANCE)))
    width = 2 * families
    feature = [rng.permutation(width)[:families] for _ in range(spaces)]
    held = rng.random((spaces, families)) < HELD
    tables = {}
    for i, j in combinations(range(spaces), 2):
        both = np.flatnonzero(held[i] & held[j] & (rng.random(families) > MISSING))
        n = round(CHANCE * len(both))
        free = [rng.permutation(np.setdiff1d(np.arange(width), feature[k][both]))[:n] for k in (i, j)]
        tables[f"s{i}", f"s{j}"] = pd.DataFrame(
            {
                "feature_a": np.concatenate([feature[i][both], free[0]]),
                "feature_b": np.concatenate([feature[j][both], free[1]]),
                "correlation": np.concatenate([rng.uniform(0.3, 0.95, len(both)), rng.uniform(0.1, 0.5, n)]),
            }
        )
    return tables


def connected(pairs: Pairs) -> int:
    """Components of the graph, whatever spaces they are of."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = graph_of(pairs)
    edges = coo_array((graph.r, (graph.low, graph.high)), shape=(graph.nodes, graph.nodes))
    return int(connected_components(edges, directed=False)[0])


def measured(name: str, spaces: int, pairs: int, found: Any) -> None:
    """Put (core seconds, MB by which the peak rose, families) into a queue."""
    tables = plant(spaces, pairs)
    small = plant(4, 200)
    run = connected if name == "scipy" else lambda own: len(find_families(own, name))
    run(small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    number = run(tables)
    seconds = time.process_time() - start
    found.put((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--methods", nargs="+", default=["scipy", *METHODS])
    options = parser.parse_args()
    tables = plant(options.spaces, options.pairs)
    size = sum(len(table) for table in tables.values())
    held = sum(int(table.memory_usage().sum()) for table in tables.values()) / 1e6
    print(f"{size:,} pairs over {options.spaces} spaces, {held:.0f} MB")
    print(f"{'':12} {'seconds':>8} {'MB more':>8} {'families':>9}")
    context = multiprocessing.get_context("spawn")
    for name in options.methods:
        queue = context.Queue()
        process = context.Process(target=measured, args=(name, options.spaces, options.pairs, queue))
        process.start()
        seconds, memory, number = queue.get()
        process.join()
        print(f"{name:12} {seconds:>8.1f} {memory:>8.0f} {number:>9,}", flush=True)


if __name__ == "__main__":
    main()
