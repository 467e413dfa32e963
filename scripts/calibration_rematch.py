"""Do the nulls that match again keep their promises? Simulated texts, written up in docs/calibration.md.

    python scripts/calibration_rematch.py [--studies 400] [--page docs/calibration.md]

Documents have unequal lengths, activations follow one another, features depend on the place in the document, and
tokens explain part of the activations. A few minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.stats import binom

from drawing import table
from sections import put
from studies import options_of
from unifeat.correlation.correlate import correlate
from unifeat.correlation.rearranged import Draw, Stretch, taken
from unifeat.correlation.shifted import ShiftedCodes, shifts
from unifeat.matching.methods import select
from unifeat.vocabulary.paired_codes import CsrArrays, InMemoryCodes, PairedCodes

DOCUMENTS, FEATURES, KINDS, DRAWS, ALPHA = 32, 40, 25, 19, 0.05
LEAST_R = 0.05


class World(NamedTuple):
    """What the codes of both sides depend on, each a strength."""

    place: float = 0.0  # the place in the document, the same for both sides
    token: float = 0.0  # the token, the same for both sides
    context: float = 0.0  # what else the text says there, the same for both sides


WORLDS = {
    "nothing shared": World(),
    "the place in the document shared": World(place=2.5),
    "the token shared": World(token=2.5),
    "token and context shared": World(token=2.5, context=1.5),
}
NULLS = ("rotation", "documents", "same token")


def text_of(world: World, seed: int) -> Stretch:
    """Codes of two spaces over one text."""
    rng = np.random.default_rng(seed)
    lengths = 20 + rng.geometric(1 / 40, DOCUMENTS)
    document = np.repeat(np.arange(DOCUMENTS), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    token = rng.integers(0, KINDS, len(document))
    context = rng.standard_normal((len(document), FEATURES))
    by_place = np.exp(-((place[:, None] / 8 - rng.uniform(0, 6, FEATURES)) ** 2))
    of_token = rng.integers(0, KINDS, FEATURES)
    sides = []
    for _ in "ab":
        topic = rng.standard_normal((DOCUMENTS, FEATURES))[document]  # each side's own
        drift = _following(rng.standard_normal((len(document), FEATURES)), document, 0.7)
        drive = 0.5 * topic + drift + world.place * by_place + world.context * context
        drive += world.token * (token[:, None] == of_token)
        fires = drive > np.quantile(drive, 0.93, axis=0)
        sides.append(_arrays(np.where(fires, drive, 0.0)))
    key = (document.astype(np.uint64) << np.uint64(32)) | place.astype(np.uint64)
    return Stretch(sides[0], sides[1], document, key, token.astype(np.uint64), token)


def _following(noise: np.ndarray, document: np.ndarray, share: float) -> np.ndarray:
    """An autoregressive series in each document."""
    out = noise.copy()
    for row in range(1, len(out)):
        if document[row] == document[row - 1]:
            out[row] = share * out[row - 1] + np.sqrt(1 - share**2) * noise[row]
    return out


def _arrays(values: np.ndarray) -> CsrArrays:
    csr = sparse.csr_array(values)
    return CsrArrays(csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.data)


def pairs_of(codes: PairedCodes) -> tuple[float, float]:
    """How many mutual pairs reach the least r, and their mean r."""
    found = correlate(codes, top=1, threads=1).candidates()
    r = found["correlation"][select(found, "mutual")].to_numpy()
    kept = r[r > LEAST_R]
    return float(len(kept)), float(kept.mean()) if len(kept) else -1.0


def rearranged(text: Stretch, null: str, seed: int) -> list[PairedCodes]:
    """The draws of one null."""
    whole = InMemoryCodes(text.a, text.b, FEATURES, FEATURES)
    if null == "rotation":
        document, start = np.unique(text.document, return_index=True)
        chosen = shifts(document, start, whole.n_rows, DRAWS, seed)
        return [ShiftedCodes(whole, int(start[at])) for at in chosen]
    codes: list[PairedCodes] = []
    for number in range(DRAWS):
        rows_a, rows_b = Draw("documents" if null == "documents" else "types", seed, number).rows(text)
        codes.append(InMemoryCodes(taken(text.a, rows_a), taken(text.b, rows_b), FEATURES, FEATURES))
    return codes


def study(world: World, null: str, seed: int) -> tuple[float, float, float]:
    """p of the number of pairs and of their mean r, and pairs kept less those of the null."""
    text = text_of(world, seed)
    observed = pairs_of(InMemoryCodes(text.a, text.b, FEATURES, FEATURES))
    drawn = np.array([pairs_of(codes) for codes in rearranged(text, null, seed)])
    rng = np.random.default_rng([seed, 1])
    p = []
    for value, values in zip(observed, drawn.T, strict=True):
        # Ties are broken at random: the number of pairs is a whole number, and p would be too large.
        above, tied = (values > value + 1e-12).sum(), (np.abs(values - value) <= 1e-12).sum()
        p.append((above + rng.integers(0, tied + 1) + 1) / (len(values) + 1))
    return p[0], p[1], observed[0] - drawn[:, 0].mean()


def rates(studies: int, world: World, null: str, say: Callable[[str], None] = print) -> tuple[float, float, float]:
    """The share of studies with p ≤ ALPHA for both statistics, and the mean excess of pairs."""
    found = np.array([study(world, null, seed) for seed in range(studies)])
    say(f"{null}: {studies} studies")
    return float((found[:, 0] <= ALPHA).mean()), float((found[:, 1] <= ALPHA).mean()), float(found[:, 2].mean())


def section(results: dict[tuple[str, str], tuple[float, float, float]], studies: int) -> str:
    """The section of docs/calibration.md."""
    low, high = binom.ppf([0.025, 0.975], studies, ALPHA) / studies
    rows = []
    for name in WORLDS:
        for null in NULLS:
            kept, r, excess = results[name, null]
            rows.append([name, null, f"{kept:.3f}", f"{r:.3f}", f"{excess:+.1f}"])
    return f"""# Nulls that match again

`python scripts/calibration_rematch.py --studies {studies}`: texts of {DOCUMENTS} documents of unequal lengths (21
tokens and more, 60 on average), {FEATURES} features a side that fire on 7 % of the tokens, follow one another from
token to token and have topics; {KINDS} kinds of token. Mutual pairs with r above {LEAST_R:g} are counted. The columns
are the share of studies with p ≤ {ALPHA:g} ({DRAWS} draws; ties broken at random). It should be {ALPHA:g} (95 % of the
time between {low:.3f} and {high:.3f}) where a null's question has the answer no.

* `documents` asks whether matching alone gives this, at the same places of a document. It keeps its promise if nothing
  is shared, and if only the place in the document is.
* `rotation` asks the same at other places, and takes a shared place in the document for something shared.
* `same token` permutes single rows. That also breaks topics, and how activations follow one another. So it finds too
  much where these alone make features of both sides correlate, even if nothing is shared: compare the *numbers* of
  pairs with it, and take the p of `documents`, or the interval over documents of r within token, for what is certain.

{table(["shared", "null", "number of pairs", "their mean r", "pairs beyond the null's"], rows)}
"""


def main() -> None:
    options = options_of(__doc__, 400)
    results = {
        (name, null): rates(options.studies, world, null, lambda line, name=name: print(name, line, flush=True))
        for name, world in WORLDS.items()
        for null in NULLS
    }
    put(options.page, "scripts/calibration_rematch.py", section(results, options.studies))


if __name__ == "__main__":
    main()
