"""Steering one model with another's directions: planted truth, figures by hand, vectors, and texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import unifeat as uf
from homes import STUDY, mean_activation
from tiny import sentences, tiny_sae, write_text
from unifeat.codes.beside import Beside
from unifeat.engine import forget
from unifeat.models import load_language_model
from unifeat.models.generation import Sampling, continuation
from unifeat.pipeline import transfer_vector
from unifeat.pipeline.concepts import concepts_of, next_words
from unifeat.pipeline.effect_edits import probe_tokens
from unifeat.pipeline.placed import placed
from unifeat.pipeline.reopen import reopen
from unifeat.pipeline.steer import standard_dose, steer
from unifeat.pipeline.transfer import Direction
from unifeat.subspaces.categories import load_categories
from unifeat.vocabulary.hook_points import HookPoint

VERBS = ["watched", "carried", "followed", "lost", "found", "painted", "repaired", "greeted", "measured", "passed"]
THINGS = ["glass", "formula", "electron", "laser", "spade", "soil", "rose", "apple", "hedge", "bee", "tree"]
WORDS = {"Verbs": VERBS, "Things": THINGS, "None": ["zeppelin"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[..., Path]) -> Path:
    """One model three times: with one SAE, a copy of it, and one that fires alike and writes other directions."""
    folder = tmp_path_factory.mktemp("steering")
    model = model_folder("llama", tokenizer="wordish")
    (folder / "model").symlink_to(model)
    tiny_sae(folder / "sae", 32, seed=3, mean=mean_activation(model, 1))
    for name, seed in (("same", None), ("other", 5)):
        (folder / name).mkdir()
        (folder / name / "cfg.json").write_bytes((folder / "sae" / "cfg.json").read_bytes())
        weights = load_file(folder / "sae" / "sae_weights.safetensors")
        if seed is not None:
            drawn = torch.randn(weights["W_dec"].shape, generator=torch.Generator().manual_seed(seed))
            weights["W_dec"] = drawn * (weights["W_dec"].norm(dim=1) / drawn.norm(dim=1))[:, None]
        save_file(weights, folder / name / "sae_weights.safetensors")
    write_text(folder, sentences(40))
    (folder / "words.yaml").write_text(yaml.safe_dump(WORDS))
    return folder


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> uf.Run:
    """The study's run, made once."""
    monkeypatch.setenv("UNIFEAT_CACHE", str(home / "cache"))
    monkeypatch.chdir(home)
    if (home / "run").is_dir():
        return uf.open("run")
    names = ("one", "same", "other")
    made = STUDY | {
        "models": {name: {"name": "model", "dtype": "float32"} for name in names},
        "spaces": [{"model": name, "layers": 1, "sae": "sae" if name == "one" else name} for name in names],
        "compare": [["one", "same"], ["one", "other"]],
        "geometry": ["rsa"],
        "subspaces": {"categories": "words.yaml", "subsets": 0, "control_lists": 0, "at_least": 1},
        "transfer": {"draws": 5, "loss_draws": 9, "loss_tokens": 0, "pairs": 0, "steering": 8, "steering_draws": 9},
        "activations": {"rows": 4000},
    }
    (home / "study.yaml").write_text(yaml.safe_dump(made))
    return uf.run("study.yaml", out="run", force=True)


