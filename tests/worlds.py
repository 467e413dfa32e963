"""A small made-up run whose contents are known: each feature fires on one word."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unifeat.codes.shard import Shard, write_shard
from unifeat.codes.store import CodeStore
from unifeat.runs.folder import Run
from unifeat.saes.weights import decoder_piece
from unifeat.store import cache_root
from unifeat.text.corpus import Corpus, Cut, build_corpus
from unifeat.vocabulary.places import Places

HOSTILE = ["<script>alert(1)</script>", "</script><img", "src=x", 'onerror="alert(2)">']
HOSTILE += ["a\u2028b", "{{js}}", "🎉", "&amp;"]
WORDS = ["Geneva", "Monday", "White", "president", "river", "because", "seven", "angry", *HOSTILE]
FILL = ["the", "of", "and", "to", "in", "said", "that", "was"]
FEATURES = 24  # of each space; those beyond the words never fire
CREATED = "2026-01-02T03:04:05+00:00"


@dataclass
class World:
    """The run, and what is in it.

    Attributes:
        word: of each space, the word that each feature fires on; None for features that never fire.
        rows: of each space, the documents, character ends, and (rows, features) codes.
    """

    run: Run
    corpus: Corpus
    stores: list[CodeStore]
    word: list[list[str | None]]
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def documents(rng: np.random.Generator, count: int = 40) -> list[str]:
    """Words among others; each word of `WORDS` is in many documents."""
    return [" ".join(rng.choice(WORDS if rng.random() < 0.4 else FILL) for _ in range(60)) for _ in range(count)]


def make_world(folder: Path, *, spaces: tuple[str, ...] = ("a@0", "b@1"), part: int = 300, seed: int = 0) -> World:
    """Write the text, the codes and decoder rows of the spaces into the cache, and a run's folder.

    Feature k of the first space fires on word k; in the others, names are permuted, and tokens are halves of words.
    Documents are longer than a part, so that they lie in several parts and shards.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "text.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents(rng)), encoding="utf-8")
    corpus = build_corpus(
        str(source), documents=None, tokens=None, count_tokens=len, tokenizer_digest="", cut=Cut(900, part)
    )
    world = World(Run(folder / "run"), corpus, [], [], [])
    for number in range(len(spaces)):
        order = rng.permutation(FEATURES) if number else np.arange(FEATURES)
        word: list[str | None] = [None] * FEATURES
        for k, name in enumerate(WORDS):
            word[order[k]] = name
        world.word.append(word)
        world.stores.append(_store(world, number, rng))
        rows = rng.standard_normal((FEATURES, 8)).astype(np.float32)
        decoder_piece(f"sae {number}").write(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    _write_run(world, spaces, rng)
    return world


def _store(world: World, number: int, rng: np.random.Generator) -> CodeStore:
    corpus, feature_of = world.corpus, {word: f for f, word in enumerate(world.word[number]) if word}
    settings = {"format": "unifeat-codes/2", "text": corpus.digest, "cut": list(corpus.cut), "sae": f"sae {number}"}
    settings |= {"tokenizer": f"tokenizer {number}", "d_sae": FEATURES, "hook": [number, "resid_post"]}
    store = CodeStore.create(cache_root() / "codes", settings)
    found: list[tuple[int, int, np.ndarray]] = []
    ids: dict[str, int] = {}
    for group in range(corpus.groups):
        rows = []
        for part in corpus.parts(group):
            for at in re.finditer(r" ?[^ ]+", part.text):
                middle = (at.start() + at.end()) // 2
                ends = [at.end()] if number == 0 or middle == at.start() else [middle, at.end()]
                start = at.start()
                for end in ends:
                    codes = np.zeros(FEATURES, np.float32)
                    feature = feature_of.get(at[0].strip())
                    if feature is not None and end == at.end():  # (values are all different)
                        codes[feature] = 1 + rng.random() + 5 * (rng.random() < 0.2)
                    token = ids.setdefault(part.text[start:end], len(ids))
                    rows.append((part.document, part.start + end, token, codes))
                    start = end
        document, end_, token_, codes_ = (np.array(column) for column in zip(*rows, strict=True))
        row, feature_ = np.nonzero(codes_)
        indptr = np.searchsorted(row, np.arange(len(rows) + 1)).astype(np.int64)
        order = np.zeros(len(rows), np.int32)
        places = Places(*(array.astype(np.int32) for array in (document, end_)), order, token_.astype(np.int32))
        shard = Shard(indptr, feature_.astype(np.uint16), codes_[row, feature_], places, {"read": len(rows)})
        write_shard(store.shard_path(group), shard)
        found += list(zip(document, end_, codes_, strict=True))
    store.finish(corpus.groups)
    world.rows.append(tuple(np.array(column) for column in zip(*found, strict=True)))  # type: ignore[arg-type]
    return store


def _write_run(world: World, spaces: tuple[str, ...], rng: np.random.Generator) -> None:
    folder = world.run.folder
    folder.mkdir()
    tables, pairs = [], []
    for b in range(1, len(spaces)):
        table = _pairs(world, spaces, b, rng)
        tables.append(table)
        pairs.append({"space_a": spaces[0], "space_b": spaces[b], "kept": int(table["kept"].sum())})
    pd.concat(tables).to_parquet(folder / "pairs.parquet", index=False)
    scores = pd.DataFrame({"subspace": ["all", "Places", "Days", "Places · random words"]})
    scores.assign(metric="rsa", settings="{}").to_parquet(folder / "scores.parquet", index=False)
    members = [(spaces[0], "Places", 0), (spaces[0], "Places · random words", 1), (spaces[0], "Days", 1)]
    members += [(spaces[1], "Places", world.word[1].index("Geneva"))]
    pd.DataFrame(members, columns=["space", "subspace", "feature"]).to_parquet(folder / "members.parquet", index=False)
    facts: dict[str, Any] = {"hook": "resid_post", "control": None, "d_sae": FEATURES, "layer": 0}
    info = {
        "name": "made up </script>",
        "created": CREATED,
        "versions": {"unifeat": "0.1.0"},
        "spaces": {
            name: facts | {"model": name.split("@")[0], "codes": str(store.folder)}
            for name, store in zip(spaces, world.stores, strict=True)
        },
        "pairs": pairs,
    }
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    (folder / "study.yaml").write_text("name: made-up\nmatching:\n  min_correlation: 0.1\n", encoding="utf-8")


def _pairs(world: World, spaces: tuple[str, ...], b: int, rng: np.random.Generator) -> pd.DataFrame:
    """Features of the same word are kept, but for the last word; each has another candidate, which was dropped."""
    rows = []
    for feature_a, word in enumerate(world.word[0]):
        if word is None:
            continue
        kept = word != WORDS[-1]
        r = 0.95 - 0.03 * feature_a
        reason = "" if kept else "r at or below 0.1"
        rows.append((feature_a, world.word[b].index(word), r, r - 0.05, kept, reason))
        other = world.word[b].index(WORDS[(feature_a + 1) % len(WORDS)])
        rows.append((feature_a, other, 0.2, 0.1, False, "not chosen by mutual matching"))
    columns = ["feature_a", "feature_b", "correlation", "correlation_heldout", "kept", "dropped_because"]
    table = pd.DataFrame(rows, columns=columns)
    count = len(table)
    return table.assign(
        space_a=spaces[0], space_b=spaces[b], cofiring=rng.integers(1, 90, count),
        correlation_within_token=np.where(table["kept"], 0.5, np.nan), decoy_fdr=np.where(table["kept"], 0.01, np.nan),
    )  # fmt: skip


def enrich(world: World) -> None:
    """Add to the run what only some runs have: labels, the effects of one pair, and families with other spaces."""
    folder, pairs = world.run.folder, world.run.pairs
    labels = pd.DataFrame({"space": "a@0", "feature": range(len(WORDS)), "automatic": False})
    labels = labels.assign(label=[f"label {f}" for f in range(len(WORDS))])
    far = pd.DataFrame({"space": "c@2", "feature": [7], "automatic": True, "label": ["auto: far away"]})
    pd.concat([labels, far]).to_parquet(folder / "labels.parquet", index=False)
    row = pairs.iloc[2]
    effect = {"space_a": "a@0", "space_b": "b@1", "feature_a": row["feature_a"], "feature_b": row["feature_b"]}
    effect |= {"direct": 0.5, "added": np.nan, "removed": 0.25, "promotes_a": ["up"], "suppresses_a": ["down"]}
    effect |= {"promotes_b": ["<b>"], "suppresses_b": []}
    pd.DataFrame([effect]).to_parquet(folder / "effects.parquet")
    families = pd.DataFrame({"family": [0, 1, 2], "r_min": [0.5, np.nan, 0.25], "elsewhere@9": [1, 2, 3]})
    families["a@0"] = pd.array([1, None, 9], dtype="Int32")
    families["b@1"] = pd.array([3, None, None], dtype="Int32")
    if "c@2" in world.run.info["spaces"]:
        families["c@2"] = pd.array([7, None, None], dtype="Int32")
    families.to_parquet(folder / "families.parquet")


def add_pair(world: World, feature_a: int, feature_b: int, r: float) -> None:
    """Add a kept pair to the run, as methods do that give a feature several partners."""
    path = world.run.folder / "pairs.parquet"
    pairs = pd.read_parquet(path)
    row = pairs[pairs["kept"]].head(1).assign(feature_a=feature_a, feature_b=feature_b, correlation=r)
    pd.concat([pairs, row]).astype(dict(pairs.dtypes)).to_parquet(path, index=False)


def spiral(index: np.ndarray, distance: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """Places that are far from each other."""
    n = np.arange(len(index))
    turn = 0.5 * n + (0 if rows is None else 1)
    return np.stack([(n + 3) * np.cos(turn), (n + 3) * np.sin(turn)], axis=1).astype(np.float32)
