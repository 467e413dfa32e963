"""Exact correlation of all feature pairs, against dense float32 BLAS and SciPy's sparse product, in one run.

    python benchmarks/correlation.py [--tokens 1500000] [--features 32768 131072] [--active 32] [--memory-gb 4]

For each number of features: the rate with the memory that is free (all codes laid out at once), the rate within
`--memory-gb`, the rate with so little (`--panels-gb`) that the codes are laid out on disk and multiplied in panels, and
the rate from stores on disk.

Codes are Zipf-like: feature popularity falls as 1/rank, every token has `active` features on each side, and six in ten
of B's come from the token's features of A, so that partners exist. Feature ids are shuffled. The dense product
(torch, MKL where there is one) and SciPy's run on a slice and are given in tokens a second, which favours them: neither
then computes a correlation or looks for partners. A sample of reported partners is checked against float64 arithmetic
over all features of the other side.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from scipy import sparse

from unifeat.codes.align import align
from unifeat.codes.shard import Shard, write_shard
from unifeat.codes.store import CodeStore
from unifeat.correlation.correlate import Correlation, correlate
from unifeat.progress import set_mode
from unifeat.vocabulary.paired_codes import as_paired
from unifeat.vocabulary.places import Places

SHARD_ROWS = 16_384


@njit(cache=True)
def draw(popular: Any, active: int, source: Any, share: float, seed: int, out: Any) -> None:
    """Distinct features for every token: with probability `share` one of the token's in `source`."""
    np.random.seed(seed)  # noqa: NPY002 (numba has no generators of its own)
    taken = np.full(popular.max() + 1, -1)
    for token in range(out.shape[0]):
        found, tried = 0, 0
        while found < active:
            if tried < active and np.random.random() < share:  # noqa: NPY002
                feature = source[token, tried]
            else:
                feature = popular[np.random.randint(0, len(popular))]  # noqa: NPY002
            tried += 1
            if taken[feature] != token:
                taken[feature] = token
                out[token, found] = feature
                found += 1


def zipf_codes(tokens: int, features: int, active: int, seed: int = 0) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Two code matrices (tokens, features), float32."""
    rng = np.random.default_rng(seed)
    weight = np.cumsum(1 / np.arange(1, features + 1))
    popular = np.searchsorted(weight / weight[-1], (np.arange(1 << 22) + 0.5) / (1 << 22)).astype(np.int32)
    ids = [np.empty((tokens, active), np.int32) for _ in range(2)]
    draw(popular, active, ids[0], 0.0, seed + 1, ids[0])
    draw(popular, active, ids[0], 0.6, seed + 2, ids[1])
    indptr = np.arange(0, tokens * active + 1, active, dtype=np.int32)
    codes = []
    for one in ids:
        index = np.sort(rng.permutation(features).astype(np.int32)[one], axis=1).ravel()
        value = rng.standard_exponential(len(index), dtype=np.float32) + np.float32(0.1)
        codes.append(sparse.csr_array((value, index, indptr), shape=(tokens, features)))
    return codes[0], codes[1]


def ours(
    a: sparse.csr_array, b: sparse.csr_array, args: argparse.Namespace, how: str, memory_gb: float | None
) -> tuple[Correlation, float]:
    """The correlation, and tokens a second (median)."""
    codes = as_paired(a, b, chunk_rows=args.chunk_rows)
    rates = []
    for _ in range(args.repeat):
        before = memory("VmRSS", reset=True)
        start, cpu = time.perf_counter(), time.process_time()
        corr = correlate(codes, top=4, memory_gb=memory_gb, threads=args.threads)
        seconds, busy = time.perf_counter() - start, time.process_time() - cpu
        rates.append(corr.n / seconds)
        print(
            f"{how:30}{rates[-1]:>12,.0f} tokens/s   {seconds:.2f} s, {busy:.2f} s of processor, "
            f"{memory('VmHWM') - before:.2f} GB beyond the inputs",
            flush=True,
        )
    return corr, float(np.median(rates))


def store_of(codes: sparse.csr_array, folder: Path, name: str) -> CodeStore:
    """The codes as a store on disk, in shards as encoding writes them."""
    settings = {"text": "benchmark", "cut": [SHARD_ROWS], "tokenizer": "one", "d_sae": codes.shape[1], "name": name}
    store = CodeStore.create(folder, settings)
    shards = 0
    for first in range(0, codes.shape[0], SHARD_ROWS):
        part = codes[first : first + SHARD_ROWS]
        zeros = np.zeros(part.shape[0], np.int32)
        ends = np.arange(first, first + part.shape[0], dtype=np.int32)
        shard = Shard(
            part.indptr.astype(np.int64),
            part.indices.astype(np.int32),
            part.data,
            Places(zeros, ends, zeros, zeros),
            {},
        )
        write_shard(store.shard_path(shards), shard)
        shards += 1
    store.finish(shards)
    return store


def stored(a: sparse.csr_array, b: sparse.csr_array, args: argparse.Namespace, expected: Correlation) -> float:
    """Tokens a second (median) from two stores on disk: mapping, aligning by place, correlating."""
    with tempfile.TemporaryDirectory() as folder:
        stores = store_of(a, Path(folder), "a"), store_of(b, Path(folder), "b")
        rates = []
        for _ in range(args.repeat):
            before = memory("RssAnon", reset=True)
            start = time.perf_counter()
            corr = correlate(align(*stores), top=4, threads=args.threads)
            seconds = time.perf_counter() - start
            rates.append(corr.n / seconds)
            print(
                f"{'from stores on disk':30}{rates[-1]:>12,.0f} tokens/s   {seconds:.2f} s, "
                f"{memory('VmHWM') - before:.2f} GB at most, the mapped codes included",
                flush=True,
            )
    assert np.array_equal(corr.a_to_b.value, expected.a_to_b.value, equal_nan=True)
    return float(np.median(rates))


def dense(a: sparse.csr_array, b: sparse.csr_array, tokens: int) -> float:
    """Tokens a second of the float32 product alone, in column tiles that bound its memory."""
    import torch

    x, y = (torch.from_numpy(codes[:tokens].toarray()) for codes in (a, b))
    out = torch.empty(x.shape[1], 4096)
    torch.matmul(x.T, y[:, :4096], out=out)
    start = time.perf_counter()
    for first in range(0, y.shape[1], 4096):
        torch.matmul(x.T, y[:, first : first + 4096], out=out[:, : y.shape[1] - first])
    return tokens / (time.perf_counter() - start)


def scipy_product(a: sparse.csr_array, b: sparse.csr_array, tokens: int) -> float:
    """Tokens a second of the sparse product alone."""
    x, y = a[:tokens], b[:tokens]
    start = time.perf_counter()
    x.T.tocsr() @ y
    return tokens / (time.perf_counter() - start)


def worst_error(corr: Correlation, a: sparse.csr_array, b: sparse.csr_array, sample: int) -> float:
    """Largest difference of a reported r from float64 arithmetic; fails where a partner is not among the best."""
    rng = np.random.default_rng(0)
    wide = b.astype(np.float64)
    mean, power = wide.mean(axis=0), wide.power(2).mean(axis=0)
    sd_b, columns = np.sqrt(power - mean**2), a.tocsc()
    worst = 0.0
    for feature in rng.integers(0, a.shape[1], sample):
        x = columns[:, [feature]].toarray()[:, 0].astype(np.float64)
        if np.ptp(x) == 0:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            r = ((x - x.mean()) @ wide) / (len(x) * x.std() * sd_b)
        index, value = corr.a_to_b.index[feature], corr.a_to_b.value[feature]
        worst = max(worst, np.abs(np.sort(r[np.isfinite(r)])[::-1][: len(value)] - value).max())
        worst = max(worst, np.abs(r[index] - value).max())
    return worst


def memory(field: str, *, reset: bool = False) -> float:
    """GB of this process; `reset` starts the peak (VmHWM) anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024 / 1e9


