"""What pairs do to the next token, in a study: firing alike and working alike come apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats

import unifeat as uf
from homes import STUDY, mean_activation
from tiny import sentences, tiny_sae, write_text
from unifeat.codes.beside import Beside
from unifeat.models import load_language_model
from unifeat.pipeline import effect_edits, effects
from unifeat.pipeline.effect_comparison import Comparison
from unifeat.pipeline.effect_profiles import Profiles
from unifeat.pipeline.encode import prepare_spaces
from unifeat.pipeline.match import compare
from unifeat.pipeline.placed import placed
from unifeat.pipeline.transfer import Direction
from unifeat.study.spec import Study
from unifeat.transfer.strings import SharedStrings
from unifeat.vocabulary.hook_points import HookPoint

TRANSFER = {"cells": "best", "draws": 5, "loss_draws": 0, "loss_tokens": 0, "pairs": 24, "contexts": 6}
COLUMNS = [
    *("space_a", "space_b", "feature_a", "feature_b", "correlation", "correlation_within_token", "gain"),
    *("direct", "direct_spearman", "direct_overlap", "direct_rank", "direct_second"),
    *("added", "added_spearman", "added_overlap", "added_rank", "added_second"),
    *("stability_a", "stability_b", "spread_a", "spread_b"),
    *("removed", "removed_control", "contexts", "kl_a", "kl_b", "kl_agreement", "kl_agreement_control"),
    *("promotes_a", "suppresses_a", "promotes_b", "suppresses_b"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[..., Path]) -> Path:
    """One model three times, with one SAE, a copy of it, and one that fires alike and writes other directions."""
    folder = tmp_path_factory.mktemp("effects")
    model = model_folder("llama", tokenizer="wordish")
    (folder / "model").symlink_to(model)
    tiny_sae(folder / "sae", 32, seed=3, mean=mean_activation(model, 1))
    tiny_sae(folder / "later", 32, seed=8, mean=mean_activation(model, 2))
    for name, seed in (("same", None), ("other", 5)):
        (folder / name).mkdir()
        (folder / name / "cfg.json").write_bytes((folder / "sae" / "cfg.json").read_bytes())
        weights = load_file(folder / "sae" / "sae_weights.safetensors")
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(weights["W_dec"].shape, generator=generator)
            weights["W_dec"] = drawn * (weights["W_dec"].norm(dim=1) / drawn.norm(dim=1))[:, None]
        save_file(weights, folder / name / "sae_weights.safetensors")
    write_text(folder, sentences(40))
    return folder


@pytest.fixture
def study(home: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("UNIFEAT_CACHE", str(home / "cache"))
    monkeypatch.chdir(home)
    names = ("one", "same", "other")
    made = STUDY | {
        "models": {name: {"name": "model", "dtype": "float32"} for name in names},
        "spaces": [
            {"model": name, "layers": 1, "sae": "sae" if name == "one" else name, "codes": "output"} for name in names
        ]
        + [{"name": "above", "model": "one", "layers": 2, "sae": "later"}],
        "compare": [["one", "same"], ["one", "other"]],
        "geometry": ["rsa"],
        "transfer": TRANSFER,
        "activations": {"rows": 3000, "dims": 3},
    }
    return Study.model_validate(made)


def test_firing_and_working_come_apart(study: Study) -> None:
    run = uf.run(study, force=True)
    table = run.effects
    assert table is not None
    assert list(table) == COLUMNS
    facts = {pair["space_b"]: pair["effects"] for pair in run.info["pairs"]}
    same, other = (table[table["space_b"] == f"{name}@1"] for name in ("same", "other"))
    assert len(same) >= 10
    # One and the same feature does the same …
    for way in ("direct", "added", "removed", "kl_agreement"):
        np.testing.assert_allclose(same[way].dropna(), 1.0, atol=0.02)
    assert (same["direct_rank"] == 1).all()
    assert (same["added_rank"] == 1).all()
    for way in ("direct", "added"):
        assert facts["same@1"][way]["p"] < 0.01
        assert facts["same@1"][way]["top_1_value"] == 1.0
        assert facts["same@1"][way]["random"] < 0.5
        # … and the second-best partner does not.
        assert same[f"{way}_second"].mean() < 0.6
        assert facts["same@1"][way]["second_p"] < 0.01
    assert facts["same@1"]["removed"]["p"] < 0.01
    assert facts["same@1"]["removed"]["control"] < 0.7
    assert all(list(one) == list(two) for one, two in zip(same["promotes_a"], same["promotes_b"], strict=True))
    # … and one that fires at the same tokens with as much strength, but writes another direction, does not.
    assert other["correlation"].min() > 0.99
    for way in ("direct", "added"):
        assert abs(facts["other@1"][way]["value"]) < 0.3
        assert facts["other@1"][way]["p"] > 0.01
    assert abs(facts["other@1"]["removed"]["difference"]) < 0.35
    # Its codes can be predicted all the same: what is carried is another question.
    # (Nothing is carried: an SAE that writes other directions lowers no error.)
    assert run.transfer_pairs is not None
    fired = run.transfer_pairs.query("space_b == 'other@1' and direction == 'a_to_b'")
    np.testing.assert_allclose(fired["predicted"], 1, atol=1e-3)
    assert "What pairs do to the next token" in run.report.read_text()


def test_removal_is_the_models_own(study: Study) -> None:
    """A pair's removed profile and divergence, from the model with a hook of its own."""
    prepared = prepare_spaces(study, force=True)
    spaces = {space.name: space for space in prepared.spaces}
    cell = compare(study, spaces["one@1"], spaces["same@1"], prepared.corpus.documents)
    direction = Direction.both(cell)[0]
    assert study.transfer is not None
    rows = Beside.joined(list(direction.stretches()))
    pairs = effects.with_second_best(direction, direction.pairs)
    ids = pairs[["source_feature", "target_feature"]].to_numpy(np.int64).T
    second = pairs["second"].to_numpy(np.int64)
    asked = effect_edits.ask(rows, ids, second, ~direction.fitting, 3, np.random.default_rng(0))
    side, edits = effect_edits.Side(direction.source, rows), asked.of_source()
    model = load_language_model("model", [side.point], dtype="float32", whole=True)
    strings = effects.strings_of(direction)
    windows = placed(side.space, rows.places_a, np.unique(edits.row), model, prepared.corpus)
    weights = load_file(Path("sae") / "sae_weights.safetensors")["W_dec"].numpy()
    removed = asked.added + np.arange(0, len(asked.row), 7)
    for edit in np.r_[0, asked.added - 1, removed]:
        row, feature = edits.row[edit], edits.feature[edit]
        window = windows.ids[windows.window[row]]
        window = window[window >= 0]
        position = int(windows.position[row])
        assert window[position] == rows.places_a.token[row]
        value = model.activations(window[None], [side.point])[side.point][0, position]
        np.testing.assert_allclose(value.numpy(), rows.x_a[row], atol=1e-4)
        code = rows.codes_a[[row], [feature]].item()
        if edit >= asked.added:
            pair = asked.pair[edit - asked.added]
            assert feature == ids[0][pair]
            assert code > 0
            assert rows.codes_b[[row], [ids[1][pair]]].item() > 0  # both fire
        else:
            fired = rows.codes_a[:, [feature]].toarray()
            code = -np.quantile(fired[fired > 0], 0.9)
        delta = side.deltas(effect_edits.EditList(*(part[[edit]] for part in vars(edits).values())))
        np.testing.assert_allclose(delta[0], -code * weights[feature], atol=1e-5)
    assert len(strings) > 20