def cosine(x: Any, y: Any) -> float:
    x, y = (np.asarray(v, np.float64) for v in (x, y))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_directions_steer_where_the_pairs_directions_are_shared(run: uf.Run) -> None:
    table = run.steering
    assert table is not None
    assert set(table["category"]) == {"Verbs", "Things", "all"}  # no word of the third occurs
    assert set(table["variant"]) == {"own", "from_pairs", "from_map"}
    by = table.set_index(["space_b", "direction", "category", "variant"]).sort_index()
    assert set(by.index.get_level_values("direction")) == {"a_to_b", "b_to_a"}
    same, other = (by.loc[f"{name}@1", "a_to_b"] for name in ("same", "other"))
    # The other way round, one and the same model and SAE give the same.
    pd.testing.assert_frame_equal(by.loc["same@1", "b_to_a"], same, rtol=0.02)
    into_one = by.loc["other@1", "b_to_a"]
    for category in ("Verbs", "Things"):  # its own direction is that of `one`, whoever steers it
        assert into_one.loc[(category, "own"), "rise"] == pytest.approx(same.loc[(category, "own"), "rise"], rel=1e-3)
    for category in ("Verbs", "Things"):
        own, pairs, mapped = (same.loc[(category, variant)] for variant in ("own", "from_pairs", "from_map"))
        # One and the same model: the map carries the direction as it is, and pairs most of what they span.
        assert mapped["cosine"] > 0.98
        assert mapped["per_kl"] == pytest.approx(own["per_kl"], rel=0.1)
        assert pairs["cosine"] == pytest.approx(np.sqrt(pairs["explained"]), abs=0.12)
        assert own["cosine"] == pytest.approx(1)
        # Where features fire alike and write other directions, nothing arrives through pairs.
        assert abs(other.loc[(category, "from_pairs"), "cosine"]) < 0.6
        assert other.loc[(category, "from_map"), "cosine"] > 0.98
    for row in (same.loc[("all", variant)] for variant in ("own", "from_pairs", "from_map")):
        assert row["per_kl_low"] < row["per_kl"] < row["per_kl_high"]
    report = run.report.read_text()
    assert "Steering across models" in report
    assert "other@1 steered by one@1" in report
    assert "one@1 steered by other@1" in report


def test_rise_and_divergence_are_those_of_a_hook_of_the_tests_own(run: uf.Run) -> None:
    opened = reopen(run)
    direction = Direction.both(opened.cell("one@1", "same@1"))[0]
    rows = Beside.joined(list(direction.stretches()))
    corpus, space = opened.prepared.corpus, direction.target
    fitting = direction.fitting[rows.document]
    following = next_words(corpus, rows.places_a)
    model = load_language_model("model", [HookPoint(1)], dtype="float32", whole=True)
    vocabulary = model.causal.config.vocab_size
    known = concepts_of(load_categories("words.yaml"), following, fitting, model.tokenizer, vocabulary)
    concept = next(one for one in known if one.name == "Verbs")
    x = rows.x_b.astype(np.float64)
    own = x[concept.places].mean(0) - x[fitting].mean(0)
    assert run.steering is not None
    row = run.steering.query(
        "space_b == 'same@1' and direction == 'a_to_b' and category == 'Verbs' and variant == 'own'"
    ).iloc[0]
    norm = np.sqrt(((x[fitting] - x[fitting].mean(0)) ** 2).sum(1).mean())
    delta = torch.from_numpy((own / np.linalg.norm(own) * row["dose"] * norm).astype(np.float32))
    probes = probe_tokens(rows, ~direction.fitting, 8, np.random.default_rng([direction.seed, 24]))
    windows = placed(space, rows.places_b, probes, model, corpus)
    rises, divergences = [], []
    for probe in probes:
        window, position = windows.ids[windows.window[probe]], int(windows.position[probe])
        window = window[: position + 1][None]

        def add(_: Any, __: Any, output: Any) -> Any:
            value = (output[0] if isinstance(output, tuple) else output).clone()
            value[0, -1] += delta
            return (value, *output[1:]) if isinstance(output, tuple) else value

        with torch.inference_mode():
            clean = model.causal(window).logits[0, -1].log_softmax(-1)
            handle = model.blocks[1].register_forward_hook(add)
            edited = model.causal(window).logits[0, -1].log_softmax(-1)
            handle.remove()
        tokens = torch.from_numpy(concept.heldout)
        rises.append(float(edited[tokens].logsumexp(0) - clean[tokens].logsumexp(0)))
        divergences.append(float((clean.exp() * (clean - edited)).sum()))
    assert row["rise"] == pytest.approx(np.mean(rises), rel=1e-3)
    assert row["kl"] == pytest.approx(np.mean(divergences), rel=1e-3)
    assert row["per_kl"] == pytest.approx(np.mean(rises) / np.sqrt(np.mean(divergences) * 0.1), rel=1e-3)
    assert row["places"] == concept.places.sum()


