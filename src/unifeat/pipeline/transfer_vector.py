"""A direction of one model's activations, carried into another model through a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.engine import Held
from unifeat.errors import UserError, did_you_mean
from unifeat.geometry.score import html_card
from unifeat.pipeline.reopen import reopen
from unifeat.pipeline.steering import carrier_of
from unifeat.pipeline.transfer import AFFINE, Direction, Fits, affine_alone, rebuild_unit
from unifeat.runs.folder import Run, open_run
from unifeat.study.transfer import TransferSpec
from unifeat.transfer.given import numbers
from unifeat.transfer.maps import LinearMap
from unifeat.transfer.steering import Carrier, as_long

Way = Literal["pairs", "map"]
_OPENED = Held(1)


@dataclass(frozen=True, eq=False)
class TransferredVector:
    """A direction of A as one of B. It can be used as an array: `np.asarray(vector)`."""

    value: NDArray[np.float64]
    """(d_b,) the direction of B."""
    space_a: str
    """Where it comes from."""
    space_b: str
    """Where it is."""
    way: Way
    """`pairs`: as a sum of matched features; `map`: through the affine map of activations."""
    explained: float
    """The share of its squared length in A that the matched features reach; NaN for `map`."""
    features: pd.DataFrame = field(repr=False)
    """The matched features that it is a sum of, largest contribution first: `feature_a`, `code_a`, `feature_b`,
    `code_b`. Empty for `map`."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.value, dtype=dtype)

    def __repr__(self) -> str:
        through = "the affine map" if self.way == "map" else f"{len(self.features)} pairs ({self.explained:.0%} of it)"
        return f"direction of {self.space_a} in {self.space_b} through {through}, norm {np.linalg.norm(self.value):.4g}"

    def _repr_html_(self) -> str:
        rows = [("norm", f"{np.linalg.norm(self.value):.4g}"), ("explained", f"{self.explained:.1%}")]
        return html_card(f"{self.space_a} → {self.space_b} ({self.way})", rows, ())


def transfer_vector(
    run: Run | str | Path, space_a: str, space_b: str, what: Any, *, way: Way = "pairs", scaled: bool = True
) -> TransferredVector:
    """Carry a direction of A's activations into B, such as a steering vector.

    Through pairs, a vector is written as a sum of A's matched features (ridge regression), and a feature's code is
    multiplied by the gain of its pair; the sum in B is over their partners. The gains and the map are those of the
    run's `transfer`, from the documents that pairs are found on. What was loaded for the last two spaces of a run is
    kept (`unifeat.engine.forget()` drops it).

    Args:
        run: a run whose study has `transfer` (or `activations`), and whose cache and SAEs are still there; or its
            folder.
        space_a, space_b: two spaces that the run compared, in either order.
        what: a feature of A, or several: whole numbers, in a list, a set, an array, a tensor or a column of a table
            (their decoder rows are added). Or a mapping from features to the codes to add. Or a vector (d_a,) of
            floating point numbers: whole numbers are always features.
        way: `pairs`, or `map`, the affine map of A's activations to B's, for which a vector needs no pair.
        scaled: make it as long beside B's activations as it is beside A's: in proportion to the root mean square norm
            of activations about their mean. If false, its length is what gains or the map give.

    Returns:
        The direction of B, with the pairs that carry it.

    Raises:
        UserError: spaces that the run did not compare, or of which it has no activations; a feature without a partner,
            or given twice; a vector of another width, with NaN, or of length 0; a cache that was pruned.
    """
    if way not in ("pairs", "map"):
        raise UserError(f"way={way!r}{did_you_mean(str(way), ['pairs', 'map'])}: give pairs or map")
    if not isinstance(run, Run):
        if not isinstance(run, str | Path):
            raise UserError("run: give a finished run (uf.open) or its folder")
        run = open_run(run)
    given = _given(what)
    opened = _open(run, space_a, space_b)
    if way == "pairs" and not opened.paired:
        raise UserError(f"{space_a} and {space_b} have no pairs, so nothing is carried through them: use way='map'")
    vector, codes = opened.asked(given)
    # All that follows is proportional to the vector; of one that is very long or short, squares are out of range.
    size = float(np.abs(vector).max(initial=0.0))
    if not (np.isfinite(size) and size > 0):
        raise UserError("the vector holds NaN or infinity, or is 0: it points nowhere")
    unit = vector / size
    explained, table = float("nan"), pd.DataFrame()
    if way == "map":
        carried = unit @ opened.affine.weights
    else:
        carrier, fits = opened.carrier, opened.fits
        own = carrier.coefficients(unit) if codes is None else codes / size
        explained = carrier.explained(unit, own) if len(own) else 0.0
        carried, table = carrier.through_pairs(own), _table(fits, carrier, own * size)
    if scaled:
        carried = as_long(carried, unit, opened.norms)
    carried = carried * size
    if not np.isfinite(carried).all():
        raise UserError("the vector is too long: what it becomes is infinite")
    return TransferredVector(carried, space_a, space_b, way, explained, table)