def test_the_lists_of_both_models_are_alike(study: Study) -> None:
    """Row by row, the target's edits are those of the source; behind them are controls and second-best partners."""
    direction = first_direction(study)
    rows = Beside.joined(list(direction.stretches()))
    pairs = effects.with_second_best(direction, direction.pairs)
    ids = pairs[["source_feature", "target_feature"]].to_numpy(np.int64).T
    table = direction.cell.table()
    for source, target, second in zip(*ids, pairs["second"], strict=True):
        others = table[(table["feature_a"] == source) & (table["feature_b"] != target)]
        others = others[~others["kept"]]
        assert second == (others.loc[others["correlation"].idxmax(), "feature_b"] if len(others) else -1)
    assert (pairs["second"] >= 0).mean() > 0.5
    asked = effect_edits.ask(
        rows, ids, pairs["second"].to_numpy(np.int64), ~direction.fitting, 3, np.random.default_rng(0)
    )
    source, target = asked.of_source(), asked.of_target()
    n, removals = len(source), len(asked.row)
    np.testing.assert_array_equal(target.row[:n], source.row)
    np.testing.assert_array_equal(target.added[:n], source.added)
    number = {feature: i for i, feature in enumerate(ids[0].tolist())}
    np.testing.assert_array_equal(target.feature[:n], ids[1][[number[f] for f in source.feature.tolist()]])
    controls, seconds = slice(n, n + removals), slice(n + removals, None)
    np.testing.assert_array_equal(target.row[controls], asked.row)
    for row, feature, pair in zip(asked.row, target.feature[controls], asked.pair, strict=True):
        assert feature == -1 or rows.codes_b[[row], [feature]].item() > 0
        assert feature != ids[1][pair]
    np.testing.assert_array_equal(target.row[seconds], source.row[: asked.added])
    np.testing.assert_array_equal(target.feature[seconds].reshape(3, -1), np.tile(asked.second, (3, 1)))
    assert target.added[seconds].all()
    assert not target.added[controls].any()


