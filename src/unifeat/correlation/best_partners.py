"""The best partners of every feature: plan the work, distribute it over threads, merge the lists.

There are three ways to search. Two are for sparse codes, and give the same bits:
* If B's records fit in memory, lay them out once and take one A feature after another, in an accumulator that fits in
  the cache (`laid_out`). A's columns need not fit: they can follow in a few passes.
* If they do not, lay the codes out on disk, and take panels of A features with one accumulator row each, with one pass
  over all tokens per panel (`spill`).
The third is for dense codes: written out in full and multiplied by BLAS, one panel at a time (`dense`). The codes alone
decide whether they are dense.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from unifeat.correlation import dense, kernels
from unifeat.correlation.kernels import Best, Columns, Records, Scan
from unifeat.correlation.laid_out import LaidOut
from unifeat.correlation.layout import aligned, even_ranges
from unifeat.correlation.moments import Profile
from unifeat.correlation.spill import Spill
from unifeat.progress import Advance, track
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import Array, PairedCodes

# Shares of the memory: of the totals of a panel, and of a group of chunks on its way to where it is laid out.
_SHARE_OF_TOTALS, _SHARE_OF_GROUP = 0.65, 0.1
_BYTES_PER_ENTRY = 16  # of a group being laid out: 8 as codes, up to 8 laid out
_TASKS_PER_THREAD = 16
# Costs of fetching one record and of comparing one correlation, in units of one product.
_RECORD_COST, _CORRELATION_COST = 20.0, 0.5
_ADDS_PER_PRODUCT = 35.0  # float64 multiply-adds of BLAS that take as long as one sparse product
_FEWEST_ADDS_FOR_BLAS = 1e8  # with fewer, BLAS does not pay


def best_partners(
    paired: PairedCodes, a: Profile, b: Profile, dtype: Any, top: int, memory_gb: float, team: Team
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(index, value), each (features, top), of A's best partners in B and of B's best partners in A."""
    search = _Search(a, b, dtype, paired.n_rows, top, team)
    if a.varying and b.varying:
        with track("correlation", paired.n_rows) as advance:
            search.advance = advance
            if _is_dense(a, b, paired.n_rows):
                search.search_dense(paired, memory_gb)
            elif LaidOut.fits(b, paired.n_rows, dtype, memory_gb * 1e9):
                search.search_in_memory(paired, memory_gb * 1e9)
            else:
                search.search_in_panels(paired, memory_gb * 1e9)
    return _by_feature([search.best_a], a), _by_feature(search.bests_b, b)


def _is_dense(a: Profile, b: Profile, n: int) -> bool:
    """Whether BLAS is cheaper than the sparse products: at about 17 % nonzero codes on both sides."""
    adds = float(n) * a.varying * b.varying
    products = a.entries(n) * (_RECORD_COST + b.entries(n) / n)
    return adds > _FEWEST_ADDS_FOR_BLAS and adds < _ADDS_PER_PRODUCT * products


class _Workspace(NamedTuple):
    """What one thread works with: its lists of B's best partners, and its accumulator."""

    best_b: Best
    total: Array  # (1, B's ranks, padded) float64, zero between tasks


