"""The output of `unifeat check`."""

from __future__ import annotations

import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unifeat.report.tables import decimal
from unifeat.saes.checking.check import Checked
from unifeat.saes.checking.sample import ROWS
from unifeat.saes.checking.verdict import same_model
from unifeat.text.sources import SHIPPED_TEXT

_STYLES = {"fault": "bold red", "warning": "yellow", "cause": ""}


def show(checked: Checked, *, as_json: bool = False) -> None:
    """Print a check's figures and verdict to stdout, or everything as one JSON object."""
    if as_json:
        print(json.dumps(checked.as_dict(), indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    quality = checked.quality
    text = "Alice's Adventures in Wonderland" if checked.text == str(SHIPPED_TEXT) else checked.text
    console.print(
        f"{checked.sae}\non {Path(checked.model).name}, {checked.point.saelens_name}: "
        f"{quality.tokens:,} tokens of {text} ({_masked(checked)})",
        soft_wrap=True,
    )
    console.print(_read_as(checked), soft_wrap=True)
    if checked.claims.model and not same_model(checked.claims.model, checked.model):
        console.print(f"The SAE names the model {checked.claims.model}.", soft_wrap=True)
    console.print(_figures(checked))
    console.print(_misreadings(checked))
    for finding in checked.findings:
        label = {"fault": "wrong: ", "warning": "warning: ", "cause": "likely: "}[finding.level]
        console.print(Text(label + finding.text, style=_STYLES[finding.level]), soft_wrap=True)
    if not checked.findings:
        console.print(Text("The SAE does what it claims, and no other reading explains more.", style="green"))


def _read_as(checked: Checked) -> str:
    provenance = checked.provenance
    words = [f"read as {provenance.format}, {provenance.architecture}: {provenance.gate}"]
    words.append(f"normalisation {provenance.normalisation}")
    words.append(f"{'decoder' if provenance.pre_bias else 'no'} bias subtracted first")
    return "; ".join([*words, *(f"folded in: {fold}" for fold in provenance.folds)])


def _masked(checked: Checked) -> str:
    masked = checked.masked
    left_out = f"{masked.first} first, {masked.special} special, {masked.sink} sinks left out"
    chat = "" if checked.chat == "none" else f", each a message of the {checked.chat} in the chat template"
    return f"{left_out}; windows begin {'with' if checked.bos else 'without'} BOS{chat}"


def _figures(checked: Checked) -> Table:
    quality, claims, loss = checked.quality, checked.claims, checked.loss
    table = _table("", "measured", f"stated ({claims.source})" if claims.source else "stated")
    explained = claims.variance_explained
    l0 = claims.expected_l0
    table.add_row("L0", decimal(quality.l0, 1), "" if l0 is None else f"{l0:.4g}")
    table.add_row("FVU", decimal(quality.fvu, 3), "" if explained is None else decimal(1 - explained, 3))
    table.add_row("dead on these tokens", f"{quality.dead_share:.1%}", "")
    if loss is not None:
        table.add_row("loss recovered", decimal(loss.recovered, 3), "")
        table.add_row("  cross-entropy, clean", decimal(loss.clean, 3), "")
        table.add_row("  reconstruction spliced in", decimal(loss.spliced, 3), "")
        table.add_row("  zeros spliced in", decimal(loss.zeroed, 3), "")
    least, median, largest = checked.decoder_norms
    table.add_row("decoder norms: smallest", f"{least:.3g}", "")
    table.add_row("  median", f"{median:.3g}", "")
    table.add_row("  largest", f"{largest:.3g}", "")
    return table


def _misreadings(checked: Checked) -> Table:
    table = _table(f"other readings (≤ {ROWS:,} tokens)", "FVU", "L0")
    for tried in (checked.own, *checked.others):
        table.add_row(tried.what, decimal(tried.fvu, 3), decimal(tried.l0, 1))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right")
    return table
