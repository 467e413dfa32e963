"""Do the nulls that match again keep their promises? Simulated texts, written up in docs/calibration.md.

    python scripts/calibration_rematch.py [--studies 400] [--page docs/calibration.md]

Documents have unequal lengths, activations follow one another, features depend on the place in the document, and
tokens explain part of the activations. A few minutes on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import binom

from drawing import table
from sections import put
from studies import options_of
from unifeat.correlation.correlate import correlate
from unifeat.correlation.rearranged import Draw, Stretch, cycles, taken
from unifeat.correlation.shifted import ShiftedCodes, shifts
from unifeat.geometry import rsa
from unifeat.matching.methods import select
from unifeat.vocabulary.paired_codes import CsrArrays, InMemoryCodes, PairedCodes

DOCUMENTS, FEATURES, KINDS, DRAWS, ALPHA = 32, 40, 25, 19, 0.05
LEAST_R, WIDTH = 0.05, 16
FEW, MOST = (4, 5, 6, 8), 99  # documents, draws


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
Floats = NDArray[np.float64]
NULLS = ("rotation", "documents", "same token")


def text_of(world: World, seed: int, documents: int = DOCUMENTS) -> Stretch:
    """Codes of two spaces over one text."""
    rng = np.random.default_rng(seed)
    lengths = 20 + rng.geometric(1 / 40, documents)
    document = np.repeat(np.arange(documents), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    token = rng.integers(0, KINDS, len(document))
    context = rng.standard_normal((len(document), FEATURES))
    by_place = np.exp(-((place[:, None] / 8 - rng.uniform(0, 6, FEATURES)) ** 2))
    of_token = rng.integers(0, KINDS, FEATURES)
    sides = []
    for _ in "ab":
        topic = rng.standard_normal((documents, FEATURES))[document]  # each side's own
        drift = _following(rng.standard_normal((len(document), FEATURES)), document, 0.7)
        drive = 0.5 * topic + drift + world.place * by_place + world.context * context
        drive += world.token * (token[:, None] == of_token)
        fires = drive > np.quantile(drive, 0.93, axis=0)
        sides.append(arrays(np.where(fires, drive, 0.0)))
    key = (document.astype(np.uint64) << np.uint64(32)) | place.astype(np.uint64)
    return Stretch(sides[0], sides[1], document, key, token.astype(np.uint64), token)


def _following(noise: np.ndarray, document: np.ndarray, share: float) -> np.ndarray:
    """An autoregressive series in each document."""
    out = noise.copy()
    for row in range(1, len(out)):
        if document[row] == document[row - 1]:
            out[row] = share * out[row - 1] + np.sqrt(1 - share**2) * noise[row]
    return out


def arrays(values: np.ndarray) -> CsrArrays:
    """Dense values as codes."""
    csr = sparse.csr_array(values)
    return CsrArrays(csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.data)


def pairs_of(codes: PairedCodes) -> pd.DataFrame:
    """The mutual pairs that reach the least r, the strongest first."""
    found = correlate(codes, top=1, threads=1).candidates()
    pairs = found[select(found, "mutual")]
    return pairs[pairs["correlation"] > LEAST_R].sort_values("correlation", ascending=False, kind="stable")


def decoders(world: World, seed: int) -> tuple[Floats, Floats]:
    """Decoder rows of both sides: independent, or turned and noisy where features share more than a place."""
    rng = np.random.default_rng([seed, 2])
    a, own = rng.standard_normal((2, FEATURES, WIDTH))
    turned = a @ np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    return a, turned + own if world.token or world.context else own


def geometry(pairs: pd.DataFrame, n: int, a: Floats, b: Floats) -> float:
    """RSA of the n strongest pairs."""
    some = pairs.head(n)
    return float(rsa(a[some["feature_a"]], b[some["feature_b"]])) if n > 3 else 0.0


def rearranged(text: Stretch, null: str, seed: int, draws: int) -> list[PairedCodes]:
    """The draws of one null."""
    whole = InMemoryCodes(text.a, text.b, FEATURES, FEATURES)
    if null == "rotation":
        document, start = np.unique(text.document, return_index=True)
        chosen = shifts(document, start, whole.n_rows, draws, seed)
        return [ShiftedCodes(whole, int(start[at])) for at in chosen]
    codes: list[PairedCodes] = []
    for number in range(draws):
        rows_a, rows_b = Draw("documents" if null == "documents" else "types", seed, number).rows(text)
        codes.append(InMemoryCodes(taken(text.a, rows_a), taken(text.b, rows_b), FEATURES, FEATURES))
    return codes


def study(
    world: World, null: str, seed: int, documents: int = DOCUMENTS, draws: int = DRAWS
) -> tuple[float, float, float, float]:
    """p of the number of pairs, of their mean r, and of RSA of as many pairs; and pairs kept less those of the null."""
    text = text_of(world, seed, documents)
    rows = decoders(world, seed)
    own = pairs_of(InMemoryCodes(text.a, text.b, FEATURES, FEATURES))
    drawn = [pairs_of(codes) for codes in rearranged(text, null, seed, draws)]
    alike = [min(len(own), len(pairs)) for pairs in drawn]
    excess = {  # of each draw over the run
        "kept": [len(pairs) - len(own) for pairs in drawn],
        "r": [mean_r(pairs) - mean_r(own) for pairs in drawn],
        "rsa": [geometry(pairs, n, *rows) - geometry(own, n, *rows) for pairs, n in zip(drawn, alike, strict=True)],
    }
    rng = np.random.default_rng([seed, 1])
    p = []
    for values in map(np.array, excess.values()):
        # Ties are broken at random: the number of pairs is a whole number, and p would be too large.
        above, tied = (values > 1e-12).sum(), (np.abs(values) <= 1e-12).sum()
        p.append((above + rng.integers(0, tied + 1) + 1) / (len(values) + 1))
    return p[0], p[1], p[2], -float(np.mean(excess["kept"]))


def mean_r(pairs: pd.DataFrame) -> float:
    """Their mean r; below all others' if there are none."""
    return float(pairs["correlation"].mean()) if len(pairs) else -1.0


