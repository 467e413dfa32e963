"""Figures by name: in Python, and saved to files by the command line."""

from __future__ import annotations

import json
import shutil

import plotly.graph_objects as go
import pytest
from typer.testing import CliRunner

import unifeat as uf
from unifeat.cli import app
from unifeat.errors import UserError
from unifeat.report.figures.named import FIGURES
from unifeat.report.figures.save import save_figure

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def held(run) -> uf.Run:
    return uf.open(run.folder)


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_has_a_figure_or_says_why_not(make_run, name):
    """Of a run of pairs and scores alone these are drawn; of families, categories … it says that there are none."""
    run = held(make_run())
    if FIGURES[name].there(run):
        figure = run.figure(name)
        assert isinstance(figure, go.Figure)
        assert len(figure.data)
    else:
        with pytest.raises(UserError, match=f"nothing to show as '{name}'"):
            run.figure(name)


def test_which_a_plain_run_has(make_run):
    run = held(make_run())
    assert {name for name, named in FIGURES.items() if named.there(run)} == {
        *("controls", "heatmap", "correlation", "heldout", "partners")
    }


def test_a_heatmap_of_one_value(make_run):
    run = held(make_run())
    three, one = run.figure("heatmap", metric="cka"), run.figure("heatmap", metric="cka", value="corrected")
    assert len(three.data) == 3
    assert len(one.data) == 1
    own = run.scores.query("metric == 'cka' and space_a == 'smollm2@7' and space_b == 'gemma3@4'")["corrected"]
    assert one.data[0].z[0][0] == pytest.approx(own.item(), abs=1e-5)


def test_a_heatmap_of_pairs_kept(make_run):
    run = held(make_run())
    assert run.figure("heatmap", metric="kept").data[0].z[0][0] == run.info["pairs"][0]["kept"]


def test_without_a_metric_it_is_rsa(make_run):
    assert held(make_run()).figure("heatmap").layout.title.text.startswith("RSA")


def test_of_the_spaces_named(make_run):
    run = held(make_run())
    figure = run.figure("correlation", spaces=("smollm2@22", "gemma3@13"))
    assert sum(figure.data[0].y) == run.space_pair("smollm2@22", "gemma3@13")["kept"].sum()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("heatmaps", {}, "did you mean 'heatmap'"),
        ("controls", {"metric": "rsa"}, "takes no 'metric': it takes no options"),
        ("heldout", {"metric": "rsa"}, "takes no 'metric': it takes spaces"),
        ("heldout", {"spaces": "smollm2@7"}, "are not two"),
        ("heldout", {"spaces": ("smollm2@7", "gemma3@44")}, "has no space 'gemma3@44'"),
        ("partners", {"spaces": ("gemma3@4", "smollm2@7")}, "did not compare"),
        ("heatmap", {"metric": "nothing"}, "has no scores by nothing"),
        ("heatmap", {"value": "p"}, "is none of score, null_mean, corrected"),
        ("families", {}, "nothing to show as 'families'"),
    ],
)
def test_mistakes(make_run, name, options, message):
    with pytest.raises(UserError, match=message):
        held(make_run()).figure(name, **options)


def test_saved_without_a_browser(make_run, tmp_path):
    figure = held(make_run()).figure("controls")
    page, data = (save_figure(figure, tmp_path / f"f.{kind}") for kind in ("html", "json"))
    assert "plotly.js v" in page.read_text(encoding="utf-8")
    assert len(json.loads(data.read_text())["data"]) == len(figure.data)


@pytest.mark.skipif(_CHROMIUM is None, reason="no chromium to draw with")
def test_saved_for_a_paper(make_run, tmp_path):
    run = make_run()
    out = tmp_path / "f.svg"
    asked = ["figure", str(run.folder), "heatmap", "--metric", "rsa", "--value", "score", "--out", str(out)]
    done = CliRunner().invoke(app, [*asked, "--width", "500"], catch_exceptions=False)
    assert done.stdout.strip() == str(out)
    text = out.read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert 'width="500"' in text
    assert "gemma3 layer" in text


def test_wrong_endings_and_no_file_are_said(make_run, tmp_path):
    run = make_run()
    for options, message in (
        (["controls"], "where to\\? give --out controls.svg"),
        (["controls", "--out", str(tmp_path / "f.gif")], "end it in .svg"),
        (["controls", "a", "--out", str(tmp_path / "f.html")], "takes no 'spaces'"),
    ):
        with pytest.raises(UserError, match=message):
            CliRunner().invoke(app, ["figure", str(run.folder), *options], catch_exceptions=False)
    assert not list(tmp_path.glob("f.*"))


def test_listed_by_the_command(make_run):
    shown = CliRunner().invoke(app, ["figure", str(make_run().folder)], catch_exceptions=False).stdout
    assert "partners" in shown
    assert "families" not in shown
    assert "controls --out controls.svg" in " ".join(shown.split())
