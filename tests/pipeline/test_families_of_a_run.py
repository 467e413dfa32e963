"""Families of a study: tables and facts, what its draws are, and what is computed from best partners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import unifeat as uf
from homes import Place, shared_place, write_study
from stores import dense_rows
from unifeat.codes.align import align
from unifeat.codes.store import CodeStore
from unifeat.multiway import drawn
from unifeat.multiway.drawn import Text, repaired_pairs, resampled_pairs
from unifeat.multiway.sharedness import mppc, wmppc
from unifeat.pipeline.families import family_cells
from unifeat.pipeline.reopen import reopen
from unifeat.pipeline.sharing import _sharedness
from unifeat.report.terminal_families import show_families
from unifeat.text.halves import fitting_documents
from warm import Warm

SPACES = [
    {"model": "one", "layers": [0, 2], "sae": "saes/one_{layer}"},
    {"model": "two", "layers": 1, "sae": "saes/two_{layer}"},
    {"model": "two", "layers": 1, "sae": "saes/two_{layer}", "name": "again"},
    {"model": "two", "layers": 1, "sae": "saes/two_{layer}", "name": "aimless", "random_directions": 0},
]
FAMILIES = {"draws": 4, "bootstraps": 6, "groups": {"g": ["again"], "h": ["two"]}}
LIGHT = {"permutations": 0, "bootstraps": 5, "subsamples": 0}


def asked(home: Path, **changes: Any) -> Path:
    """A study of two layers of one model, of another, of the latter's SAE under another name, and of a control."""
    compare = [["one", "one"], ["one", "two"], ["one", "again"], ["two", "again"], ["aimless", "one"]]
    families = FAMILIES | changes.pop("families", {})
    study = {"spaces": SPACES, "compare": compare, "families": families, "inference": LIGHT, "geometry": ["rsa"]}
    return write_study(home, **study | changes)


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    return place


@pytest.fixture(scope="module")
def finished_once(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[..., Path]
) -> Iterator[tuple[Place, uf.Run]]:
    """A place where the study has been run, for all tests that only read it."""
    place = shared_place(tmp_path_factory, model_folder).copy(tmp_path_factory.mktemp("families") / "place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFEAT_CACHE", str(place.cache))
        yield place, uf.run(asked(place.home), place.work / "run", force=True)


