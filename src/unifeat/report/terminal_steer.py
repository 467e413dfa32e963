"""The output of `unifeat steer`: four texts side by side."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unifeat.transfer.steering import Steered, SteeredPair

_NARROW = 100  # columns; below, the two models stand one above the other


def print_steered(pair: SteeredPair, prompt: str) -> None:
    """Print what both models go on with, without the feature and with it."""
    console = Console(highlight=False, markup=False, emoji=False)
    one, other = pair.sides
    console.print(f"features {one.feature} and {other.feature}, r {pair.correlation:.2f}", soft_wrap=True)
    groups = [pair.sides] if console.width >= _NARROW else [(one,), (other,)]
    for sides in groups:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True)
        table.add_column("", no_wrap=True)
        for side in sides:
            table.add_column(_heading(side), ratio=1)
        table.add_row(Text("plain", style="bold"), *(_text(prompt, side.plain) for side in sides))
        table.add_row("", *("" for _ in sides))
        table.add_row(Text("steered", style="bold"), *(_text(prompt, side.steered) for side in sides))
        console.print(table)


def _heading(side: Steered) -> Text:
    tokens = " ".join(dict.fromkeys(token.strip() or repr(token) for token in side.top_tokens))
    return Text(f"{side.space}/{side.feature}  {tokens}  (code {side.added:+.3g} at every token)")


def _text(prompt: str, continuation: str) -> Text:
    return Text.assemble((prompt, "dim"), continuation)
