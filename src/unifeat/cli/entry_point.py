"""The entry point, and how it ends: with results, or with one line that says what is wrong."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, NoReturn

import typer

from unifeat.cli.app import app
from unifeat.errors import UserError

_INTERRUPTED = 130


def main() -> None:
    """Entry point. A user's mistake is printed as one line on stderr, with exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Waiting threads should sleep instead of spinning: on a busy machine, spinning makes a forward pass several times
    # slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of other libraries would interfere with ours
    for stream in (sys.stdout, sys.stderr):
        # Text and file names may have characters that the terminal's encoding lacks.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)  # commands return nothing: a number is what `typer.Exit` was given
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code or 0)
    except UserError as error:
        _end(str(error))
    except typer.Abort:
        print("unifeat: nothing was done", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("unifeat: interrupted; the same command continues where it stopped", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        from unifeat.store.machine import machine_error

        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        # (Typer's own errors, of a module that has moved between its versions.)
        told = _usage(error) if hasattr(error, "format_message") else machine_error(error)
        if told is None:
            raise
        _end(str(told))


def _usage(error: Any) -> str:
    """A wrong option or argument, in one line and not in Typer's four."""
    command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "unifeat"
    return f"{error.format_message().rstrip('.')}; `{command} --help` lists what there is"


def _end(message: str) -> NoReturn:
    print(f"unifeat: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