@pytest.fixture
def there(finished_once: tuple[Place, uf.Run], monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("UNIFEAT_CACHE", str(finished_once[0].cache))
    return finished_once[0]


@pytest.fixture
def run(there: Place, finished_once: tuple[Place, uf.Run]) -> uf.Run:
    return uf.open(finished_once[1].folder)


def codes_of(run: uf.Run, name: str) -> CodeStore:
    return CodeStore.open(Path(run.info["spaces"][name]["codes"]))


def dense(run: uf.Run, a: str, b: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The aligned rows of two spaces on the documents fitted on, and the document of each."""
    codes = align(codes_of(run, a), codes_of(run, b))
    fit = fitting_documents(run.info["text"]["documents"], run.info["seed"])
    chosen = codes.only(fit)
    sides = [
        np.concatenate([dense_rows(*chunk[side], store.features) for chunk in chosen.chunks()]).astype(np.float64)
        for side, store in enumerate((codes.a, codes.b))
    ]
    document = np.concatenate([s.places.document[at] for s, _, at, _ in chosen.aligned_shards()])
    return sides[0], sides[1], document


def test_tables_and_facts(run: uf.Run) -> None:
    table, sets, facts = run.families, run.family_sets, run.info["families"]
    assert table is not None
    assert sets is not None
    assert facts["spaces"] == ["one@0", "one@2", "two@1", "again@1"]  # the control is left out
    pairs = {
        (p["space_a"], p["space_b"]): run.space_pair(p["space_a"], p["space_b"]).query("kept")
        for p in run.info["pairs"]
        if "aimless@1" not in (p["space_a"], p["space_b"])
    }
    direct = uf.families(pairs, spaces=facts["spaces"], features=dict.fromkeys(facts["spaces"], 64))
    pd.testing.assert_frame_equal(table.drop(columns="top_tokens"), direct.table)
    pd.testing.assert_frame_equal(uf.families(run).table, direct.table)
    assert facts["pairs"] == sum(map(len, pairs.values())) > 50
    assert facts["families"] == len(table) == sets["families"].sum()
    assert table[["r_heldout_mean", "r_within_token_mean"]].notna().any(axis=None)
    for row in facts["presence"]:
        assert row["in_all"] + row["in_some"] + row["in_none"] == row["features"] == 64
    by_size = {row["size"]: row["families"] for row in facts["sizes"]}
    assert by_size == table["size"].value_counts().reindex([2, 3, 4], fill_value=0).to_dict()
    # The same SAE under two names: each pair of the same feature is in one family.
    both = table.dropna(subset=["two@1", "again@1"])
    assert len(both) > 10
    assert (both["two@1"] == both["again@1"]).all()
    words = [word for tokens in table["top_tokens"] for word in tokens]
    assert words
    assert all(len(tokens) <= 5 for tokens in table["top_tokens"])


def test_the_null_is_less_than_what_is_there(run: uf.Run) -> None:
    sets, facts = run.family_sets, run.info["families"]
    assert sets is not None
    assert (facts["draws"], facts["bootstraps"]) == (4, 6)
    whole = sets[sets["size"] >= 3]
    assert whole["families"].sum() > whole["null_mean"].sum()
    assert facts["consistency"] > facts["consistency_chance"]
    assert set(sets["p"]) <= {k / 5 for k in range(1, 6)}
    known = sets.dropna(subset=["low"])
    assert (known["low"] <= known["families"]).all()
    assert (known["families"] <= known["high"]).all()


def by_hand(run: uf.Run, cell: Any, order: np.ndarray, places: tuple[int, int], documents: np.ndarray) -> pd.DataFrame:
    """The pairs of two spaces whose documents stand in these orders."""
    x, y, document = dense(run, cell.a.name, cell.b.name)
    rows: list[list[np.ndarray]] = [[], []]
    for a, b in zip(documents[order[places[0]]], documents[order[places[1]]], strict=True):
        own, other = np.flatnonzero(document == a), np.flatnonzero(document == b)
        assert a != b
        n = min(len(own), len(other))
        rows[0].append(own[:n])
        rows[1].append(other[:n])
    from scipy import sparse

    corr = uf.correlate(
        *(sparse.csr_array(side[np.concatenate(at)]) for side, at in zip((x, y), rows, strict=True)),
        top=cell.comparison.top,
    )
    table = corr.candidates().assign(
        count_a=lambda t: corr.moments_a.count[t["feature_a"]], count_b=lambda t: corr.moments_b.count[t["feature_b"]]
    )
    return table[cell.rule.decide(table)["kept"]]


@pytest.mark.parametrize("blocks", [1, 2])
def test_draws_are_what_re_paired_documents_give(run: uf.Run, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    """Every space has one order of documents in a draw, whatever it is compared with; also where text is in blocks."""
    again = reopen(run)
    spaces, cells = family_cells(again.study, again.cells)
    text = Text(spaces[0].store, again.prepared.corpus.documents, True, again.study.seed)
    if blocks > 1:
        monkeypatch.setattr(drawn, "_MOST_ROWS", spaces[0].store.rows // 2)
    read, begins = text.read(len(spaces))
    assert len(begins) == blocks
    assert np.bincount(read.block).min() >= len(spaces)
    names = [space.name for space in spaces]
    for number in (0, 3):
        order = read.orders(len(spaces), text.seed, number)
        for one, other in combinations(order, 2):
            assert (one != other).all()
        for cell in cells[:3]:
            places = names.index(cell.a.name), names.index(cell.b.name)
            found = repaired_pairs(text, cell.comparison, cell.rule, places, len(spaces), [number], 1)
            expected = by_hand(run, cell, order, places, read.documents)
            assert found["draw"].tolist() == [number] * len(expected)
            assert found[["feature_a", "feature_b"]].to_numpy().tolist() == (
                expected[["feature_a", "feature_b"]].to_numpy().tolist()
            )
            assert found["correlation"].to_numpy() == pytest.approx(expected["correlation"].to_numpy(), abs=1e-6)


def test_resampled_documents_are_the_same_in_every_pair_of_spaces(run: uf.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    again = reopen(run)
    spaces, cells = family_cells(again.study, again.cells)
    text = Text(spaces[0].store, again.prepared.corpus.documents, True, again.study.seed)
    edges = drawn.text_blocks(text)
    weights = np.ones((2, len(edges) - 1))
    weights[1, ::2] = 0
    weights[1, 1::3] = 2
    monkeypatch.setattr(drawn, "draw_weights", lambda *_: weights)
    for cell in cells[:2]:
        found = resampled_pairs(text, cell.comparison, cell.rule, cell.candidates().table, 2)
        own = found[found["draw"] == 0]
        columns = ["feature_a", "feature_b"]
        assert own[columns].to_numpy().tolist() == cell.kept[columns].to_numpy().tolist()
        assert own["correlation"].to_numpy() == pytest.approx(cell.kept["correlation"].to_numpy(), abs=1e-6)
        x, y, document = dense(run, cell.a.name, cell.b.name)
        often = weights[1].astype(int)[np.searchsorted(edges, document, side="right") - 1]
        rows = np.repeat(np.arange(len(document)), often)
        for row in found[found["draw"] == 1].head(10).itertuples():
            r = np.corrcoef(x[rows, row.feature_a], y[rows, row.feature_b])[0, 1]
            assert row.correlation == pytest.approx(r, abs=1e-6)


@pytest.mark.parametrize("how", ["within_token", "csls"])
def test_all_documents_once_give_the_pairs_themselves(run: uf.Run, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Also where pairs are found by r within token, and where hubs are corrected for in each draw."""
    again = reopen(run)
    spaces, cells = family_cells(again.study, again.cells)
    text = Text(spaces[0].store, again.prepared.corpus.documents, True, again.study.seed)
    comparison, rule = cells[1].comparison, cells[1].rule
    if how == "within_token":
        comparison = replace(comparison, by="within_token")
    else:
        rule = replace(rule, method="csls")
    table = comparison.candidates().result().table
    kept = rule.decide(table).query("kept")
    assert len(kept) > 3
    monkeypatch.setattr(drawn, "draw_weights", lambda blocks, *_: np.ones((1, blocks)))
    found = resampled_pairs(text, comparison, rule, table, 1)
    columns = ["feature_a", "feature_b"]
    assert found[columns].to_numpy().tolist() == kept[columns].to_numpy().tolist()
    assert found["correlation"].to_numpy() == pytest.approx(kept["correlation"].to_numpy(), abs=1e-6)


def test_sharing_is_that_of_best_partners(run: uf.Run) -> None:
    sharing = {(row["of"], row["in"]): row for row in run.info["families"]["sharing"]["spaces"]}
    assert len(sharing) == 10 + 2  # both directions of six pairs, the control's left out
    total = {}
    for name in ("one@0", "two@1"):
        store = codes_of(run, name)
        total[name] = np.concatenate([dense_rows(s.indptr, s.feature, s.value, store.features) for s in store.shards()])
        total[name] = total[name].astype(np.float64).sum(axis=0)
    x, y, _ = dense(run, "one@0", "two@1")
    with np.errstate(invalid="ignore"):
        r = np.corrcoef(x.T, y.T)[: x.shape[1], x.shape[1] :]
    best = np.full(len(r), np.nan)
    known = ~np.isnan(r).all(axis=1)
    best[known] = np.nanmax(r[known], axis=1)
    row = sharing["one@0", "two@1"]
    assert row["mppc"] == pytest.approx(mppc(best))
    assert row["wmppc"] == pytest.approx(wmppc(best, total["one@0"]))
    models = {(row["of"], row["in"]): row["wmppc"] for row in run.info["families"]["sharing"]["models"]}
    assert models["two", "again"] == pytest.approx(1)  # the same SAE
    assert set(models) == {(a, b) for a in ("one", "two", "again") for b in ("one", "two", "again") if a != b}


def test_comparative_sharedness_by_hand(run: uf.Run) -> None:
    """Features of one@2: shared by the model again more than by two? They are the same, so S (r² − r²) = 0."""
    table = run.sharedness
    assert table is not None
    assert set(table["space"]) == {"one@0", "one@2"}
    assert table["sharedness"].abs().max() == 0
    assert set(zip(table["group"], table["other"], strict=True)) == {("g", "h"), ("h", "g")}
    assert (table["r_group"] > 0).all()
    assert all(len(tokens) for tokens in table["top_tokens"])


def test_spaces_may_be_groups_and_one_name_is_no_list(run: uf.Run) -> None:
    assert uf.families(run, spaces=["one", "two@1"]).spaces == ("one@0", "one@2", "two@1")
    with pytest.raises(uf.UserError, match="is one name: give a list"):
        uf.families(run, spaces="one")
    with pytest.raises(uf.UserError, match="no space 'tow'"):
        uf.families(run, spaces=["one", "tow"])


def test_cycle_matches_around_all_spaces(run: uf.Run) -> None:
    """Of equal r, the partner of the lower number, as for the pairs themselves."""
    circle = run.info["families"]["sharing"]["circle"]
    names = circle["spaces"]
    at = {feature: feature for feature in range(run.info["spaces"][names[0]]["d_sae"])}
    for one, other in zip(names, [*names[1:], names[0]], strict=True):
        best = {}
        for feature in set(at.values()):
            partners = run.partners(one, feature, other).sort_values(
                ["correlation", "feature"], ascending=[False, True]
            )
            if len(partners):
                best[feature] = int(partners.iloc[0]["feature"])
        at = {start: best[now] for start, now in at.items() if now in best}
    assert circle["features"] == sum(start == end for start, end in at.items())


def test_groups_that_a_space_was_compared_with_in_part_say_nothing_of_it() -> None:
    """Every model of a group has a feature: that cannot be said from some of them."""
    spaces: list[Any] = [
        SimpleNamespace(name=f"{name}@1", group=name, tokens=SimpleNamespace(texts=dict)) for name in "abce"
    ]
    total = {space.name: np.ones(1) for space in spaces}
    best = {("a@1", "b@1"): np.array([0.9]), ("a@1", "c@1"): np.array([0.1])}
    assert _sharedness({"chat": ["b", "e"], "base": ["c"]}, spaces, best, total).empty
    best["a@1", "e@1"] = np.array([0.5])
    found = _sharedness({"chat": ["a", "b", "e"], "base": ["c"]}, spaces, best, total)
    assert found["sharedness"].tolist() == pytest.approx([0.5**2 - 0.1**2, 0.1**2 - 0.9**2])


def test_depth_of_the_stream(run: uf.Run) -> None:
    depth = run.info["families"]["depth"]
    (lasting,) = depth["lasting"]
    assert (lasting["model"], lasting["layer"]) == ("one", [0, 2])
    table = run.families
    assert table is not None
    first, second = table["one@0"].notna(), table["one@2"].notna()
    assert lasting["layers"] == [int((first ^ second).sum()), int((first & second).sum())]
    (passage,) = depth["passages"]
    expected = [int((first & second).sum()), int((first & ~second).sum()), int((~first & second).sum())]
    assert [passage[name] for name in ("stay", "end", "begin")] == expected
    assert lasting["compared"]
    assert depth["correspondence"] == []  # only one model has two layers


def test_other_families_of_a_run(run: uf.Run) -> None:
    found = uf.families(run, "cliques", spaces=["two@1", "one@0"])
    assert (found.method, found.spaces) == ("cliques", ("two@1", "one@0"))
    assert found.features == {"two@1": 64, "one@0": 64}
    assert len(found) == len(run.space_pair("one@0", "two@1").query("kept"))
    with_control = uf.families(run, spaces=["aimless@1", "one@0"])
    assert len(with_control) == len(run.space_pair("one@0", "aimless@1").query("kept"))
    with pytest.raises(uf.UserError, match=r"has no space 'one@1' \(did you mean"):
        uf.families(run, spaces=["one@1", "two@1"])
    with pytest.raises(uf.UserError, match="compared no two of"):
        uf.families(run, spaces=["two@1", "aimless@1"])


def test_the_command_and_the_report(there: Place, warm: Warm, run: uf.Run, capsys: pytest.CaptureFixture[str]) -> None:
    show_families(run, top=2)
    out = capsys.readouterr().out
    table = run.families
    assert table is not None
    assert f"{len(table):,} families over 4 spaces, by consistent" in out
    assert "documents re-paired in every space, 4 draws (no p is below 0.200), too few to decide anything" in out
    assert f"the largest families (2 of {len(table):,})" in out
    done = there.unifeat(warm, "families", run.folder, "--json")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["members"] for line in lines] == [
        {name: int(row[name]) for name in run.info["families"]["spaces"] if not pd.isna(row[name])}
        for row in table.to_dict("records")
    ]
    assert lines[0]["top_tokens"] == list(table["top_tokens"].iloc[0])
    others = ["--method", "components", "--space", "one@0", "--space", "two@1"]
    done = there.unifeat(warm, "families", run.folder, *others)
    assert done.code == 0, done.err
    assert "over 2 spaces, by components" in done.out
    done = there.unifeat(warm, "families", run.folder, "--method", "compnents")
    assert (done.code, done.out) == (2, "")
    assert "did you mean 'components'" in done.err
    page = run.report.read_text(encoding="utf-8")
    assert '<section id="families">' in page
    assert f"<b>{len(table):,} families</b>" in page
    assert "one, layer to layer" in page


def test_a_run_without_families(here: Place, capsys: pytest.CaptureFixture[str]) -> None:
    run = uf.open(here.run)
    assert run.families is run.family_sets is run.sharedness is None
    show_families(run)
    out = capsys.readouterr().out
    assert "families over 3 spaces, by consistent" in out
    assert "other text" not in out
    assert '<section id="families">' not in run.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_star_compares_one_with_all_others(here: Place) -> None:
    path = asked(here.home, compare={"star": "two"}, families={"draws": 0, "bootstraps": 0, "groups": {}})
    run = uf.run(path, "run", force=True)
    assert [(p["space_a"], p["space_b"]) for p in run.info["pairs"]] == [
        ("one@0", "two@1"),
        ("one@2", "two@1"),
        ("two@1", "again@1"),
        ("two@1", "aimless@1"),
    ]
    table, sets = run.families, run.family_sets
    assert table is not None
    assert sets is not None
    assert table["two@1"].notna().all()  # every pair is one of the hub's
    assert table["consistency"].isna().all()
    assert (table["coverage"] == 1).all()
    assert sets[["null_mean", "p", "low"]].isna().all(axis=None)
    assert run.info["families"]["consistency"] is None
    assert run.sharedness is None


@pytest.mark.slow
def test_the_same_again_from_the_cache(here: Place) -> None:
    first = uf.run(asked(here.home), "run", force=True)
    digests = dict(first.info["files"])
    second = uf.run(asked(here.home), "other", force=True)
    for name in ("families.parquet", "family_sets.parquet", "sharedness.parquet"):
        assert second.info["files"][name] == digests[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": {"spaces": ["one@0"]}}, "the study compares no two of their spaces"),
        ({"families": {"spaces": ["on"]}}, r"families names 'on', but no spaces have that name \(did you mean"),
        ({"families": {"groups": {"g": ["one"]}}}, "there is only one group"),
        ({"families": {"groups": {"g": ["one"], "h": []}}}, "names no model"),
        ({"compare": {"star": "to"}}, "compare names 'to'"),
        ({"compare": {"sart": "two"}}, r"unknown key 'compare.sart' \(did you mean 'star'"),
        ({"matching": {"by": "within_token"}}, "set families.draws to 0"),
    ],
)
def test_mistakes_are_told_before_anything_runs(here: Place, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(uf.UserError, match=message):
        uf.run(asked(here.home, **changes), "run", force=True)
