"""A finished run's spaces and pairs of spaces, from the cache, for questions that come after it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from unifeat.errors import UserError
from unifeat.pipeline.encode import Prepared, prepare_spaces
from unifeat.pipeline.match import Cell, cells_of
from unifeat.pipeline.spaces import Space
from unifeat.runs.folder import Run
from unifeat.runs.writing import STUDY
from unifeat.study.read import load_study
from unifeat.study.spec import Study


@dataclass(frozen=True)
class Reopened:
    """A run with what it left in the cache. No model is loaded, and nothing is encoded again.

    Attributes:
        study: as it was run.
    """

    run: Run
    study: Study
    prepared: Prepared

    @cached_property
    def cells(self) -> list[Cell]:
        """The pairs of spaces that were compared."""
        return list(cells_of(self.study, self.prepared, combinations(self.prepared.spaces, 2)))

    def space(self, name: str) -> Space:
        """A space by its name.

        Raises:
            UserError: the run has no such space.
        """
        self.run.check_space(name)
        return next(space for space in self.prepared.spaces if space.name == name)

    def cell(self, space_a: str, space_b: str) -> Cell:
        """The pair of two spaces, whichever of them comes first in the run.

        Raises:
            UserError: the run has no such space, or did not compare the two.
        """
        names = {self.space(space_a).name, self.space(space_b).name}
        for cell in self.cells:
            if {cell.a.name, cell.b.name} == names:
                return cell
        raise UserError(f"run {self.run.folder} did not compare {space_a} with {space_b}")


def reopen(run: Run) -> Reopened:
    """Open the spaces of a finished run.

    Raises:
        UserError: the cache was pruned, or models, SAEs or text of the run are no longer where they were.
    """
    study = load_study(run.folder / STUDY)
    return Reopened(run, study, prepare_spaces(study, encode=False))