def test_words_are_found_where_the_text_goes_on_with_them(run: uf.Run) -> None:
    opened = reopen(run)
    direction = Direction.both(opened.cell("one@1", "same@1"))[0]
    rows = Beside.joined(list(direction.stretches()))
    following = next_words(opened.prepared.corpus, rows.places_a)
    texts = sentences(40)
    assert len([word for word in following if word]) > 200
    for document, end, word in zip(rows.places_a.document, rows.places_a.char_end, following, strict=True):
        after = texts[document][end:]
        inside = texts[document][end - 1 : end].isalnum() and after[:1].isalnum()
        first = after.split(" ")[0] or (after.split(" ")[1] if after.strip() else "")
        expected = None if inside or not first.strip(".") or after.startswith(".") else first.strip(".").casefold()
        assert word == expected
    fitting = direction.fitting[rows.document]
    tokenizer = direction.target.tokenizer()
    found = concepts_of(load_categories("words.yaml"), following, fitting, tokenizer, len(tokenizer))
    by_name = {concept.name: concept for concept in found}
    verbs = by_name["Verbs"]
    assert [name for name, concept in by_name.items() if not concept.usable] == ["None"]
    assert len(verbs.words) == 5
    assert set(tokenizer.convert_ids_to_tokens(verbs.heldout.tolist())) <= {f"▁{w}" for w in VERBS} - {
        f"▁{w}" for w in verbs.words
    }


def test_doses_cost_about_the_same_where_they_are_judged(run: uf.Run) -> None:
    assert run.steering is not None
    kl = run.steering.loc[run.steering["category"] != "all"].query("dose > 0.01 and dose < 1")["kl"]
    assert len(kl) > 6
    assert kl.between(0.08, 0.125).all()


def test_a_vector_is_carried(run: uf.Run) -> None:
    pairs = run.space_pair("one@1", "same@1").query("kept")
    feature = int(pairs["feature_a"].iloc[0])
    decoder = uf.load_sae("sae").W_dec.detach().numpy()
    one = uf.transfer_vector(run, "one@1", "same@1", feature)
    assert cosine(one, decoder[feature]) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(decoder[feature]), rel=0.02)  # one model: as long
    assert one.features["feature_b"].tolist() == [feature]
    several = uf.transfer_vector(run, "one@1", "same@1", pairs["feature_a"].iloc[:3].tolist())
    assert cosine(several, decoder[pairs["feature_a"].iloc[:3]].sum(0)) == pytest.approx(1, abs=1e-3)
    weighted = uf.transfer_vector(run, "one@1", "same@1", {feature: -2.0}, scaled=False)
    np.testing.assert_allclose(np.asarray(weighted), -2 * decoder[feature], rtol=0.02, atol=1e-3)
    vector = np.random.default_rng(0).normal(size=decoder.shape[1])
    by_map = uf.transfer_vector(run, "one@1", "same@1", torch.from_numpy(vector), way="map")
    assert cosine(by_map, vector) > 0.98
    by_pairs = uf.transfer_vector(run, "one@1", "same@1", vector)
    assert cosine(by_pairs, vector) == pytest.approx(np.sqrt(by_pairs.explained), abs=0.12)
    back = uf.transfer_vector(run, "same@1", "one@1", feature)
    assert (back.space_a, back.space_b) == ("same@1", "one@1")
    assert "pairs (" in repr(by_pairs)
    assert "same@1" in by_map._repr_html_()


