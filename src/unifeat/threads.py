"""Threads that share numerical work. Kernels and linear algebra release the interpreter's lock where they compute.

A BLAS that splits a small matrix between all cores spends its time waiting: measured on two busy cores, the singular
values of 350 × 576 took 18 times the processor time with two BLAS threads of what they take with one. So small pieces
of work run side by side, each with linear algebra in one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """work(item) of every item, in their order; the first error is raised, and what has not begun is not begun."""
    with one_blas_thread(), ThreadPoolExecutor(cores()) as pool:
        begun = [pool.submit(work, item) for item in items]
        try:
            for future in begun:
                yield future.result()
        finally:
            for future in begun:
                future.cancel()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """While open, linear algebra runs in one thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], *, worth_while: bool = True) -> list[Result]:
    """`[work(i) for i in items]`, on as many threads as BLAS would take where that is worth while.

    A pool a call, not one kept: a kept pool would be dead, and wait for ever, in a forked worker.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(cores(), int(limit)) if limit.isdigit() and int(limit) > 0 else cores()
    if threads == 1 or not worth_while:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


class Team(NamedTuple):
    """Threads that work through one job together."""

    pool: ThreadPoolExecutor
    threads: int

    def each(self, task: Callable[..., Any], jobs: list[Any]) -> list[Any]:
        """task(job) for all jobs, results in order; the first error is raised."""
        return [task(jobs[0])] if len(jobs) == 1 else list(self.pool.map(task, jobs))
