"""The loops of the device as Triton kernels; `torch_kernels` says what they compute.

All sums are integers, so that atomic additions in any order give the same bits. Fused multiply-adds are turned off:
then a product is rounded as on the CPU. Python numbers reach a kernel as float32, so only powers of two are passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from unifeat.correlation import keys
from unifeat.correlation.torch_kernels import TILE

if TYPE_CHECKING:
    from torch import Tensor

    from unifeat.correlation.device_codes import DeviceCsr, Entries, Rows

_ENTRIES = 16  # entries of A in a program
_SLOTS = 32  # entries of a row that are worked on at once
_BLOCK = 512  # entries in a program that sums moments
# What each kernel is compiled with.
_MULTIPLY: dict[str, Any] = {"ENTRIES": _ENTRIES, "SLOTS": _SLOTS}
_TILE_MAXIMA: dict[str, Any] = {
    "TILE": TILE,
    "STEPS": 2.0**keys.STEPS,
    "ROUND": 1.5 * 2.0**52,
    "ID_BITS": keys.ID_BITS,
    "NO_KEY": keys.NO_KEY,
}
_COUNT: dict[str, Any] = {"SLOTS": _SLOTS}
_MOMENTS: dict[str, Any] = {"BLOCK": _BLOCK}


@triton.jit
def _multiply(  # type: ignore[no-untyped-def]
    rank, row, value, n, start, rank_b, value_b, dense, totals, width, ENTRIES: tl.constexpr, SLOTS: tl.constexpr
):
    entry = tl.program_id(0).to(tl.int64) * ENTRIES + tl.arange(0, ENTRIES)
    there = entry < n
    of_row = tl.load(row + entry, mask=there, other=0)
    first = tl.load(start + of_row, mask=there, other=0)
    length = tl.load(start + of_row + 1, mask=there, other=0) - first
    a = tl.load(value + entry, mask=there, other=0.0)
    of_rank = tl.load(rank + entry, mask=there, other=-1)
    line = of_rank.to(tl.int64) * width
    slot = tl.arange(0, SLOTS)
    # Dense features are on every row of B, so every entry would add to the same few totals, one after another. Where
    # all entries are of one feature, as nearly everywhere, they are added up first.
    highest = tl.max(of_rank, axis=0)
    one_feature = highest == tl.min(tl.where(there, of_rank, highest), axis=0)
    for done in range(0, dense, SLOTS):
        own = there[:, None] & (slot + done < dense)[None, :]
        product = a[:, None] * tl.load(value_b + first[:, None] + (slot + done)[None, :], mask=own, other=0.0)
        units = tl.floor(product + 0.5).to(tl.int64)
        if one_feature:
            place = totals + highest.to(tl.int64) * width + done + slot
            tl.atomic_add(place, tl.sum(units, axis=0), mask=slot + done < dense, sem="relaxed")
        else:
            tl.atomic_add(totals + line[:, None] + (slot + done)[None, :], units, mask=own, sem="relaxed")
    for done in range(dense, tl.max(length, axis=0), SLOTS):
        own = (slot + done)[None, :] < length[:, None]
        at = first[:, None] + (slot + done)[None, :]
        b = tl.load(rank_b + at, mask=own, other=0)
        product = a[:, None] * tl.load(value_b + at, mask=own, other=0.0)
        tl.atomic_add(totals + line[:, None] + b, tl.floor(product + 0.5).to(tl.int64), mask=own, sem="relaxed")


@triton.jit
def _tile_maxima(  # type: ignore[no-untyped-def]
    totals, unit, ratio_a, ratio_b, id_a, id_b, of_a, of_b, tiles_a, tiles_b,
    TILE: tl.constexpr, STEPS: tl.constexpr, ROUND: tl.constexpr, ID_BITS: tl.constexpr, NO_KEY: tl.constexpr,
):  # fmt: skip
    tile_a, tile_b = (tl.program_id(0) // tiles_b).to(tl.int64), (tl.program_id(0) % tiles_b).to(tl.int64)
    a, b = tile_a * TILE + tl.arange(0, TILE), tile_b * TILE + tl.arange(0, TILE)
    total = tl.load(totals + a[:, None] * (tiles_b * TILE) + b[None, :])
    r = total.to(tl.float64) * unit - tl.load(ratio_a + a)[:, None] * tl.load(ratio_b + b)[None, :]
    steps = (r * STEPS + ROUND) - ROUND
    steps = tl.where(steps > STEPS, STEPS, tl.where(steps < -STEPS, -STEPS, steps)).to(tl.int64) << ID_BITS
    ida, idb = tl.load(id_a + a), tl.load(id_b + b)
    real = (ida >= 0)[:, None] & (idb >= 0)[None, :]
    last = (1 << ID_BITS) - 1
    tl.store(of_a + a * tiles_b + tile_b, tl.max(tl.where(real, steps + (last - idb)[None, :], NO_KEY), axis=1))
    tl.store(of_b + b * tiles_a + tile_a, tl.max(tl.where(real, steps + (last - ida)[:, None], NO_KEY), axis=0))


@triton.jit
def _count_partners(start, ids, value, start_o, ids_o, value_o, partner, counts, top, SLOTS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    slot = tl.arange(0, SLOTS)
    first, last = tl.load(start + row), tl.load(start + row + 1)
    first_o, last_o = tl.load(start_o + row), tl.load(start_o + row + 1)
    for begin in range(first, last, SLOTS):
        own = begin + slot < last
        own = own & (tl.load(value + begin + slot, mask=own, other=0.0) != 0)
        feature = tl.load(ids + begin + slot, mask=own, other=0).to(tl.int64)
        for t in range(top):
            wanted = tl.load(partner + feature * top + t, mask=own, other=-1)
            hits = tl.zeros([SLOTS], tl.int32)
            for begin_o in range(first_o, last_o, SLOTS):
                there = begin_o + slot < last_o
                there = there & (tl.load(value_o + begin_o + slot, mask=there, other=0.0) != 0)
                other = tl.load(ids_o + begin_o + slot, mask=there, other=-2)
                hits += tl.sum((wanted[:, None] == other[None, :]).to(tl.int32), axis=1)
            tl.atomic_add(counts + feature * top + t, hits.to(tl.int64), mask=hits > 0, sem="relaxed")


@triton.jit
def _extremes(ids, value, n, count, smallest, largest, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(value + entry, mask=entry < n, other=0.0).to(tl.float64)
    fires = x != 0
    feature = tl.load(ids + entry, mask=fires, other=0)
    bits = x.to(tl.int64, bitcast=True)
    bits = bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    tl.atomic_add(count + feature, tl.full([BLOCK], 1, tl.int64), mask=fires, sem="relaxed")
    tl.atomic_min(smallest + feature, bits, mask=fires, sem="relaxed")
    tl.atomic_max(largest + feature, bits, mask=fires, sem="relaxed")


@triton.jit
def _add_moments(ids, value, n, place, shift, inverse, sums, places, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(value + entry, mask=entry < n, other=0.0).to(tl.float64)
    fires = x != 0
    feature = tl.load(ids + entry, mask=fires, other=0)
    where = tl.load(place + feature, mask=fires, other=-1)
    own = where >= 0
    x = (x - tl.load(shift + where, mask=own, other=0.0)) * tl.load(inverse + where, mask=own, other=0.0)
    part = x
    for moment in tl.static_range(2):
        high = tl.floor(part * 1073741824.0 + 0.5)
        low = tl.floor((part * 1073741824.0 - high) * 2147483648.0 + 0.5)
        line = sums + 2 * moment * places + where
        tl.atomic_add(line, high.to(tl.int64), mask=own, sem="relaxed")
        tl.atomic_add(line + places, low.to(tl.int64), mask=own, sem="relaxed")
        part = x * x


def extremes(codes: DeviceCsr, count: Tensor, smallest: Tensor, largest: Tensor) -> None:
    """As `torch_kernels.extremes`."""
    n = len(codes.index)
    if n:
        _extremes[(triton.cdiv(n, _BLOCK),)](
            codes.index, codes.value, n, count, smallest, largest, **_MOMENTS, num_warps=4, enable_fp_fusion=False
        )


def add_moments(codes: DeviceCsr, place: Tensor, shift: Tensor, inverse: Tensor, sums: Tensor) -> None:
    """As `torch_kernels.add_moments`."""
    n = len(codes.index)
    if n and len(shift):
        _add_moments[(triton.cdiv(n, _BLOCK),)](
            codes.index, codes.value, n, place, shift, inverse, sums, len(shift),
            **_MOMENTS, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip


def multiply(entries: Entries, rows: Rows, totals: Tensor) -> None:
    """As `torch_kernels.multiply`."""
    n = len(entries.rank)
    if n:
        _multiply[(triton.cdiv(n, _ENTRIES),)](
            *entries, n, rows.start, rows.rank, rows.value, rows.dense, totals, totals.shape[1],
            **_MULTIPLY, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip


def tile_maxima(
    totals: Tensor, unit: float, ratio_a: Tensor, ratio_b: Tensor, id_a: Tensor, id_b: Tensor
) -> tuple[Tensor, Tensor]:
    """As `torch_kernels.tile_maxima`."""
    tiles_a, tiles_b = totals.shape[0] // TILE, totals.shape[1] // TILE
    of_a, of_b = totals.new_empty(totals.shape[0], tiles_b), totals.new_empty(totals.shape[1], tiles_a)
    _tile_maxima[(tiles_a * tiles_b,)](
        totals, unit, ratio_a, ratio_b, id_a, id_b, of_a, of_b, tiles_a, tiles_b,
        **_TILE_MAXIMA, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    return of_a, of_b


def count_partners(codes: DeviceCsr, others: DeviceCsr, partner: Tensor, counts: Tensor, features: int) -> None:
    """As `torch_kernels.count_partners`."""
    if codes.rows:
        _count_partners[(codes.rows,)](*codes, *others, partner, counts, partner.shape[1], **_COUNT, num_warps=1)


def compiled(capability: int) -> dict[str, str]:
    """The kernels' PTX for a GPU of this compute capability, for instance 90. No GPU is needed."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    rows, entries = ("*i64", "*i32", "*fp64", "i32"), ("*i32", "*i32", "*fp64")
    codes = ("*i64", "*i32", "*fp32")
    kinds: list[tuple[Any, tuple[str, ...], dict[str, Any], int]] = [
        (_multiply, (*entries, "i64", *rows, "*i64", "i32"), _MULTIPLY, 4),
        (
            _tile_maxima,
            ("*i64", "fp32", "*fp64", "*fp64", "*i64", "*i64", "*i64", "*i64", "i32", "i32"),
            _TILE_MAXIMA,
            8,
        ),
        (_count_partners, (*codes, *codes, "*i32", "*i64", "i32"), _COUNT, 1),
        (_extremes, (*codes[1:], "i64", "*i64", "*i64", "*i64"), _MOMENTS, 4),
        (_add_moments, (*codes[1:], "i64", "*i32", "*fp64", "*fp64", "*i64", "i32"), _MOMENTS, 4),
    ]
    found = {}
    for kernel, types, constants, warps in kinds:
        names = kernel.arg_names
        signature = dict.fromkeys(names, "constexpr") | dict(zip(names, types, strict=False))
        source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()})
        made = triton.compile(
            source, GPUTarget("cuda", capability, 32), {"num_warps": warps, "enable_fp_fusion": False}
        )
        found[kernel.__name__] = str(made.asm["ptx"])
    return found
