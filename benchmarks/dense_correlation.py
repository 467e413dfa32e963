"""Correlation of dense codes, such as pre-activations, against a float64 GEMM alone and the sparse way, in one run.

    python benchmarks/dense_correlation.py [--tokens 2048] [--features 16384] [--densities 0.05 0.6] [--memory-gb 1.0]

Codes are what an encoder gives before it picks its top k: relu(W h + b), with b set so that each feature fires on a
share of tokens drawn between the two densities. Both spaces read the same 256 hidden dimensions. The GEMM is numpy's
float64 matmul over codes that are written out already, in blocks of as much memory; it computes no correlation and
looks for no partner. The sparse way is what correlation does with sparse codes, forced upon these. The correlation of
given pairs is timed too, and a sample of reported partners is checked against centred float64 arithmetic.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
from scipy import sparse

from unifeat.correlation import best_partners as engine
from unifeat.correlation.correlate import Correlation, correlate
from unifeat.correlation.pair_sums import correlate_pairs
from unifeat.progress import set_mode


def preactivations(
    tokens: int, features: int, densities: list[float], seed: int = 0
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Two code matrices (tokens, features), float32."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((tokens, 256), dtype=np.float32)
    codes = []
    for _ in range(2):
        weight = rng.standard_normal((256, features), dtype=np.float32) / 16
        share = rng.uniform(densities[0], densities[-1], features)
        parts = []
        # Hidden dimensions are standard normal, so a threshold on W h can be read off all tokens of any one part.
        sample = np.sort(hidden[:2048] @ weight, axis=0)
        place = ((1 - share) * (len(sample) - 1)).astype(int)
        bias = -np.take_along_axis(sample, place[None], axis=0)
        for first in range(0, tokens, 1024):
            parts.append(sparse.csr_array(np.maximum(hidden[first : first + 1024] @ weight + bias, 0)))
        codes.append(sparse.csr_array(sparse.vstack(parts)))
    return codes[0], codes[1]


def ours(a: sparse.csr_array, b: sparse.csr_array, memory_gb: float, *, dense: bool) -> tuple[Correlation, float]:
    """The correlation and its seconds."""
    with patch.object(engine, "_is_dense", return_value=dense):
        correlate(a[:100], b[:100], memory_gb=memory_gb)  # compile
        before = memory("VmRSS", reset=True)
        start = time.perf_counter()
        corr = correlate(a, b, memory_gb=memory_gb)
        seconds = time.perf_counter() - start
    way = "dense" if dense else "sparse"
    print(
        f"unifeat, {way + ' way,':11} all of it   {seconds:8.2f} s   "
        f"{memory('VmHWM') - before:.2f} GB beyond the inputs",
        flush=True,
    )
    return corr, seconds


def gemm(a: sparse.csr_array, b: sparse.csr_array, memory_gb: float) -> float:
    """Seconds of all products alone, in blocks of A's features whose products take `memory_gb`."""
    x, y = a.toarray().astype(np.float64), b.toarray().astype(np.float64)
    block = min(max(int(memory_gb * 1e9 / 8 / y.shape[1]), 1), x.shape[1])
    out = np.zeros((block, y.shape[1]))
    start = time.perf_counter()
    for first in range(0, x.shape[1], block):
        part = x[:, first : first + block].T
        np.matmul(part, y, out=out[: len(part)])
    seconds = time.perf_counter() - start
    rate = 2 * x.shape[0] * x.shape[1] * y.shape[1] / seconds / 1e9
    print(f"numpy float64 matmul alone       {seconds:8.2f} s   {rate:.0f} GFLOP/s", flush=True)
    return seconds


def worst_error(corr: Correlation, a: sparse.csr_array, b: sparse.csr_array, sample: int = 64) -> float:
    """Largest difference of a reported r from centred float64 arithmetic over all features of the other side."""
    ids = np.random.default_rng(0).choice(a.shape[1], min(sample, a.shape[1]), replace=False)
    x, y = a[:, ids].toarray().astype(np.float64), b.toarray().astype(np.float64)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norms = np.linalg.norm(x, axis=0)[:, None] * np.linalg.norm(y, axis=0)
    r = np.divide(x.T @ y, norms, out=np.full(norms.shape, -np.inf), where=norms > 0)
    value, index = corr.a_to_b.value[ids], corr.a_to_b.index[ids]
    best = -np.sort(-r, axis=1)[:, : value.shape[1]]
    return float(max(np.abs(best - value).max(), np.abs(np.take_along_axis(r, index, 1) - value).max()))


def memory(field: str, *, reset: bool = False) -> float:
    """GB of this process; `reset` starts the peak (VmHWM) anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--densities", type=float, nargs="+", default=[0.05, 0.6], help="lowest and highest share")
    parser.add_argument("--memory-gb", type=float, default=1.0)
    parser.add_argument("--no-sparse", action="store_true", help="leave the sparse way out")
    args = parser.parse_args()
    set_mode("quiet")

    a, b = preactivations(args.tokens, args.features, args.densities)
    fired = [codes.nnz / np.prod(codes.shape) for codes in (a, b)]
    print(
        f"{args.tokens:,} tokens, {args.features:,} × {args.features:,} features, "
        f"{fired[0]:.0%} and {fired[1]:.0%} of the codes not zero, all r: {8e-9 * args.features**2:.1f} GB"
    )
    corr, seconds = ours(a, b, args.memory_gb, dense=True)
    alone = gemm(a, b, args.memory_gb)
    print(f"the dense way takes {seconds / alone:.2f} × the GEMM alone")
    print(f"largest error of r: {worst_error(corr, a, b):.1e}")
    table = corr.candidates()
    correlate_pairs((a[:9], b[:9]), [0], [0])  # compile
    start = time.perf_counter()
    correlate_pairs((a, b), table["feature_a"], table["feature_b"])
    print(f"correlation of {len(table):,} pairs   {time.perf_counter() - start:8.2f} s", flush=True)
    if not args.no_sparse:
        other, sparsely = ours(a, b, args.memory_gb, dense=False)
        print(f"the dense way is {sparsely / seconds:.2f} × as fast as the sparse way")
        gap = np.nanmax(np.abs(other.a_to_b.value - corr.a_to_b.value))
        agree = np.mean(other.a_to_b.index == corr.a_to_b.index)
        print(f"both ways: r differs by {gap:.0e} at most, {agree:.2%} of the partners are the same")


if __name__ == "__main__":
    main()
