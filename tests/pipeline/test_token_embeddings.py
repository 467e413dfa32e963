"""What partial RSA takes out of both sides: the embeddings of the features' strongest tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest

import unifeat as uf
from homes import Place, write_study
from unifeat.engine import forget
from unifeat.models.language import load_language_model
from unifeat.pipeline import token_embeddings
from unifeat.pipeline.encode import prepare_spaces
from unifeat.study.read import load_study
from unifeat.vocabulary.hook_points import HookPoint

GIVEN = {"rsa": {"given": ["token_embeddings"]}}


def test_rows_are_means_of_the_models_embeddings(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    study = load_study(write_study(place.home))
    for space in prepare_spaces(study, force=True).spaces:
        spec = study.models[space.info["model"]]
        model = load_language_model(spec.name, [HookPoint(0)], randomise=spec.randomise)
        table = model.decoder.get_input_embeddings().weight.numpy()  # type: ignore[operator]
        alive = np.sort(space.tops["feature"].unique())
        chosen = np.r_[alive[:5], alive[-3:]]
        expected = []
        for feature in chosen:
            own = space.tops[(space.tops["feature"] == feature) & (space.tops["rank"] < study.matching.top_tokens)]
            expected.append(table[own["token"]].mean(axis=0))
        np.testing.assert_allclose(space.token_embeddings.rows(chosen), expected, rtol=2e-6, atol=1e-7)
        dead = np.setdiff1d(np.arange(space.store.features), alive)
        assert not space.token_embeddings.rows(dead).any()
    forget()


def test_a_study(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    inference = {"permutations": 20, "subsamples": 10, "strata": "frequency", "clusters": 0.4, "rematches": 2}
    path = write_study(place.home, geometry=["rsa", GIVEN], inference=inference)
    run = uf.run(path, force=True)
    scores = run.scores.assign(given=run.scores["settings"].str.contains("token_embeddings"))
    spaces = {space.name: space for space in prepare_spaces(load_study(path), force=True).spaces}
    assert scores["given"].any()
    for (name_a, name_b), own in scores.groupby(["space_a", "space_b"]):
        partial, plain = own[own["given"]].iloc[0], own[~own["given"]].iloc[0]
        pairs = run.space_pair(name_a, name_b).query("kept").sort_values(["feature_a", "feature_b"])
        sides = [(spaces[name], pairs[f"feature_{side}"].to_numpy()) for name, side in ((name_a, "a"), (name_b, "b"))]
        rows, given = (
            [space.decoder.rows(f) for space, f in sides],
            [space.token_embeddings.rows(f) for space, f in sides],
        )
        expected = uf.rsa(*rows, given=given)
        np.testing.assert_allclose(partial["score"], expected.value, atol=1e-12)
        assert json.loads(partial["details"])["plain"] == pytest.approx(plain["score"], abs=1e-12)
        if not np.isnan(expected.value):
            test = uf.permutation_test("rsa", *rows, given=given, permutations=20, seed=0)
            assert abs(partial["null_mean"] - test.null_mean) < 0.2
            assert partial[["p", "p_strata", "rematch_mean", "score_heldout"]].notna().all()
    assert "given token embeddings" in run.report.read_text()
    forget()


def test_a_new_version_gives_new_scores(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.pipeline.match import compare
    from unifeat.pipeline.pair_set import PairSet
    from unifeat.pipeline.rematch import _made_from

    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    study = load_study(write_study(place.home, geometry=["rsa", GIVEN]))
    prepared = prepare_spaces(study, force=True)
    cell = compare(study, *prepared.spaces[:2], prepared.corpus.documents)
    pairs = PairSet.of(cell, "all", cell.kept)

    def keys() -> list[str]:
        own = [pairs.unit("any", 1, spec, lambda: None).piece.key for spec in study.geometry]
        return [*own, str(_made_from(cell, study.geometry, "rematch"))]

    before = keys()
    monkeypatch.setattr(token_embeddings, "VERSION", token_embeddings.VERSION + 1)
    after = keys()
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]
    forget()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("token_embeddings", "give a list"),
        ([], "give a list"),
        (["tokens"], "'tokens' is not known; a study can take out token_embeddings"),
        (["token_embeddings", "token_embeddings"], "twice"),
    ],
)
def test_what_is_given_is_checked(place: Place, given: object, said: str) -> None:
    with pytest.raises(uf.UserError, match=said):
        load_study(write_study(place.home, geometry=[{"rsa": {"given": given}}]))


def test_only_rsa_takes_it(place: Place) -> None:
    with pytest.raises(uf.UserError, match=r"cka.*no setting 'given'"):
        uf.run(write_study(place.home, geometry=[{"cka": {"given": ["token_embeddings"]}}]))
