"""Which pairs hold elsewhere, and how good are the intervals of their r? Simulated texts, a section of calibration.md.

    python scripts/calibration_elsewhere.py [--studies 100] [--page docs/calibration.md]

Documents have topics, and features fire more where their topic is. A few minutes on one core.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from drawing import table
from sections import put
from studies import options_of
from unifeat.matching.elsewhere import Elsewhere, read_elsewhere
from unifeat.vocabulary.paired_codes import as_paired

PAIRS, ROWS, TOPICS, LEVEL = 200, 100, 8, 0.95
LONG = 3000  # documents whose r is taken for the truth


class World(NamedTuple):
    """A kind of text, and features on it."""

    rate: tuple[float, float]  # share of rows on which features fire: from, to
    topics: float = 0.0  # how much more in documents of their own topic: 0 for no more, 1 for there alone
    shared: float = 0.0  # share of a feature's firings that its partner has too


WORLDS = {
    "unrelated": World((0.01, 0.05)),
    "unrelated, rare": World((0.001, 0.005)),
    "unrelated, of topics": World((0.01, 0.05), topics=0.9),
    "a tenth shared": World((0.01, 0.05), shared=0.1),
    "a tenth shared, rare": World((0.001, 0.005), shared=0.1),
    "half shared": World((0.01, 0.05), shared=0.5),
    "half shared, of topics": World((0.01, 0.05), topics=0.9, shared=0.5),
}


class Features(NamedTuple):
    """The features of both sides of a world."""

    world: World
    rate: np.ndarray  # (PAIRS,)
    topic: np.ndarray  # (2, PAIRS)


def features_of(world: World, seed: int) -> Features:
    """The partners of a shared pair have one topic."""
    rng = np.random.default_rng([0, seed])
    topic = rng.integers(0, TOPICS, (2, PAIRS))
    if world.shared:
        topic[1] = topic[0]
    return Features(world, rng.uniform(*world.rate, PAIRS), topic)


def read(features: Features, documents: int, draws: int, seed: int) -> Elsewhere:
    """One text, and the pairs read on it."""
    rng = np.random.default_rng([1, seed, documents])
    world, rate, parts = features.world, features.rate, ([], [])
    for _ in range(documents):
        topic = rng.integers(TOPICS)
        likely = [rate * (1 - world.topics + world.topics * TOPICS * (own == topic)) for own in features.topic]
        fires = [rng.random((ROWS, PAIRS)) < p for p in likely]
        fires[1] = np.where(rng.random((ROWS, PAIRS)) < world.shared, fires[0], fires[1])
        for part, side in zip(parts, fires, strict=True):
            part.append(sparse.csr_array(side * rng.uniform(0.5, 1.5, side.shape)))
    codes = as_paired(*(sparse.vstack(part, format="csr") for part in parts))
    ids = np.arange(PAIRS)
    pairs = pd.DataFrame({"feature_a": ids, "feature_b": ids, "correlation": 0.5, "correlation_heldout": 0.5})
    asked: dict[str, Any] = {"min_correlation": 0.1, "draws": draws, "level": LEVEL, "seed": seed}
    return read_elsewhere(codes, np.arange(documents) * ROWS, pairs, **asked)


def row_of(name: str, world: World, documents: int, studies: int) -> list[str]:
    """A line of the table."""
    features = features_of(world, 0)
    truth = read(features, LONG, 0, 0)
    facts, covered, means = [], [], []
    for number in range(1, studies + 1):
        found = read(features, documents, 200, number)
        own, judged = found.pairs, found.pairs["elsewhere_chance"].notna()
        known = own["correlation_elsewhere_low"].notna()
        r = truth.pairs["correlation_elsewhere"]
        inside = (own["correlation_elsewhere_low"] <= r) & (r <= own["correlation_elsewhere_high"])
        covered.append(inside[known].mean())
        facts.append(found.facts)
        means.append(found.facts["mean_low"] <= r[judged].mean() <= found.facts["mean_high"])
    shown = [np.mean([one["judged"] / one["pairs"] for one in facts])]
    shown += [np.mean([one[key] for one in facts]) for key in ("hold_share", "above_min")]
    return [name, str(documents), *(f"{value:.3f}" for value in (*shown, np.mean(covered), np.mean(means)))]


def section(rows: list[list[str]], studies: int) -> str:
    """The page's section."""
    heads = ["features", "documents", "judged", "hold", "r ≥ 0.1", "interval of r", "interval of the mean"]
    return f"""## Pairs elsewhere

`python scripts/calibration_elsewhere.py --studies {studies}`: {PAIRS} pairs, read on texts of {ROWS} rows a document
and {TOPICS} topics. Features fire on 1 to 5 % of the rows, rare ones on 0.1 to 0.5 %. *Hold* is the share of the judged
pairs whose r is above that of 95 % of pairs at random: where nothing is shared, it should be at most about 0.05. The
last columns are the share of nominal {LEVEL:.0%} intervals over documents that contain the r, or the mean r of the
judged pairs, of {LONG:,} documents.

Intervals of r need rows on which both fire. Where a text shows none or a few (rare features, unrelated ones), they know
no other document in which the two could meet, and are much too short.

{table(heads, rows)}
"""


def main() -> None:
    options = options_of(__doc__, 100)
    rows = []
    for name, world in WORLDS.items():
        for documents in (20, 60):
            rows.append(row_of(name, world, documents, options.studies))
            print(*rows[-1], flush=True)
    put(options.page, "scripts/calibration_elsewhere.py", section(rows, options.studies))


if __name__ == "__main__":
    main()
