"""A study with a text elsewhere: what is encoded there, what its pairs' r is, and what such a text may not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import unifeat as uf
from homes import GROUP, Place, hashes, write_study
from stores import dense_rows
from tiny import sentences, write_text
from unifeat.codes import encode
from unifeat.codes.align import align
from unifeat.codes.store import CodeStore
from unifeat.pipeline import elsewhere, loading
from unifeat.pipeline.plan import plan_study
from unifeat.report.terminal import show
from unifeat.report.terminal_plan import show_plan
from unifeat.study.read import load_study
from warm import KILLED, Warm

OWN = {"source": "text.jsonl", "context": 32, "group": GROUP}
OTHER = {"source": "other.jsonl", "documents": 30}
CHANGING = ("run.json", "report.html")  # hold times
COLUMNS = (
    *("correlation_elsewhere", "correlation_elsewhere_low", "correlation_elsewhere_high"),
    *("count_elsewhere_a", "count_elsewhere_b", "elsewhere_chance"),
)


def asked(home: Path, file: str = "study.yaml", **changes: Any) -> Path:
    """The study, with other sentences as its text elsewhere."""
    write_text(home, sentences(33, seed=7), "other.jsonl")
    return write_study(home, file, **{"text": OWN | {"elsewhere": OTHER}} | changes)


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """This process runs studies in the place, with its cache: the study has been run there without such a text."""
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    return place


def stores(run: uf.Run, a: str, b: str) -> tuple[CodeStore, CodeStore]:
    spaces = run.info["spaces"]
    return tuple(CodeStore.open(Path(spaces[name]["elsewhere"]["codes"])) for name in (a, b))  # type: ignore[return-value]


def test_r_is_that_of_the_codes_there_and_all_else_stays(here: Place) -> None:
    before = uf.open(here.run).pairs
    run = uf.run(asked(here.home), "run", force=True)
    pairs = run.pairs
    assert before.equals(pairs.drop(columns=[*COLUMNS]))
    assert set(COLUMNS) <= set(pairs.columns)
    assert pairs.loc[~pairs["kept"], [*COLUMNS]].isna().all(axis=None)
    for facts in run.info["pairs"]:
        a, b = stores(run, facts["space_a"], facts["space_b"])
        codes = align(a, b)
        x, y = (
            np.concatenate([dense_rows(*chunk[side], store.features) for chunk in codes.chunks()]).astype(np.float64)
            for side, store in enumerate((a, b))
        )
        kept = run.space_pair(facts["space_a"], facts["space_b"]).query("kept")
        assert len(kept) > 5
        for row in kept.itertuples():
            own, other = x[:, row.feature_a], y[:, row.feature_b]
            assert (row.count_elsewhere_a, row.count_elsewhere_b) == ((own != 0).sum(), (other != 0).sum())
            if own.std() and other.std():
                assert row.correlation_elsewhere == pytest.approx(np.corrcoef(own, other)[0, 1], abs=1e-9)
            else:
                assert np.isnan(row.correlation_elsewhere)
        found = facts["elsewhere"]
        judged = kept[kept["elsewhere_chance"].notna()]
        assert (found["pairs"], found["judged"], found["rows"]) == (len(kept), len(judged), len(x))
        assert found["documents"] == 30
        assert found["hold"] == (judged["correlation_elsewhere"] > judged["elsewhere_chance"]).sum()
        assert found["hold_share"] == pytest.approx(found["hold"] / len(judged))
        assert found["above_min"] == (judged["correlation_elsewhere"] >= 0.05).mean()
        assert found["mean_low"] < found["mean"] < found["mean_high"]
        known = kept.dropna(subset=["correlation_elsewhere_low"])
        assert (known["correlation_elsewhere_low"] <= known["correlation_elsewhere_high"]).all()
    there = run.info["elsewhere"]
    assert (Path(there["source"]).name, there["documents"]) == ("other.jsonl", 30)
    assert there["digest"] != run.info["text"]["digest"]
    assert "elsewhere" in run.info["timings"]


@pytest.mark.slow
def test_the_models_and_saes_are_loaded_once_for_both_texts(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(here.cache.parent / "new-cache"))
    models, saes, groups = [], [], []
    load, encoders, shard = loading.load_language_model, loading.Loader._encoders, encode.encode_group

    def one_model(*args: Any, **settings: Any) -> Any:
        models.append(args[0])
        return load(*args, **settings)

    def one_batch(self: Any, model: Any) -> Any:
        saes.append([space.name for space in self.spaces])
        return encoders(self, model)

    def one_group(model: Any, corpus: Any, group: int, *args: Any) -> Any:
        groups.append((corpus.digest, group))
        return shard(model, corpus, group, *args)

    monkeypatch.setattr(loading, "load_language_model", one_model)
    monkeypatch.setattr(loading.Loader, "_encoders", one_batch)
    monkeypatch.setattr(encode, "encode_group", one_group)
    # A control is not checked at the start, so each model is loaded for its encoding only.
    study = asked(here.home, spaces=[s | {"random_directions": 0} for s in yaml_spaces(here)])
    run = uf.run(study, "run", force=True)
    assert len(models) == len(set(models)) == 2
    assert sorted(saes) == [["one@0", "one@2"], ["two@1"]]
    texts = {digest for digest, _ in groups}
    assert texts == {run.info[name]["digest"] for name in ("text", "elsewhere")}
    assert len(set(groups)) * 2 == len(groups)  # each group once with each model


def yaml_spaces(place: Place) -> list[dict[str, Any]]:
    import yaml

    return list(yaml.safe_load(place.study.read_text())["spaces"])


def test_again_nothing_is_computed(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    study = asked(here.home)
    run = uf.run(study, "run", force=True)
    before = hashes(run.folder, but=CHANGING)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(loading, "load_language_model", never)
    monkeypatch.setattr(elsewhere, "read_elsewhere", never)
    again = uf.run(study, "run", force=True)
    assert hashes(again.folder, but=CHANGING) == before
    monkeypatch.setattr(elsewhere, "VERSION", elsewhere.VERSION + 1)
    with pytest.raises(AssertionError, match="computed again"):
        uf.run(study, "run", force=True)


@pytest.mark.slow
def test_codes_there_are_shared_with_a_study_of_that_text(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one study reads elsewhere is another one's own text."""
    run = uf.run(asked(here.home), "run", force=True)
    monkeypatch.setattr(loading, "load_language_model", lambda *_, **__: pytest.fail("encoded again"))
    text = {
        "source": "other.jsonl",
        "documents": 30,
        "context": 32,
        "group": GROUP,
        "elsewhere": {"source": "text.jsonl"},
    }
    monkeypatch.setattr("unifeat.pipeline.encode.checked_before", lambda _: True)  # the check is of the first tokens
    monkeypatch.setattr("unifeat.pipeline.encode.report_checks", lambda *_, **__: None)
    other = uf.run(write_study(here.home, "other.yaml", name="other", text=text), "other", force=True)
    for name, space in other.info["spaces"].items():
        assert space["codes"] == run.info["spaces"][name]["elsewhere"]["codes"]
        assert space["elsewhere"]["codes"] == run.info["spaces"][name]["codes"]


