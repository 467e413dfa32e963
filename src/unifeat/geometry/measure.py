"""Measures: functions of two arrays that declare their invariances and can be shuffled cheaply.

Every measure has two steps, as in netrep: `prepare` does the work that depends on each side alone, once; `shuffled`
then does only the work that depends on the pairing of the rows.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError, did_you_mean
from unifeat.geometry.score import Score

Invariance = Literal["orthogonal", "isotropic_scaling", "translation", "invertible_linear", "row_permutation"]
"""What can be done to the rows without changing the score.

* `orthogonal`: x → x Q, QᵀQ = I, on either side alone
* `isotropic_scaling`: x → c x, c > 0
* `translation`: x → x + 1 tᵀ, the same vector t added to every row
* `invertible_linear`: x → x L with any invertible L
* `row_permutation`: the same reordering of the rows of x and of y
"""


@runtime_checkable
class Prepared(Protocol):
    """Two prepared sides, which give the score of their pairing and of any other pairing of the same rows."""

    @property
    def n(self) -> int:
        """Number of pairs."""
        ...

    @property
    def tolerance(self) -> float:
        """`shuffled` is this close to the measure computed from scratch; scores closer than that count as ties."""
        ...

    def score(self) -> Score:
        """The score of the rows as given."""
        ...

    def shuffled(self, permutation: Any) -> float:
        """The value when row i of x goes with row `permutation[i]` of y: the measure of (x, y[permutation]).

        (Partial RSA moves only the part of y that the arrays given do not predict: see `rsa`.)

        permutation: integer array of shape (n,). Raises UserError if it is not a permutation of 0 … n − 1.
        A pure function, safe to call from several threads or processes.
        """
        ...


@runtime_checkable
class Divisible(Protocol):
    """Prepared sides that can also score some of their pairs, for less than preparing these anew."""

    def subset(self, rows: NDArray[np.intp]) -> Score | None:
        """The score of the pairs `rows` alone: the measure of (x[rows], y[rows]), up to rounding.

        rows: ascending, (m,). Details, and flags other than `saturated`, may be missing. None if the pairs must be
        prepared anew: where digits would be lost, or nothing be gained. Settings with a row for each pair are those of
        these pairs. Raises UserError if there are too few of these, as the measure does.
        """
        ...


@runtime_checkable
class Heavy(Protocol):
    """Prepared sides that say whether a shuffle takes so long that several should run at a time.

    Their numerical work releases the GIL, and is done by one BLAS thread each.
    """

    @property
    def heavy(self) -> bool: ...


def heavy(n: int, k_a: int, k_b: int) -> bool:
    """Whether a shuffle that multiplies and factors sides of n rows and so many columns is `Heavy`: takes 5 ms or more
    (measured)."""
    return n * k_a * k_b > 10_000_000


@runtime_checkable
class Nested(Protocol):
    """Prepared sides that also give values with fewer components than they were prepared with."""

    def with_fewer(self, dims: int) -> float | None:
        """The value of the measure with the setting `dims`, up to rounding; None if it must be prepared anew."""
        ...


@dataclass(frozen=True)
class Undefined:
    """The prepared form of input on which a measure is undefined: NaN for every pairing."""

    result: Score
    tolerance: float = 0.0

    @property
    def n(self) -> int:
        return self.result.n

    def score(self) -> Score:
        return self.result

    def shuffled(self, permutation: Any) -> float:
        return float("nan")


@dataclass(frozen=True)
class Variant:
    """The invariances of a measure under some of its settings."""

    settings: Mapping[str, Any]
    invariances: frozenset[Invariance]
    """What can be done to either side."""
    only_y: frozenset[Invariance] = frozenset()
    """What can in addition be done to y alone. (A measure weighted by x treats the sides differently.)"""


@dataclass(frozen=True)
class Measure:
    """An entry of the registry `unifeat.geometry.MEASURES`."""

    name: str
    function: Callable[..., Score]
    """The public function: `function(x, y, **settings) -> Score`."""
    preparation: Callable[..., Prepared]
    """`preparation(x, y, **settings)`, the same arguments as `function`."""
    variants: tuple[Variant, ...]
    """Declared invariances. The first variant whose settings all agree applies."""
    symmetric: bool = True
    """Whether measure(x, y) = measure(y, x)."""
    equal_widths: bool = False
    """Whether x and y must have equally many columns."""
    sees_pairing: bool = True
    """Whether it matters which row is paired with which. If not, shuffling tests nothing, and every score has a flag
    `pairing-blind` that says so."""
    on_device: bool = False
    """Whether its shuffles can run on a GPU (see `geometry/_device.py`)."""

    row_settings: frozenset[str] = frozenset()
    """Settings that are arrays, or lists of arrays, with one row for each pair."""

    version: int = 1
    """Raised whenever the measure's values change. Part of the key of every stored score."""

    def identity(self, settings: Mapping[str, Any]) -> list[Any]:
        """What determines a score of this measure besides the data, as JSON data. Of arrays it holds digests."""
        plain = {k: _digests(v) if k in self.row_settings and v is not None else v for k, v in settings.items()}
        return [self.name, self.version, plain]

    def at_rows(self, settings: Mapping[str, Any], rows: NDArray[np.intp]) -> dict[str, Any]:
        """The settings for some of the pairs: arrays that have one row for each pair keep these rows."""
        known = {k: v for k, v in settings.items() if k in self.row_settings and v is not None}
        return dict(settings) | {k: _at(v, rows) for k, v in known.items()}

    def prepare(self, x: Any, y: Any, **settings: Any) -> Prepared:
        """Do the work that depends on each side alone. x: (n, d_a), y: (n, d_b). Raises as `function` does."""
        self.check(settings)
        return self.preparation(x, y, **settings)

    def score_rows(
        self, prepared: Prepared, x: Any, y: Any, rows: NDArray[np.intp], settings: Mapping[str, Any]
    ) -> Score:
        """The score of some of the pairs: from what was prepared for all of them, where that is less work.

        prepared: `prepare(x, y, **settings)`; rows: ascending, (m,). Raises as `function` does.
        """
        score = prepared.subset(rows) if isinstance(prepared, Divisible) else None
        if score is None:
            score = self.prepare(x[rows], y[rows], **self.at_rows(settings, rows)).score()
        return score

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises UserError for a setting that the measure does not have."""
        known = self.defaults()
        for name in settings:
            if name not in known:
                hint = did_you_mean(name, known)
                raise UserError(f"{self.name} has no setting {name!r}{hint}: its settings are {', '.join(known)}")

    def defaults(self) -> dict[str, Any]:
        """Settings and their defaults, read off the public function."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def invariances(self, **settings: Any) -> frozenset[Invariance]:
        """What the score ignores under these settings, on either side."""
        return self._variant(settings).invariances

    def invariances_of_y(self, **settings: Any) -> frozenset[Invariance]:
        """What the score ignores under these settings if it is done to y."""
        variant = self._variant(settings)
        return variant.invariances | variant.only_y

    def _variant(self, settings: Mapping[str, Any]) -> Variant:
        in_force = self.defaults() | dict(settings)
        for variant in self.variants:
            if all(in_force[key] == value for key, value in variant.settings.items()):
                return variant
        return Variant({}, frozenset())


def _digests(values: Any) -> str | list[Any]:
    """A digest of an array, by its numbers and shape; of a list of arrays, a list of digests."""
    if isinstance(values, list | tuple):
        return [_digests(each) for each in values]
    array = _array(values)
    plain = np.ascontiguousarray(array, np.float64) if array.dtype.kind in "fiub" else array.astype(str)
    return hashlib.sha256(f"{plain.shape}".encode() + plain.tobytes()).hexdigest()


def _at(values: Any, rows: NDArray[np.intp]) -> Any:
    if isinstance(values, list | tuple):
        return [_at(each, rows) for each in values]
    return _array(values)[rows]


def _array(values: Any) -> NDArray[Any]:
    return values.detach().cpu().double().numpy() if hasattr(values, "detach") else np.asarray(values)
