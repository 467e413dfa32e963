"""Which measure finds a small shared part? The smallest share of pairs with a common direction that each detects.

    python scripts/power.py [--studies 100] [--docs docs] [--cache build/power]

Writes docs/power.md and docs/power.png. Works off one measure and number of pairs after another, and stores each in
the cache: a second call goes on where the first one stopped. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from plotly.subplots import make_subplots
from scipy.stats import binom

import unifeat as uf
from calibration import ALPHA, CASES
from drawing import LINES, save, style, table
from unifeat.geometry import MEASURES
from unifeat.inference import permutations
from unifeat.progress import set_mode
from unifeat.store import written_aside

D_A, D_B = 32, 48
SIZES = [20, 40, 80, 160, 320]
SHARES = np.array([0.01, 0.02, 0.03, 0.045, 0.065, 0.09, 0.125, 0.17, 0.23, 0.3, 0.4, 0.5, 0.62, 0.75, 0.88, 1.0])
NOISE, DECAY = 0.6, 0.3
SHUFFLES, POWER = 19, 0.8
PLAIN = 1e-4  # tail probability of a power of POWER at which a share needs no more studies


def detected(case: str, n: int, share: float, seed: int) -> bool:
    """Whether one simulated study has p ≤ ALPHA. Shuffling ends as soon as so many reach the score that it has not."""
    name, settings = CASES[case]
    x, y = uf.synthetic.plant_rows(n, D_A, D_B, shared=share, noise=NOISE, decay=DECAY, seed=seed)
    prepared = MEASURES[name].prepare(x, y, **settings)
    score, allowed = prepared.score().value, int(ALPHA * (SHUFFLES + 1)) - 1
    for order in permutations(n, SHUFFLES, seed):
        allowed -= prepared.shuffled(order) >= score - prepared.tolerance
        if allowed < 0:
            return False
    return True


def power_of(case: str, n: int, share: float, studies: int, *, whole: bool = False) -> float:
    """Share of studies that detect; unless `whole`, of fewer where it is plain on which side of POWER it lies."""
    found = 0
    for done in range(1, studies + 1):
        found += detected(case, n, share, done - 1)
        below, above = binom.cdf(found, done, POWER), binom.sf(found - 1, done, POWER)
        if not whole and done % 10 == 0 and min(below, above) < PLAIN:
            break
    return found / done


def smallest_share(case: str, n: int, studies: int) -> tuple[float, dict[float, float]]:
    """Where power crosses POWER (NaN: nowhere up to 1), and the power at each share tried.

    Bisection over `SHARES`, as power grows with the share; then a straight line between the two neighbours of the
    crossing, over the logarithm of the share.
    """
    tried: dict[float, float] = {}

    def power(place: int) -> float:
        share = float(SHARES[place])
        if share not in tried:
            tried[share] = power_of(case, n, share, studies)
        return tried[share]

    if power(len(SHARES) - 1) < POWER:
        return float("nan"), tried
    low, high = -1, len(SHARES) - 1  # power is below POWER at low (nothing shared), and not at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    if low < 0:
        return float(SHARES[0]), tried
    # Studies that ended early lean away from POWER: the two neighbours get all of theirs.
    below, above = (power_of(case, n, float(SHARES[place]), studies, whole=True) for place in (low, high))
    part = np.clip((POWER - below) / (above - below), 0.0, 1.0) if above > below else 0.5
    return float(np.exp(np.interp(part, [0, 1], np.log(SHARES[[low, high]])))), tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--cache", type=Path, default=Path("build/power"))
    options = parser.parse_args()
    set_mode("quiet")
    settings = [D_A, D_B, CASES, SHARES.tolist(), NOISE, DECAY, SHUFFLES, POWER, PLAIN, ALPHA]
    cache = options.cache / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
    found: dict[str, list[float]] = {case: [] for case in CASES}
    for n in SIZES:
        for case in CASES:
            path = cache / f"{case.replace(', ', '-').replace(' ', '-')}-{n}-{options.studies}.json"
            if not path.exists():
                share, tried = smallest_share(case, n, options.studies)
                with written_aside(path) as aside:
                    aside.write_text(json.dumps({"share": share, "power": tried}))
                print(f"{case}, n {n}: {share:.3f}", flush=True)
            found[case].append(json.loads(path.read_text())["share"])
    draw(options.docs / "power.png", found)
    (options.docs / "power.md").write_text(page(found, options.studies), encoding="utf-8")


def draw(picture: Path, found: dict[str, list[float]]) -> None:
    figure = make_subplots(1, 1)
    order = sorted(CASES, key=lambda case: tuple(np.nan_to_num(found[case][::-1], nan=2.0)))
    lines = dict(zip(CASES, LINES, strict=True))
    for case in order:
        colour, dash = lines[case]
        add = partial(figure.add_scatter, name=case, mode="lines+markers", marker={"size": 6})
        add(x=SIZES, y=found[case], line={"color": colour, "dash": dash, "width": 2})
    figure.update_xaxes(type="log", title_text="pairs n", tickvals=SIZES)
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]
    least = min(np.nanmin(shares) for shares in found.values() if not np.isnan(shares).all())
    figure.update_yaxes(
        type="log", title_text=f"smallest share detected at {POWER:.0%} power", tickvals=ticks,
        ticktext=[f"{t:.0%}" for t in ticks], range=[np.log10(least * 0.9), np.log10(1.08)],
    )  # fmt: skip
    figure = style(figure, 900, 500, top=16)
    figure.update_layout(legend={"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"})
    save(figure, picture)


def page(found: dict[str, list[float]], studies: int) -> str:
    def shown(value: Any) -> str:
        return "never" if np.isnan(value) else f"{value:.2f}" if value > SHARES[0] else f"≤ {SHARES[0]:.2f}"

    order = sorted(CASES, key=lambda case: tuple(np.nan_to_num(found[case][::-1], nan=2.0)))
    rows = [[case, *map(shown, found[case])] for case in order]
    error = np.sqrt(POWER * (1 - POWER) / studies)
    best = []
    for i, n in enumerate(SIZES):
        shares = {case: found[case][i] for case in order if not np.isnan(found[case][i])}
        near = [case for case, share in shares.items() if share <= 1.1 * min(shares.values())]
        best.append(f"* n = {n}: {'; '.join(near)}")
    listed = "\n".join(best)
    return f"""# Power: which measure to read

Written by `python scripts/power.py`; every number is from its run.

Of n pairs a share points the same way in both spaces, up to one rotation and noise ({NOISE:g} times as long as the
direction, on either side); the other pairs are independent. {D_A} × {D_B} dimensions, coordinate j with standard
deviation (j + 1)^−{DECAY:g}. Below: the smallest share at which the shuffle test finds p ≤ {ALPHA} in {POWER:.0%} of
{studies} simulated studies ({SHUFFLES} shuffles each; fewer studies where the power is plainly above or below).
Power near {POWER:.0%} is known to ± {error:.2f} (standard error). `never`: not detected even if all pairs are shared.

![Smallest share detected against n, one line per measure](power.png)

{table(["", *(f"n = {n}" for n in SIZES)], rows)}
Within a tenth of the smallest:

{listed}

How to read it: a test with little power that finds nothing says little. The truth planted here is a rotation, which is
what Procrustes, CKA and RSA are made for; if the map between two spaces is linear but not a rotation, the CCA family
and the ridge map are. A high value is not power: SVCCA of few pairs is near 1 and detects nothing.

The power that shuffles within strata, partial RSA and shuffles of whole units have is in [confounds.md](confounds.md).
"""


if __name__ == "__main__":
    main()
