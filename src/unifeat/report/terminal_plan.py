"""`unifeat plan`: what a study will take, as a table."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from unifeat.report.framed import framed
from unifeat.study.plan import StudyPlan

_UNITS = ("", " k", " M", " G", " T", " P", " E")


def show_plan(plan: StudyPlan, *, as_json: bool = False) -> None:
    """Print a plan on stdout."""
    if as_json:
        print(json.dumps(asdict(plan) | {"seconds": plan.seconds, "gpu_seconds": plan.gpu_seconds}, indent=1))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    total = Text.assemble(
        ("about ", ""),
        (duration(plan.seconds), "bold"),
        (" on this machine, ", ""),
        (duration(plan.gpu_seconds), "bold"),
        (f" with one {plan.gpu.upper()} as well", ""),
    )
    console.print(total)
    if plan.memory > plan.free:
        console.print(f"a worker needs about {size(plan.memory)}, and {size(plan.free)} are free here: too little")
    else:
        console.print(f"a worker needs about {size(plan.memory)}; {size(plan.free)} are free here")
    two_texts = any(model.tokens_elsewhere for model in plan.models)
    rows = [
        [
            model.name,
            short(model.tokens),
            *([short(model.tokens_elsewhere)] if two_texts else []),
            str(model.spaces),
            f"{short(model.flops)}FLOP",
            size(model.model_bytes),
            size(model.sae_bytes),
            size(model.code_bytes),
        ]
        for model in plan.models
    ]
    there = ["elsewhere"] if two_texts else []
    headings = ["model", "tokens", *there, "spaces", "forward and encode", "weights", "SAEs", "codes on disk"]
    console.print(framed(headings, rows, left=1))
    steps = [[step.name, f"{step.units:,}", duration(step.seconds), duration(step.gpu_seconds)] for step in plan.steps]
    console.print(framed(["step", "units of work", "here", f"with a {plan.gpu.upper()}"], steps, left=1))
    pairs = "pair" if plan.cells == 1 else "pairs"
    console.print(f"{plan.cells:,} {pairs} of spaces, {short(plan.products)}products of activations", soft_wrap=True)
    for title, lines in (("rates", plan.rates), ("assumed", plan.assumptions)):
        console.print(Text(f"{title}: {'; '.join(lines)}", style="dim"), soft_wrap=True)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.1f} days"


def size(count: float) -> str:
    """`3.2 GB`."""
    return f"{short(count)}B"


def short(count: float) -> str:
    """A number with a prefix: `3.2 G`, with a blank before what it counts."""
    power = 0
    while count >= 1000 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    digits = 1 if count < 100 and power else 0
    return f"{count:.{digits}f}{_UNITS[power] or ' '}"
