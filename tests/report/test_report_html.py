"""The HTML report: complete, self-contained, and deaf to what other people's text would like it to do."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest

from unifeat.report.contexts import visible
from unifeat.report.html import link_explorers, write_report

_VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}


class Page(HTMLParser):
    """Elements of a page: their attributes, the text outside scripts, and whether they nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        if where == "script":
            self.scripts.append(data)
        elif where != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run) -> Page:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_nothing_is_fetched(make_run):
    run = make_run()
    page = page_of(run)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base")
        assert not {"src", "srcset", "action", "onclick", "onload"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    html = run.report.read_text(encoding="utf-8")
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.S))
    assert "@import" not in styles
    assert "url(" not in styles
    assert html.count("plotly.js v") == 1, "one copy of plotly, inlined"
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none';")


def test_says_what_was_compared_and_found(make_run):
    run = make_run()
    text = page_of(run).text
    for info in run.info["spaces"].values():
        assert f"{info['tokens_read']:,}" in text
        assert f"{info['tokens_kept']:,}" in text
        assert f"{info['masked']['first']} {info['masked']['sink']}" in text
        assert f"{info['fvu']:.3f}" in text
    assert "170 documents (612,345 characters)" in text
    assert "104,321 85 % 87 % 52,100 52,221" in text
    for cell in run.info["pairs"]:
        assert f"{cell['space_a']} × {cell['space_b']} · {cell['kept']} pairs" in text
        assert f"{cell['kept']} pairs kept of {cell['candidates']} candidates" in text
        assert f"{cell['mean_correlation']:.3f}" in text
        for reason, count in cell["dropped"].items():
            assert f"{reason} {count}" in text
    for row in run.scores.itertuples():
        for value in (row.score, row.null_mean, row.corrected, row.q):
            assert f"{value:.3f}" in text
    assert "Of the 256 features of smollm2@7, 60 (23 %) have a mutual best partner in gemma3@4 with r > 0.1" in text
    assert "they were selected because they correlate, and shuffling does not repeat that selection" in text
    assert "torch 2.13.0" in text
    assert "encode 201.4" in text
    assert "min_correlation: 0.1" in text


def test_shows_features_in_context(make_run):
    run = make_run()
    page = page_of(run)
    assert {"strongest", "random", "disputed"} == {a["data-of"] for _, a in page.elements if "data-of" in a}
    row = run.shown.iloc[0]
    assert f"feature {row['feature_a']}" in page.text
    assert f"r {row['correlation']:.3f} held out {row['correlation_heldout']:.3f}" in page.text
    assert sum(t == "mark" for t, _ in page.elements) == len(run.shown) * 2 * 5
    assert "this year.↵↵Officials" in page.text


def test_marks_a_token_that_fires_both_features(make_run):
    run = make_run()
    first = run.shown.iloc[0]
    examples = run.examples
    for side in "ab":
        own = (examples["space"] == first[f"space_{side}"]) & (examples["feature"] == first[f"feature_{side}"])
        examples.loc[own, "after"] = [f" line {rank} of {side if rank else 'both'}" for rank in range(5)]
    examples.to_parquet(run.folder / "examples.parquet")
    assert sum("among the strongest of both features" in (a.get("title") or "") for _, a in page_of(run).elements) >= 2


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "{{ 7*7 }}"])
def test_text_stays_text(make_run, hostile):
    run = make_run(token=hostile, text=hostile * 20)
    page = page_of(run)
    assert hostile in page.text
    assert "49" not in [word.strip() for word in page.words if "{{" in word]
    assert len(page.scripts) == 3
    assert not any(t == "img" for t, _ in page.elements)


def test_names_are_escaped_in_figures(make_run):
    page = page_of(make_run(groups={"<b>a</b></script>": [1, 2], "b": [3, 4]}))
    data = next(json.loads(s) for s in page.scripts if s.startswith('{"colours"'))
    assert "<b>a</b>" not in json.dumps(data["figures"])
    assert "<b>a</b></script> × b" in page.text


def test_undefined_scores(make_run):
    text = page_of(make_run(undefined=True)).text
    assert "undefined: 0 pairs are too few" in text
    assert "nan" not in text.lower().replace("fernando", "")


def test_no_pairs_at_all(make_run):
    text = page_of(make_run(kept=0)).text
    assert "No pair of features was kept in any of the 9 pairs of spaces; most of the 360 candidates:" in text
    assert "scores with q" not in text


def test_without_shuffles(make_run):
    run = make_run()
    study = run.folder / "study.yaml"
    study.write_text(study.read_text().replace("permutations: 500", "permutations: 0"))
    unknown = dict.fromkeys(("null_mean", "null_sd", "corrected", "p", "q"), float("nan"))
    run.scores.assign(**unknown).to_parquet(run.folder / "scores.parquet")
    text = page_of(type(run)(run.folder)).text
    assert "This run made no shuffles" in text
    assert "scores with q" not in text
    assert f"{run.scores['score'][0]:.3f} – – – – –" in text


