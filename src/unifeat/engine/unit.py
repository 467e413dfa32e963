"""A unit of work: a pure function whose result is a piece. It can run anywhere, in any order, and run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from unifeat.errors import UserError
from unifeat.store.pieces import Piece

T = TypeVar("T")


@dataclass(frozen=True)
class Unit(Generic[T]):
    """One unit of work.

    Attributes:
        piece: where its result is stored, under a key made from everything that determines it.
        compute: computes the result. It is pure, and its arguments can be sent to another process.
        fills_machine: whether it uses all cores, or so much memory that nothing else should run at the same time.
    """

    piece: Piece[T]
    compute: Callable[[], Any]
    fills_machine: bool = False

    def result(self) -> T:
        """The stored result. If there is none, or it is damaged, the result is computed and stored first.

        Raises:
            UserError: as `compute` does, and for errors of the machine.
        """
        found = self.piece.read()
        if found is not None:
            return found
        for _ in range(3):
            self.piece.write(self.compute())
            # Read back: another process may have stored its result first, and a value from the disk is the same now as
            # after a restart.
            stored = self.piece.read()
            if stored is not None:
                return stored
        raise UserError(f"{self.piece.path} is missing or damaged right after it was written: check the cache's disk")


class Engine(Protocol):
    """Anything that runs units."""

    def map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        """The results of the units, in order. The first error is raised, and pending units are cancelled."""
        ...