def rates(
    studies: int,
    world: World,
    null: str,
    say: Callable[[str], None] = print,
    documents: int = DOCUMENTS,
    draws: int = DRAWS,
) -> list[float]:
    """The share of studies with p ≤ ALPHA for the three statistics, and the mean excess of pairs."""
    found = np.array([study(world, null, seed, documents, draws) for seed in range(studies)])
    say(f"{null}: {studies} studies")
    return [*(found[:, :3] <= ALPHA).mean(axis=0).tolist(), float(found[:, 3].mean())]


def section(results: dict[tuple[str, str], list[float]], few: dict[int, list[float]], studies: int) -> str:
    """The section of docs/calibration.md."""
    low, high = binom.ppf([0.025, 0.975], studies, ALPHA) / studies
    rows = []
    for name in WORLDS:
        for null in NULLS:
            *shares, excess = results[name, null]
            rows.append([name, null, *(f"{share:.3f}" for share in shares), f"{excess:+.1f}"])
    of_few = [
        [str(n), f"{min(cycles(n), MOST):,}", *(f"{share:.3f}" for share in shares[:3])] for n, shares in few.items()
    ]
    return f"""## Nulls that match again

`python scripts/calibration_rematch.py --studies {studies}`: texts of {DOCUMENTS} documents of unequal lengths (21
tokens and more, 60 on average), {FEATURES} features a side that fire on 7 % of the tokens, follow one another from
token to token and have topics; {KINDS} kinds of token. Mutual pairs with r above {LEAST_R:g} are counted. Decoder rows
of the two sides are independent, and turned and noisy copies where tokens or context are shared. RSA is that of as
many of the strongest pairs as a draw has, as in a run. The columns are the share of studies with p ≤ {ALPHA:g}
({DRAWS} draws; ties broken at random). It should be {ALPHA:g} (95 % of the time between {low:.3f} and {high:.3f}) where
a null's question has the answer no.

* `documents` asks whether matching alone gives this, at the same places of a document. It keeps its promise if nothing
  is shared, and if only the place in the document is.
* `rotation` asks the same at other places, and takes a shared place in the document for something shared.
* `same token` permutes single rows. That also breaks topics, and how activations follow one another. So it finds too
  much where these alone make features of both sides correlate, even if nothing is shared: compare the *numbers* of
  pairs with it, and take the p of `documents`, or the interval over documents of r within token, for what is certain.
* Geometry under `same token`: its pairs are mostly the run's very pairs, whose decoder rows are then as alike. That
  says whether pairs that the token finds are as alike, not whether tokens *cause* the likeness; for that take out
  the token embeddings (`rsa: {{given: [token_embeddings]}}`).

{table(["shared", "null", "number of pairs", "their mean r", "RSA", "pairs beyond the null's"], rows)}

Few documents can be put beside each other in few ways, and no way is drawn twice: with up to {MOST} draws asked for,
where nothing is shared, `documents` has these shares of p ≤ {ALPHA:g}.

{table(["documents", "draws", "number of pairs", "their mean r", "RSA"], of_few)}
"""


def main() -> None:
    options = options_of(__doc__, 400)
    results = {
        (name, null): rates(options.studies, world, null, lambda line, name=name: print(name, line, flush=True))
        for name, world in WORLDS.items()
        for null in NULLS
    }
    few = {
        n: rates(options.studies, WORLDS["nothing shared"], "documents", documents=n, draws=min(cycles(n), MOST))
        for n in FEW
    }
    put(options.page, "scripts/calibration_rematch.py", section(results, few, options.studies))


if __name__ == "__main__":
    main()
