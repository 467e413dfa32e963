"""A direction of one model's activations, carried into another model through a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError, did_you_mean
from unifeat.geometry.score import html_card
from unifeat.pipeline.reopen import reopen
from unifeat.pipeline.steering import carrier_of
from unifeat.pipeline.transfer import Direction, Fits, rebuild_unit
from unifeat.runs.folder import Run
from unifeat.study.transfer import TransferSpec
from unifeat.transfer.steering import Carrier

Way = Literal["pairs", "map"]


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
    run: Run, space_a: str, space_b: str, what: Any, *, way: Way = "pairs", scaled: bool = True
) -> TransferredVector:
    """Carry a direction of A's activations into B, such as a steering vector.

    Through pairs, a vector is written as a sum of A's matched features (ridge regression), and a feature's code is
    multiplied by the gain of its pair; the sum in B is over their partners. The gains and the map are those of the
    run's `transfer`, from the documents that pairs are found on.

    Args:
        run: a run whose study has `transfer` (or `activations`), and whose cache is still there.
        space_a, space_b: two spaces that the run compared, in either order.
        what: a vector (d_a,); a feature of A, or several (their decoder rows are added); or a mapping from features to
            the codes to add.
        way: `pairs`, or `map`, the affine map of A's activations to B's.
        scaled: make it as long beside B's activations as it is beside A's: in proportion to the root mean square norm
            of activations about their mean. If false, its length is what gains or the map give.

    Returns:
        The direction of B, with the pairs that carry it.

    Raises:
        UserError: spaces that the run did not compare, or of which it has no activations; a feature without a partner;
            a vector of another width, with NaN, or of length 0; a cache that was pruned.
    """
    if way not in ("pairs", "map"):
        raise UserError(f"way={way!r}{did_you_mean(str(way), ['pairs', 'map'])}: give pairs or map")
    opened = reopen(run)
    cell = opened.cell(space_a, space_b)
    study = opened.study
    if cell.a.activations is None or cell.b.activations is None:
        raise UserError(
            f"run {run.folder} kept no activations, so gains are not known: add `transfer: {{}}` to its study and run "
            "it again (what it has done is not repeated)"
        )
    if not len(cell.kept):
        raise UserError(f"{space_a} and {space_b} have no pairs, so nothing is carried")
    direction = next(d for d in Direction.both(cell) if d.source.name == space_a)
    spec = study.transfer or TransferSpec()
    fits: Fits = rebuild_unit(direction, spec, study.inference.level).result().fits
    carrier = carrier_of(direction, fits)
    vector, codes = _asked(what, direction, carrier, fits)
    if way == "map":
        carried, explained, table = carrier.through_map(vector), float("nan"), pd.DataFrame()
    else:
        explained = carrier.explained(vector, codes) if len(codes) else 0.0
        carried, table = carrier.through_pairs(codes), _table(fits, carrier, codes)
    if scaled:
        carried = carrier.as_long(carried, vector)
    return TransferredVector(carried, space_a, space_b, way, explained, table)


def _asked(
    what: Any, direction: Direction, carrier: Carrier, fits: Fits
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The direction in A, and its codes of the matched features."""
    name = direction.source.name
    if isinstance(what, int | np.integer) and not isinstance(what, bool):
        what = {int(what): 1.0}
    elif isinstance(what, list | tuple | set | range) and all(isinstance(f, int | np.integer) for f in what):
        what = dict.fromkeys((int(f) for f in what), 1.0)
    if isinstance(what, Mapping):
        codes = np.zeros(fits.features.shape[1])
        place = {feature: i for i, feature in enumerate(fits.features[0].tolist())}
        for feature, code in what.items():
            if feature not in place:
                raise UserError(
                    f"feature {feature} of {name} has no partner in {direction.target.name}: leave it out, or give "
                    "its decoder row as a vector"
                )
            codes[place[feature]] += float(code)
        vector = codes @ carrier.weights_a
    else:
        vector = np.asarray(what.detach().cpu() if hasattr(what, "detach") else what, np.float64)
        width = carrier.weights_a.shape[1]
        if vector.shape != (width,):
            raise UserError(f"a vector of shape {vector.shape}: activations of {name} have shape ({width},)")
        if np.isfinite(vector).all() and vector.any():
            return vector, carrier.coefficients(vector)
    if not (np.isfinite(vector).all() and vector.any()):
        raise UserError("the vector holds NaN or infinity, or is 0: it points nowhere")
    return vector, codes


def _table(fits: Fits, carrier: Carrier, codes: NDArray[np.float64]) -> pd.DataFrame:
    size = np.abs(codes) * np.linalg.norm(carrier.weights_a, axis=1)
    order = np.argsort(-size, kind="stable")
    order = order[codes[order] != 0]
    one, other = fits.features
    columns = {"feature_a": one, "code_a": codes, "feature_b": other, "code_b": codes * carrier.gain}
    return pd.DataFrame({name: values[order] for name, values in columns.items()})
