"""What can be asked of a finished run, from its tables and the pieces that it left in the cache: of any feature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.api.contexts import Contexts, contexts_of
from unifeat.codes.align import align
from unifeat.codes.facts import firing_counts
from unifeat.codes.imported import TokenTexts
from unifeat.correlation.pair_sums import correlate_pairs
from unifeat.errors import UserError
from unifeat.pipeline.spaces import Tokenizer
from unifeat.report.tables import decimal, is_missing
from unifeat.runs.folder import Run
from unifeat.runs.opened import OpenedSpace, open_space, open_text
from unifeat.runs.writing import STUDY
from unifeat.saes.weights import decoder_piece
from unifeat.study.read import load_study
from unifeat.text.halves import fitting_documents

if TYPE_CHECKING:
    from scipy import sparse


@dataclass(frozen=True)
class RunCodes:
    """The codes of a space of a run, in memory.

    Attributes:
        space: its name.
        matrix: (tokens, features) scipy CSR array, float32.
        places: a row for each token: `document`, `char_end` (the character at which it ends), `token` (its id) and
            `text` (its text).
    """

    space: str
    matrix: sparse.csr_array
    places: pd.DataFrame

    def __repr__(self) -> str:
        rows, features = self.matrix.shape
        active = self.matrix.nnz / rows if rows else 0.0
        return f"RunCodes({self.space}: {rows:,} tokens × {features:,} features, {active:.1f} active a token)"

    def _repr_html_(self) -> str:
        return f"<b>{escape(repr(self))}</b>{self.places.head(5).to_html(index=False)}"


def _open(run: Run, space: str) -> OpenedSpace:
    """A space, whose codes are checked once for all questions."""
    key = f"opened {space}"
    if key not in run.notes:
        run.notes[key] = open_space(run, space)
    found: OpenedSpace = run.notes[key]
    return found


def codes_of(run: Run, space: str) -> RunCodes:
    """See `unifeat.api.run.Run.codes`."""
    from scipy import sparse

    opened = _open(run, space)
    shape = opened.store.features
    parts, tables = [], []
    for shard in opened.store.shards():
        entries = np.asarray(shard.value, np.float32), np.asarray(shard.feature, np.int32), np.asarray(shard.indptr)
        parts.append(sparse.csr_array(entries, shape=(shard.rows, shape)))
        columns = {name: np.asarray(getattr(shard.places, name)) for name in ("document", "char_end", "token")}
        tables.append(pd.DataFrame(columns))
    places = pd.concat(tables, ignore_index=True)
    decode = token_decoder(run, opened)
    ids = places["token"].unique().tolist()
    texts = dict(zip(ids, (decode(token) for token in ids), strict=True))
    return RunCodes(space, sparse.vstack(parts, format="csr"), places.assign(text=places["token"].map(texts)))


def token_decoder(run: Run, space: OpenedSpace) -> Any:
    """A function from a token's id to its text."""
    study = load_study(run.folder / STUDY)
    for spec in study.encoded:
        if space.name in [f"{spec.prefix}@{layer}" for layer in spec.layers]:
            tokenizer = Tokenizer(study.models[spec.model])()
            return lambda token: tokenizer.decode([token])
    settings = space.store.settings
    texts = TokenTexts.of(settings["brought"], settings["text"], settings["cut"])
    return lambda token: texts.decode([token])


def _feature(run: Run, space: str, feature: Any) -> int:
    """A feature of a space, as `run.json` knows it: no codes are read.

    Raises:
        UserError: no such space or feature, or not a whole number.
    """
    run.check_space(space)
    features = int(run.info["spaces"][space]["d_sae"])
    found = _whole(feature, "a feature")
    if not 0 <= found < features:
        raise UserError(f"{space} has features 0 to {features - 1:,}, not {found}")
    return found


def _whole(value: Any, what: str) -> int:
    try:
        return index(value)
    except TypeError:
        raise UserError(f"{what} is a whole number, not {value!r}") from None


def feature_of(run: Run, space: str, feature: int) -> tuple[OpenedSpace, int]:
    """A space, and one of its features.

    Raises:
        UserError: no such space or feature; codes that are no longer in the cache.
    """
    found = _feature(run, space, feature)
    return _open(run, space), found


