"""The loops of the device in plain torch: for the CPU, and for a CUDA device without Triton.

`triton_kernels` has the same functions, and both give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from unifeat.correlation.device_codes import DeviceCsr, Entries, Rows
from unifeat.correlation.keys import ID_BITS, LAST_ID, NO_KEY, STEPS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TILE = 64  # of features of either side, whose largest key is found at once
_ROUND = 1.5 * 2.0**52  # adding and subtracting it rounds to the nearest integer, ties to even


def _at_once(device: torch.device) -> int:
    """Elements to work on at once: enough that starting an operation costs little."""
    return 1 << (24 if device.type == "cuda" else 20)


def _blocks(work: Tensor, most: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges with about `most` work each (more, where one element alone has more)."""
    import torch

    if not len(work):
        return
    ends = work.cumsum(0)
    marks = torch.arange(most, int(ends[-1]) + most, most, device=work.device)
    edges = torch.searchsorted(ends, marks, right=True).clamp(max=len(work)).tolist()
    yield from pairwise(sorted({0, *edges, len(work)}))


def multiply(entries: Entries, rows: Rows, totals: Tensor) -> None:
    """totals[rank of a, rank of b] += round(a · b), for every entry and every entry of B on its row.

    Args:
        totals: (ranks of the panel, ranks of B) int64.
    """
    import torch

    flat, width = totals.view(-1), totals.shape[1]
    first = rows.start[entries.row]
    length = rows.start[entries.row.long() + 1] - first
    for low, high in _blocks(length, _at_once(totals.device)):
        own = length[low:high]
        of = torch.repeat_interleave(torch.arange(low, high, device=own.device), own)
        begin = own.cumsum(0) - own
        at = torch.arange(len(of), device=own.device) + (first[low:high] - begin)[of - low]
        product = entries.value[of] * rows.value[at]
        where = entries.rank[of].long() * width + rows.rank[at]
        flat.index_add_(0, where, torch.floor(product + 0.5).long())


def keys_of(totals: Tensor, unit: float, ratio_a: Tensor, ratio_b: Tensor, ids: Tensor, other_ids: Tensor) -> Tensor:
    """Keys of correlations with the features `ids`; NO_KEY where either id is −1, as in the padding.

    Args:
        totals: int64, Σab in units; all arguments broadcast.
        unit: a power of two.
    """
    r = totals.double() * unit - ratio_a * ratio_b
    steps = ((r * 2.0**STEPS + _ROUND) - _ROUND).clamp(-(2.0**STEPS), 2.0**STEPS).long()
    keys = (steps << ID_BITS) + (LAST_ID - ids)
    return keys.masked_fill((ids < 0) | (other_ids < 0), NO_KEY)


def tile_maxima(
    totals: Tensor, unit: float, ratio_a: Tensor, ratio_b: Tensor, id_a: Tensor, id_b: Tensor
) -> tuple[Tensor, Tensor]:
    """The largest key of each feature in every tile of features of the other side.

    Args:
        totals: (A, B) int64, both multiples of TILE.
        ratio_a, id_a: (A,) float64 and int64; ids are −1 in the padding. Likewise B's.

    Returns:
        (A, B / TILE) and (B, A / TILE) int64.
    """
    import torch

    size_a, size_b = totals.shape
    of_a = torch.empty(size_a, size_b // TILE, dtype=torch.int64, device=totals.device)
    of_b = torch.empty(size_b, size_a // TILE, dtype=torch.int64, device=totals.device)
    step = max(_at_once(totals.device) // (size_b * TILE), 1) * TILE
    for low in range(0, size_a, step):
        part = slice(low, min(low + step, size_a))
        block = totals[part]
        shared = unit, ratio_a[part, None], ratio_b
        own, other = id_a[part, None], id_b.expand(len(block), -1)
        keys = keys_of(block, *shared, other, own)
        of_a[part] = keys.view(len(block), -1, TILE).amax(2)
        keys = keys_of(block, *shared, own.expand(-1, size_b), other)
        of_b[:, part.start // TILE : part.stop // TILE] = keys.view(-1, TILE, size_b).amax(1).T
    return of_a, of_b


def count_partners(codes: DeviceCsr, others: DeviceCsr, partner: Tensor, counts: Tensor, features: int) -> None:
    """counts[f, t] += rows on which both f and its partner[f, t] fire.

    Args:
        partner: (features, top) int32 ids on the other side, −1 where there is none.
        counts: (features, top) int64.
        features: features of the other side.
    """
    import torch

    flat, top = counts.view(-1), partner.shape[1]
    row = others.row_of_entries().long()
    fires = torch.sort((row * features + others.index)[others.value != 0]).values
    if not len(fires):
        return
    own = codes.row_of_entries().long()
    step = max(_at_once(counts.device) // top, 1)
    for low in range(0, len(own), step):
        index = codes.index[low : low + step].long()
        wanted = partner[index].long()
        key = own[low : low + step, None] * features + wanted
        found = torch.searchsorted(fires, key).clamp(max=len(fires) - 1)
        hit = (fires[found] == key) & (wanted >= 0) & (codes.value[low : low + step, None] != 0)
        where = index[:, None] * top + torch.arange(top, device=index.device)
        flat.index_add_(0, where.view(-1), hit.view(-1).long())


def extremes(codes: DeviceCsr, count: Tensor, smallest: Tensor, largest: Tensor) -> None:
    """Count each feature's values that are not zero, and keep the smallest and the largest, as `ordered` integers.

    Args:
        count, smallest, largest: (features,) int64.
    """
    import torch

    fires = codes.value != 0
    index, bits = codes.index[fires].long(), ordered(codes.value[fires].double().view(torch.int64))
    count.index_add_(0, index, torch.ones_like(index))
    smallest.scatter_reduce_(0, index, bits, "amin")
    largest.scatter_reduce_(0, index, bits, "amax")


def ordered(bits: Tensor) -> Tensor:
    """The bits of a float64 as an integer of the same order, or the other way round."""
    return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)


def add_moments(codes: DeviceCsr, place: Tensor, shift: Tensor, inverse: Tensor, sums: Tensor) -> None:
    """Add x = (value − shift) · inverse and x² over the values that are not zero, each in two integers.

    The first counts units of 2⁻³⁰, the second what is left in units of 2⁻⁶¹. |x| is at most 1.

    Args:
        place: (features,) int32, a feature's place in the other arrays, −1 if it has none.
        shift, inverse: (places,) float64.
        sums: (4, places) int64.
    """
    import torch

    where = place.index_select(0, codes.index)
    own = (where >= 0) & (codes.value != 0)
    where = where[own].long()
    x = (codes.value[own].double() - shift[where]) * inverse[where]
    for first, part in ((0, x), (2, x * x)):
        high = torch.floor(part * 2.0**30 + 0.5)
        low = torch.floor((part * 2.0**30 - high) * 2.0**31 + 0.5)
        sums[first].index_add_(0, where, high.long())
        sums[first + 1].index_add_(0, where, low.long())
