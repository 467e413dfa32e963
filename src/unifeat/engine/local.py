"""The engine of this machine: one thread per core, since the measures release the GIL while they compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from unifeat.engine.unit import Unit
from unifeat.threads import each

T = TypeVar("T")


class Local:
    """Runs units in parallel on this machine's cores. Units that fill it run one by one, with all BLAS threads."""

    def map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        """The results of the units, in order. The first error is raised, and pending units are cancelled."""
        waiting = list(units)
        if any(unit.fills_machine for unit in waiting):
            return (unit.result() for unit in waiting)
        return each(lambda unit: unit.result(), waiting)
