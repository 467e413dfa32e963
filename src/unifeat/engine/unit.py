"""A unit of work: a pure function whose result is a piece. It can run anywhere, in any order, again after a kill."""

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
        piece: where its result is kept, under a key made from everything that determines it.
        compute: makes the result, or what the piece's form makes it of; pure, and of arguments that can be sent to
            another process.
        fills_machine: whether it keeps all cores busy, or takes so much memory, that nothing should run beside it.
    """

    piece: Piece[T]
    compute: Callable[[], Any]
    fills_machine: bool = False

    def result(self) -> T:
        """The stored result, or, where there is none or a damaged one, the computed one, stored.

        Raises:
            UserError: whatever `compute` raises, and errors of the machine.
        """
        found = self.piece.read()
        if found is not None:
            return found
        for _ in range(3):
            self.piece.write(self.compute())
            # What is in place may be another process's; and a value read back is the same now and after a restart.
            stored = self.piece.read()
            if stored is not None:
                return stored
        raise UserError(f"{self.piece.path} is gone or damaged as soon as it is written: look at the disk of the cache")


class Engine(Protocol):
    """What maps units."""

    def map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        """The results of units, in their order; the first error is raised, and what has not begun is not begun."""
        ...
