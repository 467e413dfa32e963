"""The program that commands register themselves with."""

from __future__ import annotations

from typing import Annotated

import typer

from unifeat import __version__

app = typer.Typer(
    name="unifeat",
    help="Find the features that language models share, and how alike their feature spaces are.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        print(f"unifeat {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass
