"""What a one-component SVCCA measures, and what the full one does: docs/one-component.md and its figure.

    python scripts/one_component.py [--docs docs]

Reads the published scores that ship with the package, and draws independent decoders of the published widths. About
a minute on one core.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

import unifeat as uf
from drawing import LINES, save, style, table
from unifeat.geometry import MEASURES
from unifeat.inference import null_scores
from unifeat.progress import set_mode
from unifeat.report.figures.style import COLOURS

D_A, D_B = 512, 768  # Pythia-70m and Pythia-160m
SIZES = [50, 100, 200, 300, 500, 700, 1000, 1300, 1700, 2200, 3000, 5000, 8000]
SHUFFLED = (20, 50, 150, 500, 1500, 5000)


def half_normal_mean(n: Any) -> Any:
    """√(2/(πn)): the mean of |r| where r is about normal with mean 0 and variance 1/n, as for unrelated pairs."""
    return np.sqrt(2 / (np.pi * np.asarray(n, float)))


def expected_svcca(n: int, k_a: int, k_b: int) -> float:
    """Mean canonical correlation of independent Gaussian sides with k_a and k_b columns, n − 1 = degrees of freedom.

    Squared correlations follow the law of Wachter (1980, "The limiting empirical measure of multiple discriminant
    ratios", Ann. Stat. 8): with p = min k / m, q = max k / m, m = n − 1, density √((x − l)(h − x)) / (2π p x (1 − x))
    on [l, h] = (√(p(1 − q)) ∓ √(q(1 − p)))², and a share (p + q − 1)/p of ones where p + q > 1.
    """
    p, q = sorted((min(k_a / (n - 1), 1.0), min(k_b / (n - 1), 1.0)))
    if q >= 1.0:
        return 1.0
    low = (np.sqrt(p * (1 - q)) - np.sqrt(q * (1 - p))) ** 2
    high = min((np.sqrt(p * (1 - q)) + np.sqrt(q * (1 - p))) ** 2, 1.0)
    # x = l + (h − l)(1 − cos θ)/2 takes the roots out of the density; midpoints avoid both ends.
    theta = (np.arange(20_000) + 0.5) * np.pi / 20_000
    x = low + (high - low) * (1 - np.cos(theta)) / 2
    weight = ((high - low) / 2 * np.sin(theta)) ** 2 / (2 * np.pi * p * x * (1 - x)) * np.pi / theta.size
    return float(max(0.0, (p + q - 1) / p) + np.sum(weight * np.sqrt(x)))


def published() -> pd.DataFrame:
    """The published scores; `svcca` and `svcca_null` are of one component."""
    with (files("unifeat") / "published" / "arxiv-2410.06981.csv").open() as stream:
        return pd.read_csv(stream)


def null_of_one_component(n: int, shuffles: int = 400) -> float:
    """Mean over shuffles of independent rows, measured."""
    x, y = uf.synthetic.plant_rows(n, 64, 96, shared=0.0, decay=0.3, seed=n)
    return float(null_scores(MEASURES["svcca"].prepare(x, y, dims=1), shuffles).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    docs = parser.parse_args().docs
    set_mode("quiet")
    scores = published().dropna(subset=["svcca", "svcca_null"])
    scores = scores[scores["n_pairs"] >= 3]
    whole, parts = scores[scores["category"].isna()], scores[scores["category"].notna()]
    measured = [null_of_one_component(n) for n in SHUFFLED]
    full, every, one = [], [], []
    for n in SIZES:
        x, y = uf.synthetic.plant_rows(n, D_A, D_B, shared=0.0, seed=n)
        full.append(uf.svcca(x, y))
        every.append(uf.svcca(x, y, variance=1.0).value)
        one.append(uf.svcca(x, y, dims=1).value)
        print(n, full[-1].value, every[-1], one[-1], flush=True)
    used = [(score.details["dims_a"], score.details["dims_b"]) for score in full]
    law = [expected_svcca(n, *k) for n, k in zip(SIZES, used, strict=True)]
    draw(docs / "one-component.png", whole, parts, measured, [s.value for s in full], one, law)
    ratio = scores["svcca_null"] / half_normal_mean(scores["n_pairs"])
    of_whole = whole["svcca_null"] / half_normal_mean(whole["n_pairs"])
    of_parts = parts["svcca_null"] / half_normal_mean(parts["n_pairs"])
    own = np.array(measured) / half_normal_mean(SHUFFLED)
    (docs / "one-component.md").write_text(
        page(ratio, of_whole, of_parts, own, [s.value for s in full], used, law, every), encoding="utf-8"
    )


def draw(
    picture: Path,
    whole: pd.DataFrame,
    parts: pd.DataFrame,
    measured: list[float],
    full: list[float],
    one: list[float],
    law: list[float],
) -> None:
    titles = ("Published nulls of “SVCCA” follow √(2/(πn))", "Independent decoders, 512 × 768: SVCCA as it is")
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.09)
    line = np.geomspace(4, 30_000, 100)
    marks = {"mode": "markers", "row": 1, "col": 1}
    for name, rows, colour in (("categories", parts, COLOURS["b"]), ("whole spaces", whole, COLOURS["a"])):
        dot = {"color": colour, "size": 5, "opacity": 0.55}
        figure.add_scatter(x=rows["n_pairs"], y=rows["svcca_null"], name=f"published, {name}", marker=dot, **marks)
    cross = {"color": COLOURS["ink"], "size": 10, "symbol": "x-thin", "line": {"width": 2, "color": COLOURS["ink"]}}
    figure.add_scatter(x=SHUFFLED, y=measured, name="unifeat, dims 1, independent rows", marker=cross, **marks)
    thin = {"color": COLOURS["muted"], "width": 1.5}
    figure.add_scatter(x=line, y=half_normal_mean(line), name="√(2/(πn))", mode="lines", line=thin, row=1, col=1)
    green = {"color": LINES[2][0], "size": 8}
    figure.add_scatter(x=SIZES, y=full, name="SVCCA, 99 % of variance", mode="markers", marker=green, row=1, col=2)
    dotted = thin | {"dash": "dot"}
    figure.add_scatter(x=SIZES, y=law, name="Wachter's law", mode="lines", line=dotted, row=1, col=2)
    figure.add_scatter(
        x=SIZES, y=one, name="one component", mode="markers", marker=green | {"symbol": "circle-open"}, row=1, col=2
    )
    figure.update_xaxes(type="log", title_text="pairs n", dtick=1)
    figure.update_yaxes(type="log", title_text="mean over shuffles", dtick=1, row=1, col=1)
    figure.update_yaxes(title_text="score", range=[0, 1.04], row=1, col=2)
    figure = style(figure, 1100, 470, top=112, legend=1.1)
    figure.update_xaxes(exponentformat="none", separatethousands=True)
    figure.update_yaxes(exponentformat="none")
    save(figure, picture)


def page(
    ratio: pd.Series,
    of_whole: pd.Series,
    of_parts: pd.Series,
    own: np.ndarray,
    full: list[float],
    used: list[tuple[int, int]],
    law: list[float],
    whole: list[float],
) -> str:
    rows = [
        [f"{n:,}", f"{a} and {b}", f"{value:.2f}", f"{expected:.2f}", f"{every:.2f}"]
        for n, (a, b), value, expected, every in zip(SIZES, used, full, law, whole, strict=True)
    ]
    columns = ["pairs", "components used", "SVCCA, 99 % of variance", "Wachter's law", "SVCCA, every component"]
    return f"""# What a one-component SVCCA measures

Written by `python scripts/one_component.py`; every number is from its run.

SVCCA keeps some principal components of each side and takes the mean canonical correlation between them. How many is a
choice, and the published scores of arXiv 2410.06981 were made with one: the code cut at 99 % of the variance, but
compared a cumulative *share* with 0.99 times the *total* variance, so that the first component always sufficed. With
one component per side there is nothing to combine, and

    SVCCA = |corr(PC₁ of A, PC₁ of B)|

One number a pair on each side, out of hundreds of dimensions: do the pairs that lie far out along A's main axis lie
far out along B's? A high value says that the two main axes order the pairs alike, as a common mean direction, a firing
frequency or an outlier can make them. A low value does not say that the spaces differ: two spaces can be one rotation
apart and have main axes that a little noise exchanges.

![Left: null means against n; right: SVCCA of independent decoders against n](one-component.png)

## Its null
Over shuffled pairs a correlation has mean 0 and variance 1/(n − 1), and is about normal; so its absolute value is
half-normal, with mean √(2/(πn)), whatever the models, layers and widths. (Left; the crosses are the mean of
`uf.svcca(x, y, dims=1)` over shuffles of independent rows, {own.min():.2f} to {own.max():.2f} of that value.) The
{len(ratio)} published nulls do the same: those of categories, {len(of_parts)} means of 100 or 1,000 shuffles, are
{of_parts.mean():.2f} ± {of_parts.std():.2f} of it (mean ± sd over cells); those of whole spaces, {len(of_whole)}
means of 1 to 20 shuffles, scatter more, {of_whole.mean():.2f} ± {of_whole.std():.2f}. This is how we know that one
component was kept: the null of any larger number is higher (right).

It also says what to expect of few pairs: for n = 30 chance alone gives {half_normal_mean(30):.2f} on average, and more
than {1.96 / np.sqrt(30):.2f} once in twenty.

## The full SVCCA alone does not solve this
With the components that hold 99 % of the variance, decoders that have nothing in common score high, because that many
directions can always be turned towards each other. {D_A} × {D_B} dimensions, independent Gaussian directions, one draw
for each n:

{table(columns, rows)}
Wachter's law (1980) says what independent Gaussian sides score in the limit, for the components used. With every
component kept (`variance: 1`) the score is exactly 1 once n − 1 ≤ {D_B}, whatever the data: one side then spans all
that n pairs can do. unifeat flags a score of which n forces a part `saturated`. The score falls slowly: even at
{SIZES[-1]:,} pairs it is {full[-1]:.2f}.

So neither number can be read alone. unifeat reports the components used, the score beside its null, the
chance-corrected score (s − τ)/(1 − τ), and measures whose value is about 0 where nothing is shared, whatever n and d:
held-out CCA, held-out Procrustes, debiased CKA. Which measure finds most is in [power.md](power.md).
"""


if __name__ == "__main__":
    main()
