"""The command line. Every command calls one function of the library; slow imports happen inside the commands."""

# Commands register themselves, and `--help` lists them in this order.
from unifeat.cli import studies, runs, saes, cache  # isort: skip
from unifeat.cli.app import app
from unifeat.cli.entry_point import main

__all__ = ["app", "cache", "main", "runs", "saes", "studies"]
