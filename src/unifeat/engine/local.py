"""The engine of this machine: a thread a core, since the measures release the interpreter's lock where they compute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from unifeat.engine.unit import Unit
from unifeat.threads import each

T = TypeVar("T")


class Local:
    """Units side by side on this machine's cores; those that fill it, one by one with all of BLAS's threads."""

    def map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        """The results of units, in their order; the first error is raised, and what has not begun is not begun."""
        todo = list(units)
        if any(unit.fills_machine for unit in todo):
            return (unit.result() for unit in todo)
        return each(lambda unit: unit.result(), todo)