@pytest.mark.slow
def test_only_spaces_that_are_compared_are_encoded_there(here: Place) -> None:
    spaces = [*yaml_spaces(here), {"model": "one", "layers": 2, "sae": "saes/one_{layer}", "name": "alone"}]
    spaces[-1]["random_directions"] = 3
    run = uf.run(asked(here.home, spaces=spaces, compare=[["one", "two"]]), "run", force=True)
    assert run.info["spaces"]["alone@2"]["elsewhere"] is None
    assert run.info["spaces"]["alone@2"]["tokens_read"] > 0
    for name in ("one@0", "one@2", "two@1"):
        there = run.info["spaces"][name]["elsewhere"]
        assert there["tokens_read"] > there["tokens_kept"] > 0
        assert there["l0"] > 0
        assert there["fvu"] > 0
        store = CodeStore.open(Path(there["codes"]))
        assert store.rows == there["tokens_kept"]


@pytest.mark.slow
def test_without_draws_and_without_a_held_out_half(here: Place) -> None:
    study = asked(here.home, inference={"permutations": 0, "bootstraps": 0, "subsamples": 0})
    run = uf.run(study, "run", force=True)
    assert run.pairs["correlation_elsewhere"].notna().any()
    assert run.pairs[["correlation_elsewhere_low", "correlation_elsewhere_high"]].isna().all(axis=None)
    assert run.info["pairs"][0]["elsewhere"]["mean_low"] is None
    matching = {"min_count": 3, "min_correlation": 0.05, "exclude_tokens": ["."], "heldout": False}
    run = uf.run(asked(here.home, matching=matching), "run", force=True)
    (kept,) = [run.space_pair("one@2", "two@1").query("kept")]
    judged = kept[kept["elsewhere_chance"].notna()]
    assert run.info["pairs"][1]["elsewhere"]["mean_here"] == pytest.approx(judged["correlation"].mean())


