"""The best partners of every feature, and co-firing counts, on a CUDA device.

Moments come first (`device_moments`). Then a panel of A's features has one row of totals each on the device, and every
pair's sum is formed in 64-bit integers: Σ a · b · scale_a · scale_b, at most 2 (Cauchy-Schwarz), in units of 2⁻⁶¹. Sums
of integers do not depend on their order. So devices, kernels, panels and chunks give the same bits, although thousands
of programs add at one time. Rounding a product to a whole unit costs at most half a unit: at most 1e-12 in all after
four million rows, 1e-9 after four thousand million. Besides, each product is rounded as a float64, as on the CPU.

The best partners are then taken in two steps: the largest key (see `keys`) in every tile of 64 features, and the `top`
best of the `top` best tiles. No other tile can hold one of the best, because its keys are smaller than `top` others.

A few loops take the time: `triton_kernels` has them for CUDA, `torch_kernels` for the CPU and where there is no Triton.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unifeat.correlation import keys
from unifeat.correlation.device_codes import (
    DeviceCodes,
    DeviceProfile,
    Entries,
    Rows,
    entries_of,
    in_parts,
    rows_of,
    written_out,
)
from unifeat.correlation.device_moments import profiles_on_device
from unifeat.correlation.found import Found
from unifeat.correlation.moments import Profile, profiles
from unifeat.errors import UserError
from unifeat.memory import working_memory
from unifeat.progress import track
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, PairedCodes, checked_chunks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Shares of the memory: totals of a panel, codes that stay between passes, a group of chunks being laid out.
_SHARE_OF_TOTALS, _SHARE_KEPT, _SHARE_OF_GROUP = 0.6, 0.1, 0.2
_SHARE_OF_DEVICE = 0.85  # of what is free there
_BYTES_PER_ENTRY = 100  # of a group being laid out and sorted
_ADDS_PER_PRODUCT = 300.0  # float64 multiply-adds of a matrix product that take as long as one sparse product
_FEWEST_ADDS_FOR_BLAS = 1e9
_MOST_ROWS_WRITTEN_OUT = 4096
_SUMS_AT_ONCE = 1 << 26  # of a matrix product


@cache
def kernels_for(device: torch.device) -> ModuleType:
    """Triton's kernels on CUDA if Triton is there (torch for CUDA on Linux brings it) and works, else torch's."""
    from unifeat.correlation import torch_kernels

    if device.type != "cuda":
        return torch_kernels
    try:
        from unifeat.correlation import triton_kernels
    except ImportError:
        return torch_kernels
    return triton_kernels if works(triton_kernels, device) else torch_kernels


def works(kernels: ModuleType, device: torch.device) -> bool:
    """Whether 3 · 4 is 12. (Triton compiles when it first runs, and needs a C compiler and Python's headers for it.)"""
    import torch

    one = torch.zeros(1, dtype=torch.int32, device=device)
    three, four = (torch.tensor([x], dtype=torch.float64, device=device) for x in (3.0, 4.0))
    totals = torch.zeros((1, 1), dtype=torch.int64, device=device)
    try:
        kernels.multiply(Entries(one, one, three), Rows(torch.tensor([0, 1], device=device), one, four, 0), totals)
        return int(totals) == 12
    except Exception:  # many types, depending on what is missing
        return False


def find_partners(
    paired: PairedCodes,
    top: int,
    memory_gb: float | None,
    team: Team,
    device: torch.device,
    kernels: ModuleType | None = None,
) -> Found:
    """The best partners in both directions, and on how many rows they fire together.

    Args:
        memory_gb: of the device; by default 85 % of what is free there.
        device: a CUDA device, or the CPU, where this is slow and for tests.
        kernels: `triton_kernels` or `torch_kernels`; by default what suits the device.

    Raises:
        UserError: as `correlate`.
    """
    import torch

    most = max(paired.features_a, paired.features_b)
    if most > keys.MOST_FEATURES:
        raise UserError(
            f"device {str(device)!r}: at most {keys.MOST_FEATURES:,} features a side, not {most:,}; use cpu"
        )
    memory = _memory(device) if memory_gb is None else memory_gb * 1e9
    try:
        with _chosen(device):
            loops = kernels or kernels_for(device)
            limit = int(_SHARE_OF_GROUP * memory / _BYTES_PER_ENTRY)
            dtype = _dtype_of(paired)
            codes = DeviceCodes(paired, dtype, device, limit, _SHARE_KEPT * memory, team)
            both = profiles_on_device(paired, codes, loops, dtype)
            if both is None:
                profiles(paired, team.pool, team.threads)  # raises an error that names the fault
                raise AssertionError("the device found a fault in codes that the CPU takes for sound")
            return _Search(paired, *both, codes, limit, top, memory, loops).run()
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"device {str(device)!r}: out of memory while correlating; stop what else runs there, set a smaller "
            "memory_gb, or use cpu"
        ) from error


