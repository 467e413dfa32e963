"""How much of what matched features do in one model their partners in another model carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from unifeat.errors import UserError
from unifeat.geometry._labels import codes_of
from unifeat.geometry.score import html_card
from unifeat.inference._permutation_test import WithNull
from unifeat.inference.exchange import Exchange
from unifeat.inference.permuting import MOST_DRAWS, permutations_within, whole
from unifeat.transfer.documents import halves
from unifeat.transfer.given import check_varies, finite, finite_csr
from unifeat.transfer.relation import check_level
from unifeat.transfer.shares import few_orders, p_of, share_carried
from unifeat.transfer.sums import MIXED, OWN, VARIANTS, ZERO, FitSums, JudgeSums, Tokens
from unifeat.vocabulary.feature_ids import feature_ids
from unifeat.vocabulary.tables import pairs_table

_ROWS = 4096  # tokens whose codes are dense at once
# Draws that exchange nothing, or features that are the same, give what partners give; sums differ in their last bits.
_ROUNDING = 1e-11


@dataclass(frozen=True, eq=False)
class Carried(WithNull):
    """The share of what B's matched features add to its reconstruction that their partners in A add as well."""

    value: float
    """(zero line − own and from A) / (zero line − own), in squared error: 1 if partners do as well as B's own codes, 0
    if they add nothing, negative if they do harm."""
    low: float
    """Lower end of the interval over documents."""
    high: float
    """Upper end."""
    null: NDArray[np.float64]
    """The same with partners exchanged, (draws,); read-only."""
    p: float
    """(b + 1) / (draws + 1), where b draws are at least the value."""
    fvu: dict[str, float]
    """Fraction of variance unexplained of every variant; see `unifeat.transfer.sums.VARIANTS`."""
    pairs: pd.DataFrame
    """One row for each pair: `feature_a`, `feature_b`, `gain`, `offset`, `predicted` (the share of the feature's
    variance that is predicted, on judged rows), `lowered` and `lowered_own` (by how much the pair lowers the squared
    error below the zero line, from A and with B's own code, as a share of the variance)."""
    fitted_rows: int
    """Tokens that gains and means come from."""
    judged_rows: int
    """Tokens that all figures come from."""
    documents: int
    """Documents of these."""
    level: float
    """Nominal coverage of the interval."""
    seed: int
    """Seed of the halves, the exchanges and the interval."""
    flags: tuple[str, ...]
    """Reasons to read it with care."""

    def __repr__(self) -> str:
        line = (
            f"carried {self.value:.3f} ({self.level:.0%} {self.low:.3f} to {self.high:.3f})  null {self.null_mean:.3f} "
            f"± {self.null_sd:.3f}  p {self.p:.4g}  (FVU {self.fvu[ZERO]:.3f} at the mean, {self.fvu[MIXED]:.3f} from "
            f"A, {self.fvu[OWN]:.3f} own; {len(self.pairs)} pairs, {self.judged_rows} tokens)"
        )
        return "\n".join([line] + [f"  ! {flag}" for flag in self.flags])

    def _repr_html_(self) -> str:
        rows = [
            (f"{self.level:.0%} interval", f"{self.low:.3f} to {self.high:.3f}"),
            ("null", f"{self.null_mean:.3f} ± {self.null_sd:.3f}"),
            ("p", f"{self.p:.4g}"),
            *((f"FVU, {name.replace('_', ' ')}", f"{value:.3f}") for name, value in self.fvu.items()),
            ("pairs", str(len(self.pairs))),
            ("tokens", f"{self.fitted_rows} fitted on, {self.judged_rows} judged"),
        ]
        return html_card(f"carried = {self.value:.3f}", rows, self.flags)


