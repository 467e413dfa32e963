"""The permutation test: is a score higher than that of shuffled pairs?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError, did_you_mean
from unifeat.geometry import MEASURES, Measure, Score
from unifeat.geometry._device import shuffling_on
from unifeat.geometry.score import describe, html_card
from unifeat.inference.calibration import calibrate
from unifeat.inference.exchange import Exchange
from unifeat.inference.permuting import MOST_DRAWS, SharedRows, null_scores, whole
from unifeat.progress import track

_BATCH_SHUFFLES = 25


class WithNull:
    """A result with null scores.

    Attributes:
        null: (m,) float64.
    """

    null: NDArray[np.float64]

    @property
    def null_mean(self) -> float:
        return float(self.null.mean())

    @property
    def null_sd(self) -> float:
        """Standard deviation of the null (ddof 1; NaN for a single permutation)."""
        return float(self.null.std(ddof=1)) if self.null.size > 1 else math.nan


@dataclass(frozen=True, eq=False)
class PermutationTest(WithNull):
    """A score, compared with the scores of shuffled pairs."""

    measure: str
    """Name of the measure."""
    score: float
    """The score of the pairs as given."""
    null: NDArray[np.float64]
    """Scores of the shuffled pairs, (m,), in the order of their permutations; read-only."""
    p: float
    """(b + 1) / (m + 1), where b null scores are at least the score; NaN for an undefined score."""
    corrected: float
    """Chance-corrected score (score − τ) / (1 − τ), clipped to [0, 1]; see `calibrate`."""
    threshold: float
    """τ: the critical value at level alpha."""
    alpha: float
    """Level of τ. Not used for p."""
    seed: int
    """Seed of the permutations."""
    settings: dict[str, Any]
    """Settings of the measure."""
    n: int
    """Number of pairs."""
    flags: tuple[str, ...]
    """Flags of the score and of the test."""
    observed: Score
    """The score with its details: components used, correlations …"""
    strata: int | None = None
    """Number of strata that rows were exchanged within; None: any row with any other."""
    units: int | None = None
    """Number of units of rows that moved together; None: each row by itself."""
    fixed: int = 0
    """Rows that no permutation moved, because there was nothing that they could be exchanged with."""
    least_p: float = math.nan
    """The least p that the test can give: 1 / (m + 1), or one over the number of pairings if there are fewer."""

    def __repr__(self) -> str:
        line = (
            f"{self.measure} {self.score:.4f}  null {self.null_mean:.4f} ± {self.null_sd:.4f}  "
            f"corrected {self.corrected:.4f}  p {self.p:.4g}  "
            f"({describe(self.settings)}; {self.observed.extent()}; {self._shuffles()})"
        )
        return "\n".join([line] + [f"  ! {flag}" for flag in self.flags])

    def _repr_html_(self) -> str:
        rows = [
            ("null", f"{self.null_mean:.4f} ± {self.null_sd:.4f}"),
            (f"corrected (τ = {self.threshold:.4f})", f"{self.corrected:.4f}"),
            ("p", f"{self.p:.4g}"),
            ("settings", describe(self.settings)),
            ("pairs", self.observed.extent()),
            ("shuffles", self._shuffles()),
        ]
        return html_card(f"{self.measure} = {self.score:.4f}", rows, self.flags)

    def _shuffles(self) -> str:
        of_units = "" if self.units is None else f" of {self.units} units"
        within = "" if self.strata is None else f" within {self.strata} strata"
        return f"{self.null.size} permutations{of_units}{within}, seed {self.seed}"


def permutation_test(
    measure: str | Callable[..., Score] | Measure,
    x: Any,
    y: Any,
    *,
    permutations: int = 1000,
    seed: int = 0,
    alpha: float = 0.05,
    rows: SharedRows | None = None,
    strata: Any = None,
    units: Any = None,
    device: str = "cpu",
    **settings: Any,
) -> PermutationTest:
    """Score the pairs (x_i, y_i) and count how often shuffled pairs (x_i, y_π(i)) score as high.

    measure: a public measure (`unifeat.rsa`) or its name ("rsa").
    x: (n, d_a), y: (n, d_b): row i of x is paired with row i of y.
    permutations: how many shuffles, 1,000,000 at most; the smallest p they can give is 1 / (permutations + 1).
    seed: the same seed and n give the same permutations, for every measure, on every machine.
    alpha: level of the threshold τ in the chance-corrected score.
    rows: which rows of a larger set the pairs are. Tests with the same set share permutations, however many of its rows
        each has; max-T over a grid needs this.
    strata: (n,) labels of the pairs, numbers or anything hashable; or (n, k), each row a label. Rows of y are only
        exchanged with rows of the same label, so that the test does not find what the label explains. Rows that are
        alone in their stratum stay where they are. `unifeat.inference.frequency_strata` makes labels from counts.
    units: (n,) labels of the pairs. Rows of y with the same label move together, in their order, to the rows of another
        unit with as many. Wanted where a row of one side is paired with several of the other, as matching by `max`
        does: label the pairs by that row. (Or where pairs come in clusters: label them by cluster.) Units may also have
        strata, the same for all their rows.
    device: cpu, cuda, or cuda:1 …: where the shuffles of RSA and CKA run; those of other measures run on the CPU. Null
        scores on a device differ from the CPU's by rounding (1e-7 at most).
    settings: keywords of the measure. Use `with_settings` for those that have the name of an argument here (`alpha`,
        `seed`).

    The null hypothesis is that any row of y (of the same stratum) could have been paired with any row of x. Two sides
    that share nothing but how both depend on something, such as firing frequency, do not fulfil it without strata of
    that. It ignores that the pairs were chosen because they correlate; to test that, the matching has to be redone.

    flags: those of the score; `few permutations` (p cannot reach alpha), `few shuffles` (fewer pairings than
    permutations), `strata` and `units` (how many rows stay where they are).
    Raises UserError as the measure does, and for an unknown measure or setting, a bad count or a bad seed, labels that
    are not one for each pair, and a device that is not there or too small.
    """
    chosen = find_measure(measure)
    m, seed = whole(permutations, "permutations", least=1, most=MOST_DRAWS), whole(seed, "seed", least=0)
    prepared = chosen.prepare(x, y, **settings)
    observed = prepared.score()
    exchange = None if strata is None and units is None else Exchange.of(observed.n, strata, units)
    exchanged = exchange or Exchange.of(observed.n)
    if math.isnan(observed.value):
        null = np.full(m, np.nan)
    else:
        batches = []
        with track(f"{chosen.name} null", total=m, unit="shuffles") as advance, shuffling_on(device, prepared) as ready:
            for start in range(0, m, _BATCH_SHUFFLES):
                count = min(_BATCH_SHUFFLES, m - start)
                batches.append(null_scores(ready, count, seed, start=start, rows=rows, exchange=exchange))
                advance(batches[-1].size)
        null = np.concatenate(batches)
    null.flags.writeable = False
    p, corrected, threshold = calibrate(observed.value, null, alpha=alpha, tolerance=prepared.tolerance)
    return PermutationTest(
        measure=chosen.name,
        score=observed.value,
        null=null,
        p=p,
        corrected=corrected,
        threshold=threshold,
        alpha=alpha,
        seed=seed,
        settings=observed.settings,
        n=observed.n,
        flags=observed.flags + _test_flags(exchanged, m, alpha),
        observed=observed,
        strata=None if exchange is None else exchange.strata,
        units=len(exchange.classes) if exchange is not None and exchange.grouped else None,
        fixed=0 if exchange is None else exchange.fixed,
        least_p=max(1 / (m + 1), math.exp(-exchanged.log_arrangements)),
    )


def find_measure(measure: str | Callable[..., Score] | Measure) -> Measure:
    """The registered measure for a name, a public function, or a registered measure itself."""
    if isinstance(measure, Measure):
        return measure
    for known in MEASURES.values():
        if measure is known.function or measure == known.name:
            return known
    name = measure if isinstance(measure, str) else getattr(measure, "__name__", repr(measure))
    raise UserError(f"unknown measure {name!r}{did_you_mean(name, MEASURES)}: choose one of {', '.join(MEASURES)}")


def with_settings(measure: str | Measure, settings: Mapping[str, Any]) -> Measure:
    """The measure with fixed settings, for tests that have a `seed` or an `alpha` of their own."""
    known = find_measure(measure)
    known.check(settings)
    return replace(
        known, function=partial(known.function, **settings), preparation=partial(known.preparation, **settings)
    )


def _test_flags(exchange: Exchange, m: int, alpha: float) -> tuple[str, ...]:
    flags: tuple[str, ...] = ()
    n = len(exchange.members)
    within = "" if exchange.strata is None else " within their strata"
    if exchange.fixed:
        why = "are alone in their stratum"
        if exchange.grouped:
            why = f"are in units that no other equals in size{within}"
        name = "units" if exchange.grouped else "strata"
        flags += (f"{name}: {exchange.fixed} of {n} pairs {why} and stay where they are",)
    if exchange.log_arrangements <= math.log(m) + 1e-9:
        what = f"{n} pairs in {len(exchange.classes)} units" if exchange.grouped else f"{n} pairs"
        flags += (f"few shuffles: {what} have only {round(math.exp(exchange.log_arrangements))} pairings{within}",)
    if m + 1 < 1 / alpha:
        flags += (f"few permutations: {m} cannot reach p <= {alpha:g}, and corrected is always 0",)
    return flags
