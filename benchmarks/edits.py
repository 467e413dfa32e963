"""Edits of single positions by copies behind a window, beside a window for each edit (`unifeat.models.edits`).

    python benchmarks/edits.py smollm2@15 gemma3@9 [--window 64 128] [--edits 16 64] [--windows 8] [--repeat 3]

Runs the demo's models as the demo does. Prints, for each, medians of wall-clock seconds and their ratio, milliseconds
an edit, and how far the two differ in bfloat16: the KL between the two ways' predictions, beside that of an edit.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import torch
from torch import Tensor

from unifeat.demo.prepare import demo_study
from unifeat.models import LanguageModel, load_language_model
from unifeat.models.edits import Edits, Way, copies_agree, edited_logits
from unifeat.models.opening import bos_of
from unifeat.progress import set_mode
from unifeat.text.corpus import build_corpus
from unifeat.vocabulary.hook_points import HookPoint


def text_windows(model: LanguageModel, bos: int | None, windows: int, length: int) -> Tensor:
    """Windows of the demo's text."""
    study = demo_study()
    corpus = build_corpus(study.text.source, documents=60, tokens=None, count_tokens=len, tokenizer_digest="")
    first = [] if bos is None else [bos]
    rows = []
    for part in corpus.parts(0):
        ids = model.tokenizer(part.text, add_special_tokens=False)["input_ids"]
        if len(ids) >= length:
            rows.append((first + ids)[:length])
    return torch.tensor(rows[:windows])


def seconds(model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits, way: Way) -> float:
    start = time.perf_counter()
    for _ in edited_logits(model, ids, point, edits, way=way):
        pass
    return time.perf_counter() - start


def divergences(model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits) -> tuple[float, float, float]:
    """KL in nats: median of edits to the clean model; largest of copies without one, and of one way to the other."""
    nothing = Edits(edits.window, edits.position, torch.zeros_like(edits.delta))
    kl = []
    found: dict[Way, Tensor] = {}
    for way in ("copies", "plain"):
        logits = {}
        for batch in edited_logits(model, ids, point, edits, way=way):
            clean = batch.clean[torch.from_numpy(batch.place)].float().log_softmax(-1)
            edited = batch.logits.float().log_softmax(-1)
            kl += divergence(clean, edited).tolist() if way == "copies" else []
            logits |= dict(zip(batch.edit.tolist(), edited, strict=True))
        found[way] = torch.stack([logits[i] for i in range(len(edits))])
    noise = []
    for batch in edited_logits(model, ids, point, nothing, way="copies"):
        clean = batch.clean[torch.from_numpy(batch.place)].float().log_softmax(-1)
        noise += divergence(clean, batch.logits.float().log_softmax(-1)).tolist()
    return median(kl), max(noise), float(divergence(found["plain"], found["copies"]).max())


def divergence(clean: Tensor, other: Tensor) -> Tensor:
    return (clean.exp() * (clean - other)).sum(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="+")
    parser.add_argument("--window", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--edits", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    set_mode("quiet")
    study = demo_study()
    for space in options.spaces:
        name, _, layer = space.partition("@")
        point, spec = HookPoint(int(layer)), study.models[name]
        model = load_language_model(spec.name, [point], dtype=options.dtype, whole=True)
        for length in options.window:
            ids = text_windows(model, bos_of(model.tokenizer, spec.bos), options.windows, length)
            norm = model.activations(ids, [point])[point].float().norm(dim=-1).median()
            for count in options.edits:
                rng = np.random.default_rng(0)
                window = np.repeat(np.arange(len(ids)), count)
                delta = torch.from_numpy(rng.standard_normal((len(window), model.d_model)).astype(np.float32))
                # As large as a feature's part of an activation: a fifth of the activation's norm.
                delta *= 0.2 * norm / delta.norm(dim=-1, keepdim=True)
                edits = Edits(window, rng.integers(1, length, len(window)), delta)
                times = [
                    [seconds(model, ids, point, edits, way) for way in ("copies", "plain")]
                    for _ in range(options.repeat)
                ]
                copies, plain = (median(column) for column in zip(*times, strict=True))
                of_edit, of_nothing, of_ways = divergences(model, ids, point, edits)
                print(
                    f"{space} {options.dtype}: {len(ids)} windows of {length}, {count} edits each: "
                    f"copies {copies:.2f} s ({1000 * copies / len(edits):.1f} ms an edit), "
                    f"plain {plain:.2f} s ({1000 * plain / len(edits):.1f} ms), {plain / copies:.1f} ×; "
                    f"KL of an edit {of_edit:.1e} (median), "
                    f"of none {of_nothing:.1e}, between the ways {of_ways:.1e} (largest); "
                    f"agree: {copies_agree(model, ids, point, edits)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
