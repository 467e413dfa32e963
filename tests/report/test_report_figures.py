"""Figures and the tables and sentences behind them."""

import math

import numpy as np
import pytest

from unifeat.errors import UserError
from unifeat.report.figures.distributions import correlation_figure, heldout_figure, partner_figure
from unifeat.report.figures.heatmaps import count_panel, heatmap_figure, panel_figure
from unifeat.report.summary import summary
from unifeat.report.tables import (
    cells,
    decimal,
    group_pairs,
    layer_grid,
    measures,
    percent,
    probability,
    rows_of,
    scores_of,
    span,
)


def test_heatmap_figure(make_run):
    run = make_run()
    figure = heatmap_figure(run, "svcca", {"dims": 32})
    score, null, corrected = figure.data
    for trace, column in ((score, "score"), (null, "null_mean"), (corrected, "corrected")):
        scores = run.scores[run.scores["settings"] == '{"dims": 32}']
        for row in scores.itertuples():
            at = trace.y.index(str(row.layer_a)), trace.x.index(str(row.layer_b))
            assert trace.z[at[0]][at[1]] == pytest.approx(getattr(row, column), abs=1e-5)
        assert trace.coloraxis == "coloraxis", "one colour scale for all"
    written = [a.text for a in figure.layout.annotations]
    assert sum(text.endswith("*") for text in written) == int((scores["q"] < 0.05).sum())


def test_heatmap_figure_finds_the_measure(make_run):
    run = make_run()
    assert heatmap_figure(run, "svcca").layout.title.text == "SVCCA (dims 32)"
    assert heatmap_figure(run, "svcca", '{"dims": 1}').layout.title.text == "SVCCA (dims 1)"
    with pytest.raises(UserError, match=r"no scores by svcca \{\"dims\": 7\}: it has SVCCA \(dims 32\)"):
        heatmap_figure(run, "svcca", {"dims": 7})


def test_heatmap_figure_of_undefined_scores(make_run):
    figure = heatmap_figure(make_run(groups={"a": [1], "b": [2]}, undefined=True), "cka")
    assert [a.text for a in figure.layout.annotations].count("n/a") == 3


def test_heatmaps_of_three_groups(make_run):
    run = make_run(groups={"a": [1, 2], "b": [3], "c": list(range(30))}, kept=20)
    assert group_pairs(run) == [("a", "b"), ("a", "c"), ("b", "c")]
    figure = heatmap_figure(run, "rsa")
    assert [np.shape(t.z) for t in figure.data] == [(2, 1)] * 3 + [(2, 30)] * 3 + [(1, 30)] * 3


def test_layer_grid_in_order_of_layers(make_run):
    run = make_run(groups={"a": [22, 7], "b": [13, 4]})
    grid = layer_grid(scores_of(run, measures(run)[0]), "score", ("a", "b"))
    assert list(grid.index) == [7, 22]
    assert list(grid.columns) == [4, 13]


def test_histogram_counts_every_pair(make_run):
    run = make_run()
    kept = run.pairs.query("kept and space_a == 'smollm2@7' and space_b == 'gemma3@4'")
    kept = kept.assign(correlation_heldout=kept["correlation_heldout"].mask(kept.index < 2))
    bars, line = correlation_figure(kept)["data"]
    assert sum(bars["y"]) == len(kept) == 60
    assert sum(line["y"]) == 58, "pairs without a held-out r are left out"


def test_scatter_is_a_seeded_sample(make_run):
    kept = make_run().pairs.query("kept")
    first, again, other = (heldout_figure(kept, 20, seed)["data"][1]["x"] for seed in (0, 0, 1))
    assert len(first) == 20
    assert first == again != other


def test_partner_figure(make_run):
    cell = rows_of(cells(make_run()))[0]
    traces = partner_figure(cell)["data"]
    assert [t["name"] for t in traces] == [
        f"{s}, {w}" for s in ("smollm2@7", "gemma3@4") for w in ("aligned", "shifted")
    ]
    assert traces[0]["y"][0] == pytest.approx(cell.best_r["a_to_b"][-1], abs=1e-4)
    assert traces[0]["y"] == sorted(traces[0]["y"], reverse=True)


def test_plain_figures_are_plotly_figures(make_run):
    import plotly.graph_objects as go

    run = make_run()
    kept, cell = run.pairs.query("kept"), rows_of(cells(run))[0]
    for figure in (correlation_figure(kept), heldout_figure(kept, 9, 0), partner_figure(cell)):
        assert len(go.Figure(figure).data) == len(figure["data"])
    panel = count_panel(run, ("smollm2", "gemma3"), "kept")
    assert go.Figure(panel_figure(panel, ("smollm2", "gemma3"), (0, 60))).data[0].z[0][0] == 60


def test_empty_cells_make_empty_figures(make_run):
    kept = make_run(kept=0).pairs.query("kept")
    assert correlation_figure(kept)["data"] == []
    assert heldout_figure(kept, 10, 0)["data"][1]["x"] == []


def test_control_counts_both_texts_alike(make_run):
    run = make_run()
    cell = run.space_pair("smollm2@7", "gemma3@4")
    over = int((cell["correlation"] > 0.1).sum())  # every feature of the made-up run has one candidate
    said = summary(run).more[-1]
    assert said.startswith(f"Before any filter, {over} mutual pairs of these two spaces reach r > 0.1; with the")
    assert said.endswith("its own counterpart, 11 do.")


def test_summary_of_best_partners(make_run):
    run = make_run()
    study = run.folder / "study.yaml"
    study.write_text(study.read_text().replace("mutual", "max\n  direction: b_to_a"))
    assert (
        summary(run).lead[0].startswith("Of the 256 features of gemma3@4, 60 (23 %) have a best partner in smollm2@7")
    )


def test_numbers_as_words():
    assert [decimal(v) for v in (0.414, -0.2, -0.001, math.nan, None)] == ["0.41", "−0.20", "0.00", "–", "–"]
    assert [percent(v) for v in (0.4, 0.016, 0.0, math.nan)] == ["40 %", "1.6 %", "0 %", "–"]
    assert [probability(v) for v in (0.4, 0.001996, 0.00004, math.nan)] == ["0.400", "0.002", "4e-05", "–"]
    assert span([20, 24, math.nan]) == "20–24"
    assert span([0.01, 0.04], percent) == "1.0–4.0 %"
    assert span([]) == "–"
