"""Which rows may take each other's place in a permutation: those of one stratum, or whole units of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt64
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry._labels import codes_of

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Exchange:
    """What is exchanged with what: units of rows, within classes of units that are alike.

    Without `units`, each row is a unit of its own. Two units are of one class if they have the same stratum and as many
    rows: all that a permutation of rows can exchange without breaking a unit or leaving a stratum.

    Attributes:
        members: (n,) the rows, sorted by unit and then by row.
        starts: (units + 1,) where each unit begins in `members`.
        classes: (units,) the class of each unit.
        strata: how many strata there are; None where none were given.
        grouped: whether units were given.
    """

    members: Indices
    starts: Indices
    classes: Indices
    strata: int | None
    grouped: bool

    @classmethod
    def of(cls, n: int, strata: Any = None, units: Any = None) -> Exchange:
        """The exchange of n rows.

        Args:
            strata, units: (n,) labels, see `codes_of`; None: all rows in one stratum, each row a unit of its own.

        Raises:
            UserError: labels that are not one for each row, or a unit with rows of several strata.
        """
        stratum = np.zeros(n, np.intp) if strata is None else codes_of(strata, n, "strata")
        unit = np.arange(n) if units is None else codes_of(units, n, "units")
        members = np.argsort(unit, kind="stable")
        starts = np.searchsorted(unit[members], np.arange(int(unit.max(initial=-1)) + 2))
        own = stratum[members]
        if (own != np.repeat(own[starts[:-1]], np.diff(starts))).any():
            raise UserError("units and strata: the rows of a unit move together, so give them one stratum")
        alike = np.column_stack([own[starts[:-1]], np.diff(starts)])
        classes = np.unique(alike, axis=0, return_inverse=True)[1].reshape(-1)
        count = None if strata is None else int(stratum.max(initial=-1)) + 1
        return cls(members, starts, classes.astype(np.intp), count, units is not None)

    @property
    def fixed(self) -> int:
        """Rows that no permutation moves: those of a unit that is alone in its class."""
        alone = np.bincount(self.classes)[self.classes] == 1
        return int(np.diff(self.starts)[alone].sum())

    @property
    def log_arrangements(self) -> float:
        """Natural logarithm of the number of permutations there are."""
        return float(sum(math.lgamma(count + 1) for count in np.bincount(self.classes)))

    def at(self, places: Integer[np.ndarray, " n"]) -> Callable[[UInt64[np.ndarray, " n"]], Indices]:
        """A function from random words of the rows, uint64 (n,), to a permutation of them.

        The permutation is uniform if the words are independent and uniform. Units are inserted one after another, by
        place, into the permutation of their class: the inside-out form of the Fisher–Yates shuffle (Knuth, TAOCP 2,
        3.4.2). Which of those before it a unit follows is decided by its own word and their places: the one whose
        SplitMix64 hash of both is least, itself included (rendezvous hashing: Thaler & Ravishankar 1998, IEEE/ACM
        Trans. Netw. 6). So the choices of different units are independent and uniform, and a set with one more unit is
        permuted like the set without it except near that unit. (Sorting the words within each class would be uniform
        too, but one more row would move about a third of all others.)

        Args:
            places: the rows' places in a larger set, all different. A unit's place is the smallest of its rows', and
                its word is that row's.
        """
        from unifeat.inference._kernels import insert_units  # imported here, since numba is slow to import

        sizes = np.diff(self.starts)
        by_place = np.lexsort((places[self.members], np.repeat(np.arange(len(sizes)), sizes)))
        first = self.members[by_place[self.starts[:-1]]]
        keys = places[first].astype(np.uint64)
        order = np.lexsort((places[first], self.classes)).astype(np.intp)
        bounds = np.concatenate([[0], np.cumsum(np.bincount(self.classes))]).astype(np.intp)
        within = np.arange(len(self.members)) - np.repeat(self.starts[:-1], sizes)

        def permutation(words: UInt64[np.ndarray, " n"]) -> Indices:
            to = insert_units(words[first], keys, order, bounds)
            moved = np.empty(len(self.members), np.intp)
            # Units of one class have equally many rows: the rows of one go to those of another in their order.
            moved[self.members] = self.members[np.repeat(self.starts[to], sizes) + within]
            return moved

        return permutation
