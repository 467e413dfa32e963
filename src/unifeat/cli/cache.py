"""Commands for the cache: what it holds, and what can go."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from unifeat.cli.app import app
from unifeat.errors import UserError

cache_app = typer.Typer(
    help="Show what the cache holds and how large it is; with prune, remove what is not needed.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
app.add_typer(cache_app, name="cache")


@cache_app.callback()
def cache(context: typer.Context) -> None:
    """Show what the cache holds, how large it is, and which studies of kept runs use it."""
    if context.invoked_subcommand is not None:
        return
    from unifeat.report.terminal_cache import show_cache
    from unifeat.store.cache import cache_root
    from unifeat.store.usage import contents

    show_cache(cache_root(), contents(cache_root()))


@cache_app.command()
def prune(
    unused: Annotated[
        bool, typer.Option("--unused", help="Also what no kept run uses, including unfinished trainings.")
    ] = False,
    older: Annotated[
        str | None, typer.Option(metavar="30d", help="Of what no kept run uses, only what is older: 12h, 30d, 8w.")
    ] = None,
    to_size: Annotated[
        str | None, typer.Option(metavar="20GB", help="Also the oldest pieces, until the cache has this size.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Show what can be removed, ask, and remove it. Everything in the cache can be made again."""
    from unifeat.report.terminal_cache import show_prunable
    from unifeat.report.terminal_plan import size
    from unifeat.store.amounts import bytes_of, seconds_of
    from unifeat.store.cache import cache_root
    from unifeat.store.usage import contents, prunable
    from unifeat.store.usage import prune as remove

    chosen = prunable(
        contents(cache_root()),
        unused=unused,
        older_s=None if older is None else seconds_of(older, "--older"),
        to_size=None if to_size is None else bytes_of(to_size, "--to-size"),
    )
    show_prunable(chosen)
    if not chosen:
        return
    if not yes and not sys.stdin.isatty():
        raise UserError("nothing was removed: without a terminal to ask on, give --yes")
    if yes or typer.confirm("Remove it?"):
        print(f"removed {size(remove(chosen))}")
