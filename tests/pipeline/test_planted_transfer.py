"""Whole studies of toy models of which it is known what they share (`uf.synthetic.plant_models`).

B is A turned; or it fires alike and does something else; or it does the same and fires elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

import unifeat as uf
from unifeat.engine import forget
from unifeat.models import load_language_model
from unifeat.models.activations import run_group
from unifeat.pipeline.effects import strings_of
from unifeat.pipeline.encode import prepare_spaces
from unifeat.pipeline.match import compare
from unifeat.pipeline.steering import steering_unit
from unifeat.pipeline.transfer import Direction, Rebuilder, rebuild_unit
from unifeat.pipeline.transfer_loss import _readings, loss_unit, summarise_losses
from unifeat.saes import load_sae
from unifeat.saes.checking.claims import Claims
from unifeat.saes.checking.examine import examine
from unifeat.saes.checking.loss import measure_loss
from unifeat.study.read import load_study
from unifeat.study.spec import Study, SubspacesSpec
from unifeat.study.transfer import TransferSpec
from unifeat.subspaces.categories import load_categories
from unifeat.synthetic import PlantedModels, plant_models
from unifeat.transfer.direct import direct_effects, readout
from unifeat.transfer.splicing_loss import Losses, spliced_losses
from unifeat.transfer.sums import MIXED
from unifeat.vocabulary.hook_points import HookPoint

CONCEPTS = 20
STEERED = 5
TRANSFER = TransferSpec(
    draws=39, loss_draws=9, loss_tokens=400, pairs=CONCEPTS, contexts=6, steering=16, steering_draws=9
)
KINDS = {"twin": (True, True), "firing": (True, False), "effect": (False, True)}


@dataclass
class Done:
    """A planted pair of models, and the run of its study on the planted pairs of features."""

    made: PlantedModels
    run: Any
    study: Study
    cache: Path

    @property
    def carried(self) -> pd.DataFrame:
        """Rows of A's features in B, by variant."""
        return self.run.transfer.query("direction == 'a_to_b'").set_index("variant")

    @property
    def facts(self) -> dict[str, Any]:
        (pair,) = self.run.info["pairs"]
        return pair["effects"]


def planted_pairs(made: PlantedModels) -> Any:
    """`Direction.pairs` with the planted pairs, whatever was matched."""

    def pairs(direction: Direction) -> pd.DataFrame:
        a, b = made.pairs.T
        source, target = (a, b) if direction.name == "a_to_b" else (b, a)
        table = pd.DataFrame({"source_feature": source, "target_feature": target, "correlation": 0.0, "count": 1})
        return table.sort_values("source_feature").reset_index(drop=True)

    return property(pairs)


def promoted(made: PlantedModels, folder: Path) -> SubspacesSpec:
    """Categories of words: those that each of a few concepts of B promotes most."""
    order = np.argsort(-made.effects_b[:, :-1], axis=1)[:STEERED, :14]
    lists = {f"concept {number}": [made.words[word] for word in row] for number, row in enumerate(order)}
    path = folder / f"words-{len(list(folder.glob('words-*')))}.yaml"
    path.write_text(yaml.safe_dump(lists), encoding="utf-8")
    return SubspacesSpec(categories=str(path), top_tokens=3, at_least=1, subsets=0, control_lists=0)