def test_spread_is_that_of_a_hook_of_the_tests_own(study: Study) -> None:
    """The features of the later layer that a dose moves, from two passes of the model."""
    run = uf.run(study, force=True)
    table = run.effects
    assert table is not None
    same = table[table["space_b"] == "same@1"]
    np.testing.assert_allclose(same["spread_a"], same["spread_b"], rtol=1e-3)
    assert (same["spread_a"] > 1).all()
    direction = first_direction(study)
    rows = Beside.joined(list(direction.stretches()))
    side = effect_edits.Side(direction.source, rows)
    points = [HookPoint(1), HookPoint(2)]
    model = load_language_model("model", points, dtype="float32", whole=True)
    judged, seed = ~direction.fitting, direction.seed
    rng = np.random.default_rng([seed, 21])
    pairs = effects.with_second_best(direction, direction.pairs)
    pairs = pairs.iloc[np.sort(rng.choice(len(pairs), 24, replace=False))] if len(pairs) > 24 else pairs
    ids = pairs[["source_feature", "target_feature"]].to_numpy(np.int64).T
    asked = effect_edits.ask(rows, ids, pairs["second"].to_numpy(np.int64), judged, 6, rng)
    corpus = prepare_spaces(study, force=True).corpus
    windows = placed(side.space, rows.places_a, asked.probes, model, corpus)
    sae, feature = uf.load_sae("later"), ids[0][0]
    own = same.set_index("feature_a").loc[feature]
    found = []
    for probe in asked.probes:
        window = windows.ids[windows.window[probe]]
        window, position = window[window >= 0][None], int(windows.position[probe])
        dose = torch.from_numpy((side.doses(ids[0][:1])[0] * side.weights(ids[0][:1])[0]).astype(np.float32))
        clean = model.activations(window, [HookPoint(2)])[HookPoint(2)][0, position]

        def add(_: Any, __: Any, output: Any, position: int = position, dose: torch.Tensor = dose) -> Any:
            value = (output[0] if isinstance(output, tuple) else output).clone()
            value[0, position] += dose
            return (value, *output[1:]) if isinstance(output, tuple) else value

        handle = model.blocks[1].register_forward_hook(add)
        edited = model.activations(window, [HookPoint(2)])[HookPoint(2)][0, position]
        handle.remove()
        with torch.inference_mode():
            change = (sae.encode(edited) - sae.encode(clean)).abs() * sae.W_dec.norm(dim=1)
        found.append(float(change.sum() ** 2 / (change**2).sum()))
    assert own["spread_a"] == pytest.approx(np.mean(found), rel=0.02)


def first_direction(study: Study) -> Direction:
    """From `one` to `same`."""
    prepared = prepare_spaces(study, force=True)
    spaces = {space.name: space for space in prepared.spaces}
    return Direction.both(compare(study, spaces["one@1"], spaces["same@1"], prepared.corpus.documents))[0]


