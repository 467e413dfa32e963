"""The explorer of two made-up spaces: seconds to write it, megabytes, and seconds until the browser can be used.

    python benchmarks/explorer.py                       # 2 × 2,048 features
    python benchmarks/explorer.py --features 16384 --tokens 1000000

Words follow Zipf's law. Each type of word fires some features always and others at random; half of what the second
space fires is what the first does, under other names. With Playwright and Chromium, the page is opened and measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

L0 = 32
TYPES = 30_000
WORDS_OF_DOCUMENT = 800
D_MODEL = 576


@contextmanager
def timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    """Note how long a block takes."""
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start


def words(rng: np.random.Generator) -> list[str]:
    """Types of words; frequent ones are short, as in a language."""
    letters = np.array(list("etaoinshrdlucmfwygpbvk"))
    weights = 1 / np.arange(2, len(letters) + 2)
    length = np.clip(rng.poisson(np.linspace(2, 7, TYPES)), 1, None)
    return ["".join(rng.choice(letters, n, p=weights / weights.sum())) for n in length]


def made_up(folder: Path, features: int, tokens: int, seed: int = 0):
    """A run's folder and the cache that it needs; returns the run."""
    from unifeat.codes.align import align
    from unifeat.codes.shard import Shard, write_shard
    from unifeat.codes.store import CodeStore
    from unifeat.correlation.correlate import correlate
    from unifeat.runs.folder import Run
    from unifeat.saes.weights import decoder_piece
    from unifeat.store import cache_root
    from unifeat.text.corpus import build_corpus
    from unifeat.vocabulary.places import Places

    rng = np.random.default_rng(seed)
    types = words(rng)
    chance = 1 / np.arange(1, TYPES + 1) ** 1.05
    drawn = rng.choice(TYPES, tokens, p=chance / chance.sum())
    path = folder / "text.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, tokens, WORDS_OF_DOCUMENT):
            text = " ".join(types[t] for t in drawn[start : start + WORDS_OF_DOCUMENT])
            file.write(json.dumps({"text": text}) + "\n")
    corpus = build_corpus(str(path), documents=None, tokens=None, count_tokens=len, tokenizer_digest="words")
    # What each type of word fires, in space A; B has the same under other names, and half of it is drawn anew.
    own = rng.integers(0, features, (TYPES, L0 // 2))
    names = rng.permutation(features)
    stores = []
    for space in range(2):
        settings = {"format": "unifeat-codes/2", "text": corpus.digest, "cut": list(corpus.cut), "tokenizer": "words"}
        settings |= {"sae": f"made up {space} {features}", "d_sae": features, "hook": [space, "resid_post"]}
        store = CodeStore.create(cache_root() / "codes", settings)
        at = 0
        for group in range(corpus.groups):
            document, end, kind = [], [], []
            for part in corpus.parts(group):
                lengths = np.array([len(word) for word in part.text.split(" ")])
                ends = np.cumsum(lengths + 1) - 1
                document.append(np.full(len(ends), part.document))
                end.append(ends)
                kind.append(drawn[at : at + len(ends)])
                at += len(ends)
            document_, end_, kind_ = (np.concatenate(x).astype(np.int32) for x in (document, end, kind))
            fixed = own[kind_] if space == 0 else names[own[kind_]]
            some = (rng.zipf(1.3, (len(kind_), L0 - fixed.shape[1])) * 7919) % features
            if space:
                fixed = np.where(rng.random(fixed.shape) < 0.5, fixed, rng.integers(0, features, fixed.shape))
            ids = np.sort(np.concatenate([fixed, some], axis=1), axis=1)
            new = np.ones(ids.shape, bool)
            new[:, 1:] = ids[:, 1:] != ids[:, :-1]
            indptr = np.concatenate([[0], np.cumsum(new.sum(axis=1))]).astype(np.int64)
            value = rng.gamma(2, 4, int(indptr[-1])).astype(np.float32)
            places = Places(document_, end_, np.zeros(len(end_), np.int32), kind_)
            shard = Shard(indptr, ids[new].astype(np.uint16), value, places, {"read": len(end_)})
            write_shard(store.shard_path(group), shard)
        store.finish(corpus.groups)
        rows = rng.standard_normal((features, D_MODEL)).astype(np.float32)
        decoder_piece(settings["sae"]).write(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        stores.append(store)
    pairs = candidates(correlate(align(*stores), top=4))
    run = folder / "run"
    run.mkdir()
    pairs.to_parquet(run / "pairs.parquet", index=False)
    pd.DataFrame({"subspace": []}).to_parquet(run / "scores.parquet")
    facts = {"hook": "resid_post", "control": None}
    info = {
        "name": "made up",
        "created": "2026-01-01T00:00:00+00:00",
        "spaces": {
            name: facts | {"model": name[0], "layer": 0, "codes": str(store.folder)}
            for name, store in zip(("a@0", "b@0"), stores, strict=True)
        },
        "pairs": [{"space_a": "a@0", "space_b": "b@0", "kept": int(pairs["kept"].sum())}],
    }
    (run / "run.json").write_text(json.dumps(info))
    return Run(run)


def candidates(found) -> pd.DataFrame:
    """What `pairs.parquet` holds, as far as the explorer reads it: the best four of each; mutual ones are kept."""
    ab, ba = found.a_to_b, found.b_to_a
    a = np.concatenate([np.repeat(np.arange(len(ab.index)), ab.index.shape[1]), ba.index.ravel()])
    b = np.concatenate([ab.index.ravel(), np.repeat(np.arange(len(ba.index)), ba.index.shape[1])])
    r = np.concatenate([ab.value.ravel(), ba.value.ravel()])
    table = pd.DataFrame({"feature_a": a, "feature_b": b, "correlation": r})
    table["cofiring"] = np.concatenate([ab.count.ravel(), ba.count.ravel()])
    table = table[(a >= 0) & (b >= 0) & ~np.isnan(r)].drop_duplicates(["feature_a", "feature_b"])
    mutual = (ab.index[table["feature_a"], 0] == table["feature_b"]) & (
        ba.index[table["feature_b"], 0] == table["feature_a"]
    )
    kept = mutual & (table["correlation"] > 0.1)
    reason = np.where(kept, "", "not chosen by mutual matching")
    names = {"space_a": "a@0", "space_b": "b@0"}
    return table.assign(
        correlation_heldout=table["correlation"], kept=kept, dropped_because=reason, **names
    ).reset_index(drop=True)


def opened(page: Path) -> dict[str, float]:
    """Seconds until maps and list can be used, until contexts are there too, and milliseconds of a frame of panning."""
    from playwright.sync_api import sync_playwright

    found: dict[str, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready]", timeout=60_000)
        found["usable"] = time.perf_counter() - start
        tab.wait_for_selector("html[data-ready=all]", timeout=60_000)
        found["with contexts"] = time.perf_counter() - start
        tab.wait_for_selector(".panel[data-drawn]", timeout=60_000)
        box = tab.locator(".frame").first.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.evaluate(
            "() => { window.frames_ = []; const f = (t) => { frames_.push(t); requestAnimationFrame(f); };"
            " requestAnimationFrame(f); }"
        )
        for step in range(30):
            tab.mouse.move(x + 3 * step, y + step)
        tab.mouse.up()
        times = np.diff(tab.evaluate("() => window.frames_"))
        found["frame_ms"] = float(np.median(times)) if len(times) else float("nan")
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--keep", type=Path, help="copy the page there")
    args = parser.parse_args()
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["UNIFEAT_CACHE"] = str(Path(name) / "cache")
        with timed("made up", seconds):
            run = made_up(Path(name), args.features, args.tokens)
        from unifeat.explorer.write import write_explorer

        with timed("written", seconds):
            page = write_explorer(run)
        with timed("written again", seconds):
            write_explorer(run)
        print(f"2 × {args.features:,} features, {args.tokens:,} tokens: {page.stat().st_size / 1e6:.1f} MB")
        if args.keep:
            shutil.copy(page, args.keep)
        try:
            seconds |= opened(page)
        except ImportError:
            print("without Playwright, the page is not opened")
    for what, value in seconds.items():
        print(f"{what:>15}: {value:.2f}{' ms' if what.endswith('_ms') else ' s'}")


if __name__ == "__main__":
    main()
