"""The section on families: its figures, what it lists, and that hostile text stays text."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from test_report_html import page_of

import unifeat as uf
from unifeat.multiway.chance import beside_chance, with_intervals
from unifeat.multiway.depth import Layer
from unifeat.pipeline.family_depth import depth_facts
from unifeat.report.figures.families import MOST_SETS, correspondence_figure, passages_figure, upset_figure
from unifeat.report.labels import label_of_family
from unifeat.report.terminal_families import show_families
from unifeat.runs.folder import Run
from unifeat.vocabulary.json_values import records


def with_families(run: Run, token: str, draws: int = 3) -> Run:
    """The run with the files that a study with families leaves."""
    found = uf.families(run)
    pairs = {(p["space_a"], p["space_b"]): run.space_pair(p["space_a"], p["space_b"]) for p in run.info["pairs"]}
    models = {name: name.split("@")[0] for name in found.spaces}
    beside = beside_chance(found, [found] * draws, models)
    sets = with_intervals(beside.sets, [found] * 5, 20, 0.95)
    layers = {name: Layer(name.rsplit("@", 1)[0], info["layer"]) for name, info in run.info["spaces"].items()}
    sharing = [{"of": a, "in": b, "mppc": 0.51, "wmppc": None} for a, b in pairs]
    facts = {
        "method": "consistent", "spaces": list(found.spaces), "families": len(found), "pairs": found.pairs,
        "sizes": records(beside.sizes), "presence": records(found.presence),
        "models": records(beside.models), "presence_in_models": records(found.presence_in(models)),
        "walks": 0, "consistency": 0.25, "consistency_chance": 0.01,
        "consistency_draws": None, "draws": draws, "bootstraps": 5, "blocks": 20,
        "sharing": {"spaces": sharing, "models": [{"of": "x", "in": "y", "wmppc": 0.625}]},
        "depth": depth_facts(found, pairs, layers, 0.95, 0),
    }  # fmt: skip
    table = found.table.assign(top_tokens=pd.Series([[token, " Wednesday"]] * len(found), dtype=object))
    table.to_parquet(run.folder / "families.parquet", index=False)
    sets.assign(spaces=sets["spaces"].map(list)).to_parquet(run.folder / "family_sets.parquet", index=False)
    own = {"space": found.spaces[0], "feature": np.arange(3, dtype=np.int32), "group": "chat", "other": "base"}
    own |= {"total": 10.0, "r_group": 0.9, "r_other": 0.1, "sharedness": [8.0, 2.0, -1.0]}
    own |= {"top_tokens": [[token]] * 3}
    pd.DataFrame(own).to_parquet(run.folder / "sharedness.parquet", index=False)
    info = run.info | {"families": facts}
    (run.folder / "run.json").write_text(json.dumps(info))
    return Run(run.folder)


def test_what_the_section_says(make_run):
    run = with_families(make_run(groups={"a": [1, 2], "b": [3, 4]}), " Tuesday")
    assert run.families is not None
    text = page_of(run).text
    facts = run.info["families"]
    assert f"The {facts['pairs']} kept pairs make {facts['families']} families" in text
    assert "leads home 25 % of the time; to a random partner it would be 1.0 %" in text
    assert "No p is below 0.250 : too few draws to decide anything" in text.replace("0.250:", "0.250 :")
    for row in facts["presence"]:
        everywhere = next(own["in_all"] for own in facts["presence_in_models"] if own["space"] == row["space"])
        share = f"({everywhere / row['features']:.0%})".replace("%", " %")
        assert f"{row['space']} {row['features']} {everywhere} {share} {row['in_all']}" in text
    both = facts["models"][0]
    assert both["models"] == ["a", "b"]
    assert f"{both['families']} have one in both models (re-paired: {both['null_mean']:.1f}, p 1.000)" in text
    first = run.families.iloc[0]
    assert "Tuesday Wednesday" in text
    assert f"{first['r_mean']:.2f}" in text
    assert "a@1 b@3 0.510 –" in text
    assert "x y – 0.625" in text
    assert "Shared by the models of chat and not by those of base" in text
    assert "a@1 0 8.0 0.90 0.10" in text
    assert "a@1 2 −1.0" not in text  # it is the other group's


def test_families_have_labels_where_their_members_do(make_run, capsys):
    run = with_families(make_run(groups={"a": [1, 2], "b": [3, 4]}), " Tuesday")
    first = run.families.iloc[0]
    members = {name: int(first[name]) for name in run.info["families"]["spaces"] if not pd.isna(first[name])}
    rows = [[name, feature, f"days <{n}>", False] for n, (name, feature) in enumerate(members.items())]
    labels = pd.DataFrame(rows, columns=["space", "feature", "label", "automatic"]).astype({"feature": "int32"})
    labels.to_parquet(run.folder / "labels.parquet", index=False)
    assert "Tuesday Wednesday days <0>" in page_of(Run(run.folder)).text
    show_families(Run(run.folder))
    assert "· days <0>" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("called", "best"),
    [
        (["auto: “a”", "auto: “b”", "auto: “b”"], "auto: “b”"),
        (["auto: “b”", "auto: “b”", "weekdays"], "weekdays"),
        (["", "", ""], ""),
    ],
)
def test_a_family_is_called_what_most_members_are(called, best):
    labels = {space: {7: label} for space, label in zip("abc", called, strict=True)}
    assert label_of_family(labels | {"d": {}}, dict.fromkeys("abcd", 7)) == best


@pytest.mark.parametrize("hostile", ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{ 7*7 }}"])
def test_text_and_names_stay_text(make_run, hostile):
    run = with_families(make_run(groups={hostile: [1, 2], "b": [3, 4]}, token=hostile), hostile)
    page = page_of(run)
    assert len(page.scripts) == 3
    assert not any(tag == "img" for tag, _ in page.elements)
    data = next(json.loads(s) for s in page.scripts if s.startswith('{"colours"'))
    if "<" in hostile:
        assert hostile not in json.dumps(data["figures"])


def test_upset_has_a_bar_and_dots_for_each_set():
    spaces = ["a", "b", "c", "<d>"]
    sets = pd.DataFrame(
        {
            "spaces": [["a", "b", "c", "<d>"], ["a", "b"], ["b", "<d>"], ["a", "c"]],
            "families": [20, 9, 4, 0],
            "null_mean": [1.0, 8.0, 3.0, 2.0],
            "low": [15.0, np.nan, 2.0, np.nan],
            "high": [26.0, np.nan, 7.0, np.nan],
        }
    )
    figure = go.Figure(upset_figure(sets, spaces))
    bars, null, absent, lines, present = figure.data
    assert list(bars.y) == [20, 9, 4]  # sets that only draws have are left out
    assert list(bars.error_y.array) == [6, 0, 3]
    assert list(bars.error_y.arrayminus) == [5, 0, 2]
    assert list(null.y) == [1, 8, 3]
    dots = set(zip(present.x, present.y, strict=True))
    assert dots == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 1), (2, 3)}
    assert len(absent.x) + len(present.x) == 12
    assert [y for y in lines.y if y is not None] == [0, 3, 0, 1, 1, 3]
    assert figure.layout.yaxis2.ticktext[3] == "&lt;d&gt;"
    assert "families of exactly all spaces" in bars.hovertext[0]
    assert "b, &lt;d&gt;" in bars.hovertext[2]


def test_upset_without_null_or_families():
    plain = go.Figure(upset_figure(pd.DataFrame({"spaces": [["a", "b"]], "families": [3]}), ["a", "b"]))
    assert [trace.type for trace in plain.data] == ["bar", "scatter", "scatter", "scatter"]
    go.Figure(upset_figure(pd.DataFrame({"spaces": [], "families": []}), ["a", "b"]))
    many = pd.DataFrame({"spaces": [["a", "b"]] * 40, "families": [1] * 40})
    assert len(go.Figure(upset_figure(many, ["a", "b"])).data[0].y) == MOST_SETS


def test_passages_flow_from_layer_to_layer():
    rows = [
        {"model": "m", "space": "m@1", "next": "m@2", "stay": 5, "end": 2, "begin": 3},
        {"model": "m", "space": "m@2", "next": "m@3", "stay": 4, "end": 0, "begin": 1},
    ]
    (trace,) = go.Figure(passages_figure(rows)).data
    labels = trace.node.label
    flows = {
        (labels[a], labels[b]): n
        for a, b, n in zip(trace.link.source, trace.link.target, trace.link.value, strict=True)
    }
    assert flows == {
        ("m@1", "m@2"): 5,
        ("m@1", "2 end"): 2,
        ("3 begin", "m@2"): 3,
        ("m@2", "m@3"): 4,
        ("1 begin", "m@3"): 1,
    }
    place = dict(zip(labels, trace.node.x, strict=True))
    assert place["m@1"] < place["2 end"] < place["3 begin"] < place["m@2"] < place["1 begin"] < place["m@3"]
    assert trace.link.customdata[1] == "2 families of m@1 in no later layer"


def test_depths_are_relative():
    rows = [
        {"layer_a": 0, "mean": 2.0, "low": 1.0, "high": 4.0, "mode": 2, "features": 9},
        {"layer_a": 10, "mean": 8.0, "low": None, "high": None, "mode": 8, "features": 1},
    ]
    figure = go.Figure(correspondence_figure([{"of": "a", "in": "b", "layers": rows}], {"a": 11, "b": 9}))
    line = figure.data[1]
    assert list(line.x) == [0, 1]
    assert list(line.y) == [0.25, 1]
    assert list(line.error_y.array) == [0.25, 0]
    assert list(line.error_y.arrayminus) == [0.125, 0]