def _dtype_of(paired: PairedCodes) -> Any:
    """The type that holds all values. Checks rows and row pointers by the way."""
    wide = [any(codes.value.dtype == np.float64 for codes in chunk) for chunk in checked_chunks(paired)]
    return np.float64 if any(wide) else np.float32


def _chosen(device: torch.device) -> Any:
    """Inside this context, Triton starts its programs on the device."""
    import contextlib

    import torch

    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _memory(device: torch.device) -> float:
    import torch

    if device.type != "cuda":
        return working_memory()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _SHARE_OF_DEVICE * (torch.cuda.mem_get_info(device)[0] + unused)


def is_dense(a: Profile, b: Profile, n: int) -> bool:
    """Whether a matrix product is cheaper than the sparse products. The codes alone decide."""
    adds = float(n) * a.varying * b.varying
    products = float(a.entries(n)) * b.entries(n) / max(n, 1)
    return adds > _FEWEST_ADDS_FOR_BLAS and adds < _ADDS_PER_PRODUCT * products


def _bits(a: Profile, b: Profile) -> int:
    """Binary digits after the point of the totals: as many as leave room for the largest possible total.

    Σa² · scale² = 1 + ratio², so no total is larger than the root of the product of these for the two sides. For
    features that fire on at most half the rows, 1 + ratio² is at most 2.
    """
    largest = np.sqrt((1 + np.max(a.ratio**2)) * (1 + np.max(b.ratio**2)))
    return 62 - max(1, int(np.ceil(np.log2(largest) - 0.5)))


class _Side(NamedTuple):
    """What `tile_maxima` needs of a side, padded to whole tiles."""

    ratio: Tensor  # float64
    id: Tensor  # int64, −1 in the padding

    @classmethod
    def of(cls, profile: Profile, tile: int, device: torch.device) -> _Side:
        import torch

        size = profile.varying + -profile.varying % tile
        ratio = torch.zeros(size, dtype=torch.float64, device=device)
        ids = torch.full((size,), -1, dtype=torch.int64, device=device)
        ratio[: profile.varying] = torch.from_numpy(profile.ratio.copy()).to(device)
        ids[: profile.varying] = torch.from_numpy(profile.order.astype(np.int64)).to(device)
        return cls(ratio, ids)

    def over(self, low: int, high: int) -> _Side:
        return _Side(self.ratio[low:high], self.id[low:high])