def plant(folder: Path, name: str) -> PlantedModels:
    firing, effect = KINDS[name]
    return plant_models(
        folder / name, same_firing=firing, same_effect=effect, concepts=CONCEPTS, documents=60, context=48
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """The three kinds, run."""
    folder = tmp_path_factory.mktemp("planted")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFEAT_CACHE", str(folder / "cache"))
        for name in KINDS:
            made = plant(folder, name)
            changes = {"transfer": TRANSFER, "subspaces": promoted(made, folder)}
            study = load_study(made.study).model_copy(update=changes)
            patch.setattr(Direction, "pairs", planted_pairs(made))
            run = uf.run(study, folder / f"run-{name}")
            found[name] = Done(made, run, study, folder / "cache")
    return found


@pytest.mark.slow
class TestPlantedTruth:
    def test_partners_are_found_where_firing_is_shared(self, done: dict[str, Done]) -> None:
        for name, own in done.items():
            kept = own.run.pairs.query("kept")[["feature_a", "feature_b"]].to_numpy()
            right = np.mean([tuple(pair) in set(map(tuple, own.made.pairs.tolist())) for pair in kept.tolist()])
            if name == "effect":
                assert right < 0.2
            else:
                assert right == 1
                assert len(kept) == CONCEPTS

    def test_what_fires_alike_carries(self, done: dict[str, Done]) -> None:
        for name in ("twin", "firing"):
            found = done[name].carried
            mixed = found.loc["own_and_from_a"]
            assert mixed["carried"] == pytest.approx(1, abs=1e-4)
            assert mixed["recovered"] == pytest.approx(1, abs=1e-3)
            assert (mixed["p"], mixed["p_recovered"]) == (pytest.approx(1 / 40), pytest.approx(1 / 10))
            assert found.loc["rotation", "fvu"] < 1e-9  # x_b is x_a turned
            assert found.loc["sae_through_map", "fvu"] == pytest.approx(found.loc["own", "fvu"], rel=1e-3)
            assert found.loc["sae_as_it_is", "fvu"] > 0.9
        assert done["twin"].carried.loc["matched_at_mean", "loss"] > done["twin"].carried.loc["own", "loss"] + 1

    def test_what_fires_elsewhere_does_not(self, done: dict[str, Done]) -> None:
        found = done["effect"].carried
        mixed = found.loc["own_and_from_a"]
        assert abs(mixed["carried"]) < 0.05
        assert abs(mixed["recovered"]) < 0.05
        assert mixed["p"] > 0.025
        assert found.loc["matched_at_mean", "loss"] > found.loc["own", "loss"] + 1  # there was something to carry

    def test_what_does_the_same_agrees(self, done: dict[str, Done]) -> None:
        twin, effect = done["twin"].facts, done["effect"].facts
        for way in ("direct", "added"):
            assert twin[way]["value"] == pytest.approx(1, abs=1e-4)
            for found in (twin[way], effect[way]):
                assert found["p"] == pytest.approx(1 / 1001)
                assert found["top_1_value"] == 1
        assert effect["direct"]["value"] == pytest.approx(1, abs=1e-4)
        assert effect["added"]["value"] > 0.7  # at other states of the blocks above
        assert twin["removed"]["value"] == pytest.approx(1, abs=1e-3)
        assert twin["removed"]["kl_agreement"] == pytest.approx(1, abs=1e-3)
        assert twin["removed"]["control"] < 0.5
        assert twin["removed"]["p"] < 0.01

    def test_directions_steer_where_firing_is_shared(self, done: dict[str, Done]) -> None:
        """The text is B's own, so what fires in A before a word tells what promotes it in B if it fires there too."""
        for name, own in done.items():
            found = own.run.steering.query("direction == 'a_to_b' and category == 'all'").set_index("variant")
            one = found.loc["own"]
            assert one["per_kl_low"] > one["null_mean"] + 2 * one["null_sd"]
            assert one["p"] == pytest.approx(1 / 10)
            pairs = found.loc["from_pairs"]
            if name == "effect":
                assert pairs["per_kl"] < one["per_kl"] / 4
                assert abs(pairs["per_kl"] - pairs["null_mean"]) < 3 * pairs["null_sd"]
            else:
                assert pairs["per_kl"] == pytest.approx(one["per_kl"], rel=0.1)
                assert pairs["p"] == pytest.approx(1 / 10)
                assert pairs["null_mean"] < one["per_kl"] / 3
                assert found.loc["from_map", "per_kl"] == pytest.approx(one["per_kl"], rel=0.01)
                rows = own.run.steering.query("direction == 'a_to_b' and category != 'all' and variant == 'from_pairs'")
                assert len(rows) == STEERED
                assert rows["cosine"].min() > 0.9

    def test_what_does_something_else_does_not(self, done: dict[str, Done]) -> None:
        found = done["firing"].facts
        for way in ("direct", "added"):
            assert abs(found[way]["value"]) < 0.1
            assert found[way]["p"] > 0.025
            assert found[way]["top_1_value"] <= 0.2
            assert found[way]["mrr_value"] < 0.4
        assert abs(found["removed"]["difference"]) < 0.15
        assert found["removed"]["p"] > 0.025

    def test_what_is_promoted_is_what_was_planted(self, done: dict[str, Done]) -> None:
        for name, own in done.items():
            table = own.run.effects.set_index(["feature_a", "feature_b"])
            for (feature_a, feature_b), row in table.iterrows():
                for side, feature in (("a", feature_a), ("b", feature_b)):
                    effects = getattr(own.made, f"effects_{side}")[feature]
                    order = [f" {own.made.words[i]}" for i in np.argsort(effects)]
                    assert list(row[f"promotes_{side}"]) == order[::-1][:8], name
                    assert list(row[f"suppresses_{side}"]) == order[:8], name

    def test_direct_effects_are_the_planted_ones(self, done: dict[str, Done], monkeypatch: pytest.MonkeyPatch) -> None:
        """Not only alike: the numbers, of every feature on every word."""
        own = done["firing"]
        monkeypatch.setenv("UNIFEAT_CACHE", str(own.cache))
        prepared = prepare_spaces(own.study)
        direction = Direction.both(
            compare(own.study, *prepared.spaces, prepared.corpus.documents)  # type: ignore[arg-type]
        )[0]
        strings = strings_of(direction)
        assert strings.strings == tuple(sorted(f" {word}" for word in own.made.words))
        place = [strings.strings.index(f" {word}") for word in own.made.words]
        for name, exact in (("a", strings.exact_a), ("b", strings.exact_b)):
            spec = own.study.models[name]
            model = load_language_model(spec.name, [HookPoint(0)], dtype="float32", whole=True)
            read = readout(model, exact, len(strings))
            rows = getattr(own.made, f"directions_{name}")
            found = np.concatenate([part for _, part in direct_effects(read, torch.from_numpy(rows))])
            planted = getattr(own.made, f"effects_{name}")
            np.testing.assert_allclose(found[:, place], planted - planted.mean(1, keepdims=True), atol=1e-5)

    def test_a_direction_of_a_is_the_planted_one_in_b(
        self, done: dict[str, Done], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """B's stream is A's, turned: of any direction in A it is known what it is in B."""
        own = done["twin"]
        monkeypatch.setenv("UNIFEAT_CACHE", str(own.cache))
        monkeypatch.setattr(Direction, "pairs", planted_pairs(own.made))
        rng = np.random.default_rng(0)
        any_direction = rng.normal(size=len(own.made.rotation))
        spanned = rng.normal(size=CONCEPTS) @ own.made.directions_a
        forget()  # another study may be open under the id of a run that is gone
        for vector, way, least in ((any_direction, "map", 0.9), (spanned, "map", 0.99), (spanned, "pairs", 0.99)):
            found = np.asarray(uf.transfer_vector(own.run, "a@0", "b@0", vector, way=way))  # type: ignore[arg-type]
            truth = vector @ own.made.rotation
            assert found @ truth / np.linalg.norm(found) / np.linalg.norm(truth) > least, way
            assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(truth), rel=0.02)
        for feature_a, feature_b in own.made.pairs[:5]:
            found = np.asarray(uf.transfer_vector(own.run, "a@0", "b@0", feature_a))
            truth = own.made.directions_b[feature_b]
            assert found @ truth / np.linalg.norm(found) > 0.9999
            np.testing.assert_allclose(own.made.directions_a[feature_a] @ own.made.rotation, truth, atol=1e-6)


DRAWN = 30


@pytest.mark.slow
def test_p_is_uniform_where_partners_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the loss, and of steering: features that fire alike and do alike, each paired with any other."""
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "cache"))
    made = plant(tmp_path, "twin")
    draws = 9
    spec = TransferSpec(draws=draws, loss_draws=draws, loss_tokens=60, pairs=0, steering=3, steering_draws=draws)
    study = load_study(made.study).model_copy(update={"transfer": spec})
    prepared = prepare_spaces(study)
    direction = Direction.both(compare(study, *prepared.spaces, prepared.corpus.documents))[0]  # type: ignore[arg-type]
    words = promoted(made, tmp_path)
    categories = load_categories(words.categories, ["concept 0", "concept 1"])
    found = []
    for seed in range(DRAWN):
        order = np.random.default_rng([seed, 99]).permutation(CONCEPTS)
        a, b = made.pairs.T
        table = pd.DataFrame({"source_feature": a, "target_feature": b[order], "correlation": 0.0, "count": 1})
        monkeypatch.setattr(Direction, "pairs", property(lambda _, table=table: table))
        monkeypatch.setattr(Direction, "seed", property(lambda _, seed=seed: seed))
        fits = rebuild_unit(direction, spec, 0.95)
        loss = summarise_losses(loss_unit(direction, fits, prepared.corpus, spec).result(), 0.95, seed)
        steered = steering_unit(direction, fits, prepared.corpus, spec, categories, 0.95).result()
        rows = fits.result().rows.set_index("variant"), loss.set_index("variant")
        of_pairs = steered.query("category == 'all' and variant == 'from_pairs'")
        found.append([rows[0].loc[MIXED, "p"], rows[1].loc[MIXED, "p_recovered"], of_pairs["p"].item()])
    for name, p in zip(("carried", "recovered", "steering"), np.transpose(found), strict=True):
        spread = p - np.random.default_rng(0).random(DRAWN) / (draws + 1)
        assert stats.kstest(spread, "uniform").pvalue > 0.005, name
        few = int((p <= 0.1).sum())
        assert stats.binomtest(few, DRAWN, 0.1, alternative="greater").pvalue > 0.005, name


class Ready:
    """A direction of the twins' study, B's model with its head, and its SAE."""

    def __init__(self, made: PlantedModels) -> None:
        study = load_study(made.study).model_copy(update={"transfer": TRANSFER})
        prepared = prepare_spaces(study)
        self.corpus = prepared.corpus
        a, b = prepared.spaces
        self.direction = Direction.both(compare(study, a, b, self.corpus.documents))[0]
        self.point = HookPoint(0)
        self.model = load_language_model(study.models["b"].name, [self.point], dtype="float32", whole=True)
        self.sae = load_sae(made.study.parent / "sae-b")


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> PlantedModels:
    return plant(tmp_path_factory.mktemp("planted"), "twin")


@pytest.fixture
def ready(twins: PlantedModels, monkeypatch: pytest.MonkeyPatch) -> Ready:
    monkeypatch.setenv("UNIFEAT_CACHE", str(twins.study.parent / "cache"))
    return Ready(twins)


def test_own_is_what_the_check_says_on_the_same_tokens(ready: Ready) -> None:
    """All tokens of all judged documents: FVU and cross-entropies of `own` are the check's own."""
    direction, windowing = ready.direction, ready.direction.target.windowing
    assert windowing is not None
    judged = [part for part in ready.corpus.parts(0) if not direction.fitting[part.document]]
    near = run_group(ready.model, judged, [ready.point], windowing)
    checked = examine(
        ready.model, judged, near, ready.sae, Claims(), ready.point, [], windowing, everything=False
    ).quality
    every = TRANSFER.model_copy(update={"loss_tokens": 1_000_000, "loss_draws": 0})
    fits = rebuild_unit(direction, every, 0.95)
    own = fits.result().rows.set_index("variant").loc["own"]
    assert own["tokens"] == checked.as_dict()["tokens"]
    assert own["fvu"] == pytest.approx(checked.fvu, rel=1e-6)
    loss = measure_loss(ready.model, judged, ready.point, ready.sae, windowing, sink_norm=near.sink_norm(ready.point))
    table = loss_unit(direction, fits, ready.corpus, every).result().groupby("variant")[["tokens", "nats"]].sum()
    for name, nats in (("clean", loss.clean), ("own", loss.spliced)):
        assert table.loc[name, "tokens"] == loss.tokens
        assert table.loc[name, "nats"] / loss.tokens == pytest.approx(nats, rel=1e-6)


def test_the_clean_activation_changes_no_bit(ready: Ready) -> None:
    """The activations that the cache has, put back: the same cross-entropy of every document, bit for bit."""
    seen = 0
    for reading in _readings(ready.direction, ready.corpus, ready.model, 300):
        rows, losses, given = reading.rows, Losses(), []
        handle = ready.model.blocks[0].register_forward_hook(lambda _, __, output, given=given: given.append(output))
        spliced_losses(ready.model, reading.windows, ready.point, lambda _: iter(()), losses)
        handle.remove()
        width = max(len(window.ids) for window, _ in reading.windows)
        at = np.full((len(reading.windows), width), -1)
        for number, (_, own) in enumerate(reading.windows):
            at[number, : len(own)] = own
        clean = given[0][torch.from_numpy(at >= 0)].numpy()
        np.testing.assert_allclose(clean, rows.x_b[at[at >= 0]], atol=1e-5)

        def same(_: Any, clean: np.ndarray = clean) -> Any:
            yield "same", clean.astype(np.float64)

        spliced_losses(ready.model, reading.windows, ready.point, same, again := Losses())
        assert again.nats["same"] == again.nats["clean"] == losses.nats["clean"]
        assert set(again.divergence["same"].values()) == {0.0}
        seen += sum(again.tokens.values())
    assert seen >= 300


def test_only_aligned_positions_are_touched(ready: Ready) -> None:
    """What the block above is given: new values at the tokens of the sample, the old bits at all others."""
    fits = rebuild_unit(ready.direction, TRANSFER, 0.95).result().fits
    rebuilder = Rebuilder(ready.direction, fits)
    given: list[torch.Tensor] = []
    ready.model.blocks[1].register_forward_pre_hook(
        lambda _, args, kwargs: given.append((args[0] if args else kwargs["hidden_states"]).clone()), with_kwargs=True
    )
    reading = next(iter(_readings(ready.direction, ready.corpus, ready.model, 300)))
    window, at = reading.windows[0]
    at = np.where(np.arange(len(at)) % 3 == 1, at, -1)  # as if B had cut two of three tokens otherwise
    made = rebuilder.decoding.parts(reading.rows.x_b[at[at >= 0]], reading.rows.codes_b[at[at >= 0]]).own
    put = torch.from_numpy(at >= 0)[None]

    def own(chosen: np.ndarray) -> Any:
        np.testing.assert_array_equal(chosen, at[at >= 0])
        yield "own", made

    spliced_losses(ready.model, [(window, at)], ready.point, own, Losses())
    before, after = given
    assert torch.equal(before[~put], after[~put])
    np.testing.assert_array_equal(after[put].numpy(), made.astype(np.float32))
    assert (before[put] - after[put]).abs().max() > 0.1