@pytest.mark.slow
def test_pairs_found_within_token_are_read_within_token(here: Place) -> None:
    run = uf.run(
        asked(here.home, matching={"by": "within_token", "min_correlation": 0.05, "min_count": 3}), "run", force=True
    )
    kept = run.pairs[run.pairs["kept"]]
    assert len(kept) > 10
    there = kept["correlation_elsewhere"].dropna()
    assert len(there) > 10
    assert abs(there.mean()) < 0.1  # these tiny models share nothing beyond the token


@pytest.mark.slow
def test_killed_in_one_file_after_another(warm: Warm, place: Place, tmp_path: Path) -> None:
    """The same command carries on, also amid the text elsewhere; the outcome is that of an undisturbed run."""
    study = asked(place.home)
    done = place.unifeat(warm, "run", study, "--quiet", "--force", "--out", "undisturbed")
    assert done.code == 0, done.err
    undisturbed, cache = place.work / "undisturbed", tmp_path / "fresh-cache"
    killed = []
    for number in range(4, 60, 5):
        moment = {"die_in_write" if number % 2 else "die_before_rename": number}
        done = warm.run("run", study, "--quiet", "--force", "--out", "disturbed", cache=cache, cwd=place.work, **moment)
        killed.append(len(list(cache.glob("codes/*/shard-*"))))
        if done.code == 0:
            break
        assert done.code == KILLED
    else:
        pytest.fail("the run never ended")
    assert len(set(killed)) > 3
    assert hashes(place.work / "disturbed", but=CHANGING) == hashes(undisturbed, but=CHANGING)
    whole = hashes(place.cache)
    assert {name: sha for name, sha in hashes(cache).items() if name not in whole} == {}