@pytest.mark.parametrize(
    ("what", "more", "message"),
    [
        (np.zeros(32), {}, "points nowhere"),
        (np.full(32, np.nan), {}, "points nowhere"),
        (np.ones(31), {}, r"shape \(31,\): activations of one@1 have shape \(32,\)"),
        (9999, {}, "feature 9999 of one@1 has no partner in same@1"),
        (0, {"way": "maps"}, "give pairs or map"),
        ([], {}, "no feature is given"),
        ({}, {}, "no feature is given"),
        ([[1, 2], [3]], {}, "the vector: give an array of numbers"),
        ((x for x in [0]), {}, "the vector: give an array of numbers"),
        ("0", {}, "the vector: give an array of numbers"),
        (np.ones(32) * 1j, {}, "the vector: give an array of numbers"),
        ({0: "x"}, {}, "the code 'x' of feature 0: give a number"),
        ({0: float("nan")}, {}, "the code nan of feature 0: give a number"),
        ([1] * 32, {}, "feature 1 is given more than once"),
        (np.ones((1, 32)), {}, r"shape \(1, 32\)"),
    ],
)
def test_what_cannot_be_carried(run: uf.Run, what: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(uf.UserError, match=message):
        uf.transfer_vector(run, "one@1", "same@1", what, **more)


def test_whole_numbers_are_features_and_others_a_vector(run: uf.Run) -> None:
    ids = run.space_pair("one@1", "same@1").query("kept")["feature_a"].iloc[:3]
    listed = uf.transfer_vector(run, "one@1", "same@1", ids.tolist()).value
    for same in (ids, ids.to_numpy(), torch.from_numpy(ids.to_numpy(np.int64)), set(ids.tolist())):
        np.testing.assert_array_equal(uf.transfer_vector(run, "one@1", "same@1", same).value, listed)
    by_folder = uf.transfer_vector("run", "one@1", "same@1", ids.tolist())
    np.testing.assert_array_equal(by_folder.value, listed)
    with pytest.raises(uf.UserError, match="give a finished run"):
        uf.transfer_vector(None, "one@1", "same@1", 0)  # type: ignore[arg-type]
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    plain = uf.transfer_vector(run, "one@1", "same@1", vector)
    for way in ("pairs", "map"):
        plain = uf.transfer_vector(run, "one@1", "same@1", vector, way=way)  # type: ignore[arg-type]
        for factor in (1e-200, 1e200):  # their squares are out of range
            long = uf.transfer_vector(run, "one@1", "same@1", vector.double() * factor, way=way)  # type: ignore[arg-type]
            np.testing.assert_allclose(long.value / factor, plain.value, rtol=1e-6)
            assert long.explained == pytest.approx(plain.explained, nan_ok=True)
    rounded = uf.transfer_vector(run, "one@1", "same@1", vector.bfloat16())
    assert cosine(rounded, uf.transfer_vector(run, "one@1", "same@1", vector)) > 0.999


def test_a_map_needs_no_pair(run: uf.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = np.random.default_rng(0).normal(size=32)
    usual = uf.transfer_vector(run, "one@1", "same@1", vector, way="map")
    forget()
    monkeypatch.setattr(transfer_vector._Opened, "paired", False)
    alone = uf.transfer_vector(run, "one@1", "same@1", vector, way="map")
    np.testing.assert_allclose(alone.value, usual.value, rtol=1e-6)
    with pytest.raises(uf.UserError, match=r"have no pairs.*use way='map'"):
        uf.transfer_vector(run, "one@1", "same@1", vector)
    with pytest.raises(uf.UserError, match="feature 0 of one@1 has no partner"):
        uf.transfer_vector(run, "one@1", "same@1", 0, way="map")
    forget()


def test_what_is_loaded_is_kept_for_a_run(run: uf.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = uf.transfer_vector(run, "one@1", "same@1", np.ones(32))
    monkeypatch.setattr(transfer_vector, "reopen", lambda _: pytest.fail("opened again"))
    monkeypatch.setattr(transfer_vector, "carrier_of", lambda *_: pytest.fail("loaded again"))
    np.testing.assert_array_equal(uf.transfer_vector(run, "one@1", "same@1", np.ones(32)).value, first.value)


def test_spaces_that_were_not_compared(run: uf.Run) -> None:
    with pytest.raises(uf.UserError, match="did not compare same@1 with other@1"):
        uf.transfer_vector(run, "same@1", "other@1", 0)
    with pytest.raises(uf.UserError, match="has no space 'one@2'"):
        uf.transfer_vector(run, "one@2", "same@1", 0)


def test_texts_of_both_models(run: uf.Run) -> None:
    pairs = run.space_pair("one@1", "same@1").query("kept")
    feature = int(pairs["feature_b"].iloc[0])
    sampling = Sampling(tokens=8, seed=3)
    found = steer(run, "same@1", feature, "The tide", dose=3.0, sampling=sampling)
    one, other = found.sides
    assert (one.space, one.feature, other.space) == ("same@1", feature, "one@1")
    assert found.correlation == pytest.approx(pairs["correlation"].iloc[0])
    # One model and one SAE: both say the same, and not what they say without the feature.
    assert (one.plain, one.steered) == (other.plain, other.steered)
    assert one.plain != one.steered
    assert steer(run, "same@1", feature, "The tide", dose=3.0, sampling=sampling) == found
    assert steer(run, "same@1", feature, "The tide", dose=0.0, sampling=sampling).sides[0].steered == one.plain
    space = reopen(run).space("same@1")
    codes = np.concatenate([shard.value[shard.feature == feature] for shard in space.store.shards()])
    assert one.added == pytest.approx(3 * np.quantile(codes, 0.9))
    assert standard_dose(space, feature) == pytest.approx(one.added / 3)


def test_what_is_added_is_added_at_every_token_but_the_opening() -> None:
    """Greedy, against a loop without a cache that runs the whole text for each token."""
    model = load_language_model("model", [HookPoint(1)], dtype="float32", whole=True)
    delta = 4 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    opening = [model.tokenizer.bos_token_id]
    sampling = Sampling(tokens=6, temperature=0)
    found = continuation(model, "The old ship", opening, sampling, HookPoint(1), lambda x: delta.expand_as(x))
    ids = opening + model.tokenizer("The old ship", add_special_tokens=False)["input_ids"]
    start = len(ids)

    def add(_: Any, __: Any, output: Any) -> Any:
        value = (output[0] if isinstance(output, tuple) else output).clone()
        value[0, 1:] += delta
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = model.blocks[1].register_forward_hook(add)
    with torch.inference_mode():
        for _ in range(6):
            ids.append(int(model.causal(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    handle.remove()
    assert found == model.tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert found != continuation(model, "The old ship", opening, sampling)


@pytest.fixture(autouse=True)
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("same@1", 9999, "The tide"), r"feature 9999 of same@1 has no kept pair: `unifeat show run"),
        (("same@2", 1, "The tide"), "has no space 'same@2'"),
    ],
)
def test_steering_what_is_not_there(run: uf.Run, arguments: Any, message: str) -> None:
    with pytest.raises(uf.UserError, match=message):
        steer(run, *arguments)


def test_doses_that_break_a_model(run: uf.Run) -> None:
    feature = int(run.space_pair("one@1", "same@1").query("kept")["feature_b"].iloc[0])
    for dose, message in ((float("nan"), "give a number"), (1e60, "lower it")):
        with pytest.raises(uf.UserError, match=message):
            steer(run, "same@1", feature, "The tide", dose=dose)
    model = load_language_model("model", [HookPoint(1)], dtype="float32", whole=True)
    for sampling in (Sampling(temperature=0.0), Sampling(temperature=1.0)):
        with pytest.raises(uf.UserError, match="lower the dose"):
            continuation(model, "The tide", [], sampling, HookPoint(1), lambda x: x * float("nan"))
    for dose in (1e15, 1e25):  # finite activations, whose norms are not
        with pytest.raises(uf.UserError, match="beyond float32: lower the dose"):
            steer(run, "same@1", feature, "The tide", dose=dose * 1e5)
    for temperature in (float("inf"), float("nan"), -1.0):
        with pytest.raises(uf.UserError, match=r"temperature .*: give a number, 0 or more"):
            continuation(model, "The tide", [], Sampling(temperature=temperature))
    with pytest.raises(uf.UserError, match="same@1 is the feature's own space"):
        steer(run, "same@1", feature, "The tide", partner="same@1")
    with pytest.raises(uf.UserError, match="the prompt is empty"):
        steer(run, "same@1", feature, "")
