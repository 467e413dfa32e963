"""The short version: the same numbers as the report, in whatever width there is."""

import pytest

from unifeat.errors import UserError
from unifeat.report.terminal import show


def printed(capsys, run, *spaces) -> str:
    show(run, *spaces)
    return capsys.readouterr().out


def test_short_version(make_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    run = make_run()
    run.report.write_text("here")
    text = printed(capsys, run)
    assert "\x1b" not in text, "plain where there is no terminal"
    for cell in run.info["pairs"]:
        means = f"{cell['mean_correlation']:.2f} → {cell['mean_correlation_heldout']:.2f}"
        assert f"{cell['kept']:,}  {means}" in text
    for row in run.scores.itertuples():
        assert f"{row.score:.2f}{'*' if row.q < 0.05 else ' '} ({row.null_mean:.2f}) {row.p:.3f}" in text
    assert "104,321 tokens in both (85 % and 87 %)" in text
    assert "FVU" in text
    assert text.rstrip().endswith(f"report: {run.report}")
    assert max(map(len, text.splitlines()[:-1])) <= 100


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_every_width(make_run, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    run = make_run(groups={"a": [1, 2], "b": list(range(12))}, kept=90)
    text = printed(capsys, run)
    assert f"{run.scores['score'][0]:.2f}" in text
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text


def test_two_spaces(make_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    run = make_run(token=" [bold]</x> :smile:\n")
    text = printed(capsys, run, "smollm2@15", "gemma3@9")
    kept = run.space_pair("smollm2@15", "gemma3@9").query("kept")
    best = kept.iloc[0]
    assert f"{len(kept)} pairs kept" in text
    assert f"{best['correlation']:.2f}" in text
    assert str(best["feature_a"]) in text
    assert "[bold]</x> :smile:↵ · Wednesday · day · ↵" in text, "words are not markup"
    scores = run.scores.query("space_a == 'smollm2@15' and space_b == 'gemma3@9'")
    for row in scores.itertuples():
        assert f"{row.score:.3f}" in text


@pytest.mark.parametrize("columns", [44, 80, 120])
def test_two_spaces_keep_every_figure_in_every_width(make_run, capsys, monkeypatch, columns):
    """Where a line a measure does not fit, it is a column a measure: nothing is squeezed out."""
    monkeypatch.setenv("COLUMNS", str(columns))
    run = make_run()
    text = printed(capsys, run, "smollm2@15", "gemma3@9")
    table = text[text.index("\n\n") : text.index("strongest")]
    for row in run.scores.query("space_a == 'smollm2@15' and space_b == 'gemma3@9'").itertuples():
        assert f"{row.score:.3f}" in table
        assert f"{row.null_mean:.3f}" in table
    for heading in ("score", "null mean", "corrected"):
        assert heading in table, heading


def test_unknown_space(make_run):
    with pytest.raises(UserError, match=r"no space 'gemma3@8' \(did you mean 'gemma3@"):
        show(make_run(), "smollm2@15", "gemma3@8")


@pytest.mark.parametrize(
    "options", [{"kept": 0}, {"undefined": True}, {"groups": {"a": [1], "b": [2]}, "heldout": False}]
)
def test_nothing_to_show_is_no_error(make_run, capsys, options):
    run = make_run(**options)
    assert "nan" not in printed(capsys, run)
    first = run.info["pairs"][0]
    assert "nan" not in printed(capsys, run, first["space_a"], first["space_b"])


def test_no_pairs_anywhere_says_so(make_run, capsys):
    assert "undefined everywhere, mostly because there are too few pairs" in printed(capsys, make_run(kept=0))
