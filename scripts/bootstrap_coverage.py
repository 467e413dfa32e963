"""Do the intervals of `matching.bootstrap` hold what they say? Many simulated texts, one truth, how often it is inside.

Documents have topics: a feature fires more often in documents of its own, and how faithfully a feature of B follows its
twin in A differs from document to document, so that tokens of one document are far from independent, as in real text.
A third of B follows nothing.

    python scripts/bootstrap_coverage.py [--texts 200] [--draws 400]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from unifeat.correlation.block_sums import block_edges, block_sums
from unifeat.correlation.correlate import correlate
from unifeat.correlation.pair_sums import correlate_pairs
from unifeat.matching.bootstrap import bootstrap, draw_weights, percentiles, resampled_r
from unifeat.matching.methods import select
from unifeat.progress import set_mode

FEATURES, SHARED, TOPICS, TOKENS, TOP = 60, 40, 6, 60, 3
LEVEL, THRESHOLD = 0.95, 0.1
RATES = ("kept", "share_a", "share_b", "mean_correlation", "mean_correlation_heldout")


def text(rng: np.random.Generator, documents: int) -> tuple[Any, Any, np.ndarray]:
    """Codes of both spaces (CSR, tokens × FEATURES) and where the documents start; their lengths differ fivefold."""
    fixed = np.random.default_rng(0)  # the kind of text: the same for all texts
    lean = fixed.gamma(0.4, 1.0, (TOPICS, FEATURES))  # topic → how often a feature fires
    noise = np.linspace(0.0, 3.0, FEATURES)
    second = fixed.permutation(FEATURES)
    lengths = rng.integers(TOKENS // 3, TOKENS * 5 // 3, documents)
    mood = rng.gamma(1.0, 1.0, (documents, FEATURES)) * lean[rng.integers(0, TOPICS, documents)]
    rate = np.minimum(0.03 + 0.1 * mood, 0.9).repeat(lengths, axis=0)
    a = rng.exponential(1.0, rate.shape) * (rng.random(rate.shape) < rate)
    other = rng.exponential(1.0, rate.shape) * (rng.random(rate.shape) < rate[:, second])
    follows = rng.beta(0.8, 0.4, (documents, FEATURES)).repeat(lengths, axis=0)
    b = a * (rng.random(rate.shape) < follows) + 0.3 * a[:, second]
    b[:, SHARED:] = 0
    b += noise * other
    start = np.r_[0, np.cumsum(lengths)[:-1]]
    return sparse.csr_array(a), sparse.csr_array(b), start


def keep(table: pd.DataFrame) -> np.ndarray:
    """Mutual best partners above a threshold."""
    rows = np.flatnonzero(table["correlation"] > THRESHOLD)
    kept = np.zeros(len(table), bool)
    kept[rows[select(table.iloc[rows], "mutual")]] = True
    return kept


def truth(documents: int = 20_000) -> np.ndarray:
    """(FEATURES, FEATURES): r of every pair in the limit of much text, summed 500 documents at a time."""
    sums = np.zeros((2 * FEATURES + 1, 2 * FEATURES + 1))
    for part in range(documents // 500):
        a, b, _ = text(np.random.default_rng([1, part]), 500)
        columns = np.hstack([a.toarray(), b.toarray(), np.ones((a.shape[0], 1))])
        sums += columns.T @ columns
    mean = sums[-1, :-1] / sums[-1, -1]
    covariance = sums[:-1, :-1] / sums[-1, -1] - np.outer(mean, mean)
    spread = np.sqrt(covariance.diagonal())
    return (covariance / np.outer(spread, spread))[:FEATURES, FEATURES:]


def tokens_drawn(a: Any, b: Any, draws: int, seed: int) -> np.ndarray:
    """(draws, SHARED): r of each shared feature with its twin over tokens drawn one by one."""
    n = a.shape[0]
    weights = draw_weights(n, draws, seed) / n
    x, y = a.toarray()[:, :SHARED], b.toarray()[:, :SHARED]
    mean_x, mean_y, xx, yy, xy = (weights @ z for z in (x, y, x * x, y * y, x * y))
    return (xy - mean_x * mean_y) / np.sqrt((xx - mean_x**2) * (yy - mean_y**2))


def one_text(seed: int, documents: int, draws: int) -> dict[str, Any]:
    """What a study of one text of 2 × `documents` documents reports, with intervals."""
    rng = np.random.default_rng([2, seed])
    halves = [text(rng, documents) for _ in range(2)]
    table = correlate(*halves[0][:2], top=TOP).candidates().drop(columns=["csls", "rank_a_to_b", "rank_b_to_a"])
    ids = table["feature_a"].to_numpy(), table["feature_b"].to_numpy()
    table = table.assign(correlation_heldout=correlate_pairs(halves[1][:2], *ids)[0], count_a=0, count_b=0)
    sums = [block_sums(half[:2], block_edges(half[2], half[0].shape[0]), *ids) for half in halves]
    done = bootstrap(table, *sums, keep, draws=draws, level=LEVEL, seed=seed)
    # Pairs named beforehand, which no choice makes look better than they are.
    planted = np.arange(SHARED)
    fixed = block_sums(halves[0][:2], block_edges(halves[0][2], halves[0][0].shape[0]), planted, planted)
    limits = percentiles(resampled_r(fixed, draw_weights(fixed.blocks, draws, seed)), LEVEL, fixed.blocks)
    by_tokens = np.quantile(tokens_drawn(*halves[0][:2], draws, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {"table": table, "kept": keep(table), "done": done, "planted": limits, "tokens": by_tokens}


def coverage(texts: int, documents: int, draws: int, r: np.ndarray) -> dict[str, float]:
    """How often the truth is inside, by what it is the interval of.

    `r` is (FEATURES, FEATURES), the truth. That of rates and means is what studies of this size come out at on average.
    """
    found = [one_text(seed, documents, draws) for seed in range(texts)]
    names = ("planted r", "planted r, tokens drawn", "held-out r of kept pairs", "r of kept pairs")
    inside: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for text_ in found:
        planted = r.diagonal()[:SHARED]
        inside[names[0]].append((text_["planted"][0] <= planted) & (planted <= text_["planted"][1]))
        inside[names[1]].append((text_["tokens"][0] <= planted) & (planted <= text_["tokens"][1]))
        table, pairs = text_["table"][text_["kept"]], text_["done"].pairs[text_["kept"]]
        true = r[table["feature_a"], table["feature_b"]]
        for name, column in (("r of kept pairs", "correlation"), ("held-out r of kept pairs", "correlation_heldout")):
            inside[name].append((pairs[f"{column}_low"] <= true) & (true <= pairs[f"{column}_high"]))
    result = {name: float(np.concatenate(hits).mean()) for name, hits in inside.items()}
    for name in RATES:
        facts = pd.DataFrame([text_["done"].facts[name] for text_ in found]).astype(float)
        true, low, high, bias = facts["estimate"].mean(), facts["low"], facts["high"], facts["bias"]
        result[name] = float(((low <= true) & (true <= high)).mean())
        result[f"{name}, not centred"] = float(((low + bias <= true) & (true <= high + bias)).mean())
        result[f"{name}, bias / sd"] = float(bias.mean() / facts["estimate"].std())
        result[f"{name}, width / (3.92 sd)"] = float((high - low).mean() / (3.92 * facts["estimate"].std()))
    return result


def main() -> None:
    """Print the table that docs/method.md quotes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--documents", type=int, nargs="*", default=[10, 30, 100, 300])
    chosen = parser.parse_args()
    set_mode("quiet")
    r = truth()
    columns = {n: coverage(chosen.texts, n, chosen.draws, r) for n in chosen.documents}
    print(f"coverage of {LEVEL:.0%} intervals, {chosen.texts} texts, {chosen.draws} draws, by documents in a half:")
    print(pd.DataFrame(columns).to_string(float_format=lambda v: f"{v:.3f}"))


if __name__ == "__main__":
    main()