@dataclass(frozen=True)
class _Opened:
    """Two spaces of a run, and what is loaded of them when it is needed."""

    run: Run
    direction: Direction
    spec: TransferSpec
    level: float

    @property
    def paired(self) -> bool:
        return bool(len(self.direction.cell.kept))

    @cached_property
    def fits(self) -> Fits:
        found: Fits = rebuild_unit(self.direction, self.spec, self.level).result().fits
        return found

    @cached_property
    def carrier(self) -> Carrier:
        return carrier_of(self.direction, self.fits)

    @cached_property
    def _unpaired(self) -> tuple[LinearMap, NDArray[np.float64]]:
        return affine_alone(self.direction)

    @property
    def affine(self) -> LinearMap:
        return self.fits.maps[AFFINE] if self.paired else self._unpaired[0]

    @property
    def norms(self) -> NDArray[np.float64]:
        return self.fits.norms if self.paired else self._unpaired[1]

    def asked(self, given: dict[Any, float] | NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """The direction in A, and its codes of the matched features where these are given."""
        name, width = self.direction.source.name, self.affine.weights.shape[0]
        if not isinstance(given, dict):
            if given.shape != (width,):
                raise UserError(f"a vector of shape {given.shape}: activations of {name} have shape ({width},)")
            return given.astype(np.float64), None
        place = {feature: i for i, feature in enumerate(self.fits.features[0].tolist())} if self.paired else {}
        for feature in given:
            if feature not in place:
                raise UserError(
                    f"feature {feature} of {name} has no partner in {self.direction.target.name}: leave it out, or "
                    "give its decoder row as a vector"
                )
        codes = np.zeros(len(place))
        codes[[place[feature] for feature in given]] = list(given.values())
        return codes @ self.carrier.weights_a, codes


def _open(run: Run, space_a: str, space_b: str) -> _Opened:
    def make() -> _Opened:
        opened = reopen(run)
        cell = opened.cell(space_a, space_b)
        if cell.a.activations is None or cell.b.activations is None:
            raise UserError(
                f"run {run.folder} kept no activations, so gains are not known: add `transfer: {{}}` to its study and "
                "run it again (what it has done is not repeated)"
            )
        direction = next(d for d in Direction.both(cell) if d.source.name == space_a)
        return _Opened(run, direction, opened.study.transfer or TransferSpec(), opened.study.inference.level)

    return _OPENED.get((id(run), space_a, space_b), make)  # what is held keeps the run, so its id is of no other


def _given(what: Any) -> dict[Any, float] | NDArray[Any]:
    """Codes by feature, or a vector."""
    if hasattr(what, "detach") and not (what.is_floating_point() or what.is_complex()):
        what = what.detach().cpu().numpy()
    if isinstance(what, int | np.integer) and not isinstance(what, bool):
        what = [what]
    elif isinstance(what, pd.Series | pd.Index | np.ndarray) and what.dtype.kind in "iu" and what.ndim == 1:
        what = what.tolist()
    elif isinstance(what, set | frozenset | range):
        what = list(what)
    if isinstance(what, Mapping):
        codes = {feature: _code(feature, code) for feature, code in what.items()}
    elif isinstance(what, list | tuple) and all(isinstance(f, int | np.integer) for f in what):
        codes = dict.fromkeys((int(f) for f in what), 1.0)
        if len(codes) < len(what):
            twice = next(f for f in codes if list(what).count(f) > 1)
            raise UserError(
                f"feature {twice} is given more than once: give a mapping for codes other than 1, and a vector as "
                "floating point numbers"
            )
    else:
        return numbers(what, "the vector", tuple(range(9)))
    if not codes:
        raise UserError("no feature is given")
    return codes


def _code(feature: Any, code: Any) -> float:
    try:
        found = float(code)
    except (TypeError, ValueError):
        found = float("nan")
    if not np.isfinite(found):
        raise UserError(f"the code {code!r} of feature {feature}: give a number")
    return found


def _table(fits: Fits, carrier: Carrier, codes: NDArray[np.float64]) -> pd.DataFrame:
    size = np.abs(codes) * np.linalg.norm(carrier.weights_a, axis=1)
    order = np.argsort(-size, kind="stable")
    order = order[codes[order] != 0]
    one, other = fits.features
    columns = {"feature_a": one, "code_a": codes, "feature_b": other, "code_b": codes * carrier.gain}
    return pd.DataFrame({name: values[order] for name, values in columns.items()})
