"""A run's folder as the pipeline writes it, small and made up."""

import json
import textwrap
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unifeat.inference.nulls import NULLS
from unifeat.runs.folder import Run

MEASURES = [("svcca", {"dims": 32}), ("svcca", {"dims": 1}), ("rsa", {"inner": "cosine", "outer": "spearman"})]
MEASURES += [("cka", {})]
TEXT = (
    "The central bank raised its rate to 4.5 percent on Tuesday, the third rise this year.\n\nOfficials in Geneva said "
    "talks would resume in March, after the ceasefire that both sides signed last week had held for six days. "
)
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(**options) -> Run:
        return write_run(tmp_path / "run", **options)

    return make


def write_run(
    folder: Path,
    groups: dict[str, list[int]] | None = None,
    *,
    width: int = 256,
    kept: int = 60,
    heldout: bool = True,
    undefined: bool = False,
    token: str = " Tuesday",
    text: str = TEXT,
    seed: int = 0,
) -> Run:
    """Write a run of all layers of each group against all layers of the others.

    undefined: the scores of the first cell are NaN, with a flag.
    token: the token that fires features in the examples.
    """
    rng = np.random.default_rng(seed)
    groups = groups or {"smollm2": [7, 15, 22], "gemma3": [4, 9, 13]}
    spaces = {f"{g}@{n}": _space(g, n, width) for g, layers in groups.items() for n in layers}
    cells = [(a, b) for a, b in combinations(spaces, 2) if a.split("@")[0] != b.split("@")[0]]
    pairs, facts, scores, shown, features = [], [], [], [], []
    for number, (a, b) in enumerate(cells):
        n_kept = max(0, kept - 7 * number) if kept else 0
        table = _pairs(rng, a, b, spaces, n_kept, width, heldout, token)
        pairs.append(table)
        facts.append(_facts(rng, a, b, table, heldout, width))
        nothing = (undefined and number == 0) or n_kept < 3
        scores += [_score(rng, a, b, spaces, m, n_kept, nothing) for m in MEASURES]
        good = table[table["kept"]]
        shown += [good.head(3).assign(chosen="strongest"), good.iloc[3:].head(3).assign(chosen="random")]
        features += [(row[f"space_{s}"], row[f"feature_{s}"]) for _, row in good.head(6).iterrows() for s in "ab"]
    table = pd.DataFrame(scores)
    folder.mkdir(parents=True, exist_ok=True)
    table.assign(q=(table["p"] * 1.5).clip(upper=1)).to_parquet(folder / "scores.parquet", index=False)
    pd.concat(pairs, ignore_index=True).to_parquet(folder / "pairs.parquet", index=False)
    pd.concat(shown, ignore_index=True).to_parquet(folder / "shown.parquet", index=False)
    _examples(rng, sorted(set(features)), text, token).to_parquet(folder / "examples.parquet", index=False)
    info = {
        "name": "made-up",
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"python": "3.11.9", "unifeat": "0.1.0", "torch": "2.13.0", "numpy": "2.2.0"},
        "seed": seed,
        "text": {"source": "/data/news.parquet", "documents": 170, "characters": 612_345, "digest": "ab" * 32}
        | {"context": 128},
        "models": {g: {"name": f"/models/{g}.gguf", "architecture": "llama", "layers": 30, "d_model": 576}
                   | {"dtype": "bfloat16", "bos": g != "smollm2"} for g in groups},
        "spaces": spaces,
        "pairs": facts,
        "timings": {"encode": 201.4, "match": 20.1, "score": 31.0},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "study.yaml").write_text(_STUDY.format(heldout=str(heldout).lower()))
    return Run(folder)


_STUDY = textwrap.dedent("""\
    name: made-up
    matching:
      method: mutual
      min_correlation: 0.1
      min_count: 20
      heldout: {heldout}
    inference:
      permutations: 500
    seed: 0
    """)


def _space(group: str, layer: int, width: int) -> dict:
    return {
        "model": group,
        "layer": layer,
        "hook": "resid_post",
        "sae": f"/saes/{group}-l{layer}",
        "d_in": 576,
        "d_sae": width,
        "architecture": "topk",
        "tokens_read": 123_457,
        "masked": {"special": 0, "first": 965, "sink": 31 + layer},
        "tokens_kept": 122_461 - layer,
        "l0": 32.0,
        "fvu": 0.2 + layer / 100,
        "alive": width - 5,
        "dead_share": 5 / width,
        "codes": "/cache/codes/0123",
        "control": None,
        "warnings": [],
    }


