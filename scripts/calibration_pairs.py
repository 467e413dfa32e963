"""Which pairs are more than a token, and how many false ones do decoys foretell? A section of calibration.md.

    python scripts/calibration_pairs.py [--studies 40] [--page docs/calibration.md]

Simulated detectors of a token, whose firing within it is shared or not; and texts of calibration_rematch.py: half
of their features share a context. A few minutes on one core.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

import calibration_rematch as texts
from drawing import table
from sections import put
from studies import options_of
from unifeat.matching.beyond_token import beyond_token
from unifeat.pipeline.rematch_tests import R_BINS, decoys
from unifeat.vocabulary.grouped_codes import in_groups
from unifeat.vocabulary.paired_codes import InMemoryCodes, as_paired

DOCUMENTS, ROWS, TOKENS, PAIRS, LEVEL, BOOTSTRAPS = 40, 150, 60, 120, 0.95, 200
LEVELS = (0.05, 0.1, 0.2, 0.5)


class Detectors(NamedTuple):
    """Pairs that fire on a token of their own, in a third of its places.

    Attributes:
        shared: on the same third with this probability, on places of their own otherwise.
        topics: how much more in some documents than in others, each side its own: 0 for no more.
    """

    shared: float = 0.0
    topics: float = 0.0


WORLDS = {
    "the token alone": Detectors(),
    "the token alone, each side with topics": Detectors(topics=0.8),
    "a tenth of the places": Detectors(shared=0.1),
    "a third of the places": Detectors(shared=1 / 3),
    "all places": Detectors(shared=1.0),
}


def more_than_a_token(world: Detectors, seed: int) -> tuple[float, float]:
    """The share of the pairs above the line of pairs at random, and of those that are more than a token."""
    rng = np.random.default_rng([seed, 7])
    tokens = rng.integers(0, TOKENS, DOCUMENTS * ROWS)
    document = np.repeat(np.arange(DOCUMENTS), ROWS)
    sides: list[list[np.ndarray]] = [[], []]
    for feature in range(PAIRS):
        here = tokens == feature % TOKENS
        third, same = rng.random(len(tokens)) < 1 / 3, rng.random(len(tokens)) < world.shared
        for side in sides:
            rate = (1 + world.topics * rng.choice((-1, 1), DOCUMENTS))[document] / 3
            fires = np.where(same, third, rng.random(len(tokens)) < rate)
            side.append(np.where(here & fires, rng.uniform(0.5, 1.5, len(tokens)), 0))
    a, b = (np.stack(side, axis=1) for side in sides)
    pairs = pd.DataFrame({"feature_a": np.arange(PAIRS), "feature_b": np.arange(PAIRS)})
    pairs = pairs.assign(count_a=(a != 0).sum(axis=0), count_b=(b != 0).sum(axis=0))
    codes = in_groups(as_paired(sparse.csr_array(a), sparse.csr_array(b)), tokens)
    starts = np.arange(0, len(tokens), ROWS)
    found = beyond_token(codes, starts, pairs, draws=BOOTSTRAPS, level=LEVEL, seed=seed)
    above = found.pairs["correlation_within_token"] > found.pairs["within_token_chance"]
    return float(above.mean()), float(found.facts["more_than_a_token"])


def decoy_counts(seed: int) -> np.ndarray:
    """(levels, 2) pairs with `decoy_fdr` at most each level, and how many of them are false: half of B is rotated."""
    text = texts.text_of(texts.World(context=0.8), seed)
    b = sparse.csr_array((text.b.value, text.b.index, text.b.indptr), shape=(len(text.kind), texts.FEATURES)).toarray()
    half = texts.FEATURES // 2
    b[:, half:] = np.roll(b[:, half:], len(b) // 2, axis=0)
    text = text._replace(b=texts.arrays(b))
    own = texts.pairs_of(InMemoryCodes(text.a, text.b, texts.FEATURES, texts.FEATURES))
    drawn = [texts.pairs_of(codes) for codes in texts.rearranged(text, "documents", seed, texts.DRAWS)]
    r = sum(np.histogram(pairs["correlation"], R_BINS)[0] for pairs in drawn)
    fdr = decoys(own["correlation"], {"draws": texts.DRAWS, "r": r})
    false = ((own["feature_a"] != own["feature_b"]) | (own["feature_a"] >= half)).to_numpy()
    return np.array([[(fdr <= level).sum(), false[fdr <= level].sum()] for level in LEVELS])


def section(shares: dict[str, tuple[float, float]], counts: np.ndarray, studies: int) -> str:
    """The section of docs/calibration.md."""
    rows = [[name, f"{above:.3f}", f"{more:.3f}"] for name, (above, more) in shares.items()]
    found = [
        [f"{level:g}", f"{kept / studies:.1f}", f"{false / kept:.3f}"]
        for level, (kept, false) in zip(LEVELS, counts.tolist(), strict=True)
    ]
    return f"""## More than a token

`python scripts/calibration_pairs.py --studies {studies}`: {PAIRS} pairs that detect a token, {TOKENS} tokens,
{DOCUMENTS} documents of {ROWS} tokens. A feature fires in a third of its token's places. Shared are none of these
places, some, or all. The columns are the shares of pairs with r within token above the line of pairs at random, and of
those whose interval ({LEVEL:.0%}, over documents) is above 0 as well: these are *more than a token*. Against the line
alone, half of what detects the token and nothing else would be.

{table(["shared", "above the line", "more than a token"], rows)}

### False pairs that decoys foretell

`decoy_fdr` is what share of the pairs at least as strong is expected to be false, from the same matching with
documents beside others. Texts are those of the nulls that match again; 20 of {texts.FEATURES} features share a context,
and the text of the others is rotated. Decoys stand for all pairs, not only for false ones, so the share of false pairs
is below the level.

{table(["decoy_fdr at most", "pairs", "of them false"], found)}
"""


def main() -> None:
    options = options_of(__doc__, 40)
    seeds = range(options.studies)
    shares = {}
    for name, world in WORLDS.items():
        shares[name] = tuple(np.mean([more_than_a_token(world, seed) for seed in seeds], axis=0).tolist())
        print(name, shares[name], flush=True)
    counts = np.sum([decoy_counts(seed) for seed in seeds], axis=0)
    put(options.page, "scripts/calibration_pairs.py", section(shares, counts, options.studies))


if __name__ == "__main__":
    main()