def contexts(run: Run, space: str, feature: int, n: int, around: int) -> Contexts:
    """See `unifeat.api.run.Run.contexts`."""
    n, around = _whole(n, "contexts: n"), _whole(around, "contexts: around")
    if n < 1 or around < 1:
        raise UserError("contexts: n and around are at least 1")
    opened, feature = feature_of(run, space, feature)
    count, found = contexts_of(opened.store, open_text(run, [opened]), feature, n, around)
    return Contexts(space, feature, run.labels_of(space).get(feature, ""), count, found)


@dataclass(frozen=True)
class CorrelationOfTwo:
    """How strongly two features correlate on a run's text; `float()` gives `correlation`.

    Attributes:
        correlation: r on all tokens that both spaces have.
        fitted, heldout: r on the documents on which the run found its pairs, and on the others; NaN without `heldout`.
        cofiring: tokens on which both fire, of all.
        tokens: how many tokens both spaces have.
    """

    correlation: float
    fitted: float
    heldout: float
    cofiring: int
    tokens: int

    def __float__(self) -> float:
        return self.correlation

    def __repr__(self) -> str:
        halves = f"fitted {decimal(self.fitted, 3)}, held out {decimal(self.heldout, 3)}"
        both = f"both fire on {self.cofiring:,} of {self.tokens:,} tokens"
        return f"r {decimal(self.correlation, 3)} ({halves}); {both}"

    def _repr_html_(self) -> str:
        r, bracket, rest = escape(repr(self)).partition(" (")
        return f"<div><b>{r}</b>{bracket}{rest}</div>"


def correlation(run: Run, space_a: str, feature_a: int, space_b: str, feature_b: int) -> CorrelationOfTwo:
    """See `unifeat.api.run.Run.correlation`."""
    (a, id_a), (b, id_b) = feature_of(run, space_a, feature_a), feature_of(run, space_b, feature_b)
    paired = align(a.store, b.store, (space_a, space_b))
    study = load_study(run.folder / STUDY)
    pair = np.array([id_a]), np.array([id_b])
    r, cofiring = correlate_pairs(paired, *pair)
    halves = [float("nan")] * 2
    if study.matching.heldout:
        fit = fitting_documents(int(run.info["text"]["documents"]), study.seed)
        halves = [float(correlate_pairs(paired.only(mask), *pair)[0][0]) for mask in (fit, ~fit)]
    return CorrelationOfTwo(float(r[0]), halves[0], halves[1], int(cofiring[0]), paired.n_rows)


@dataclass(frozen=True)
class PairOfFeatures:
    """Two features, with their contexts side by side.

    Attributes:
        a, b: the contexts of each.
        correlation: how strongly they correlate.
        facts: their row of `pairs.parquet`; None if the run did not have them as candidates.
    """

    a: Contexts
    b: Contexts
    correlation: CorrelationOfTwo
    facts: pd.Series | None

    @property
    def said(self) -> str:
        """What the run made of the pair, in a sentence."""
        if self.facts is None:
            return "not among each other’s best partners"
        within = self.facts.get("correlation_within_token")
        token = "" if is_missing(within) else f"; within token {decimal(within, 3)}"
        return ("kept" if self.facts["kept"] else f"dropped: {self.facts['dropped_because']}") + token

    def __repr__(self) -> str:
        return f"{self.correlation!r}\n{self.said}\n\n{self.a!r}\n\n{self.b!r}"

    def _repr_html_(self) -> str:
        sides = "".join(
            f"<td style='vertical-align:top;text-align:left;width:50%'>{side.html(number)}</td>"
            for number, side in enumerate((self.a, self.b))
        )
        return f"<div>{escape(repr(self.correlation))}; {escape(self.said)}<table><tr>{sides}</tr></table></div>"


def pair(run: Run, feature_a: int, feature_b: int, space_a: str, space_b: str, n: int, around: int) -> PairOfFeatures:
    """See `unifeat.api.run.Run.pair`."""
    found = correlation(run, space_a, feature_a, space_b, feature_b)
    sides = [contexts(run, *one, n, around) for one in ((space_a, feature_a), (space_b, feature_b))]
    return PairOfFeatures(sides[0], sides[1], found, _facts(run, space_a, feature_a, space_b, feature_b))


def _facts(run: Run, space_a: str, feature_a: int, space_b: str, feature_b: int) -> pd.Series | None:
    """A pair's row, whichever way round its spaces were compared."""
    compared = {(own["space_a"], own["space_b"]) for own in run.info["pairs"]}
    if (space_a, space_b) not in compared:
        space_a, feature_a, space_b, feature_b = space_b, feature_b, space_a, feature_a
    if (space_a, space_b) not in compared:
        return None
    table = run.space_pair(space_a, space_b)
    own = table[(table["feature_a"] == feature_a) & (table["feature_b"] == feature_b)]
    return own.iloc[0] if len(own) else None


_ORDER = ["space", "feature", "correlation", "correlation_heldout", "correlation_within_token", "kept"]
_ORDER += ["dropped_because", "cofiring", "label", "top_tokens"]


def _compared(run: Run, space: str, other: str | None) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The tables of a space's comparisons, with the letter of its side and that of the other space's.

    Raises:
        UserError: it was not compared, or not with the other space.
    """
    compared = False
    for own in run.info["pairs"]:
        for here, there in (("a", "b"), ("b", "a")):
            if own[f"space_{here}"] == space and other in (None, own[f"space_{there}"]):
                compared = True
                yield here, there, run.space_pair(own["space_a"], own["space_b"])
    if not compared:
        raise UserError(f"run {run.folder} did not compare {space} with {other or 'any space'}")


def partners(run: Run, space: str, feature: int, other: str | None) -> pd.DataFrame:
    """See `unifeat.api.run.Run.partners`."""
    feature = _feature(run, space, feature)
    if other is not None:
        run.check_space(other)
    found = []
    for here, there, table in _compared(run, space, other):
        own = table[table[f"feature_{here}"] == feature]
        renamed = {f"space_{there}": "space", f"feature_{there}": "feature", f"top_tokens_{there}": "top_tokens"}
        renamed |= {f"label_{there}": "label"}
        own = own.drop(columns=f"space_{here}").rename(columns=renamed)
        found.append(own[[name for name in _ORDER if name in own]])
    whole = pd.concat(found, ignore_index=True)
    return whole.sort_values(["kept", "correlation"], ascending=False, ignore_index=True)


def unmatched(run: Run, space: str, other: str | None) -> pd.DataFrame:
    """See `unifeat.api.run.Run.unmatched`."""
    opened = _open(run, space)
    matched: set[int] = set()
    best = np.full(opened.features, np.nan)
    for here, _, table in _compared(run, space, other):
        matched.update(table.loc[table["kept"], f"feature_{here}"].tolist())
        strongest = table.groupby(f"feature_{here}")["correlation"].max()
        ids = strongest.index.to_numpy(int)
        best[ids] = np.fmax(best[ids], strongest.to_numpy(float))
    counts = firing_counts(opened.store)
    labels = run.labels_of(space)
    left = np.setdiff1d(np.arange(opened.features), np.fromiter(matched, np.int64, len(matched)))
    table = pd.DataFrame({"feature": left.astype(np.int32), "count": counts[left], "best_correlation": best[left]})
    table["label"] = [labels.get(int(feature), "") for feature in left]
    return table.sort_values("count", ascending=False, ignore_index=True)


def decoder(run: Run, space: str, features: Any) -> NDArray[np.float32]:
    """See `unifeat.api.run.Run.decoder`."""
    run.check_space(space)
    # (Older runs do not say the digest: it is among the settings of their codes.)
    digest = run.info["spaces"][space].get("decoder") or _open(run, space).store.settings["sae"]
    rows = decoder_piece(digest).read()
    if rows is None:
        raise UserError(
            f"the decoder rows of {space} are not in the cache (any more): `unifeat run {run.folder / STUDY}` makes "
            "them"
        )
    if features is None:
        return np.asarray(rows)
    ids = np.atleast_1d(np.asarray(features))
    if ids.dtype == bool and ids.shape == (len(rows),):
        ids = np.flatnonzero(ids)
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise UserError(f"{space}: features are a whole number, a list of them, or a mask of all {len(rows):,}")
    if len(ids) and (ids.min() < 0 or ids.max() >= len(rows)):
        raise UserError(f"{space} has features 0 to {len(rows) - 1:,}")
    return np.asarray(rows[ids.astype(np.int64)])