def carried(
    codes_a: Any,
    codes_b: Any,
    pairs: Any,
    decoder_b: Any,
    x_b: Any,
    *,
    bias: Any = None,
    documents: Any = None,
    fit: Any = None,
    strata: Any = None,
    draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Carried:
    """Rebuild B's activations with its matched features predicted from their partners in A.

    B's SAE rebuilds x_b as codes_b @ decoder_b + bias. The *zero line* does so with the code of every matched feature
    at its mean. *Own and from A* predicts these codes from the partners' codes, with one gain and offset for each pair
    (least squares on the rows fitted on). The value is the share of the way from the zero line to B's own
    reconstruction that this covers, on the other rows. The null exchanges partners, and fits gains anew.

    Args:
        codes_a: SciPy sparse matrix (or array), tokens × features of A.
        codes_b: the same tokens × features of B.
        pairs: a table with `feature_a` and `feature_b`, or a list of such pairs. If a feature of B is in several pairs,
            its first one is used.
        decoder_b: (features of B, d) decoder rows as the SAE uses them, not normalised.
        x_b: (tokens, d) activations.
        bias: (d,) what the decoder adds; by default what fits best: the mean of x_b − codes_b @ decoder_b.
        documents: (tokens,) whole numbers: the document of each token. Half of the documents are fitted on, intervals
            draw documents. By default stretches of 128 tokens.
        fit: (tokens,) mask of the tokens to fit on; by default those of half of the documents, drawn at random.
        strata: (pairs,) labels: partners are only exchanged among pairs with the same label, such as
            `unifeat.inference.frequency_strata` of how often they fire.
        draws: exchanges of partners.
        level: of the interval.
        seed: of all draws.

    Raises:
        UserError: sizes that do not belong together, what is no number or NaN, features that do not exist, no pair,
            activations that do not vary, fewer than two documents on either side, or a bad count, seed or level.
    """
    draws, seed = whole(draws, "draws", least=1, most=MOST_DRAWS), whole(seed, "seed", least=0)
    check_level(level)
    a, b = (finite_csr(codes, name) for codes, name in ((codes_a, "codes_a"), (codes_b, "codes_b")))
    x, decoder = finite(x_b, "x_b", np.float32), finite(decoder_b, "decoder_b", np.float64)
    n = a.shape[0]
    if b.shape[0] != n or len(x) != n:
        raise UserError(f"codes_a has {n} rows, codes_b {b.shape[0]} and x_b {x.shape}: give the same tokens in each")
    if decoder.shape != (b.shape[1], x.shape[1]):
        raise UserError(f"decoder_b has shape {decoder.shape}: give {b.shape[1]} rows of {x.shape[1]}")
    pairs = pairs_table(pairs)
    chosen = _distinct(pairs, a.shape[1], b.shape[1])
    ids_a, ids_b = (chosen[name].to_numpy(np.int64) for name in ("feature_a", "feature_b"))
    labels = None if strata is None else codes_of(strata, len(pairs), "strata")[chosen["place"].to_numpy()]
    document, fitting = halves(documents, fit, n, seed, "carried")
    check_varies(x[~fitting], "x_b")
    sums = FitSums()
    for rows in _chunks(fitting):
        sums.add(_dense(a[rows][:, ids_a]), _dense(b[rows][:, ids_b]), np.asarray(b[rows].sum(0), np.float64).ravel())
    fitted = sums.fitted()
    constant = _bias(b, decoder, x, fitting) if bias is None else finite(bias, "bias", np.float64, (1,))
    if constant.shape != (x.shape[1],):
        raise UserError(f"bias has shape {constant.shape}: give {x.shape[1]} numbers")
    judged = JudgeSums(fitted, decoder[ids_b], fitted.mean_all_b @ decoder)
    for rows in _chunks(~fitting):
        own = np.asarray(b[rows] @ decoder, np.float64) + constant
        codes = _dense(a[rows][:, ids_a]), _dense(b[rows][:, ids_b])
        tokens = Tokens(own, np.broadcast_to(constant, own.shape), np.ones(len(own)), *codes)
        judged.add(document[rows], x[rows].astype(np.float64), tokens)
    return summarise(judged, ids_a, ids_b, sums.n, labels, draws, level, seed)


def summarise(
    judged: JudgeSums,
    ids_a: NDArray[np.integer],
    ids_b: NDArray[np.integer],
    fitted_rows: int,
    strata: Any,
    draws: int,
    level: float,
    seed: int,
) -> Carried:
    """The result of sums over judged rows.

    Args:
        ids_a, ids_b: (m,) features of the pairs.
        strata: (m,) labels within which partners are exchanged, or None.
    """
    zero, own = judged.error(ZERO), judged.error(OWN)
    flags: tuple[str, ...] = ()
    if not zero > own:
        flags += ("nothing to carry: B's own codes of the matched features do not lower the error",)
    span = zero - own if zero > own else float("nan")
    exchange = Exchange.of(len(ids_a), strata)
    orders = permutations_within(exchange, draws, seed)
    null = np.array([(zero - judged.exchanged(order)) / span for order in orders])
    null.flags.writeable = False
    value = (zero - judged.error(MIXED)) / span
    _, low, high = carried_by(judged, MIXED, level, seed)
    total = judged.about_mean
    lowered, lowered_own = judged.lowered()
    table = pd.DataFrame(
        {
            "feature_a": ids_a,
            "feature_b": ids_b,
            "gain": judged.fitted.gain,
            "offset": judged.fitted.offset,
            "predicted": judged.predicted_share(),
            "lowered": lowered / total,
            "lowered_own": lowered_own / total,
        }
    )
    if exchange.fixed:
        flags += (f"strata: {exchange.fixed} of {len(ids_a)} pairs are alone in their stratum and keep their partner",)
    flags += few_orders(exchange, draws, "pairs", "exchanges")
    return Carried(
        value=value,
        low=low,
        high=high,
        null=null,
        p=p_of(value, null, _ROUNDING * zero / span),
        fvu={name: judged.error(name) / total for name in VARIANTS},
        pairs=table,
        fitted_rows=fitted_rows,
        judged_rows=judged.n,
        documents=len(judged.counts),
        level=level,
        seed=seed,
        flags=flags,
    )


def carried_by(judged: JudgeSums, name: str, level: float, seed: int) -> tuple[float, float, float]:
    """`share_carried` of squared errors."""
    ids = sorted(judged.counts)
    errors = {variant: np.array([own.get(d, 0.0) for d in ids]) for variant, own in judged.errors.items()}
    return share_carried(errors, name, level, seed)


def _distinct(pairs: pd.DataFrame, features_a: int, features_b: int) -> pd.DataFrame:
    if not len(pairs):
        raise UserError("pairs: there is none")
    sides = {"feature_a": features_a, "feature_b": features_b}
    ids = {name: feature_ids(pairs[name], f"pairs: {name}", features) for name, features in sides.items()}
    chosen = pd.DataFrame(ids).assign(place=np.arange(len(pairs)))
    return chosen.drop_duplicates("feature_b")


def _chunks(mask: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    rows = np.flatnonzero(mask)
    return [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]


def _bias(b: sparse.csr_array, decoder: NDArray[Any], x: NDArray[Any], fitting: NDArray[np.bool_]) -> NDArray[Any]:
    total = np.zeros(x.shape[1])
    for rows in _chunks(fitting):
        total += (x[rows] - np.asarray(b[rows] @ decoder)).sum(0, dtype=np.float64)
    return np.asarray(total / fitting.sum())


def _dense(codes: Any) -> NDArray[np.float64]:
    return np.asarray(codes.toarray(), np.float64)
