"""Peak memory and time a cell of growing grids: matching, scoring, the run's files and its report.

    python benchmarks/grid.py [--sides 2 4 8] [--features 8192] [--tokens 60000]

A grid of n × n cells has n spaces on either side, with made-up codes and decoders, so that no language model is needed;
everything after encoding is what `unifeat run` does. Each grid runs in a process of its own, from an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ACTIVE, DOCUMENT = 32, 200  # features of a token, tokens of a document


@dataclass(frozen=True)
class Tokenizer:
    """Token i is the word `w00i `; loads itself."""

    def __call__(self) -> Tokenizer:
        return self

    def decode(self, ids: list[int]) -> str:
        return f"w{ids[0]:05d} "


@dataclass(frozen=True)
class Rows:
    """A decoder on disk."""

    path: str

    def rows(self, features: Any) -> Any:
        return np.asarray(np.load(self.path, mmap_mode="r")[features])


def corpus_of(folder: Path, words: Any) -> Any:
    """The text that the tokens are of."""
    from unifeat.text.corpus import build_corpus

    documents = words.reshape(-1, DOCUMENT)
    lines = [json.dumps({"text": "".join(Tokenizer().decode([int(w)]) for w in one)}) for one in documents]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return build_corpus(
        str(folder / "text.jsonl"),
        documents=len(documents),
        tokens=None,
        count_tokens=len,
        tokenizer_digest="words",
    )


def space_of(folder: Path, name: str, corpus: Any, words: Any, causes: Any, features: int, seed: int) -> Any:
    """A space: the features of a token are those of its causes, in an order of its own; spaces share most of them."""
    from unifeat.codes.shard import Shard, narrow_ids, write_shard
    from unifeat.codes.store import CodeStore
    from unifeat.codes.top_activations import TopTokens, top_unit
    from unifeat.pipeline.spaces import Space
    from unifeat.store import cache_root
    from unifeat.vocabulary.places import Places

    rng = np.random.default_rng(seed)
    order = rng.permutation(features)
    settings = {"text": corpus.digest, "cut": list(corpus.cut), "tokenizer": "words", "d_sae": features, "sae": name}
    store = CodeStore.create(cache_root() / "codes", settings)
    first, last = 0, 0
    for group, (one, other) in enumerate(corpus.group_documents):
        first, last = one * DOCUMENT, (other + 1) * DOCUMENT
        own = causes[first:last].copy()
        private = rng.random(own.shape) < 0.3
        own[private] = rng.integers(0, features, int(private.sum()))
        ids = np.sort(order[own], axis=1)
        new = np.ones(ids.shape, bool)
        new[:, 1:] = ids[:, 1:] != ids[:, :-1]
        indptr = np.concatenate([[0], np.cumsum(new.sum(axis=1))])
        value = rng.standard_exponential(int(new.sum()), dtype=np.float32) + np.float32(0.1)
        rows = np.arange(first, last)
        places = Places(
            (rows // DOCUMENT).astype(np.int32),
            ((rows % DOCUMENT + 1) * 7).astype(np.int32),
            np.zeros(len(rows), np.int32),
            words[first:last].astype(np.int32),
        )
        stats = {"read": len(rows), "special": 0, "first": 0, "sink": 0}
        write_shard(store.shard_path(group), Shard(indptr, ids[new].astype(narrow_ids(features)), value, places, stats))
    store.finish(corpus.groups)
    hidden = np.random.default_rng(0).normal(size=(features, 128))
    rows_of = (hidden + rng.normal(size=hidden.shape))[np.argsort(order)].astype(np.float32)
    np.save(folder / f"{name}.npy", rows_of / np.linalg.norm(rows_of, axis=1, keepdims=True))
    tokens = TopTokens(top_unit(store, 10), Tokenizer(), "words", 5)
    info = {"model": name[0], "layer": int(name[2:]), "hook": "resid_post", "sae": name, "d_in": 128}
    info |= {"d_sae": features, "tokens_read": len(words), "masked": {"special": 0, "first": 0, "sink": 0}}
    info |= {"padding": 0, "tokens_kept": len(words), "l0": float(ACTIVE), "fvu": 0.2, "alive": features}
    info |= {"dead_share": 0.0, "encoded_as": "output", "codes": str(store.folder), "control": None, "warnings": []}
    info |= {"architecture": "topk"}
    return Space(name, name[0], int(name[2:]), store, Tokenizer(), Rows(str(folder / f"{name}.npy")), tokens, info)  # type: ignore[arg-type]


def run_grid(side: int, args: argparse.Namespace) -> dict[str, float]:
    """One grid in this process: seconds of matching, scoring and reporting, and the peak of memory."""
    from unifeat.engine import Local
    from unifeat.pipeline.encode import Prepared
    from unifeat.pipeline.run import Clock, compare_spaces
    from unifeat.progress import set_mode
    from unifeat.study.spec import Study

    set_mode("quiet")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["UNIFEAT_CACHE"] = str(Path(folder) / "cache")
        rng = np.random.default_rng(1)
        tokens = args.tokens // DOCUMENT * DOCUMENT
        words = rng.integers(0, 5000, tokens)
        popular = np.minimum(rng.pareto(0.5, (tokens, ACTIVE)) * 20, args.features - 1)
        corpus = corpus_of(Path(folder), words)
        spaces = [
            space_of(Path(folder), f"{letter}@{layer}", corpus, words, popular.astype(np.int64), args.features, seed)
            for seed, (letter, layer) in enumerate((letter, n) for letter in "ab" for n in range(side))
        ]
        del popular
        layers = list(range(side))
        study = Study.model_validate(
            {
                "text": {"source": str(Path(folder) / "text.jsonl")},
                "models": {letter: {"name": letter} for letter in "ab"},
                "spaces": [{"model": letter, "layers": layers, "sae": "made", "labels": "off"} for letter in "ab"],
                "geometry": ["svcca", {"cka": {"debiased": True}}],
                "inference": {"permutations": args.permutations, "rematches": 0, "bootstraps": args.bootstraps}
                | {"subsamples": args.subsamples},
            }
        )
        start, clock = time.perf_counter(), Clock()
        models = {letter: {"name": letter, "architecture": "made", "layers": side, "d_model": 128} for letter in "ab"}
        for facts in models.values():
            facts |= {"revision": None, "commit": None, "dtype": "float32", "bos": False}
        run = compare_spaces(study, Prepared(corpus, spaces, models), Path(folder) / "run", Local(), clock)
        seconds = time.perf_counter() - start
        kept = sum(pair["kept"] for pair in run.info["pairs"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        page = run.report.stat().st_size / 1e6
        return {"seconds": seconds, "peak": peak, "kept": kept, "page": page} | clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--features", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--permutations", type=int, default=20)
    parser.add_argument("--bootstraps", type=int, default=5)
    parser.add_argument("--subsamples", type=int, default=4)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_grid(args.one, args)))
        return
    print(f"{args.features:,} features a space, {args.tokens:,} tokens")
    first: dict[str, float] = {}
    for side in args.sides:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--one", str(side)], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found | {"cells": side * side}
        a_cell = found["seconds"] / side**2
        print(
            f"{side} × {side}: peak {found['peak']:.2f} GB ({found['peak'] / first['peak']:.2f} ×), "
            f"{a_cell:.2f} s a cell ({a_cell / (first['seconds'] / first['cells']):.2f} ×; matching "
            f"{found['match'] / side**2:.2f}, scoring {found['score'] / side**2:.2f}, files and report "
            f"{found['report'] / side**2:.2f}), {found['kept']:,.0f} pairs kept, report {found['page']:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
