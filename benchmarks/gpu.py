"""Correlation on a GPU beside a dense product on the same GPU and beside the CPU: one JSON line a figure.

    python benchmarks/gpu.py                                              # 16,384 and 65,536 features, 4 million tokens
    python benchmarks/gpu.py --device cpu --tokens 2000 --features 512    # tries the script where there is no GPU

"Products" are the pairs of features that fire together, summed over tokens: active² a token. The codes are those of
`correlation.py`: Zipf-like, in the host's memory. The dense product computes Σab only (no correlation, no partners) of
codes that are already written out on the GPU, which favours it. The CPU gets fewer tokens, and its results are
compared with the GPU's on the same tokens. Once `--budget` seconds are over, no further figure is started.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse

from correlation import zipf_codes
from unifeat.correlation import device as engine
from unifeat.correlation.correlate import Correlation, correlate
from unifeat.correlation.device_codes import DeviceCodes, DeviceProfile, entries_of, rows_of
from unifeat.correlation.device_moments import profiles_on_device
from unifeat.devices import cuda_device
from unifeat.geometry import MEASURES
from unifeat.inference import null_scores
from unifeat.progress import set_mode
from unifeat.threads import Team, cores
from unifeat.vocabulary.paired_codes import as_paired

CHUNK_ROWS = 16_384  # as a store hands them over
START = time.perf_counter()


def say(figure: str, **facts: Any) -> None:
    """One line of JSON, numbers to four digits."""
    short = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in facts.items()}
    print(json.dumps({"figure": figure} | short), flush=True)


def timed(work: Callable[[], Any], device: torch.device, repeat: int = 1) -> tuple[Any, float]:
    """The result, and the median of the seconds it took."""
    seconds = []
    for _ in range(repeat):
        wait(device)
        start = time.perf_counter()
        result = work()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Rates:
    """Figures for one number of features."""

    def __init__(self, args: argparse.Namespace, features: int, device: torch.device) -> None:
        self.args, self.features, self.device = args, features, device
        self.a, self.b = zipf_codes(args.tokens, features, args.active)
        self.common = {"features": features, "device": str(device)}
        self.products_a_token = float(args.active**2)

    def on_device(self, tokens: int, repeat: int = 1) -> tuple[Any, float]:
        """What `correlate(device=…)` finds, and seconds (median). (`correlate` gives "cpu" to the CPU's own code.)"""
        paired = as_paired(self.a[:tokens], self.b[:tokens], chunk_rows=CHUNK_ROWS)
        with ThreadPoolExecutor(cores()) as pool:
            team = Team(pool, cores())
            return timed(
                lambda: engine.find_partners(paired, self.args.top, None, team, self.device), self.device, repeat
            )

    def whole(self) -> None:
        """All of `correlate`, from codes in the host's memory."""
        self.on_device(min(1000, self.args.tokens))  # compile
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        _, seconds = self.on_device(self.args.tokens, self.args.repeat)
        peak = torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else 0.0
        say("correlate", **self.common, **self.rate(self.args.tokens, seconds), peak_device_gb=peak)

    def steps(self) -> None:
        """The steps of one group of codes: sending, laying out, products, tile maxima, co-firing."""
        tokens = min(self.args.tokens, 1_000_000)
        paired = as_paired(self.a[:tokens], self.b[:tokens], chunk_rows=CHUNK_ROWS)
        kernels = engine.kernels_for(self.device)
        seconds = {}
        with ThreadPoolExecutor(cores()) as pool:
            team = Team(pool, cores())

            def send() -> DeviceCodes:
                """All codes sent and kept, in one group."""
                codes = DeviceCodes(paired, np.float32, self.device, 1 << 27, 1e12, team)
                for _ in codes.groups():
                    pass
                return codes

            send()
            codes, seconds["send"] = timed(send, self.device)
            profiles_on_device(paired, codes, kernels, np.float32)
            both, seconds["moments"] = timed(
                lambda: profiles_on_device(paired, codes, kernels, np.float32), self.device, 3
            )
        a, b = both
        codes_a, codes_b = next(codes.groups())
        on_a, on_b = DeviceProfile.of(a, self.device, 61), DeviceProfile.of(b, self.device)
        panel = min(a.varying, 16_384)
        side_a, side_b = (engine._Side.of(side, kernels.TILE, self.device) for side in (a, b))
        panel_width = panel + -panel % kernels.TILE
        totals = torch.zeros((panel_width, len(side_b.id)), dtype=torch.int64, device=self.device)
        entries, seconds["lay_out_a"] = timed(lambda: entries_of(codes_a, on_a, 0, panel), self.device, 3)
        rows, seconds["lay_out_b"] = timed(lambda: rows_of(codes_b, on_b), self.device, 3)
        kernels.multiply(entries, rows, totals)
        _, seconds["multiply"] = timed(lambda: kernels.multiply(entries, rows, totals), self.device, 3)
        arguments = side_a.ratio[:panel_width], side_b.ratio, side_a.id[:panel_width], side_b.id
        kernels.tile_maxima(totals, 2.0**-61, *arguments)
        _, seconds["tile_maxima"] = timed(lambda: kernels.tile_maxima(totals, 2.0**-61, *arguments), self.device, 3)
        partner = torch.zeros((self.features, self.args.top), dtype=torch.int32, device=self.device)
        counts = torch.zeros((self.features, self.args.top), dtype=torch.int64, device=self.device)
        _, seconds["cofiring_of_a"] = timed(
            lambda: kernels.count_partners(codes_a, codes_b, partner, counts, self.features), self.device, 3
        )
        products = float((rows.start.diff()[entries.row.long()]).sum())
        say(
            "steps", **self.common, kernels=kernels.__name__.rpartition(".")[2], tokens=codes_a.rows,
            ranks_of_a=panel, dense_a=a.dense, dense_b=b.dense,
            multiply_products=products, multiply_products_per_second=products / seconds["multiply"],
            correlations_per_second=totals.numel() / seconds["tile_maxima"],
            **{f"seconds_of_{name}": value for name, value in seconds.items()},
        )  # fmt: skip

    def dense(self, tf32: bool) -> None:
        """Tokens a second of the dense product, and as many products a second as they would hold."""
        torch.backends.cuda.matmul.allow_tf32 = tf32
        tokens, tile = min(self.args.tokens, 8192), min(self.features, 8192)
        x, y = (self.written_out(codes, tokens, tile) for codes in (self.a, self.b))
        out = torch.zeros((tile, tile), device=self.device)
        out.addmm_(x.T, y)
        tiles = (self.features / tile) ** 2
        _, seconds = timed(lambda: out.addmm_(x.T, y), self.device, 5)
        say("dense product, " + ("TF32" if tf32 else "float32"), **self.common, **self.rate(tokens, seconds * tiles))

    def written_out(self, codes: sparse.csr_array, tokens: int, width: int) -> torch.Tensor:
        """(tokens, width) float32 on the device."""
        return torch.from_numpy(codes[:tokens, :width].toarray()).to(self.device)

    def cpu(self, threads: int) -> None:
        """The CPU's path, and how far the device's results are from its own."""
        tokens = min(self.args.cpu_tokens, self.args.tokens)
        codes = as_paired(self.a[:tokens], self.b[:tokens], chunk_rows=CHUNK_ROWS)
        correlate(self.a[:100], self.b[:100])  # compile
        corr, seconds = timed(lambda: correlate(codes, top=self.args.top, threads=threads), self.device)
        say(f"correlate on {threads} CPU threads", **self.common, **self.rate(tokens, seconds))
        found, seconds = self.on_device(tokens)
        say(
            "correlate, the same tokens as the CPU", **self.common, **self.rate(tokens, seconds),
            **difference(corr, found),
        )  # fmt: skip

    def rate(self, tokens: int, seconds: float) -> dict[str, Any]:
        """What every figure holds."""
        return {
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "products_per_second": tokens * self.products_a_token / seconds,
        }


def shuffles(pairs: int, device: torch.device, repeat: int) -> None:
    """A shuffle of RSA and CKA, on the device and on the CPU, and how far their null scores are apart."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((pairs, 512)), rng.standard_normal((pairs, 768))
    for name in ("rsa", "cka"):
        prepared = MEASURES[name].prepare(x, y)
        moved = prepared.on(device)  # type: ignore[attr-defined]
        first = [null_scores(one, 1) for one in (moved, prepared)]  # builds what all of them share
        there, on_device = timed(partial(null_scores, moved, repeat), device)
        here, on_cpu = timed(partial(null_scores, prepared, repeat), device)
        say(
            f"shuffles of {name}", pairs=pairs, device=str(device), seconds_each=on_device / repeat,
            seconds_each_on_cpu=on_cpu / repeat, ratio=on_cpu / on_device,
            largest_difference=float(np.abs(np.r_[there - here, first[0] - first[1]]).max()),
        )  # fmt: skip


def difference(cpu: Correlation, found: Any) -> dict[str, Any]:
    """How far two results are from each other."""
    largest, other, miscounted = 0.0, 0, 0
    for partners, index, value, count in (
        (cpu.a_to_b, found.index_ab, found.value_ab, found.count_ab),
        (cpu.b_to_a, found.index_ba, found.value_ba, found.count_ba),
    ):
        largest = max(largest, float(np.nanmax(np.abs(partners.value - value), initial=0.0)))
        same = partners.index == index
        other += int((~same).sum())
        miscounted += int((partners.count != count)[same].sum())
    return {"largest_difference_of_r": largest, "other_partners": other, "other_counts": miscounted}


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    try:
        import triton

        version = triton.__version__
    except ImportError:
        version = None
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "gpu": gpu.name if gpu else None,
        "gpu_memory_gb": gpu.total_memory / 1e9 if gpu else 0.0,
        "torch": torch.__version__,
        "triton": version,
        "cores": cores(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 …, or cpu to try the script")
    parser.add_argument("--tokens", type=int, default=4_000_000)
    parser.add_argument("--features", type=int, nargs="+", default=[16_384, 65_536])
    parser.add_argument("--active", type=int, default=32)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000, 10_000], help="of the shuffles")
    parser.add_argument("--top", type=int, default=4)
    parser.add_argument("--cpu-tokens", type=int, default=500_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--budget", type=float, default=400.0, help="seconds after which no figure is started")
    args = parser.parse_args()
    set_mode("quiet")
    if args.device != "cpu" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: this machine has no CUDA device; try --device cpu --tokens 2000 --features 512")
    device = torch.device("cpu") if args.device == "cpu" else cuda_device(args.device, "correlation runs")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    say("machine", **machine(device))
    for pairs in args.pairs:
        shuffles(pairs, device, 20)
    for features in args.features:
        rates = Rates(args, features, device)
        work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            (rates.whole, ()), (rates.steps, ()), (rates.dense, (True,)), (rates.dense, (False,)), (rates.cpu, (2,)),
        ]  # fmt: skip
        if cores() > 2:
            work.append((rates.cpu, (cores(),)))
        for figure, settings in work:
            if time.perf_counter() - START > args.budget:
                say("left out, the time is over", features=features, name=figure.__name__)
                continue
            figure(*settings)


if __name__ == "__main__":
    main()