def same(one: Correlation, other: Correlation) -> bool:
    """Whether two results are equal bit for bit."""
    sides = ((getattr(c, side) for c in (one, other)) for side in ("a_to_b", "b_to_a"))
    return all(np.array_equal(x.index, y.index) and np.array_equal(x.value, y.value, equal_nan=True) for x, y in sides)


def compare(features: int, args: argparse.Namespace) -> None:
    """All rates for one number of features."""
    a, b = zipf_codes(args.tokens, features, args.active)
    print(f"\n{args.tokens:,} tokens, {features:,} × {features:,} features, {args.active} active a token", flush=True)
    for memory_gb in (None, 1e-5):
        correlate(a[:100], b[:100], memory_gb=memory_gb)  # compile
    whole, rate = ours(a, b, args, "all laid out at once", None)
    within, limited = ours(a, b, args, f"within {args.memory_gb:g} GB", args.memory_gb)
    assert same(whole, within)
    print(f"{'':30}{limited / rate:>12.0%} of the rate at once")
    if args.panels_gb:
        panels, limited = ours(a, b, args, f"in panels, {args.panels_gb:g} GB", args.panels_gb)
        assert same(whole, panels)
        print(f"{'':30}{limited / rate:>12.0%} of the rate at once")
    rate = stored(a, b, args, whole)
    blas = dense(a, b, min(args.dense_tokens, args.tokens))
    print(f"{'dense float32 product alone':30}{blas:>12,.0f} tokens/s   stored ours is {rate / blas:,.0f} × as fast")
    product = scipy_product(a, b, min(args.scipy_tokens, args.tokens))
    print(
        f"{'SciPy sparse product alone':30}{product:>12,.0f} tokens/s   stored ours is {rate / product:,.1f} × as fast"
    )
    print(f"largest error of r in {args.sample} features' partners: {worst_error(whole, a, b, args.sample):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_500_000)
    parser.add_argument("--features", type=int, nargs="+", default=[32_768, 131_072])
    parser.add_argument("--active", type=int, default=32)
    parser.add_argument("--memory-gb", type=float, default=4.0)
    parser.add_argument("--panels-gb", type=float, help="also with this little memory, in panels, from disk")
    parser.add_argument("--chunk-rows", type=int, help="hand the codes over in chunks, as a store does")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dense-tokens", type=int, default=512)
    parser.add_argument("--scipy-tokens", type=int, default=20_000)
    parser.add_argument("--sample", type=int, default=30)
    args = parser.parse_args()
    set_mode("quiet")
    for features in args.features:
        compare(features, args)


if __name__ == "__main__":
    main()
