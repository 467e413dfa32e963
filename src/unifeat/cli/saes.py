"""The command for SAEs: check one."""

from __future__ import annotations

from typing import Annotated

import typer

from unifeat.cli.app import app
from unifeat.cli.options import Quiet, set_quiet
from unifeat.errors import UserError
from unifeat.vocabulary.bounds import LARGEST_COUNT


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
    set_quiet(quiet)
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
