"""Representational similarity analysis."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unifeat.geometry._dissimilarities import INNER, OUTER, Inner, Outer, standardised
from unifeat.geometry._halves import Whole
from unifeat.geometry._input import as_pair, as_permutation, constant_flags, one_of, precision_of
from unifeat.geometry._pairs import PairSum, centred_ranks, square
from unifeat.geometry._partial_rsa import PreparedPartialRSA, as_given, partial_correlation, take_out
from unifeat.geometry.measure import Prepared, Undefined
from unifeat.geometry.score import Score

if TYPE_CHECKING:
    import torch

_FEWEST_PAIRS = 5  # pairs
_LEAST_LEFT = 1e-3  # below this share of a dissimilarity vector's length, what is left of it is flagged
_LEAST_SPREAD = 1e-6  # of some dissimilarities, as a share of that of all: below it, differences may be rounding


def rsa(x: Any, y: Any, *, inner: Inner = "cosine", outer: Outer = "spearman", given: Any = None) -> Score:
    """Correlation between the pairwise dissimilarities of two sides.

    With D_ij the dissimilarity of rows i and j, RSA = corr over i < j of (D_ij(x), D_ij(y)).
    (Kriegeskorte, Mur & Bandettini 2008, "Representational similarity analysis", Front. Syst. Neurosci. 2:4.)

    x: (n, d_a) and y: (n, d_b), arrays or tensors of any real dtype, computed in float64; n ≥ 3.
    inner: the dissimilarity.
        `cosine`     1 − x_i·x_j / (|x_i| |x_j|), rows as they are; ignores rotation and each row's length.
        `euclidean`  |x_i − x_j|; ignores rotation and translation.
        `pearson`    1 − corr of x_i and x_j over their coordinates. NOT rotation invariant: the score depends
                     on the model's basis, which is arbitrary. Only for reproducing arXiv 2410.06981.
    outer: `spearman` (average ranks over ties; distances equal up to rounding count as tied) or `pearson`.
    given: an array (n, d_z), or a list of them, that belong to the pairs (row i to pair i), such as the embeddings of
        the pairs' top tokens. Their similarity structures are taken out: the score is the partial correlation of D(x)
        and D(y) given all D(z) (of their ranks, if outer is `spearman`). In a score's settings, `given` is how many
        there are.

    What partial RSA asks: are rows that are more alike in x also more alike in y, beyond what the D(z) say linearly
    about both? It is the statistic of the partial Mantel test (Smouse, Long & Sokal 1986, Syst. Zool. 35). It is not 0
    whenever x and y share nothing but z: rows that depend on z by another metric than D(z) leave some of z in both. So
    shuffling the rows of y, which also breaks what y owes to z, rejects far too often (measured in `docs/confounds.md`;
    see Guillot & Rousset 2013, "Dismantling the Mantel tests", Methods Ecol. Evol. 4). Under a shuffle, therefore, y
    keeps what z predicts: y = ŷ(z) + e, by ridge regression of its rows on those of all z, and only the rows of e are
    exchanged (Freedman & Lane 1983, J. Bus. Econ. Stat. 1; Anderson & Robinson 2001, "Permutation tests for linear
    models", Aust. N. Z. J. Stat. 43). The null hypothesis is that y is a linear function of z, plus errors that depend
    neither on z nor on x. So `shuffled(π)` is the partial RSA of x and ŷ + e[π]. It ranks anew, which costs about as
    much as the score, and it runs on the CPU.

    Memory: about 1.6 GB at n = 10,000 (50 million row pairs), growing with n²; 0.4 GB more for each array given.

    details: `pairs`, the number n(n−1)/2 of dissimilarities per side; if something is given, also `plain` (RSA without
    it), and `explained_x` and `explained_y`, the shares of the (ranked) dissimilarities' variance that it explains.
    flags: `constant x` (all rows the same), `equidistant x` (all dissimilarities equal), `zero rows of x`
    (the inner measure is undefined there), `explained x` (nothing is left of its dissimilarities); each makes the value
    NaN, as do zero rows of an array given. `few pairs`: fewer than five pairs, whose dissimilarities can agree by
    chance, even perfectly, and which have fewer than 120 shuffles to compare with. `constant given 2`, `equidistant
    given 2`, `collinear given 2`: this array says nothing, or nothing new, and is left out.
    Raises UserError for input that is not two finite 2-D arrays with equally many rows, for arrays given that have not
    as many, and for bad settings.
    """
    return prepare_rsa(x, y, inner=inner, outer=outer, given=given).score()


def prepare_rsa(x: Any, y: Any, *, inner: Inner = "cosine", outer: Outer = "spearman", given: Any = None) -> Prepared:
    """Standardised dissimilarities, or their ranks, of each side. The arguments are those of `rsa`."""
    inner_name = one_of(inner, INNER, "inner measure of rsa")
    outer_name = one_of(outer, OUTER, "outer measure of rsa")
    settings: dict[str, Any] = {"inner": inner_name, "outer": outer_name}
    a, b = as_pair(x, y, at_least=3, why="RSA")
    (n, d_a), d_b = a.shape, b.shape[1]
    arrays = [] if given is None else as_given(given, n)
    if arrays:
        settings["given"] = len(arrays)
    details: dict[str, Any] = {"pairs": n * (n - 1) // 2}
    flags = constant_flags(a, b)
    sides = []
    if not flags:
        for name, matrix, raw in (("x", a, x), ("y", b, y)):
            side, flag = standardised(matrix, name, inner_name, outer_name, precision_of(raw).eps)
            sides.append(side)
            flags += flag
    if flags:
        return Undefined(Score("rsa", float("nan"), settings, n, d_a, d_b, details, flags))
    whole = Whole(a, b, precision_of(x), precision_of(y), inner_name)
    rows = whole.distinct()
    if rows.pairs < _FEWEST_PAIRS:
        count, found = rows.pairs * (rows.pairs - 1) // 2, rows.described(rows.pairs)
        flags = (f"few pairs: {found} have {count} dissimilarities per side, which can agree by chance",)
    value = float(np.clip(sides[0] @ sides[1], -1.0, 1.0))
    if not arrays:
        return PreparedRSA(PairSum(n, *sides), Score("rsa", value, settings, n, d_a, d_b, details, flags), whole)
    out, undefined = take_out(arrays, n, inner_name, outer_name)
    left = [out.left(side) for side in sides]
    lengths = [float(np.linalg.norm(side)) for side in left]
    for name, length in zip("xy", lengths, strict=True):
        if length < _LEAST_LEFT:
            undefined += (f"explained {name}: nothing is left of its dissimilarities when those given are taken out",)
    details |= {"plain": value, **{f"explained_{name}": 1.0 - l**2 for name, l in zip("xy", lengths, strict=True)}}
    flags += out.flags + undefined
    if undefined:
        return Undefined(Score("rsa", float("nan"), settings, n, d_a, d_b, details, flags))
    left_x = left[0] / lengths[0]
    value = partial_correlation(left_x, sides[1], out)
    return PreparedPartialRSA(left_x, b, out, Score("rsa", value, settings, n, d_a, d_b, details, flags))


class PreparedRSA:
    """Two condensed vectors of mean 0 and length 1. The correlation of any pairing is an inner product."""

    def __init__(self, pairs: PairSum, result: Score, whole: Whole, device: torch.device | None = None) -> None:
        self.n = result.n
        self.tolerance = 1e-10 if pairs.exact else 1e-7
        self._pairs, self._result, self._whole = pairs, result, whole
        self._sum = pairs if device is None else pairs.on(device)

    def on(self, device: torch.device) -> PreparedRSA:
        return PreparedRSA(self._pairs, self._result, self._whole, device)

    def score(self) -> Score:
        return self._result

    def shuffled(self, permutation: Any) -> float:
        value = self._sum(as_permutation(permutation, self.n))
        return min(1.0, max(-1.0, value))

    def subset(self, rows: NDArray[np.intp]) -> Score | None:
        if len(rows) < _FEWEST_PAIRS or not self._whole.divisible(rows):
            return None
        spearman = self._result.settings["outer"] == "spearman"
        sides = []
        for whole in self._squares:
            values = whole[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)]
            # A part of ranked values has the order, and the ties, of their ranks.
            own = centred_ranks(values) if spearman else values - values.mean()
            length = float(np.linalg.norm(own))
            if np.ptp(values) == 0 or length <= _LEAST_SPREAD * np.sqrt(own.size / self._pairs.sides[0].size):
                return None
            sides.append(own / length)
        value = min(1.0, max(-1.0, float(sides[0] @ sides[1])))
        blank = self._result
        return Score("rsa", value, blank.settings, len(rows), blank.d_a, blank.d_b)

    @cached_property
    def _squares(self) -> list[NDArray[Any]]:
        """The values of all pairs of rows, (n, n); whole numbers in their order if only the order matters."""
        sides = self._pairs.sides
        if self._result.settings["outer"] == "spearman":
            ordered = [np.unique(values, return_inverse=True)[1] for values in sides]
            return [square(places, self.n, np.int32) for places in ordered]
        return [square(values, self.n, np.float64) for values in sides]
