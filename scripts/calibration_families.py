"""Is the null of families calibrated? A section of docs/calibration.md: documents re-paired in every space.

    python scripts/calibration_families.py [--studies 200]

Several spaces read one text. Activations drift from token to token, have topics, and depend on whatever is shared.
Pairs of every two spaces are matched and grouped into families; then every space reads its documents in another order,
and the same is done again (`multiway.rearrange`). Counted are the families of all spaces, those of two spaces or more,
and the share of walks around three spaces that lead home. Ties are broken at random.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import binom

from drawing import table
from sections import put
from studies import options_of
from unifeat.correlation.correlate import correlate
from unifeat.correlation.rearranged import Stretch, taken
from unifeat.matching.methods import select
from unifeat.multiway import METHODS, find_families
from unifeat.multiway.rearrange import Blocks
from unifeat.vocabulary.paired_codes import CsrArrays, InMemoryCodes, PairedCodes

DOCUMENTS, FEATURES, DRAWS, ALPHA, SPACES = 32, 30, 19, 0.05, 4
LEAST_R = 0.05


class World(NamedTuple):
    """What the codes of all spaces depend on, each a strength."""

    place: float = 0.0  # the place in the document
    text: float = 0.0  # what the text says there


WORLDS = {
    "nothing shared": World(),
    "the place in the document shared": World(place=2.5),
    "what the text says shared": World(text=0.8),
}
COUNTS = ("families of all spaces", "families of any", "walks that lead home")


class Spaces(NamedTuple):
    """Codes of several spaces over one text."""

    codes: list[CsrArrays]
    document: np.ndarray


def text_of(world: World, seed: int) -> Spaces:
    """Codes of all spaces over one text of documents of unequal lengths."""
    rng = np.random.default_rng(seed)
    lengths = 20 + rng.geometric(1 / 40, DOCUMENTS)
    document = np.repeat(np.arange(DOCUMENTS), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    said = rng.standard_normal((len(document), FEATURES))
    by_place = np.exp(-((place[:, None] / 8 - rng.uniform(0, 6, FEATURES)) ** 2))
    codes = []
    for _ in range(SPACES):
        topic = rng.standard_normal((DOCUMENTS, FEATURES))[document]  # each space's own
        drift = rng.standard_normal((len(document), FEATURES))
        for row in range(1, len(drift)):
            if document[row] == document[row - 1]:
                drift[row] = 0.7 * drift[row - 1] + np.sqrt(0.51) * drift[row]
        drive = 0.5 * topic + drift + world.place * by_place + world.text * said
        fires = drive > np.quantile(drive, 0.93, axis=0)
        csr = sparse.csr_array(np.where(fires, drive, 0.0))
        codes.append(CsrArrays(csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.data))
    return Spaces(codes, document)


def pairs_of(codes: PairedCodes) -> pd.DataFrame:
    """Mutual pairs that reach the least r."""
    found = correlate(codes, top=1, threads=1).candidates()
    return found[select(found, "mutual") & (found["correlation"] > LEAST_R)]


def counts(pairs: dict[tuple[str, str], pd.DataFrame]) -> dict[str, list[float]]:
    """Method -> `COUNTS`."""
    found = {}
    for method in METHODS:
        families = find_families(pairs, method)
        share = families.consistency[0]
        found[method] = [
            float((families.table["size"] == SPACES).sum()),
            float(len(families)),
            -1.0 if np.isnan(share) else share,
        ]
    return found


def drawn(text: Spaces, number: int, seed: int) -> dict[tuple[str, str], pd.DataFrame]:
    """The pairs of every two spaces when each reads its documents in another order; number −1: as they are."""
    nothing = np.zeros(len(text.document), np.uint64)
    documents, length = np.unique(text.document, return_counts=True)
    blocks = Blocks(documents, length, np.zeros(len(documents), np.int64))
    order = blocks.orders(SPACES, seed, number) if number >= 0 else None
    pairs = {}
    for i, j in combinations(range(SPACES), 2):
        a, b = text.codes[i], text.codes[j]
        if order is not None:
            stretch = Stretch(a, b, text.document, nothing, nothing, nothing.astype(np.int64))
            rows_a, rows_b = blocks.repaired(order[i], order[j]).rows(stretch)
            a, b = taken(a, rows_a), taken(b, rows_b)
        pairs[f"s{i}", f"s{j}"] = pairs_of(InMemoryCodes(a, b, FEATURES, FEATURES))
    return pairs


def study(world: World, seed: int) -> dict[str, list[float]]:
    """Method -> p of each of `COUNTS`, and families of all spaces beyond the null's."""
    text = text_of(world, seed)
    observed = counts(drawn(text, -1, seed))
    null = [counts(drawn(text, number, seed)) for number in range(DRAWS)]
    rng = np.random.default_rng([seed, 1])
    found = {}
    for method, values in observed.items():
        own = np.array([draw[method] for draw in null])
        p = []
        for value, others in zip(values, own.T, strict=True):
            above, tied = (others > value + 1e-12).sum(), (np.abs(others - value) <= 1e-12).sum()
            p.append(float((above + rng.integers(0, tied + 1) + 1) / (len(others) + 1)))
        found[method] = [*p, values[0] - float(own[:, 0].mean())]
    return found


def rates(studies: int, world: World, say: Callable[[str], None] = print) -> dict[str, list[float]]:
    """Method -> the share of studies with p ≤ ALPHA for each of `COUNTS`, and the mean excess of families."""
    found = [study(world, seed) for seed in range(studies)]
    say(f"{studies} studies")
    result = {}
    for method in METHODS:
        values = np.array([own[method] for own in found])
        result[method] = [*(values[:, :-1] <= ALPHA + 1e-12).mean(axis=0), values[:, -1].mean()]
    return result


def section(results: dict[str, dict[str, list[float]]], studies: int) -> str:
    """The section of docs/calibration.md."""
    low, high = binom.ppf([0.025, 0.975], studies, ALPHA) / studies
    rows = [
        [world, method, *(f"{value:.3f}" for value in values[:-1]), f"{values[-1]:+.1f}"]
        for world, by_method in results.items()
        for method, values in by_method.items()
    ]
    return f"""## Families by chance

`python scripts/calibration_families.py --studies {studies}`: {SPACES} spaces of {FEATURES} features over texts of
{DOCUMENTS} documents of unequal lengths (21 tokens and more, 60 on average); features fire on 7 % of the tokens, follow
one another from token to token and have topics. The null re-pairs the documents in every space ({DRAWS} draws). The
columns are the share of studies with p ≤ {ALPHA:g} (ties broken at random). It should be {ALPHA:g} (95 % of the time
between {low:.3f} and {high:.3f}) where nothing is shared, and where only the place in the document is; and large where
what the text says is shared (but for families of any: the more are of all spaces, the fewer there are). The last column
is how many families of all spaces there are beyond the null's.

{table(["shared", "method", *COUNTS, "families of all beyond the null's"], rows)}
"""


def main() -> None:
    options = options_of(__doc__, 200)
    results = {
        name: rates(options.studies, world, lambda line, name=name: print(name, line, flush=True))
        for name, world in WORLDS.items()
    }
    put(options.page, "scripts/calibration_families.py", section(results, options.studies))


if __name__ == "__main__":
    main()