def test_what_is_shown(here: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run = uf.run(asked(here.home), "run", force=True)
    show(run)
    text = capsys.readouterr().out
    assert "pairs read again elsewhere: 30 documents of" in text
    assert "hold elsewhere" in text
    show(run, "one@2", "two@1")
    text = capsys.readouterr().out
    assert "pairs that can be judged hold (r above pairs at random)" in text
    assert "have r ≥ 0.05; mean r" in text
    page = run.report.read_text()
    for words in ("Does r hold elsewhere?", "hold elsewhere</th>", "are read again elsewhere: on 30 documents"):
        assert words in page
    assert "Elsewhere, on 30 documents of another kind," in page


@pytest.mark.slow
def test_a_plan_counts_its_work(here: Place, capsys: pytest.CaptureFixture[str]) -> None:
    monkey = plan_study(load_study(here.study))
    spaces = [*yaml_spaces(here), {"model": "one", "layers": 2, "sae": "saes/one_{layer}", "name": "alone"}]
    plan = plan_study(load_study(asked(here.home, "two.yaml", spaces=spaces, compare=[["one", "two"]])))
    run = uf.run(asked(here.home), "run", force=True)
    for model, name in zip(plan.models, ("one@0", "two@1"), strict=True):
        assert model.tokens_elsewhere == pytest.approx(run.info["spaces"][name]["elsewhere"]["tokens_read"], rel=0.15)
    assert [model.tokens_elsewhere for model in monkey.models] == [0, 0]
    for before, model in zip(monkey.models, plan.models, strict=True):
        assert model.tokens == before.tokens
        assert model.flops > before.flops * (1 + 0.5 * model.tokens_elsewhere / model.tokens)
        assert model.code_bytes > before.code_bytes
    steps, were = ({step.name: step for step in found.steps} for found in (plan, monkey))
    assert steps["elsewhere"].units == 2
    assert "elsewhere" not in were
    assert steps["encode"].units > were["encode"].units
    assert plan.products == monkey.products
    show_plan(plan)
    assert "elsewhere" in capsys.readouterr().out
    show_plan(plan, as_json=True)
    assert json.loads(capsys.readouterr().out)["models"][0]["tokens_elsewhere"] > 0


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (
            {"documents": 20},
            {"source": "text.jsonl"},
            r"text\.elsewhere: .*text\.jsonl gives documents of the study's own text: name another, or skip: 20 to "
            "read on after them",
        ),
        ({"documents": 20}, {"source": "text.jsonl", "skip": 19}, r"own text: name another, or skip: 20"),
        ({"skip": 3}, {"source": "text.jsonl", "documents": 10}, r"own text: name another, or skip: 40 to"),
        ({}, {"source": "copy.jsonl"}, r"text\.elsewhere: .*copy\.jsonl gives documents of the study's own text: name"),
        ({}, {"source": "other.jsonl", "documents": 4}, r"other\.jsonl gives 4 documents, and a pair is judged where"),
        ({}, {"source": "empty.jsonl"}, r"text source .*empty\.jsonl holds no text"),
        ({}, {"source": "other.jsonl", "skip": 99}, r"text source .*other\.jsonl holds no text after skipping 99"),
        ({}, {"source": "nowhere.jsonl"}, r"text source .*nowhere\.jsonl: no such file"),
        ({}, {"source": "other.jsonl", "field": "words"}, r"words"),
    ],
)
def test_what_it_may_not_be(
    here: Place, monkeypatch: pytest.MonkeyPatch, own: dict[str, Any], other: dict[str, Any], message: str
) -> None:
    """One line, and before any model is loaded; a plan says the same."""
    monkeypatch.setattr(loading, "load_language_model", lambda *_, **__: pytest.fail("a model was loaded"))
    (here.home / "copy.jsonl").write_bytes((here.home / "text.jsonl").read_bytes())
    (here.home / "empty.jsonl").write_text("")
    study = asked(here.home, text=OWN | own | {"elsewhere": other})
    for work in (lambda: uf.run(study, "run", force=True), lambda: plan_study(load_study(study))):
        with pytest.raises(uf.UserError, match=message) as caught:
            work()
        assert "\n" not in str(caught.value)


def test_documents_after_the_study_s_own_are_other_ones(here: Place) -> None:
    text = OWN | {"documents": 20, "elsewhere": {"source": "text.jsonl", "skip": 20}}
    run = uf.run(asked(here.home, text=text), "run", force=True)
    assert run.info["elsewhere"]["documents"] == 20


def test_a_text_shorter_than_a_window(here: Place) -> None:
    write_text(here.home, ["a bee"] * 5, "short.jsonl")
    with pytest.raises(uf.UserError, match=r"text\.elsewhere holds \d+ tokens for .*, fewer than one window of 32"):
        uf.run(asked(here.home, text=OWN | {"elsewhere": {"source": "short.jsonl"}}), "run", force=True)


def test_a_text_without_any_pair_s_feature(here: Place) -> None:
    """Too rare to judge: said in words, and the run goes on."""
    write_text(here.home, ["9 8 7 6 5 4 3 2 1 0 " * 8] * 6, "digits.jsonl")
    run = uf.run(asked(here.home, text=OWN | {"elsewhere": {"source": "digits.jsonl"}}), "run", force=True)
    assert run.report.is_file()
    assert isinstance(run.pairs, pd.DataFrame)
    for facts in run.info["pairs"]:
        if not facts["elsewhere"]["judged"]:
            assert facts["elsewhere"]["hold_share"] is None
