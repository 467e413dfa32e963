"""Commands for runs that are there: look at them, ask them, save what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unifeat.cli.app import app
from unifeat.cli.options import Quiet, RunFolder, folder_named, set_quiet
from unifeat.errors import UserError
from unifeat.vocabulary.bounds import LARGEST_COUNT


@app.command()
def show(
    run: RunFolder,
    space_a: Annotated[str | None, typer.Argument(metavar="[SPACE_A")] = None,
    space_b: Annotated[str | None, typer.Argument(metavar="SPACE_B]")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="SPACE=PATH", help="Names of a space's features: a Neuronpedia export, CSV or Parquet."),
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="WORD", help="Only pairs with this in a label or a top token.")
    ] = None,
) -> None:
    """Print a run's results again; with two spaces, the features they share."""
    from unifeat.report.labels import labels_given
    from unifeat.report.terminal import show as print_run
    from unifeat.runs.folder import open_run

    if (space_a is None) != (space_b is None):
        raise UserError("name two spaces, such as smollm2@15 gemma3@9, or none")
    if space_a is None and (labels or search):
        raise UserError("--labels and --search are for two spaces: name them, such as smollm2@15 gemma3@9")
    opened = open_run(run)
    print_run(opened, space_a, space_b, labels=labels_given(opened, labels or []), search=search)


@app.command()
def steer(
    run: RunFolder,
    prompt: Annotated[str, typer.Argument(help="What both models go on from.")],
    space: Annotated[str, typer.Option(help="A space of the run, such as gemma3@9.")],
    pair: Annotated[int, typer.Option(metavar="FEATURE", min=0, help="A feature of that space which has a partner.")],
    partner: Annotated[
        str | None, typer.Option("--with", metavar="SPACE", help="The partner's space; by default that of highest r.")
    ] = None,
    dose: Annotated[
        float, typer.Option(help="How much is added: 1 is the feature's 90th percentile where it fires; −1 takes away.")
    ] = 1.0,
    tokens: Annotated[int, typer.Option(min=1, max=4096, help="Length of the continuations.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the most probable token.")] = 0.8,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_COUNT, help="The same seed gives the same texts.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Let both models of a pair go on from a prompt, with and without their feature."""
    set_quiet(quiet)
    from unifeat.models.generation import Sampling
    from unifeat.pipeline.steer import steer as steer_pair
    from unifeat.report.terminal_steer import print_steered
    from unifeat.runs.folder import open_run

    sampling = Sampling(tokens, temperature, seed=seed)
    print_steered(steer_pair(open_run(run), space, pair, prompt, partner=partner, dose=dose, sampling=sampling), prompt)


@app.command()
def families(
    run: RunFolder,
    method: Annotated[
        str | None, typer.Option(help="consistent, cliques or components; by default what the study says.")
    ] = None,
    space: Annotated[
        list[str] | None, typer.Option(help="A space to use, or a group of them: smollm2@15, smollm2; give it again.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, max=LARGEST_COUNT, help="Families to list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print all families, a line of JSON each.")] = False,
) -> None:
    """Print the families of features over a run's spaces: how many each set of spaces has, and the largest."""
    from unifeat.report.terminal_families import show_families
    from unifeat.runs.folder import open_run

    show_families(open_run(run), method, space or None, top=top, as_json=as_json)


@app.command()
def report(run: RunFolder) -> None:
    """Write a run's HTML report again and print where it is."""
    from unifeat.report.html import write_report
    from unifeat.runs.folder import open_run

    print(write_report(open_run(run)))


@app.command()
def figure(
    run: RunFolder,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which figure; without it, those there are.")
    ] = None,
    spaces: Annotated[
        list[str] | None, typer.Argument(metavar="[SPACE_A SPACE_B]", help="By default, those that share the most.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A file: .svg, .pdf, .png, .html or .json.")] = None,
    metric: Annotated[str | None, typer.Option(help="Of a heatmap: rsa, svcca, kept …")] = None,
    value: Annotated[str | None, typer.Option(help="Of a heatmap: score, null_mean or corrected; else all.")] = None,
    model: Annotated[str | None, typer.Option(help="Of passages: the group of spaces.")] = None,
    width: Annotated[int | None, typer.Option(min=100, max=10_000, help="In pixels.")] = None,
    height: Annotated[int | None, typer.Option(min=50, max=10_000, help="In pixels.")] = None,
) -> None:
    """Save a figure of a run's report for a paper, or list the figures that it has."""
    from unifeat.report.figures.named import figure as draw
    from unifeat.report.figures.save import check_kind, save_figure
    from unifeat.report.terminal_figures import print_figures
    from unifeat.runs.folder import open_run

    opened = open_run(run)
    if name is None:
        print_figures(opened)
        return
    if out is None:
        raise UserError(f"where to? give --out {name}.svg (or .pdf, .png, .html, .json)")
    check_kind(out)
    options = {"spaces": tuple(spaces) if spaces else None, "metric": metric, "value": value, "model": model}
    drawn = draw(opened, name, **{key: given for key, given in options.items() if given is not None})
    print(save_figure(drawn, out, width, height))


@app.command()
def explore(
    run: RunFolder,
    spaces: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SPACE_A SPACE_B [SPACE_C]]", help="By default, the two that share the most features."),
    ] = None,
    contexts: Annotated[int, typer.Option(min=1, max=50, help="Most contexts of each feature.")] = 5,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="SPACE=PATH", help="Labels for a space in the place of the run's.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser, if there is one.")] = True,
    quiet: Quiet = False,
) -> None:
    """Write one page to look at every feature of two or three spaces, print where it is, and open it."""
    set_quiet(quiet)
    from unifeat.explorer.write import show_page, write_explorer
    from unifeat.report.html import link_explorers
    from unifeat.report.labels import labels_given
    from unifeat.runs.folder import open_run

    opened = open_run(run)
    page = write_explorer(opened, spaces, contexts=contexts, labels=labels_given(opened, labels or []))
    link_explorers(opened)
    print(page)
    if open_it:
        show_page(page)


@app.command()
def export(
    run: RunFolder,
    space_a: Annotated[str, typer.Argument(metavar="SPACE_A")],
    space_b: Annotated[str, typer.Argument(metavar="SPACE_B")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for the export.")],
    model_id: Annotated[
        list[str] | None, typer.Option(metavar="SPACE=ID", help="Neuronpedia's id of a space's model: gemma-3-270m.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write two spaces of a run in the layout of Neuronpedia, with their labels and what they share."""
    set_quiet(quiet)
    from unifeat.runs.folder import open_run

    opened, folder = open_run(run), folder_named(out)
    assert folder is not None
    from unifeat.pipeline.export import export_neuronpedia

    print(export_neuronpedia(opened, space_a, space_b, folder, model_id or []))
