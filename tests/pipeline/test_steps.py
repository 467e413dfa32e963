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
from unifeat.inference.nulls import AGAIN, NULLS
from unifeat.pipeline import rematch_tests
from unifeat.pipeline.score import COLUMNS, with_q
from unifeat.pipeline.subspaces import RATES

CATEGORIES = {
    "Animals": ["dog", "cat", "bee", "bird", "horse"],
    "Small": ["the", "a", "at", "in", "of", "near", "under", "over", "by", "before", "after", "with", "on", "and"],
}
ASKED: dict[str, Any] = {
    "inference": {
        "permutations": 30,
        "bootstraps": 25,
        "subsamples": 12,
        "rematches": 4,
        "same_token": 4,
        "same_two_tokens": 4,
    },
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
        if own["low"] is not None:  # (where the draws keep far more pairs than the text, there is no interval)
            assert own["low"] <= own["estimate"] <= own["high"]
            assert abs(own["bias"]) <= 0.25 * own["estimate"]
        assert set(facts["stability"]) >= {"share", "chance", "jaccard"}
    assert any(facts["intervals"]["kept"]["low"] is not None for facts in run.info["pairs"])
    known = pairs.dropna(subset=["correlation_low"])
    assert len(known) > 0.9 * len(pairs)
    inside = (known["correlation_low"] <= known["correlation"]) & (known["correlation"] <= known["correlation_high"])
    assert inside.mean() > 0.8

    # Nulls that match again: as many pairs scored on both sides, and never more than were kept.
    everything = scores[scores["subspace"] == "all"]
    for name, prefix in ((name, null.prefix) for name, null in AGAIN.items()):
        for facts in run.info["pairs"]:
            again = facts[name]
            assert again["draws"] == len(again["kept"]) == 4
            assert again["least_p"] == 1 / 5
            assert all(n <= facts["kept"] for n in again["pairs_scored"])
            assert all(same <= kept for same, kept in zip(again["same"], again["kept"], strict=True))
            assert sum(again["r"]) == sum(again["kept"])
        own = everything[[f"{prefix}_p", f"{prefix}_p_family"]]
        assert own.notna().all(axis=None)
        assert own.min(axis=None) >= 1 / 5
    family = everything.dropna(subset=["p"])
    assert len(family) == len(everything)
    assert (family["p_family"] >= 1 / 31).all()
    assert (family["p_family"] - family["p"]).max() > 0, "some cell pays for the others"
    with_decoys = pairs[pairs["kept"]].dropna(subset=["decoy_fdr"])
    assert len(with_decoys) == pairs["kept"].sum()
    for _, own in with_decoys.groupby(["space_a", "space_b"], sort=False):
        assert own.sort_values("correlation")["decoy_fdr"].is_monotonic_decreasing

    # One correction for each question: a null, of ordinary pairs of spaces, of ceilings or of controls.
    rates = run.rates
    assert rates is not None
    controls = {name for name, info in run.info["spaces"].items() if info["control"]}

    def role(table: pd.DataFrame) -> pd.Series:
        models = [[run.info["spaces"][name]["model"] for name in table[side]] for side in ("space_a", "space_b")]
        same = pd.Series(models[0], table.index) == pd.Series(models[1], table.index)
        control = table["space_a"].isin(controls) | table["space_b"].isin(controls)
        return pd.Series(np.where(control, "control", np.where(same, "ceiling", "ordinary")), table.index)

    for table, nulls in ((scores, [(null.p, null.q) for null in NULLS.values()]), (rates, [("p", "q")])):
        whole = (table["subspace"] == "all") & (table is scores)
        for p, q in nulls:
            for _, own in table.groupby([role(table), whole]):
                known = own.dropna(subset=[p])
                assert known[q].notna().all()
                np.testing.assert_allclose(
                    known[q], false_discovery_control(known[p]) if len(known) else [], atol=1e-12
                )
    facts_of_pairs = pd.DataFrame(run.info["pairs"])
    for name in AGAIN:
        found = pd.DataFrame(facts_of_pairs[name].tolist())
        for test in ("kept", "mean_correlation"):
            for _, own in found.astype({f"p_{test}": float, f"q_{test}": float}).groupby(role(facts_of_pairs)):
                known = own.dropna(subset=[f"p_{test}"])
                np.testing.assert_allclose(known[f"q_{test}"], false_discovery_control(known[f"p_{test}"]), atol=1e-12)

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
    drawn = np.array([0.1, np.nan, 0.6, 0.5])
    assert rematch_tests.reaches(0.5, drawn).tolist() == [False, True, True, True]


def test_q_of_nothing_is_nothing() -> None:
    scores = pd.DataFrame(columns=[*COLUMNS, "null"])
    both = with_q(scores, pd.DataFrame(columns=RATES), {}, {})
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