def _pairs(rng, a, b, spaces, kept, width, heldout, token) -> pd.DataFrame:
    n = kept + 40
    r = np.where(np.arange(n) < kept, np.clip(rng.beta(2, 3, n) + 0.1, 0.1, 0.99), rng.uniform(0, 0.3, n))
    reasons = rng.choice(["r at or below 0.1", "fires on fewer than 20 tokens", "not chosen by mutual matching"], n)
    is_kept = np.arange(n) < kept
    counts = rng.integers(20, 900, (2, n))
    words = [[token, " Wednesday", "day", "\n", "\N{REPLACEMENT CHARACTER}"]] * n
    return pd.DataFrame(
        {
            "space_a": a, "layer_a": spaces[a]["layer"], "feature_a": rng.permutation(max(width, n))[:n],
            "space_b": b, "layer_b": spaces[b]["layer"], "feature_b": rng.permutation(max(width, n))[:n],
            "correlation": r,
            "correlation_heldout": np.clip(r + rng.normal(-0.02, 0.05, n), -1, 1) if heldout else np.nan,
            "cofiring": (counts.min(axis=0) * r).astype(int), "count_a": counts[0], "count_b": counts[1],
            "top_tokens_a": words, "top_tokens_b": words,
            "kept": is_kept, "dropped_because": np.where(is_kept, "", reasons),
        }
    ).sort_values(["kept", "correlation"], ascending=False, ignore_index=True)  # fmt: skip


def _facts(rng, a, b, table, heldout, width) -> dict:
    good = table[table["kept"]]
    best = np.quantile(rng.beta(1.2, 2.2, width), np.linspace(0, 1, 21)).tolist()
    chance = np.quantile(rng.beta(2, 40, width), np.linspace(0, 1, 21)).tolist()
    mean, mean_heldout = (good[c].mean() for c in ("correlation", "correlation_heldout"))
    return {
        "space_a": a,
        "space_b": b,
        "candidates": len(table),
        "kept": len(good),
        "dropped": {str(k): int(v) for k, v in table.loc[~table["kept"], "dropped_because"].value_counts().items()},
        "mean_correlation": None if np.isnan(mean) else float(mean),
        "mean_correlation_heldout": None if np.isnan(mean_heldout) else float(mean_heldout),
        "tokens_aligned": 104_321,
        "share_a": 0.852,
        "share_b": 0.871,
        "tokens_fitted": 52_100 if heldout else 104_321,
        "tokens_heldout": 52_221 if heldout else 0,
        "best_r": {"a_to_b": best, "b_to_a": best},
        "best_r_shifted": {"a_to_b": chance, "b_to_a": chance},
        "mutual_shifted_over_0.1": 11,
    }


def _score(rng, a, b, spaces, measure, n, nothing) -> dict:
    null = float(rng.uniform(0.05, 0.2))
    score = null + float(rng.uniform(-0.01, 0.35))
    nan = float("nan")
    values = {"score": score, "null_mean": null, "null_sd": 0.01, "corrected": max(0.0, score - null - 0.02)}
    values |= {"p": 1 / 501 if score > null + 0.02 else 0.4}
    row = {"space_a": a, "layer_a": spaces[a]["layer"], "space_b": b, "layer_b": spaces[b]["layer"]}
    row |= {"subspace": "all", "metric": measure[0], "settings": json.dumps(measure[1], sort_keys=True), "n_pairs": n}
    row |= dict.fromkeys(values, nan) if nothing else values
    dims = measure[1].get("dims", 0)
    for null in NULLS.values():
        for name, value in null.columns.items():
            row.setdefault(name, value)
    row.setdefault("score_heldout", nan)
    row |= {
        "ci_low": nan,
        "ci_high": nan,
        "ci_sd": nan,
        "details": json.dumps({"dims_a": dims, "dims_b": dims} if dims else {}),
    }
    return row | {"flags": ["undefined: 0 pairs are too few"] if nothing else []}


def _examples(rng, features, text, token) -> pd.DataFrame:
    rows = []
    for space, feature in features:
        for rank in range(5):
            at = int(rng.integers(20, len(text) - 20))
            rows.append(
                {"space": space, "feature": feature, "rank": rank, "activation": 9.0 - rank, "document": rank}
                | {"before": text[max(0, at - 70) : at], "token": token, "after": text[at : at + 70]}
            )
    columns = ["space", "feature", "rank", "activation", "document", "before", "token", "after"]
    return pd.DataFrame(rows, columns=columns)
