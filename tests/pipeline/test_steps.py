"""The steps of a run with everything asked for: rematches, intervals, categories, controls and a ceiling."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import false_discovery_control

import unifeat as uf
from homes import Place, write_study
from unifeat.pipeline import rematch
from unifeat.pipeline.score import COLUMNS, with_q

CATEGORIES = {
    "Animals": ["dog", "cat", "bee", "bird", "horse"],
    "Small": ["the", "a", "at", "in", "of", "near", "under", "over", "by", "before", "after", "with", "on", "and"],
}
ASKED: dict[str, Any] = {
    "inference": {"permutations": 30, "rematches": 4, "bootstraps": 25, "subsamples": 12},
    "subspaces": {"categories": "words.yaml", "at_least": 1, "subsets": 20, "geometry": ["rsa"]},
    "spaces": [
        {"model": "one", "layers": [0, 2], "sae": "saes/one_{layer}"},
        {"model": "two", "layers": 1, "sae": "saes/two_{layer}"},
        {"model": "one", "layers": 2, "sae": "saes/one_{layer}", "name": "aimless", "random_directions": 5},
        {"model": "noise", "layers": 2, "sae": "saes/one_{layer}"},
    ],
    "compare": [["one", "two"], ["aimless", "two"], ["noise", "two"], ["one", "aimless"]],
}


@pytest.fixture
def asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    (place.home / "words.yaml").write_text(yaml.safe_dump(CATEGORIES))
    models = yaml.safe_load(place.study.read_text())["models"]
    models["noise"] = models["one"] | {"randomise": 7}
    write_study(place.home, **ASKED, models=models)
    return place


def test_everything_at_once(asked: Place) -> None:
    run = uf.run(asked.study, force=True)
    scores, pairs = run.scores, run.pairs
    assert [*scores.columns] == COLUMNS

    # Controls and the ceiling stand in the same tables as everything else.
    found = {(p["space_a"], p["space_b"]) for p in run.info["pairs"]}
    assert found == {
        *(("one@0", "two@1"), ("one@2", "two@1"), ("two@1", "aimless@2"), ("two@1", "noise@2")),
        *(("one@0", "aimless@2"), ("one@2", "aimless@2")),
    }
    assert run.info["spaces"]["aimless@2"]["control"] == "random directions"
    assert run.info["spaces"]["noise@2"]["control"] == "random weights"
    assert run.info["spaces"]["one@2"]["control"] is None

    # Intervals hold their estimates, and the tables say the same as run.json.
    for facts in run.info["pairs"]:
        own = facts["intervals"]["kept"]
        assert own["estimate"] == facts["kept"]
        assert own["low"] <= own["estimate"] <= own["high"]
        assert set(facts["stability"]) >= {"share", "chance", "jaccard"}
    known = pairs.dropna(subset=["correlation_low"])
    assert len(known) > 0.9 * len(pairs)
    inside = (known["correlation_low"] <= known["correlation"]) & (known["correlation"] <= known["correlation_high"])
    assert inside.mean() > 0.8

    # Rematches: as many pairs scored as were kept, or as many as there are.
    everything = scores[scores["subspace"] == "all"]
    for facts in run.info["pairs"]:
        again = facts["rematch"]
        assert len(again["kept"]) == min(4, facts["shifts"])
        assert all(n <= facts["kept"] for n in again["pairs_scored"])
    assert everything["rematch_p"].notna().all()
    assert everything["rematch_p"].min() >= 1 / 5
    family = everything.dropna(subset=["p"])
    assert len(family) == len(everything)
    assert (family["p_family"] >= 1 / 31).all()
    assert (family["p_family"] - family["p"]).max() > 0, "some cell pays for the others"

    # Every test of the run is in one correction.
    rates = run.rates
    assert rates is not None
    again = [facts["rematch"] for facts in run.info["pairs"]]
    pairs_p = pd.Series([facts[name] for facts in again for name in ("p_kept", "p_mean_correlation")], dtype=float)
    pairs_q = pd.Series([facts[name] for facts in again for name in ("q_kept", "q_mean_correlation")], dtype=float)
    expected = pd.concat([scores["p"], scores["rematch_p"], scores["subset_p"], rates["p"], pairs_p]).dropna()
    q = pd.concat([scores["q"], scores["rematch_q"], scores["subset_q"], rates["q"], pairs_q])[lambda s: s.notna()]
    np.testing.assert_allclose(np.sort(q), np.sort(false_discovery_control(expected)), atol=1e-12)

    # Categories: their features, their pairs, and a list of random words for each.
    members = run.members
    assert members is not None
    assert (
        {*CATEGORIES} <= set(members["subspace"]) <= {*CATEGORIES, *(f"{name} · random words" for name in CATEGORIES)}
    )
    assert rates["features"].max() > 0
    assert scores["subset_p"].notna().any()
    inside = scores[scores["subspace"] == "Animals"].iloc[0]
    own = {
        name: set(members.query("space == @name and subspace == 'Animals'")["feature"]) for name in ("one@0", "two@1")
    }
    candidates = run.space_pair("one@0", "two@1")
    both = candidates[candidates["feature_a"].isin(own["one@0"]) & candidates["feature_b"].isin(own["two@1"])]
    assert inside["n_pairs"] <= len(both)
    assert scores.loc[scores["subspace"].str.contains("random words"), "subset_p"].isna().all()

    # And again, from what is stored, the same bits.
    again = uf.run(asked.study, out="again", force=True)
    pd.testing.assert_frame_equal(again.scores, scores)
    pd.testing.assert_frame_equal(again.pairs, pairs)
    page = run.report.read_text()
    for words in ("control: random directions", "control: random weights", "Animals"):
        assert words in page


def test_a_rematch_that_cannot_be_scored_counts_as_reaching_the_score() -> None:
    assert rematch._against(0.5, np.array([0.1, np.nan, 0.6, 0.5]))[2] == pytest.approx(4 / 5)
    assert all(np.isnan(rematch._against(np.nan, np.array([0.1]))))
    assert all(np.isnan(rematch._against(0.5, np.zeros(0))))


def test_q_of_nothing_is_nothing() -> None:
    scores = pd.DataFrame(columns=[*COLUMNS, "null"])
    both = with_q(scores, pd.DataFrame(columns=["p"]), [])
    assert [len(table) for table in both] == [0, 0, 0]
    assert [*both[0].columns] == COLUMNS


def test_a_wrong_setting_of_a_categorys_measure_stops_the_run_at_once(asked: Place) -> None:
    write_study(asked.home, **ASKED | {"subspaces": {"categories": "words.yaml", "geometry": [{"rsa": {"dims": 3}}]}},
                models=yaml.safe_load(asked.study.read_text())["models"])  # fmt: skip
    with pytest.raises(uf.UserError, match=r"subspaces\.geometry, rsa: rsa has no setting 'dims'"):
        uf.run(asked.study)


def test_a_study_without_nulls_has_none(asked: Place) -> None:
    quick = {"permutations": 0, "rematches": 0, "bootstraps": 0, "subsamples": 0}
    models = yaml.safe_load(asked.study.read_text())["models"]
    write_study(asked.home, **ASKED | {"inference": quick, "subspaces": ...}, models=models)
    run = uf.run(asked.study, force=True)
    assert run.scores[["p", "p_family", "q", "ci_low", "rematch_p", "subset_p"]].isna().all().all()
    assert run.members is None
    assert "correlation_low" not in run.pairs
    assert json.loads((run.folder / "run.json").read_text())["pairs"][0]["intervals"] is None
