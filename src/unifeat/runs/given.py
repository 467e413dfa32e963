"""What a user gives for single spaces of a run: `SPACE=VALUE`."""

from __future__ import annotations

from collections.abc import Iterable

from unifeat.errors import UserError
from unifeat.runs.folder import Run


def by_space(run: Run, given: Iterable[str], option: str, form: str, example: str) -> dict[str, str]:
    """The values of an option, by space; of several for one space the last.

    Args:
        option: its name, such as `--labels`.
        form: what a value is called, such as `PATH`.
        example: a value.

    Raises:
        UserError: not of the form `SPACE=VALUE`, or a space that the run does not have.
    """
    found = {}
    for one in given:
        space, equals, value = one.partition("=")
        if not equals or not value:
            raise UserError(f"{option} {one}: give SPACE={form}, such as {next(iter(run.info['spaces']))}={example}")
        run.check_space(space)
        found[space] = value
    return found