def test_fewer_pairs_than_asked_for_are_said(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.pipeline import transfer_step

    said: list[str] = []
    monkeypatch.setattr(transfer_step, "say", said.append)
    assert study.transfer is not None
    more = study.model_copy(update={"transfer": study.transfer.model_copy(update={"pairs": 500, "contexts": 2})})
    for _ in range(2):  # computed, and from the cache
        said.clear()
        run = uf.run(more, force=True)
        assert run.effects is not None
        assert any("pairs, not 500" in line for line in said)


def test_no_effects(study: Study) -> None:
    assert study.transfer is not None
    without = study.model_copy(update={"transfer": study.transfer.model_copy(update={"pairs": 0})})
    run = uf.run(without, force=True)
    assert run.effects is None
    assert run.transfer is not None


def test_a_model_without_shared_strings_is_told_before_the_work(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.pipeline import transfer_step

    def none(direction: Any) -> None:
        raise uf.UserError("share no string")

    monkeypatch.setattr(transfer_step, "strings_of", none)
    monkeypatch.setattr(transfer_step, "rebuild_unit", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(uf.UserError, match="share no string"):
        uf.run(study, force=True)


def removals(seed: int, shared: float, pairs: int = 24, contexts: int = 3, strings: int = 12) -> dict[str, Any]:
    """What `removed` says of profiles that the two models share to some degree, beside controls that they do not."""
    rng = np.random.default_rng(seed)
    n = pairs * contexts
    common, own, other, control = rng.standard_normal((4, n, strings))
    of_a = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    of_b = np.sqrt(shared) * common + np.sqrt(1 - shared) * other
    nothing = np.zeros(0, np.int64)
    pair, features = np.repeat(np.arange(pairs), contexts), np.zeros((2, pairs), np.int64)
    asked = effect_edits.Asked(features, features[1] - 1, nothing, pair, np.zeros(n, np.int64), np.zeros(n, np.int64))
    undefined = np.full(2 * n, np.nan)
    kl_a, kl_b, kl_control = (profiles[:, 0] ** 2 for profiles in (of_a, of_b, control))
    found = [
        Profiles(of_a, kl_a, undefined[:n]),
        Profiles(np.concatenate([of_b, control]), np.r_[kl_b, kl_control], undefined),
    ]
    table = pd.DataFrame({"correlation": rng.random(pairs)})
    strings_ = SharedStrings(("a",) * strings, nothing, nothing, nothing, nothing)
    comparison = Comparison(table, asked, strings_, seed, 0.95)
    facts = comparison._removed(table, found)
    assert facts is not None
    return facts | {"depends": comparison._beside(table, "kl_agreement", "control")}


def test_p_of_a_removal_is_uniform_where_nothing_is_shared() -> None:
    p = np.array([removals(seed, 0.0)["p"] for seed in range(300)])
    assert stats.kstest(p - np.random.default_rng(0).random(300) / 1001, "uniform").pvalue > 0.01
    assert np.mean(p <= 0.05) < 0.09
    alike = [removals(seed, 0.5) for seed in range(10)]
    assert all(own["p"] < 0.01 for own in alike)
    assert np.mean([own["value"] for own in alike]) == pytest.approx(0.5, abs=0.05)
    assert abs(np.mean([own["control"] for own in alike])) < 0.05


def test_p_of_where_a_feature_matters_is_uniform_where_nothing_is_shared() -> None:
    """KL by KL over a pair's tokens, beside the KL of another feature of the token."""
    p = np.array([removals(seed, 0.0, contexts=6)["depends"]["p"] for seed in range(300)])
    assert stats.kstest(p - np.random.default_rng(0).random(300) / 1001, "uniform").pvalue > 0.01
    alike = [removals(seed, 0.8, contexts=6)["depends"] for seed in range(10)]
    assert np.mean([own["p"] < 0.05 for own in alike]) > 0.8
    assert np.mean([own["difference"] for own in alike]) > 0.2
    assert removals(0, 0.8, contexts=3)["depends"] is None  # too few tokens for a rank correlation
