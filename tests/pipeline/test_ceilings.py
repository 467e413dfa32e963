"""Scores as a share of their ceiling: like numbers of pairs, what is no ceiling, and a whole study with both."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import unifeat as uf
from homes import Place, mean_activation, write_study
from tiny import tiny_sae
from unifeat.inference import ceiling
from unifeat.inference.ceiling import DRAWS
from unifeat.pipeline.ceilings import COLUMNS, _at_number
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.spaces import role
from unifeat.study.measures import MetricSpec
from unifeat.synthetic import plant_rows

RSA, SVCCA = MetricSpec(metric="rsa"), MetricSpec(metric="svcca", settings={"dims": 4})


def pair_set(n: int, *, shared: float = 0.6, seed: int = 0) -> PairSet:
    """Pairs i, i of two spaces, drawn from many, a share of which have a common direction."""
    x, y = (rows[:n].astype(np.float32) for rows in plant_rows(10 * n, 12, 16, shared=shared, noise=0.4, seed=seed))
    a, b = (
        SimpleNamespace(
            name=name, layer=0, decoder=SimpleNamespace(rows=rows.__getitem__),
            store=SimpleNamespace(features=n, settings={"sae": f"{name}{seed}"}),
        )
        for name, rows in (("a", x), ("b", y))
    )  # fmt: skip
    table = pd.DataFrame({"feature_a": np.arange(n), "feature_b": np.arange(n)})
    return PairSet.of(SimpleNamespace(a=a, b=b, near_copies=None), "all", table)  # type: ignore[arg-type]


def space(model: str, layer: int, hook: str = "resid_post", control: str | None = None) -> Any:
    return SimpleNamespace(layer=layer, info={"model": model, "layer": layer, "hook": hook, "control": control})


def test_a_ceiling_is_two_saes_of_one_hook_point() -> None:
    assert role(space("m", 3), space("m", 3)) == "ceiling"
    assert role(space("m", 3), space("m", 4)) == "one model"
    assert role(space("m", 3), space("m", 3, hook="mlp_out")) == "ordinary"
    assert role(space("m", 3), space("other", 3)) == "ordinary"
    assert role(space("m", 3), space("m", 3, control="random directions")) == "control"


class TestAtANumber:
    def test_of_all_pairs_it_is_the_score_and_its_interval(self) -> None:
        pairs = pair_set(80)
        found = _at_number(pairs, RSA, 80, 25, 3, chance=True)
        interval = uf.subsample_interval("rsa", *pairs.rows, subsamples=25, seed=3)
        assert found["score"] == float(uf.rsa(*pairs.rows))
        assert found["sd"] == pytest.approx(interval.sd, rel=1e-12)
        assert abs(found["chance"]) < 0.02
        assert found["score"] > 0.2

    @pytest.mark.parametrize("spec", [RSA, SVCCA, MetricSpec(metric="cka"), MetricSpec(metric="ridge_map")])
    def test_of_fewer_it_is_the_mean_over_draws(self, spec: MetricSpec) -> None:
        pairs = pair_set(60)
        found = _at_number(pairs, spec, 40, 0, 1, chance=False)
        measure = uf.inference.find_measure(spec.metric)
        x, y = pairs.rows
        orders = uf.inference.permutations(60, DRAWS, 1, start=ceiling._FIRST_DRAW)
        drawn = [np.sort(order[:40]) for order in orders]
        assert len({tuple(rows) for rows in drawn}) == DRAWS
        anew = [measure.function(x[rows], y[rows], **spec.settings).value for rows in drawn]
        assert found["score"] == pytest.approx(np.mean(anew), abs=1e-9)
        assert math.isnan(found["sd"])
        assert math.isnan(found["chance"])

    def test_it_does_not_depend_on_how_many_pairs_there_were(self) -> None:
        """SVCCA of 30 pairs is higher than of 300, whatever is shared: at 30, both cells say the same."""
        many = [float(uf.svcca(*pair_set(300, shared=0, seed=seed).rows, dims=4)) for seed in range(8)]
        fewer = [
            _at_number(pair_set(300, shared=0, seed=seed), SVCCA, 30, 0, 0, chance=False)["score"] for seed in range(8)
        ]
        few = [float(uf.svcca(*pair_set(30, shared=0, seed=50 + seed).rows, dims=4)) for seed in range(8)]
        assert np.mean(many) < 0.6 * np.mean(few)
        assert np.mean(fewer) == pytest.approx(np.mean(few), rel=0.1)

    def test_its_standard_error_is_the_spread_over_other_pairs(self) -> None:
        """Of 60 out of 180 pairs, RSA: less than that of 60 pairs, since all 180 take part."""
        found = [_at_number(pair_set(180, seed=seed), RSA, 60, 40, 0, chance=False) for seed in range(24)]
        spread = np.std([one["score"] for one in found], ddof=1)
        assert np.sqrt(np.mean([one["sd"] ** 2 for one in found])) == pytest.approx(spread, rel=0.35)
        alone = [_at_number(pair_set(60, seed=seed), RSA, 60, 40, 0, chance=False)["sd"] for seed in range(5)]
        assert spread < 0.8 * np.mean(alone)

    def test_too_few_pairs_have_no_score(self) -> None:
        found = _at_number(pair_set(2), RSA, 2, 10, 0, chance=True)
        assert all(math.isnan(found[name]) for name in ("score", "sd", "chance"))


# ---- a whole study ---------------------------------------------------------------------------------------------------

CATEGORIES = {
    "Animals": ["dog", "cat", "bee", "bird", "horse"],
    "Small": ["the", "a", "at", "in", "of", "near", "under", "over", "by", "before", "after", "with", "on", "and"],
}
ASKED: dict[str, Any] = {
    "inference": {"permutations": 40, "bootstraps": 0, "subsamples": 12},
    "spaces": [
        {"model": "one", "layers": [0, 2], "sae": "saes/one_{layer}"},
        {"model": "two", "layers": 1, "sae": "saes/two_{layer}"},
        {"model": "one", "layers": 2, "sae": "saes/again_{layer}", "name": "again"},
        {"model": "two", "layers": 1, "sae": "saes/anew_{layer}", "name": "anew"},
        {"model": "one", "layers": 2, "sae": "saes/one_{layer}", "name": "aimless", "random_directions": 5},
    ],
    "compare": [["one", "two"], ["one@2", "again@2"], ["two@1", "anew@1"], ["aimless", "two"], ["one@0", "again@2"]],
    "subspaces": {"categories": "words.yaml", "at_least": 1, "subsets": 0, "geometry": ["rsa"]},
}


def near(place: Place, name: str, layer: int, target: str) -> None:
    """A second SAE like the first one, with noise: what another seed of the same training gives."""
    tiny_sae(place.home / "saes" / target, 32, seed=77, mean=mean_activation(place.home / f"model-{name}", layer))
    own = load_file(place.home / "saes" / f"{name}_{layer}" / "sae_weights.safetensors")
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(own["W_dec"].shape[0], generator=generator)
    noisy = {
        key: value + 0.25 * value.std() * torch.randn(value.shape, generator=generator) if value.ndim == 2 else value
        for key, value in own.items()
    }
    noisy |= {"W_dec": noisy["W_dec"][order], "W_enc": noisy["W_enc"][:, order], "b_enc": noisy["b_enc"][order]}
    weights = place.home / "saes" / target / "sae_weights.safetensors"
    save_file({key: value.contiguous() for key, value in noisy.items()}, weights)


@pytest.fixture
def asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    near(place, "one", 2, "again_2")
    near(place, "two", 1, "anew_1")
    (place.home / "words.yaml").write_text(yaml.safe_dump(CATEGORIES))
    write_study(place.home, **ASKED)
    return place


def test_a_study_with_ceilings(asked: Place) -> None:
    run = uf.run(asked.study, force=True)
    scores = run.scores.set_index(["space_a", "space_b", "subspace", "metric"]).sort_index()
    facts = {(own["space_a"], own["space_b"]): own for own in run.info["pairs"]}
    again, anew = ("one@2", "again@2"), ("two@1", "anew@1")

    # The ceilings of both spaces, of one, and of none; and never of a ceiling itself.
    of = {cell: scores.loc[cell, "ceiling_of"].unique().tolist() for cell in facts}
    assert of == {
        ("one@2", "two@1"): ["both"], ("one@0", "two@1"): ["b"], ("two@1", "aimless@2"): ["a"],
        ("one@0", "again@2"): ["b"], again: [""], anew: [""],
    }  # fmt: skip
    assert facts[again]["ceiling"] is None
    assert scores.loc[again, [*COLUMNS][:5]].isna().all(axis=None)

    # What is scored at all pairs of the cell is the score itself, over the ceiling.
    whole = scores.xs("all", level="subspace")
    for cell in [("one@2", "two@1"), ("one@0", "two@1"), ("two@1", "aimless@2")]:
        for _, row in whole.loc[cell].iterrows():
            assert row["ceiling_pairs"] == row["n_pairs"] == facts[cell]["kept"]
            assert row["ceiling_share"] == pytest.approx(row["score"] / row["ceiling"])
            assert row["ceiling_share_low"] < row["ceiling_share"] < row["ceiling_share_high"]
            assert row["ceiling_share_chance"] == pytest.approx(row["null_mean"] / row["ceiling"], abs=0.15)
    # A second SAE is nearly the first one, and the other model shares nothing but chance.
    for metric in ("rsa", "svcca", "cka"):
        assert whole.loc[(*again, metric), "score"] > 0.8
    rsa = whole.xs("rsa", level="metric")
    ordinary = rsa.loc[("one@2", "two@1")]
    assert ordinary["ceiling"] == pytest.approx(math.sqrt(rsa.loc[again, "score"] * rsa.loc[anew, "score"]), abs=0.05)
    assert ordinary["ceiling_share_low"] < 0 < ordinary["ceiling_share_high"] < 0.5
    assert whole.loc[("one@2", "two@1", "svcca"), "ceiling_share_chance"] > 0.2, "of a measure that is inflated"

    # The number of pairs and match rates.
    own = facts["one@2", "two@1"]["ceiling"]
    assert own["of"] == "both"
    assert own["kept"] == pytest.approx(math.sqrt(facts[again]["kept"] * facts[anew]["kept"]))
    assert own["kept_share"] == pytest.approx(facts["one@2", "two@1"]["kept"] / own["kept"])
    assert own["rate_a_share"] == pytest.approx(facts["one@2", "two@1"]["kept"] / facts[again]["kept"])
    assert facts["one@0", "two@1"]["ceiling"]["rate_a_share"] is None

    # Categories: the same one in the ceiling, and too few pairs are said to be.
    parts = scores[scores.index.get_level_values("subspace") != "all"]
    assert parts["ceiling_share"].notna().any()
    few = parts[(parts["ceiling_of"] != "") & (parts["ceiling_pairs"] < 8)]
    assert len(few) > 3
    for flags in few["flags"]:
        assert any(flag == "ceiling: fewer than 8 pairs to compare it at" for flag in flags)
    assert few["ceiling_share"].isna().all()

    # Stored: again, and with a score more, the same bits.
    more = uf.run(asked.study, out="again", force=True)
    pd.testing.assert_frame_equal(more.scores, run.scores)


def test_what_chance_reaches_is_no_ceiling(asked: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second SAE that writes in other directions: its RSA with the first is not above its null, so no share.

    (It explains nothing, either, which by itself makes it no ceiling: here this is not asked.)
    """
    study = write_study(asked.home, **ASKED | {"subspaces": ..., "geometry": ["rsa"], "compare": ASKED["compare"][:3]})
    weights = asked.home / "saes" / "again_2" / "sae_weights.safetensors"
    own = load_file(weights)
    generator = torch.Generator().manual_seed(8)
    save_file(own | {"W_dec": 0.05 * torch.randn(own["W_dec"].shape, generator=generator)}, weights)
    useless = uf.run(study, force=True).scores.set_index(["space_a", "space_b"])
    assert useless.loc[("one@2", "two@1"), "ceiling_of"] == "b"
    monkeypatch.setattr("unifeat.runs.roles.LEAST_EXPLAINED", -np.inf)
    scores = uf.run(study, force=True).scores.set_index(["space_a", "space_b"])
    assert scores.loc[("one@2", "again@2"), "p"] > 0.05
    row = scores.loc[("one@2", "two@1")]
    assert row["ceiling_of"] == "both"
    assert np.isnan(row[["ceiling", "ceiling_share"]].astype(float)).all()
    said = [flag for flag in row["flags"] if flag.startswith("ceiling:")]
    assert said == [
        f"ceiling: one@2 × again@2 is not clearly above its own null (p = {scores.loc[('one@2', 'again@2'), 'p']:.2g})"
    ]
    assert scores.loc[("one@0", "two@1"), "ceiling_share"] == pytest.approx(
        scores.loc[("one@0", "two@1"), "score"] / scores.loc[("one@0", "two@1"), "ceiling"]
    )


def test_without_shuffles_or_halves(asked: Place) -> None:
    settings = ASKED | {"subspaces": ..., "geometry": ["rsa"], "compare": ASKED["compare"][:3]}
    quick = {"bootstraps": 0, "permutations": 0, "subsamples": 12}
    scores = uf.run(write_study(asked.home, **settings | {"inference": quick}), force=True).scores
    assert scores[["ceiling_share", "p_equivalent"]].isna().all(axis=None)
    flagged = [flag for flags in scores["flags"] for flag in flags if flag.startswith("ceiling:")]
    assert flagged
    assert all("was not compared with a null, so it may be none" in flag for flag in flagged)
    quick = {"bootstraps": 0, "permutations": 40, "subsamples": 0, "equivalence": "off"}
    scores = uf.run(write_study(asked.home, **settings | {"inference": quick}), force=True).scores
    known = scores[scores["ceiling_of"] != ""]
    assert known["ceiling_share"].notna().all()
    assert known["ceiling_share_low"].isna().all()
    assert scores[["p_equivalent", "equivalence_margin"]].isna().all(axis=None)
