"""What training an SAE costs: our steps beside SAELens' own, the language model's share, and a whole training.

    python benchmarks/training.py [--layer 15] [--features 4096] [--k 32] [--tokens 1500000] [--architecture topk]

SmolLM2-135M on the demo's news articles (`unifeat demo --install`). Prints activations a
second by the clock and a core's seconds for a thousand: on a machine that does other work besides, the second is the
one to compare. `--tokens 0` leaves the whole training out. A whole training runs the model once over its text, keeps
the activations on disk (`train.store`), and reads them again for every later pass.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unifeat.demo.prepare import prepare
from unifeat.models.language import load_language_model, load_tokenizer, model_identity, tokenizer_digest
from unifeat.models.opening import opening_of
from unifeat.pipeline.spaces import study_corpus
from unifeat.progress import set_mode
from unifeat.saes.training.activations import ActivationSource
from unifeat.saes.training.checkpoints import Checkpoints
from unifeat.saes.training.run import train_saes
from unifeat.saes.training.trainers import Job, autocast_pays, make_trainer
from unifeat.study.read import load_study
from unifeat.study.training import TrainOverride
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

warnings.simplefilter("ignore")
CPU = torch.device("cpu")


class Clock:
    """Wall-clock and processor seconds of a piece of work."""

    def __enter__(self) -> Clock:
        self.wall, self.cores = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cores += time.process_time()


def line(what: str, rows: int, clock: Clock, base: float | None = None) -> float:
    each = 1000 * clock.cores / rows
    ratio = f"{base / each:6.1f} x" if base else ""
    print(f"{what:44} {rows / clock.wall:9,.0f} /s {each:9.3f} s {ratio}", flush=True)
    return each


def steps(make: Callable[[], Any], batches: list[torch.Tensor], n: int) -> Clock:
    trainer = make()
    for batch in batches[:3]:
        trainer.step(batch)
    with Clock() as clock:
        for i in range(n):
            trainer.step(batches[i % len(batches)])
            trainer.n_training_steps += 1
    return clock


def saelens_trainer(job: Job, batches: list[torch.Tensor], *, autocast: bool) -> Any:
    """SAELens' own class and trainer, with the settings that ours has."""
    from sae_lens import TopKTrainingSAE

    trainer = make_trainer(job, CPU, batches)
    trainer.sae.__class__ = TopKTrainingSAE
    trainer.sae.W_enc.data = trainer.sae.W_enc.data.contiguous()
    if not autocast:
        import contextlib

        trainer.autocast_if_enabled = contextlib.nullcontext()
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each trainer (default 20)")
    parser.add_argument("--tokens", type=int, default=1_500_000, help="of the whole training; 0 leaves it out")
    parser.add_argument("--architecture", default="topk", help="of the whole training (but for topk at lr 3e-3)")
    parser.add_argument("--documents", type=int, default=500, help="of its text (default 500)")
    options = parser.parse_args()
    set_mode("log")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        study = load_study(prepare(folder))
        model = study.models["smollm2"]
        assert study.train is not None
        text = study.train.text.model_copy(update={"documents": options.documents})
        spec = study.train.overridden(None).model_copy(
            update={
                "text": text,
                "features": options.features,
                "k": options.k,
                "batch": options.batch,
                "tokens": max(options.tokens, options.batch),
                "store": True,
            }
        )
        tokenizer = load_tokenizer(model.name, model.dtype)
        point = HookPoint(options.layer)
        source = ActivationSource(
            study_corpus(text, tokenizer),
            {"model": model_identity(model.name, model.dtype), "tokenizer": tokenizer_digest(tokenizer)},
            [point],
            Windowing(text.context, opening_of(tokenizer, model.bos)),
            folder / "activations",
            lambda **kw: load_language_model(model.name, [point], dtype=model.dtype, **kw),
        )
        print(
            f"layer {options.layer}, {options.features} features, k = {options.k}, batch {options.batch}, "
            f"{torch.get_num_threads()} threads, bfloat16 products: {autocast_pays(source.model.d_model, CPU)}"
        )
        print(f"{'':44} {'activations':>12} {'a 1000, cores':>11}")
        with Clock() as clock:
            rows = source.group(0).values[point].to(torch.float32)
        line("language model, to the layer, and its file", len(rows), clock)
        batches = list(rows.split(options.batch))[:-1]
        job = Job(point, folder / "sae", spec, 0)
        dense = steps(lambda: saelens_trainer(job, batches, autocast=False), batches, max(options.steps // 4, 3))
        base = line("SAELens, its own class and trainer", max(options.steps // 4, 3) * options.batch, dense)
        if autocast_pays(rows.shape[1], CPU):
            half = steps(lambda: saelens_trainer(job, batches, autocast=True), batches, max(options.steps // 4, 3))
            line("SAELens, with autocast", max(options.steps // 4, 3) * options.batch, half, base)
        ours = steps(lambda: make_trainer(job, CPU, batches), batches, options.steps)
        line("unifeat, a step", options.steps * options.batch, ours, base)
        if not options.tokens:
            return
        if options.architecture != "topk":
            job = Job(
                point, folder / "sae", spec.overridden(TrainOverride(architecture=options.architecture, lr=3e-3)), 0
            )
        with Clock() as clock:
            (trained,) = train_saes(
                source,
                [job],
                spec,
                model,
                seed=0,
                prepend_bos=False,
                device=CPU,
                checkpoints=Checkpoints(folder / "training", {job.key: job.folder}, [point]),
            )
        about = trained.about
        line("unifeat, a whole training, all in", about["tokens"], clock, base)
        print(f"of it reading, training and checkpoints: {about['activations_per_second']:,} activations/s")
        print(
            f"held-out: FVU {trained.quality.fvu:.4f}, L0 {trained.quality.l0:.1f}, never fire "
            f"{trained.quality.dead_share:.2%} of {trained.quality.tokens:,} tokens, loss recovered "
            f"{trained.loss.recovered:.3f}"
        )
        first = next((p for p in about["curve"] if p["fvu"] <= 0.20), None)
        print(f"FVU at most 0.20 from {first['tokens']:,} activations on" if first else "FVU stayed above 0.20")


if __name__ == "__main__":
    main()