class _Search:
    """The search for best partners in progress."""

    def __init__(self, a: Profile, b: Profile, dtype: Any, n: int, top: int, team: Team) -> None:
        self.a, self.b, self.dtype, self.n, self.team = a, b, dtype, n, team
        self.width = b.varying + -b.varying % kernels.TILE
        self.best_a = _no_partners(a.varying, top)
        first = _no_partners(self.width, top)
        self.bests_b = [first] + [_no_partners(self.width, top, first.floor) for _ in range(team.threads - 1)]
        self.scan = Scan(
            a.scale,
            a.ratio,
            a.order,
            _padded(b.scale, self.width, 0.0),
            _padded(b.ratio, self.width, np.nan),  # r is then NaN, which enters no list
            _padded(b.order, self.width, 0),
        )
        self.advance: Advance = lambda n=1, note="": None
        self._total_work, self._work_done, self._tokens_reported = float(max(a.entries(self.n), 1)), 0.0, 0

    def search_in_memory(self, paired: PairedCodes, memory: float) -> None:
        """B's records are laid out once. A's columns follow, a range at a time if all of them take too much memory."""
        limit = int(_SHARE_OF_GROUP * memory / _BYTES_PER_ENTRY)
        laid = LaidOut(paired, self.a, self.b, self.dtype, max(limit, 1), self.team)
        workspaces = [_Workspace(best_b, aligned((1, self.width), fill=0.0)) for best_b in self.bests_b]
        per_entry = _RECORD_COST + self.b.entries(self.n) / self.n
        for low, high in laid.column_ranges(memory):
            columns = laid.columns(low, high)
            scan, best_a = self.scan.over_a(slice(low, high)), self.best_a.over(slice(low, high))

            def task(
                workspace: _Workspace,
                first: int,
                last: int,
                columns: Columns = columns,
                scan: Scan = scan,
                best_a: Best = best_a,
            ) -> None:
                kernels.multiply_and_select(
                    first, last, columns, laid.records, workspace.total, scan, best_a, workspace.best_b
                )

            def entries(first: int, last: int, start: Array = columns.start) -> int:
                return int(start[last] - start[first])

            ranges = self._ranges(np.diff(columns.start) * per_entry + self.width * _CORRELATION_COST)
            self._with_workspaces(task, workspaces, ranges, entries)

    def search_in_panels(self, paired: PairedCodes, memory: float) -> None:
        """Every panel of A's features has an accumulator row each, and takes one pass over all tokens."""
        panel = int(np.clip(_SHARE_OF_TOTALS * memory / (8 * self.width), 1, self.a.varying))
        limit = max(int((1 - _SHARE_OF_GROUP) * memory / _BYTES_PER_ENTRY), 1)
        with Spill(paired, self.a, self.b, self.dtype, limit, self.team) as spill:
            totals = aligned((panel, self.width), fill=0.0)
            for low in range(0, self.a.varying, panel):
                high = min(low + panel, self.a.varying)
                for records, columns in spill.groups(low, high):
                    self._multiply(records, columns, totals)

                def task(best_b: Best, first: int, last: int, low: int = low) -> None:
                    kernels.select(low + first, low + last, low, totals, self.scan, self.best_a, best_b)

                self._with_workspaces(task, self.bests_b, self._ranges(np.ones(high - low)), lambda first, last: 0)

    def search_dense(self, paired: PairedCodes, memory_gb: float) -> None:
        panels = dense.panels(self.a.varying, self.width, memory_gb)
        buffers = dense.Buffers.of(panels)
        self._total_work = float(self.n) * self.a.varying * self.width
        for panel in panels:
            low, high, over_b = panel.low_a, panel.high_a, slice(panel.low_b, panel.high_b)
            for rows in dense.multiply(paired, self.a, self.b, panel, buffers, self.team):
                self._report(rows * (high - low) * (over_b.stop - over_b.start))
            totals, scan = buffers.totals_of(panel), self.scan.over_b(over_b)

            def task(
                best_b: Best, first: int, last: int, low: int = low, totals: Array = totals, scan: Scan = scan
            ) -> None:
                kernels.select(low + first, low + last, low, totals, scan, self.best_a, best_b)

            workspaces = [best_b.over(over_b) for best_b in self.bests_b]
            self._with_workspaces(task, workspaces, self._ranges(np.ones(high - low)), lambda first, last: 0)

    def _multiply(self, records: Records, columns: Columns, totals: Array) -> None:
        ranges = self._ranges(np.diff(columns.start) + 1)
        self.team.each(lambda span: kernels.multiply(*span, columns, records, totals), ranges)
        self._report(int(columns.start[-1]))

    def _with_workspaces(
        self,
        task: Callable[[Any, int, int], None],
        workspaces: list[Any],
        ranges: list[tuple[int, int]],
        entries: Callable[[int, int], int],
    ) -> None:
        """Run the task on every range. Each thread uses its own workspace (lists and accumulator)."""
        idle: SimpleQueue[Any] = SimpleQueue()
        for workspace in workspaces:
            idle.put(workspace)

        def run(span: tuple[int, int]) -> int:
            workspace = idle.get()
            try:
                task(workspace, *span)
            finally:
                idle.put(workspace)
            return entries(*span)

        for done in self.team.pool.map(run, ranges):
            self._report(done)

    def _ranges(self, work: Array) -> list[tuple[int, int]]:
        """Ranges of ranks with about equal work; several per thread, so that the threads finish at about one time."""
        return even_ranges(work, self.team.threads * _TASKS_PER_THREAD)

    def _report(self, work: float) -> None:
        """Report progress in tokens. Every entry of A (for dense codes, every product) counts exactly once."""
        self._work_done += work
        tokens = int(self.n * (self._work_done / self._total_work))
        self.advance(tokens - self._tokens_reported)
        self._tokens_reported = tokens


def _no_partners(features: int, top: int, floor: Array | None = None) -> Best:
    return Best(
        np.full((features, top), -np.inf),
        np.full((features, top), -1, np.int32),
        aligned(features, fill=-np.inf) if floor is None else floor,
    )


def _padded(array: Array, size: int, fill: float) -> Array:
    padded = aligned(size, array.dtype, fill)
    padded[: len(array)] = array
    return padded


def _by_feature(bests: list[Best], profile: Profile) -> tuple[Array, Array]:
    """Merge the threads' lists by rank into one by feature id, (index, value): larger r first, then the lower id."""
    value = np.concatenate([best.value[: profile.varying] for best in bests], axis=1)
    index = np.concatenate([best.partner[: profile.varying] for best in bests], axis=1)
    top = bests[0].value.shape[1]
    order = np.lexsort((index, -value), axis=-1)[:, :top]
    by_id = np.full((len(profile.rank), top), -1, np.int32), np.full((len(profile.rank), top), np.nan)
    by_id[0][profile.order] = np.take_along_axis(index, order, 1)
    by_id[1][profile.order] = np.where(by_id[0][profile.order] >= 0, np.take_along_axis(value, order, 1), np.nan)
    return by_id
