"""Exact Pearson correlation of every feature of A with every feature of B over sparse (or dense) codes.

r = (Σab − n μa μb) / (n σa σb). Most of the work is Σab, and only tokens on which both features fire add to it: k_A·k_B
products per token instead of F_A·F_B. Every r is compared, even of pairs that never fire together, because with codes
of both signs such a pair can be the best one. Codes so dense that a plain matrix product is cheaper (pre-activations)
are multiplied that way.

The parts are `moments` (mean and spread of every feature), `best_partners` and `pair_sums` (co-firing counts, and
correlations of given pairs), with `layout`, `kernels` and `dense` below them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unifeat.correlation.best_partners import best_partners
from unifeat.correlation.csls import csls
from unifeat.correlation.device import find_partners
from unifeat.correlation.found import Found
from unifeat.correlation.moments import Moments, profiles
from unifeat.correlation.pair_sums import cofiring, thread_count
from unifeat.correlation.within import partners_within
from unifeat.devices import cuda_device
from unifeat.errors import UserError
from unifeat.memory import working_memory
from unifeat.threads import Team
from unifeat.vocabulary.grouped_codes import GroupedCodes, in_groups
from unifeat.vocabulary.paired_codes import Array, as_paired

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Partners:
    """Each feature's best partners in the other space, best first.

    Attributes:
        index: (features, top) int32, the partner's feature id, −1 where there is none.
        value: (features, top) float64, Pearson's r, NaN where there is none.
        count: (features, top) int64, tokens on which both fire, 0 where there is none.
    """

    index: Array
    value: Array
    count: Array


@dataclass(frozen=True, repr=False)
class Correlation:
    """What `correlate` found.

    Attributes:
        n: number of tokens.
        a_to_b: the best partners in B of each feature of A.
        b_to_a: the best partners in A of each feature of B.
        moments_a, moments_b: firing count, mean and standard deviation of every feature.
    """

    n: int
    a_to_b: Partners
    b_to_a: Partners
    moments_a: Moments
    moments_b: Moments

    def __repr__(self) -> str:
        sizes = f"{self.n:,} tokens, {len(self.a_to_b.index):,} × {len(self.b_to_a.index):,} features"
        best = self.a_to_b.value[:, 0] if self.a_to_b.value.size else np.zeros(0)
        known = best[~np.isnan(best)]
        median = f", median best r {np.median(known):.3f}" if len(known) else ""
        return f"Correlation({sizes}, top {self.a_to_b.index.shape[1]}{median})"

    def _repr_html_(self) -> str:
        table = self.candidates().nlargest(10, "correlation")[["feature_a", "feature_b", "correlation", "cofiring"]]
        shown = table.to_html(index=False, float_format=lambda v: f"{v:.3f}")
        return f"<div><b>{self!r}</b><p>The strongest pairs:</p>{shown}</div>"

    def candidates(self) -> pd.DataFrame:
        """The pairs of both directions, each once, ordered by (feature_a, feature_b).

        Columns: feature_a, feature_b (int32), correlation (float64), cofiring (int64: tokens on which both fire),
        rank_a_to_b and rank_b_to_a (int32: 1 = best partner; 0 = not among the best partners in this direction),
        csls (float64: r corrected for hubs, see `csls`).
        """
        import pandas as pd

        a, rank_ab = np.nonzero(self.a_to_b.index >= 0)
        b, rank_ba = np.nonzero(self.b_to_a.index >= 0)
        forward = self.a_to_b.index[a, rank_ab].astype(np.int64)
        backward = self.b_to_a.index[b, rank_ba].astype(np.int64)
        width = max(len(self.b_to_a.index), 1)
        key, first, place = np.unique(
            np.concatenate([a * width + forward, backward * width + b]), return_index=True, return_inverse=True
        )
        ranks = np.zeros((2, len(key)), np.int32)
        ranks[0, place[: len(a)]] = rank_ab + 1
        ranks[1, place[len(a) :]] = rank_ba + 1
        value = np.concatenate([self.a_to_b.value[a, rank_ab], self.b_to_a.value[b, rank_ba]])
        count = np.concatenate([self.a_to_b.count[a, rank_ab], self.b_to_a.count[b, rank_ba]])
        one, other, r = key // width, key % width, value[first]
        return pd.DataFrame(
            {
                "feature_a": one.astype(np.int32),
                "feature_b": other.astype(np.int32),
                "correlation": r,
                "cofiring": count[first],
                "rank_a_to_b": ranks[0],
                "rank_b_to_a": ranks[1],
                "csls": csls(one, other, r, self.a_to_b.index.shape[1]),
            }
        )


def correlate(
    codes_a: Any,
    codes_b: Any = None,
    *,
    top: int = 4,
    groups: Any = None,
    memory_gb: float | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> Correlation:
    """Correlate every feature of A with every feature of B and keep each feature's best partners, in both directions.

    Every r is within 1e-5 of numpy.corrcoef in float64; in practice within 1e-12, to which r is rounded so that
    correlations equal in exact arithmetic tie. Ties go to the lower feature id. Codes may be negative. A feature that
    never varies has no partners and is no feature's partner. The result is the same bit for bit for any `threads`,
    `memory_gb` and chunking.

    If more than about a sixth of the codes on both sides are not zero, BLAS multiplies them as float64 matrices. All of
    the above still holds, but equal bits then depend on BLAS summing every element in one order. OpenBLAS, which comes
    with NumPy's and SciPy's wheels, does so for any number of its threads (measured; it does not promise this). With
    another BLAS, the last bit of a sum may differ, and with it a few of the r by one step of 1e-12.

    Args:
        codes_a: (tokens, features of A): scipy sparse matrix, NumPy array, or torch tensor, dense or sparse; `Codes`,
            or what `run.codes` gives; or `PairedCodes` holding both sides (and no `codes_b`).
        codes_b: (tokens, features of B), the same tokens in the same order.
        top: how many partners to keep per feature.
        groups: (tokens,) integers, such as the ids of the tokens: correlate both features' deviations from their means
            over rows with equal ones (see `correlation.within`). A feature that does not vary within any group then has
            no partner. All else that is said here holds, but the last digit may differ with the chunking.
        memory_gb: memory to use beyond the codes; by default 60 % of what is free. With less than about 10 bytes for
            each nonzero of B, the codes are laid out in the folder for temporary files (TMPDIR), and read once for
            every panel of A's features whose sums fit in memory.
        threads: threads to use; by default numba's number (all cores, or NUMBA_NUM_THREADS). BLAS has its own setting
            (OPENBLAS_NUM_THREADS).
        device: cpu, cuda, or cuda:1 …: where the work is done. On a CUDA device, r is within 1e-9 of the CPU's (for up
            to 10⁹ tokens; in practice equal, or one step of 1e-12 apart), so that partners whose r differ by less may
            change places. The result is the same bit for bit on every CUDA device, except for codes so dense that they
            go to a matrix product. `memory_gb` is then memory of the device, by default 85 % of what is free there.

    Raises:
        UserError: different numbers of rows, NaN or infinite codes, malformed codes or settings; a device that this
            machine does not have, or without enough memory; groups that are not one integer a row, or on a device.
    """
    if groups is not None:
        if device != "cpu":
            raise UserError(f"device {device!r}: correlation within groups runs on the cpu")
        return correlate_within(in_groups(as_paired(codes_a, codes_b), groups), top, memory_gb, threads)
    _check(top, memory_gb)
    on_device = None if device == "cpu" else cuda_device(device, "correlation runs")
    paired, threads = as_paired(codes_a, codes_b), thread_count(threads)
    with ThreadPoolExecutor(threads) as pool:
        team = Team(pool, threads)
        if on_device is not None:
            found = find_partners(paired, top, memory_gb, team, on_device)
        else:
            memory_gb = working_memory() / 1e9 if memory_gb is None else memory_gb
            a, b, dtype = profiles(paired, pool, threads)
            (index_ab, value_ab), (index_ba, value_ba) = best_partners(paired, a, b, dtype, top, memory_gb, team)
            counts = cofiring(paired, index_ab, index_ba, team)
            found = Found(index_ab, value_ab, index_ba, value_ba, *counts, a.moments, b.moments)
    return _correlation(paired.n_rows, found)


def correlate_within(
    codes: GroupedCodes, top: int = 4, memory_gb: float | None = None, threads: int | None = None
) -> Correlation:
    """`correlate` within groups, for codes that know their groups. The arguments are those of `correlate`."""
    _check(top, memory_gb)
    threads = thread_count(threads)
    with ThreadPoolExecutor(threads) as pool:
        found = partners_within(codes, top, memory_gb, Team(pool, threads))
    return _correlation(codes.n_rows, found)


def _check(top: int, memory_gb: float | None) -> None:
    if top < 1:
        raise UserError(f"top must be at least 1, not {top}")
    if memory_gb is not None and not memory_gb > 0:
        raise UserError(f"memory_gb must be positive, not {memory_gb}")


def _correlation(n_rows: int, found: Found) -> Correlation:
    a_to_b = Partners(found.index_ab, found.value_ab, found.count_ab)
    b_to_a = Partners(found.index_ba, found.value_ba, found.count_ba)
    return Correlation(n_rows, a_to_b, b_to_a, found.moments_a, found.moments_b)