def test_single_cell_and_nothing_held_out(make_run):
    run = make_run(groups={"a": [1], "b": [2]}, heldout=False)
    page = page_of(run)
    assert "on the same documents that they were found on" in page.text
    assert "This run held out no documents" in page.text
    assert not any("data-pick" in a for _, a in page.elements), "a grid of one cell is a table"
    assert f"{run.scores['null_mean'][0]:.3f} ± 0.010" in page.text


def heatmaps(page: Page) -> list[dict[str, str | None]]:
    return [a for _, a in page.elements if "data-heat" in a]


def figures_of(page: Page) -> dict:
    return next(json.loads(s) for s in page.scripts if s.startswith('{"colours"'))["figures"]


def test_three_groups_have_three_grids(make_run):
    """Each shows three counts, and four measures in three ways."""
    page = page_of(make_run(groups={"a": [1, 2], "b": [3], "c": [0, 4, 8]}, kept=20))
    assert [a["data-title"] for a in heatmaps(page)] == ["a × b", "a × c", "b × c"]
    figures = figures_of(page)
    for a in heatmaps(page):
        own = [name for name in figures if name.startswith(f"{a['data-heat']}-")]
        assert len(own) == 3 + 4 * 3
    options = [a for t, a in page.elements if t == "option" and "data-views" in a]
    assert [a["data-views"] for a in options] == ["score"] * 3 + ["score null_mean corrected"] * 4


def test_spaces_of_one_layer_each_are_one_grid(make_run):
    run = make_run(groups={"a": [1], "b": [3], "c": [0]}, kept=20)
    page = page_of(run)
    assert [a["data-title"] for a in heatmaps(page)] == ["all spaces"]
    first = figures_of(page)[f"{heatmaps(page)[0]['data-heat']}-0-score"]["data"][0]
    assert first["x"] == first["y"] == ["a@1", "b@3", "c@0"]
    ab, ac, bc = (pair["kept"] for pair in run.info["pairs"])
    assert first["z"] == [[None, ab, ac], [ab, None, bc], [ac, bc, None]]


def test_what_is_folded_says_what_is_inside(make_run):
    page = page_of(make_run())
    assert "All scores each with its nulls, p, q and flags, in a table to sort" in page.text
    assert "Where the other candidates went: of 100, 60 were kept" in page.text
    assert not any(t == "details" and "open" in a for t, a in page.elements)


def test_disputed_pairs_say_why(make_run):
    run = make_run()
    reason = "r is less than half on held-out documents; no more than its token"
    first = run.shown.head(1).assign(chosen="disputed", disputed=reason)
    pd.concat([run.shown.assign(disputed=""), first]).to_parquet(run.folder / "shown.parquet", index=False)
    page = page_of(type(run)(run.folder))
    assert "Disputed 1" in page.text
    assert page.words.count(reason) == 1


def test_chance_stands_beside_the_pairs_kept(make_run):
    run = make_run()
    info = json.loads((run.folder / "run.json").read_text())
    for pair in info["pairs"]:
        pair["rematch"] = {"kept": [2, 4], "draws": 2}
    (run.folder / "run.json").write_text(json.dumps(info))
    figures = figures_of(page_of(type(run)(run.folder)))
    assert figures["heat-0-0-null_mean"]["data"][0]["z"] == [[3.0] * 3] * 3


def test_without_examples(make_run):
    run = make_run()
    (run.folder / "examples.parquet").unlink()
    (run.folder / "shown.parquet").unlink()
    assert "Shared features in context" not in page_of(run).text


def test_a_large_grid_shows_the_cells_with_the_most_pairs(make_run):
    run = make_run(groups={"a": list(range(6)), "b": list(range(6))}, kept=260, width=256)
    page = page_of(run)
    facts = run.info["pairs"]
    assert len(facts) == 36
    data = next(json.loads(s) for s in page.scripts if s.startswith('{"colours"'))
    assert len(data["elsewhere"]) == 12
    least_shown = min(pair["kept"] for n, pair in enumerate(facts) if str(n) not in data["elsewhere"])
    assert max(facts[int(n)]["kept"] for n in data["elsewhere"]) <= least_shown
    assert "of 36 pairs of spaces, the 24 with the most shared features are shown here in detail" in page.text
    first = next(iter(data["elsewhere"].values()))
    assert f"unifeat show {run.folder} {first[0]} {first[1]}" in page.text
    assert sum(name.startswith("correlation-") for name in data["figures"]) == 24
    # Every cell's numbers are there all the same: in the heatmaps and in the table.
    assert {(row["space_a"], row["space_b"]) for row in facts} <= set(pairs_in_table(run))


