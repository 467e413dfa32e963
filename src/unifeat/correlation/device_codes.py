"""Codes on a device: groups of chunks as they are, and laid out for the products. torch is loaded when it is used.

Host memory is read in groups of a bounded number of entries. The first groups stay on the device if there is room, so
that the later passes over the text read them from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unifeat.correlation.layout import groups
from unifeat.correlation.moments import Moments, Profile
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, ChunkPair, PairedCodes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_STAGING_BYTES = 1 << 25  # of each of the two page-locked buffers on the way to the device
_COPY_BYTES = 1 << 21  # copied by one thread at a time
_MOST_ENTRIES = 1 << 27  # of a group


class DeviceCsr(NamedTuple):
    """Rows of codes as `CsrArrays`, on a device; `indptr` begins at 0."""

    indptr: Tensor  # (rows + 1,) int64
    index: Tensor  # type: ignore[assignment]  # (entries,) int32, feature ids; hides tuple.index
    value: Tensor  # (entries,) float32 or float64

    @property
    def rows(self) -> int:
        return len(self.indptr) - 1

    @property
    def nbytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self)

    def rows_between(self, first: int, last: int) -> DeviceCsr:
        """Rows first:last."""
        begin, end = (int(self.indptr[row]) for row in (first, last))
        return DeviceCsr(self.indptr[first : last + 1] - begin, self.index[begin:end], self.value[begin:end])

    def row_of_entries(self) -> Tensor:
        """(entries,) int32, the row of each entry."""
        import torch

        rows = torch.arange(self.rows, dtype=torch.int32, device=self.indptr.device)
        return torch.repeat_interleave(rows, self.indptr.diff(), output_size=len(self.index))


class DeviceCodes:
    """Paired codes, group by group on a device.

    Args:
        limit: entries of a group, both sides together.
        keep: bytes of codes that may stay on the device between passes.
    """

    def __init__(
        self, paired: PairedCodes, dtype: Any, device: torch.device, limit: int, keep: float, team: Team
    ) -> None:
        self._paired, self._dtype, self.device = paired, dtype, device
        self._limit, self._keep = max(min(limit, _MOST_ENTRIES), 1), keep
        self._staging = _Staging(device, team)
        self._kept: list[tuple[DeviceCsr, DeviceCsr]] = []
        self._all_kept = False

    def groups(self) -> Iterator[tuple[DeviceCsr, DeviceCsr]]:
        """The groups in row order: those kept on the device, then the others from the host."""
        yield from self._kept
        if self._all_kept:
            return
        keeping = not self._kept
        nothing = _no_dense_features()  # groups are the same before and after the moments are known
        on_host = groups(self._paired, self._dtype, nothing, nothing, self._limit)
        for chunks in islice(on_host, len(self._kept), None):
            group = self._sent(chunks, 0), self._sent(chunks, 1)
            size = group[0].nbytes + group[1].nbytes
            keeping = keeping and size <= self._keep
            if keeping:
                self._keep -= size
                self._kept.append(group)
            yield group
        self._all_kept = keeping

    def _sent(self, chunks: list[ChunkPair], side: int) -> DeviceCsr:
        import torch

        own = [pair[side] for pair in chunks]
        lengths = np.concatenate([np.diff(codes.indptr) for codes in own])
        indptr = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        kind = torch.float32 if self._dtype == np.float32 else torch.float64
        size = int(indptr[-1])
        sent = DeviceCsr(
            torch.empty(len(indptr), dtype=torch.int64, device=self.device),
            torch.empty(size, dtype=torch.int32, device=self.device),
            torch.empty(size, dtype=kind, device=self.device),
        )
        self._staging.send([indptr], sent.indptr)
        self._staging.send([codes.index[codes.indptr[0] : codes.indptr[-1]] for codes in own], sent.index)
        self._staging.send([codes.value[codes.indptr[0] : codes.indptr[-1]] for codes in own], sent.value)
        return sent


def _no_dense_features() -> Profile:
    none = np.zeros(0)
    return Profile(Moments(none, none, none), none, none, none, none, none)


def in_parts(
    group: tuple[DeviceCsr, DeviceCsr], a: Profile, b: Profile, limit: int
) -> Iterator[tuple[DeviceCsr, DeviceCsr]]:
    """A group in parts of about `limit` entries, counting one on every row for each dense feature."""
    rows = group[0].rows
    size = sum(len(codes.index) for codes in group) + rows * (a.dense + b.dense)
    step = max(rows // max(-(-size // max(limit, 1)), 1), 1)
    if step >= rows:
        yield group
        return
    for first in range(0, rows, step):
        last = min(first + step, rows)
        yield group[0].rows_between(first, last), group[1].rows_between(first, last)


class _Staging:
    """Two page-locked buffers: while the device reads one, the threads fill the other.

    The driver copies from ordinary memory with one thread, at a fraction of the speed of the bus.
    """

    def __init__(self, device: torch.device, team: Team) -> None:
        import torch

        self._cuda, self._team, self._next = device.type == "cuda", team, 0
        self._buffers = [torch.empty(_STAGING_BYTES, dtype=torch.uint8, pin_memory=self._cuda) for _ in range(2)]
        self._read: list[Any] = [None, None]  # events: the device has read this buffer

    def send(self, pieces: list[Array], into: Tensor) -> None:
        """Write the pieces one after another into a tensor of the same type and size."""
        import torch

        target, done = into.view(torch.uint8), 0
        views = [piece.view(np.uint8) for piece in pieces if len(piece)]
        jobs: list[tuple[int, Array]] = []  # place in the buffer, what is copied there
        filled = 0
        for view in views:
            at = 0
            while at < len(view):
                step = min(len(view) - at, _STAGING_BYTES - filled, _COPY_BYTES)
                jobs.append((filled, view[at : at + step]))
                at, filled = at + step, filled + step
                if filled == _STAGING_BYTES:
                    self._flush(jobs, target[done : done + filled])
                    done, filled, jobs = done + filled, 0, []
        if filled:
            self._flush(jobs, target[done : done + filled])

    def _flush(self, jobs: list[tuple[int, Array]], target: Tensor) -> None:
        import torch

        which, self._next = self._next, 1 - self._next
        if self._read[which] is not None:
            self._read[which].synchronize()
        buffer = self._buffers[which].numpy()

        def copy(job: tuple[int, Array]) -> None:
            np.copyto(buffer[job[0] : job[0] + len(job[1])], job[1])

        self._team.each(copy, jobs)
        target.copy_(self._buffers[which][: len(target)], non_blocking=True)
        if self._cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(target.device))
            self._read[which] = event


class DeviceProfile(NamedTuple):
    """What the products need of a `Profile`, on a device, the scale times a power of two."""

    rank: Tensor  # (features,) int32, −1 where the feature never varies
    scale: Tensor  # (varying,) float64
    shift: Tensor  # (dense,) float64

    @classmethod
    def of(cls, profile: Profile, device: torch.device, power: int = 0) -> DeviceProfile:
        """A profile on a device, its scale times 2^power."""
        import torch

        arrays = profile.rank, np.ldexp(profile.scale, power), profile.shift
        return cls(*(torch.from_numpy(np.array(array)).to(device) for array in arrays))

    @property
    def dense(self) -> int:
        return len(self.shift)


class Entries(NamedTuple):
    """Entries of A, all those of a feature together."""

    rank: Tensor  # (entries,) int32, less the panel's first rank
    row: Tensor  # (entries,) int32
    value: Tensor  # (entries,) float64, scaled


class Rows(NamedTuple):
    """Rows of B: entries of row i are `start[i]:start[i + 1]` of the other two. Each feature is there at most once."""

    start: Tensor  # (rows + 1,) int64
    rank: Tensor  # (entries,) int32
    value: Tensor  # (entries,) float64, scaled
    dense: int  # every row begins with the ranks 0, 1, … dense − 1


class _Sparse(NamedTuple):
    """The entries of features that are not dense."""

    rank: Tensor  # int32
    row: Tensor  # int32
    value: Tensor  # float64, scaled


def _sparse_entries(codes: DeviceCsr, profile: DeviceProfile, low: int, high: int) -> _Sparse:
    """Entries at ranks low:high, in row order, without those of dense features and explicit zeros."""
    rank = profile.rank.index_select(0, codes.index)
    keep = (rank >= max(low, profile.dense)) & (rank < high) & (codes.value != 0)
    rank, value = rank[keep], codes.value[keep].double()
    value *= profile.scale.index_select(0, rank)
    return _Sparse(rank, codes.row_of_entries()[keep], value)


def written_out(codes: DeviceCsr, profile: DeviceProfile, low: int, high: int) -> Tensor:
    """(rows, high − low) float64, scaled: the codes at ranks low:high, those of dense features less their shift."""
    import torch

    out = torch.zeros(codes.rows, high - low, dtype=torch.float64, device=codes.value.device)
    dense = min(max(profile.dense - low, 0), high - low)
    out[:, :dense] = -profile.shift[low : low + dense]
    rank = profile.rank.index_select(0, codes.index)
    keep = (rank >= low) & (rank < high) & (codes.value != 0)
    rank, row = rank[keep] - low, codes.row_of_entries()[keep]
    shift = torch.zeros(high - low, dtype=torch.float64, device=out.device)
    shift[:dense] = profile.shift[low : low + dense]
    out[row, rank] = codes.value[keep].double() - shift.index_select(0, rank)
    out *= profile.scale[low:high]
    return out


def entries_of(codes: DeviceCsr, profile: DeviceProfile, low: int, high: int) -> Entries:
    """The entries of ranks low:high, feature by feature; dense features have one on every row.

    (Programs that run at one time then add to few rows of the totals, which stay in the cache of the device.)
    """
    import torch

    sparse = _sparse_entries(codes, profile, low, high)
    # Only equal ranks must come together, so ranks of up to 2¹⁶ features may wrap around: half the passes of the sort.
    key = sparse.rank.to(torch.int16) if high - low <= 1 << 16 else sparse.rank
    order = torch.sort(key).indices
    rank, row, value = (part.index_select(0, order) for part in sparse)
    dense = range(low, max(min(high, profile.dense), low))
    if dense:
        columns = written_out(codes, profile, dense.start, dense.stop)
        ranks = torch.arange(dense.start, dense.stop, dtype=torch.int32, device=rank.device)
        rows = torch.arange(codes.rows, dtype=torch.int32, device=rank.device)
        rank = torch.cat([ranks.repeat_interleave(codes.rows), rank])
        row = torch.cat([rows.repeat(len(dense)), row])
        value = torch.cat([columns.T.reshape(-1), value])
    return Entries(rank - low, row, value)


def rows_of(codes: DeviceCsr, profile: DeviceProfile) -> Rows:
    """All rows; each begins with the dense features, which are on every row."""
    import torch

    sparse = _sparse_entries(codes, profile, 0, len(profile.scale))
    start = torch.zeros(codes.rows + 1, dtype=torch.int64, device=sparse.rank.device)
    torch.cumsum(torch.bincount(sparse.row, minlength=codes.rows), 0, out=start[1:])
    dense = profile.dense
    if not dense:
        return Rows(start, sparse.rank, sparse.value, 0)
    every = torch.arange(codes.rows, device=start.device)
    start += dense * torch.arange(codes.rows + 1, device=start.device)
    rank = torch.empty(len(sparse.rank) + dense * codes.rows, dtype=torch.int32, device=start.device)
    value = torch.empty(len(rank), dtype=torch.float64, device=start.device)
    at = torch.arange(len(sparse.rank), device=start.device) + dense * (sparse.row.long() + 1)
    rank[at], value[at] = sparse.rank, sparse.value
    at = (start[every][:, None] + torch.arange(dense, device=start.device)).reshape(-1)
    rank[at] = torch.arange(dense, dtype=torch.int32, device=start.device).repeat(codes.rows)
    value[at] = written_out(codes, profile, 0, dense).reshape(-1)
    return Rows(start, rank, value, dense)