class _Search:
    """The search in progress."""

    def __init__(
        self, paired: PairedCodes, a: Profile, b: Profile, codes: DeviceCodes, limit: int, top: int, memory: float,
        kernels: ModuleType,
    ) -> None:  # fmt: skip
        self.paired, self.a, self.b, self.codes, self.limit = paired, a, b, codes, limit
        self.top, self.memory, self.device = top, memory, codes.device
        self.kernels, self.tile = kernels, kernels.TILE

    def run(self) -> Found:
        index_ab, value_ab = self._nobody(self.paired.features_a)
        index_ba, value_ba = self._nobody(self.paired.features_b)
        if self.a.varying and self.b.varying:
            with track("correlation", self.paired.n_rows) as advance:
                found_ab, found_ba = self._best(advance)
            index_ab[self.a.order], value_ab[self.a.order] = keys.decoded(found_ab.cpu().numpy()[: self.a.varying])
            index_ba[self.b.order], value_ba[self.b.order] = keys.decoded(found_ba.cpu().numpy()[: self.b.varying])
        with track("co-firing", self.paired.n_rows) as advance:
            count_ab, count_ba = self._cofiring(index_ab, index_ba, advance)
        moments = self.a.moments, self.b.moments
        return Found(index_ab, value_ab, index_ba, value_ba, count_ab, count_ba, *moments)

    def _nobody(self, features: int) -> tuple[Array, Array]:
        return np.full((features, self.top), -1, np.int32), np.full((features, self.top), np.nan)

    def _best(self, advance: Any) -> tuple[Tensor, Tensor]:
        """Keys (ranks, top) of both sides' best partners."""
        import torch

        side_a, side_b = (_Side.of(profile, self.tile, self.device) for profile in (self.a, self.b))
        size_a, size_b = len(side_a.id), len(side_b.id)
        step = int(_SHARE_OF_TOTALS * self.memory / (8 * size_b)) // self.tile * self.tile
        step = min(max(step, self.tile), size_a)
        room = torch.empty(step * size_b, dtype=torch.int64, device=self.device)
        best_a = self._no_keys(size_a)
        best_b = self._no_keys(size_b)
        bits, reported = _bits(self.a, self.b), 0
        for low in range(0, size_a, step):
            high = min(low + step, size_a)
            totals = room[: (high - low) * size_b].view(high - low, size_b)
            for rows in self._add_up(totals, low, min(high, self.a.varying), bits):
                # Every panel passes over all rows: it reports its share of them.
                reported += rows * (high - low)
                advance(reported // size_a)
                reported %= size_a
            own = side_a.over(low, high)
            of_a, of_b = self.kernels.tile_maxima(totals, 2.0**-bits, *_alternate(own, side_b))
            best_a[low:high] = self._best_of_tiles(totals, of_a, own, side_b, 2.0**-bits)
            new = self._best_of_tiles(totals.T, of_b, side_b, own, 2.0**-bits)
            best_b = torch.cat([best_b, new], dim=1).topk(self.top, dim=1).values
        return best_a, best_b

    def _no_keys(self, features: int) -> Tensor:
        import torch

        return torch.full((features, self.top), keys.NO_KEY, dtype=torch.int64, device=self.device)

    def _add_up(self, totals: Tensor, low: int, high: int, bits: int) -> Any:
        """Write Σab in units of 2^−bits for A's ranks low:high into `totals`; yields numbers of rows."""
        # A's values carry the power of two. It is exact.
        a, b = DeviceProfile.of(self.a, self.device, bits), DeviceProfile.of(self.b, self.device)
        totals.zero_()
        if not is_dense(self.a, self.b, self.paired.n_rows):
            for group in self.codes.groups():
                for codes_a, codes_b in in_parts(group, self.a, self.b, self.limit):
                    self.kernels.multiply(entries_of(codes_a, a, low, high), rows_of(codes_b, b), totals)
                    yield codes_a.rows
            return
        step = int(_SHARE_OF_GROUP * self.memory / (8 * (totals.shape[1] + high - low)))
        step = min(max(step, 1), _MOST_ROWS_WRITTEN_OUT)
        for codes_a, codes_b in self.codes.groups():
            for first in range(0, codes_a.rows, step):
                last = min(first + step, codes_a.rows)
                x = written_out(codes_a.rows_between(first, last), a, low, high)
                y = written_out(codes_b.rows_between(first, last), b, 0, self.b.varying)
                self._add_product(x, y, totals)
                yield len(x)

    def _add_product(self, x: Tensor, y: Tensor, totals: Tensor) -> None:
        """totals += xᵀ y, rounded to units: float64 sums over all rows would lose digits."""
        ranks = max(_SUMS_AT_ONCE // totals.shape[1], 1)
        for low in range(0, x.shape[1], ranks):
            sums = x[:, low : low + ranks].T @ y
            totals[low : low + len(sums), : y.shape[1]] += sums.add_(0.5).floor_().long()

    def _best_of_tiles(self, totals: Tensor, maxima: Tensor, own: _Side, others: _Side, unit: float) -> Tensor:
        """Keys (features of `own`, top) of their best partners among `others`, given the largest key of every tile.

        Args:
            totals: (features of `own`, others), any strides.
        """
        import torch

        from unifeat.correlation.torch_kernels import keys_of

        best = self._no_keys(len(own.id))
        few = min(self.top, maxima.shape[1])
        step = max((1 << 22) // (few * self.tile), 1)
        inside = torch.arange(self.tile, device=self.device)
        for low in range(0, len(own.id), step):
            part = slice(low, min(low + step, len(own.id)))
            tiles = maxima[part].topk(few, dim=1).indices
            at = (tiles[:, :, None] * self.tile + inside).flatten(1)
            found = totals[part].gather(1, at)
            keys_found = keys_of(
                found, unit, own.ratio[part, None], others.ratio[at], others.id[at], own.id[part, None]
            )
            held = min(self.top, at.shape[1])
            best[part, :held] = keys_found.topk(held, dim=1).values
        return best

    def _cofiring(self, index_ab: Array, index_ba: Array, advance: Any) -> tuple[Array, Array]:
        import torch

        partners = [torch.from_numpy(index).to(self.device) for index in (index_ab, index_ba)]
        counts = [torch.zeros(p.shape, dtype=torch.int64, device=self.device) for p in partners]
        features = self.paired.features_a, self.paired.features_b
        if self.a.varying and self.b.varying:
            for group in self.codes.groups():
                for side in (0, 1):
                    self.kernels.count_partners(
                        group[side], group[1 - side], partners[side], counts[side], features[1 - side]
                    )
                advance(group[0].rows)
        return counts[0].cpu().numpy(), counts[1].cpu().numpy()


def _alternate(a: _Side, b: _Side) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return a.ratio, b.ratio, a.id, b.id