def pairs_in_table(run) -> list[tuple[str, str]]:
    from unifeat.report.score_table import score_rows

    return [(row["space_a"], row["space_b"]) for row in score_rows(run)]


def test_large_runs_are_sampled_and_say_so(make_run, monkeypatch):
    monkeypatch.setattr("unifeat.report.figures.distributions.MAX_POINTS", 50)
    run = make_run(groups={"a": [1], "b": [2]}, width=4096, kept=900)
    page = page_of(run)
    assert "200 of 900 pairs, drawn at random" in page.text
    data = next(json.loads(s) for s in page.scripts if s.startswith('{"colours"'))
    assert len(data["figures"]["heldout-0"]["data"][1]["x"]) == 200


def test_same_run_same_page(make_run):
    run = make_run()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_explorers_of_this_run_are_linked(make_run):
    """Also those that are made after the report; not those of a run that lay in the folder before."""
    run = make_run()
    report = write_report(run)
    assert any(a.get("id") == "explorers" and "hidden" in a for _, a in page_of(run).elements)
    for name, created in (("explorer.html", run.info["created"]), ("explorer-<a>&.html", run.info["created"])):
        (run.folder / name).write_text(f'<meta name="unifeat-run" content="{created}">', encoding="utf-8")
    (run.folder / "explorer-old.html").write_text('<meta name="unifeat-run" content="2001">', encoding="utf-8")
    link_explorers(run)
    linked = report.read_bytes()
    assert write_report(run).read_bytes() == linked
    hrefs = [a["href"] for t, a in page_of(run).elements if t == "a" and a.get("href", "").startswith("explorer")]
    assert hrefs == ["explorer-%3Ca%3E%26.html", "explorer.html"]


def test_visible():
    assert visible("a\r\n\tb\x00\u202ec") == "a↵ b·\u202ec"


_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_DRIVE = """
<script>
const problems = [];
addEventListener("securitypolicyviolation", (e) => problems.push(e.violatedDirective));
addEventListener("load", () => setTimeout(() => {
  const pick = document.getElementById("pick");
  pick.value = "2"; pick.dispatchEvent(new Event("change"));
  document.querySelector('[data-cell="2"] [data-list="random"]').click();
  const heat = document.querySelector("[data-heat]");
  const choice = document.getElementById("heat-choice"), views = [...document.querySelectorAll('[name="heat-view"]')];
  const offered = views.map((view) => !view.disabled);
  choice.value = "3"; choice.dispatchEvent(new Event("change"));
  views[2].click();
  location.hash = "#scores";
  [...document.querySelectorAll(".sortable th button")].find((b) => b.textContent === "score").click();
  setTimeout(() => { document.body.dataset.seen = JSON.stringify({
    cells: [...document.querySelectorAll(".cell:not([hidden])")].map((c) => c.dataset.cell),
    lists: [...document.querySelectorAll('[data-cell="2"] [data-of]:not([hidden])')].map((l) => l.dataset.of),
    scores: [...document.querySelectorAll(".sortable tbody tr")].map((r) => r.cells[4].textContent),
    offered, heat: heat.dataset.figure, bar: document.getElementById("heat-high").textContent,
    unfolded: document.getElementById("scores").closest("details").open,
    drawn: document.querySelectorAll(".plot .main-svg").length, problems,
  }); }, 1500);
}, 1500));
</script>
"""


@pytest.mark.skipif(_CHROMIUM is None, reason="no chromium to open the report in")
def test_in_a_browser(make_run):
    run = make_run()
    page = write_report(run)
    driven = page.with_name("driven.html")
    driven.write_text(page.read_text(encoding="utf-8").replace("</body>", _DRIVE + "</body>"), encoding="utf-8")
    command = [_CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000", "--dump-dom", driven.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(next(a["data-seen"] for t, a in Page(done.stdout).elements if t == "body"))
    assert seen["cells"] == ["2"]
    assert seen["lists"] == ["random"]
    assert seen["scores"] == sorted(seen["scores"], key=float, reverse=True)
    assert seen["drawn"] >= 2
    assert seen["offered"] == [True, False, False], "of the pairs kept there is no corrected number"
    assert seen["heat"] == "heat-0-3-corrected"
    svcca = run.scores[(run.scores["metric"] == "svcca") & (run.scores["settings"] == '{"dims": 32}')]
    assert seen["bar"] == f"{svcca[['score', 'null_mean', 'corrected']].to_numpy().max():.2f}"
    assert seen["unfolded"]
    assert seen["problems"] == []
