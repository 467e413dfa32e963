"""What the report and the terminal say of ceilings and of controls at chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unifeat.report import ceilings
from unifeat.report.html import render
from unifeat.report.overview import group_overview
from unifeat.report.summary import summary
from unifeat.report.tables import cells, role, rows_of
from unifeat.report.terminal import show
from unifeat.runs.folder import Run
from unifeat.runs.roles import role_of

MakeRun = Callable[..., Run]


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    """An ordinary pair of spaces with both ceilings, those, and a control."""
    made = make_run(groups={"one": [5], "two": [2], "one-seed1": [5], "two-seed1": [2], "noise": [5]}, kept=120)
    info = json.loads((made.folder / "run.json").read_text())
    for name, space in info["spaces"].items():
        space["model"] = name.partition("@")[0].removesuffix("-seed1")
    info["spaces"]["noise@5"]["control"] = "random weights"
    info["pairs"] = [
        facts | {"ceiling": None}
        for facts in info["pairs"]
        if (facts["space_a"], facts["space_b"])
        in {("one@5", "two@2"), ("one@5", "one-seed1@5"), ("two@2", "two-seed1@2"), ("one@5", "noise@5")}
    ]
    info["pairs"][0]["ceiling"] = {
        "of": "both",
        "kept": 150.0,
        "kept_share": 0.8,
        "rate_a_share": 0.75,
        "rate_b_share": None,
    }
    (made.folder / "run.json").write_text(json.dumps(info))
    scores = pd.read_parquet(made.folder / "scores.parquet")
    kept = pd.DataFrame(info["pairs"])[["space_a", "space_b"]]
    scores = scores.merge(kept, on=["space_a", "space_b"])
    ordinary = (scores["space_a"] == "one@5") & (scores["space_b"] == "two@2")
    control = scores["space_b"] == "noise@5"
    rsa = scores["metric"] == "rsa"
    table = scores.assign(
        ceiling=np.where(ordinary, 0.5, np.nan),
        ceiling_share=np.select([ordinary & rsa, ordinary], [0.3333, 0.6], np.nan),
        ceiling_share_low=np.where(ordinary, 0.28, np.nan),
        ceiling_share_high=np.where(ordinary, 0.3849, np.nan),
        ceiling_share_chance=np.select([ordinary & rsa, ordinary], [-0.01, 0.55], np.nan),
        ceiling_pairs=np.where(ordinary, 120, 0),
        ceiling_of=np.where(ordinary, "both", ""),
        p_equivalent=np.select([control & rsa, control], [0.003, 0.31], 1.0),
        equivalence_margin=0.05,
    )
    table.to_parquet(made.folder / "scores.parquet", index=False)
    study = made.folder / "study.yaml"
    study.write_text(study.read_text().replace("permutations: 500", "permutations: 500\n  equivalence: 0.05"))
    return Run(made.folder)


def test_roles_of_groups(run: Run) -> None:
    assert role(run, ("one", "one-seed1")) == "ceiling: two SAEs of one model"
    assert role(run, ("one", "two")) == ""
    run.info["spaces"]["one-seed1@5"]["layer"] = 7
    assert role(run, ("one", "one-seed1")) == "layers of one model"


def test_an_undertrained_sae_sets_no_ceiling(run: Run) -> None:
    """It explains less than nine tenths of what the other does; codes that are brought have no FVU, and may set one."""
    spaces = run.info["spaces"]
    for fvu, expected in ((0.21, "ceiling"), (0.25, "ceiling"), (0.55, "one model"), (None, "ceiling")):
        spaces["one-seed1@5"]["fvu"], spaces["one@5"]["fvu"] = fvu, 0.2
        assert role_of(spaces["one@5"], spaces["one-seed1@5"]) == expected
        assert role(run, ("one", "one-seed1")).startswith("ceiling") == (expected == "ceiling")


def test_the_summary_names_a_measure_that_chance_does_not_inflate(run: Run) -> None:
    text = summary(run).text
    assert (
        "In RSA, one@5 × two@2 reaches 33 % (28 to 38 %) of its ceiling, which second SAEs of both spaces’ own "
        "activations set, and 80 % of its number of pairs." in text
    )
    own = run.scores[(run.scores["space_b"] == "noise@5") | (run.scores["space_a"] == "noise@5")]
    over = own[own["q"] < 0.05]
    which = "none exceeds" if over.empty else f"{len(over)} exceed"
    assert f"Of {len(own)} scores of controls, {which}" in text
    assert "1 is shown to be within 0.05 of chance" in text


def test_the_overview(run: Run) -> None:
    line = next(line for line in group_overview(run)[1] if line.groups == ("one", "two"))
    # (Measures of a number of components come last.)
    assert line.of_ceiling == ["33 %", "60 %, chance 55 %", "60 %, chance 55 %", "60 %, chance 55 %"]
    others = [line for line in group_overview(run)[1] if line.groups != ("one", "two")]
    assert all(not any(line.of_ceiling) for line in others)


def test_the_terminal(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show(run)
    text = capsys.readouterr().out
    near = text.split("share of the ceiling")[1].split("\n\n")[0]
    assert "one@5 × two@2" in near
    assert "one@5 × noise@5" not in near
    assert "33 % (28 to 38 %)" in near
    assert "60 % (28 to 38 %), chance 55 %" in near
    controls = text.split("controls: no more alike than chance, within 0.05?")[1].split("\n\n")[0]
    assert "yes (p 0.003)" in controls
    assert "not shown (p 0.310)" in controls
    show(run, "one@5", "noise@5")
    text = capsys.readouterr().out
    assert "RSA: no more alike than chance, within 0.05 (p = 0.003)" in text
    assert "CKA: not shown to be within 0.05 of chance (p = 0.310)" in text
    show(run, "one@5", "two@2")
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "120 pairs are 80 % of the 150 of its ceiling. Of the features of one@5 that a second SAE finds again" in text
    )
    assert "of the ceiling" in text
    assert "no more alike than chance" not in text, "of controls only"


def test_the_page(run: Run) -> None:
    page = render(run)
    for words in (
        "33 % (28 to 38 %)", "share of it (95 % interval)", "chance’s share", "both spaces (the root of the product)",
        "no more alike than chance, within 0.05 (p = 0.003)", "not shown to be within 0.05 of chance (p = 0.310)",
        "60 %, chance 55 %",
    ):  # fmt: skip
        assert words in page, words


def test_a_run_without_ceilings_or_controls_says_nothing_of_them(make_run: MakeRun) -> None:
    plain = make_run()
    page = render(plain)
    for words in ("of the ceiling", "of its ceiling", "Ceiling:", "no more alike", "p equivalent", "share of it"):
        assert words not in page.split("</style>")[1].split("<noscript>")[0], words
    assert not any("ceiling" in sentence or "control" in sentence for sentence in summary(plain).more)
    assert ceilings.cell_geometry(plain, rows_of(cells(plain))[0]) is None


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.003, "no more alike than chance, within 0.1 (p = 0.003)"),
        (0.2, "not shown to be within 0.1 of chance (p = 0.200)"),
        (float("nan"), "–"),
    ],
)
def test_words_of_equivalence(p: float, words: str) -> None:
    row: Any = SimpleNamespace(p_equivalent=p, equivalence_margin=0.1)
    assert ceilings.equivalence_text(row) == words


def test_shares_below_zero_and_without_an_interval() -> None:
    row: Any = SimpleNamespace(ceiling_share=-0.021, ceiling_share_low=float("nan"), ceiling_share_high=float("nan"))
    assert ceilings.share_text(row) == "−2 %"
    assert ceilings.share(-0.001) == "0 %"
