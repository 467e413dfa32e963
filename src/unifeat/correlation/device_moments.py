"""Moments on a device: the same profiles as `moments`, from sums of integers, which do not depend on their order.

A feature's values are divided by a power of two that is at least their largest size. Their sums and sums of squares are
kept in units of 2⁻⁶¹ of that, so that they are off by at most half a unit a value: less than float64 sums in row order.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from unifeat.correlation.device_codes import DeviceCodes
from unifeat.correlation.moments import (
    COUNT,
    LARGEST,
    SMALLEST,
    SQUARES,
    STATE_COLUMNS,
    SUM,
    Profile,
    profile_of,
    summarised,
)
from unifeat.progress import track
from unifeat.vocabulary.paired_codes import Array, PairedCodes


def profiles_on_device(
    paired: PairedCodes, codes: DeviceCodes, kernels: ModuleType, dtype: Any
) -> tuple[Profile, Profile] | None:
    """Profiles of both sides; None where a feature id or a value is not valid, which `profiles` then names.

    Raises:
        UserError: values beyond 1e±100.
    """
    n, sizes = paired.n_rows, (paired.features_a, paired.features_b)
    states = _extremes(n, sizes, codes, kernels)
    if states is None:
        return None
    places = [np.arange(size, dtype=np.int32) for size in sizes]
    sums = _sums(n, states, places, [np.zeros(size) for size in sizes], codes, kernels)
    first = []
    for state, total, side in zip(states, sums, "AB", strict=True):
        state[:, SUM], state[:, SQUARES] = total.T
        first.append(summarised(state, n, side))
    shifts = [mean[dense].astype(dtype).astype(np.float64) for _, mean, _, _, dense in first]
    centred = [np.zeros((len(shift), 2)) for shift in shifts]
    if any(len(shift) for shift in shifts):
        for place, (*_, dense) in zip(places, first, strict=True):
            place[:] = -1
            place[dense] = np.arange(len(dense))
        own = [state[dense] for state, (*_, dense) in zip(states, first, strict=True)]
        centred = _sums(n, own, places, shifts, codes, kernels)
    a, b = (profile_of(*part, shift, total, n) for part, shift, total in zip(first, shifts, centred, strict=True))
    return a, b


def _extremes(n: int, sizes: tuple[int, int], codes: DeviceCodes, kernels: ModuleType) -> list[Array] | None:
    """States of both sides with counts and extremes."""
    import torch

    from unifeat.correlation.torch_kernels import ordered

    ends = torch.iinfo(torch.int64)
    found = [
        [torch.full((size,), start, dtype=torch.int64, device=codes.device) for start in (0, ends.max, ends.min)]
        for size in sizes
    ]
    with track("moments", n) as advance:
        for group in codes.groups():
            for side, into, size in zip(group, found, sizes, strict=True):
                if len(side.index):
                    low, high = torch.aminmax(side.index)
                    if int(low) < 0 or int(high) >= size or not bool(torch.isfinite(side.value).all()):
                        return None
                    kernels.extremes(side, *into)
            advance(group[0].rows)
    states = []
    for count, smallest, largest in found:
        state = np.zeros((len(count), STATE_COLUMNS))
        state[:, COUNT] = count.cpu().numpy()
        silent = state[:, COUNT] == 0
        for column, bits, none in ((SMALLEST, smallest, np.inf), (LARGEST, largest, -np.inf)):
            state[:, column] = ordered(bits).view(torch.float64).cpu().numpy()
            state[silent, column] = none
        states.append(state)
    return states


def _sums(
    n: int, states: list[Array], places: list[Array], shifts: list[Array], codes: DeviceCodes, kernels: ModuleType
) -> list[Array]:
    """For each side (places, 2): Σ and Σ² of value − shift over the rows on which the feature fires."""
    import torch

    exponents, on_device = [], []
    for state, place, shift in zip(states, places, shifts, strict=True):
        with np.errstate(invalid="ignore"):  # ±∞ where a feature never fires
            peak = np.maximum(np.abs(state[:, LARGEST] - shift), np.abs(state[:, SMALLEST] - shift))
        peak[state[:, COUNT] == 0] = 0.0
        exponents.append(np.clip(np.frexp(peak)[1], -1000, 1000))
        arrays = place, shift, np.ldexp(1.0, -exponents[-1])
        on_device.append([torch.from_numpy(array.copy()).to(codes.device) for array in arrays])
    sums = [torch.zeros((4, len(shift)), dtype=torch.int64, device=codes.device) for shift in shifts]
    with track("moments", n) as advance:
        for group in codes.groups():
            for side, settings, into in zip(group, on_device, sums, strict=True):
                kernels.add_moments(side, *settings, into)
            advance(group[0].rows)
    totals = []
    for exponent, into in zip(exponents, sums, strict=True):
        part = into.cpu().numpy().astype(np.float64)
        with np.errstate(over="ignore"):  # values beyond 1e100, which `summarised` names
            total = np.ldexp(np.ldexp(part[0], -30) + np.ldexp(part[1], -61), exponent)
            squares = np.ldexp(np.ldexp(part[2], -30) + np.ldexp(part[3], -61), 2 * exponent)
        totals.append(np.stack([total, squares], axis=1))
    return totals
