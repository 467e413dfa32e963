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
from unifeat.pipeline.encode import prepare_spaces
from unifeat.pipeline.match import compare
from unifeat.pipeline.transfer import Direction
from unifeat.study.spec import Study
from unifeat.transfer.strings import SharedStrings

TRANSFER = {"cells": "best", "draws": 5, "loss_draws": 0, "loss_tokens": 0, "pairs": 24, "contexts": 6}
COLUMNS = [
    *("space_a", "space_b", "feature_a", "feature_b", "correlation", "gain", "direct", "direct_spearman"),
    *("direct_overlap", "direct_rank", "added", "added_spearman", "added_overlap", "added_rank", "stability_a"),
    *("stability_b", "removed", "removed_control", "contexts", "kl_a", "kl_b", "kl_agreement"),
    *("promotes_a", "suppresses_a", "promotes_b", "suppresses_b"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[..., Path]) -> Path:
    """One model three times, with one SAE, a copy of it, and one that fires alike and writes other directions."""
    folder = tmp_path_factory.mktemp("effects")
    model = model_folder("llama", tokenizer="wordish")
    (folder / "model").symlink_to(model)
    tiny_sae(folder / "sae", 32, seed=3, mean=mean_activation(model, 1))
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
        ],
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
    assert run.transfer is not None
    carried = run.transfer.query("space_b == 'other@1' and variant == 'own_and_from_a' and direction == 'a_to_b'")
    assert carried["carried"].item() > 0.9 or np.isnan(carried["carried"].item())
    assert "What pairs do to the next token" in run.report.read_text()


def test_removal_is_the_models_own(study: Study) -> None:
    """A pair's removed profile and divergence, from the model with a hook of its own."""
    prepared = prepare_spaces(study, force=True)
    spaces = {space.name: space for space in prepared.spaces}
    cell = compare(study, spaces["one@1"], spaces["same@1"], prepared.corpus.documents)
    direction = Direction.both(cell)[0]
    assert study.transfer is not None
    rows = Beside.joined(list(direction.stretches()))
    ids = direction.pairs[["source_feature", "target_feature"]].to_numpy(np.int64).T
    asked = effect_edits.ask(rows, ids, ~direction.fitting, 3, np.random.default_rng(0))
    side = effect_edits.Side(direction.source, rows, ids[0])
    model = load_language_model("model", [side.point], dtype="float32", whole=True)
    strings = effects.strings_of(direction)
    chosen = np.r_[0, asked.added - 1, asked.added + np.arange(0, len(asked.control), 7)]
    padded, edits, of = effect_edits.edits_of(side, model, asked, prepared.corpus, chosen)
    np.testing.assert_array_equal(of, chosen)
    for number, edit in enumerate(of):
        row, feature = asked.row[edit], ids[0][asked.pair[edit]]
        window = padded[edits.window[number]]
        window = window[window >= 0]
        position = int(edits.position[number])
        assert window[position] == rows.places_a.token[row]
        value = model.activations(window[None], [side.point])[side.point][0, position]
        np.testing.assert_allclose(value.numpy(), rows.x_a[row], atol=1e-4)
        weights = load_file(Path("sae") / "sae_weights.safetensors")["W_dec"][feature].numpy()
        code = rows.codes_a[[row], [feature]].item() if edit >= asked.added else -side.doses[asked.pair[edit]]
        np.testing.assert_allclose(edits.delta[number].numpy(), -code * weights, atol=1e-5)
        if edit >= asked.added:
            assert code > 0
            assert rows.codes_b[[row], [ids[1][asked.pair[edit]]]].item() > 0  # both fire
    assert len(strings) > 20


def test_fewer_pairs_than_asked_for_are_said(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(effects, "say", said.append)
    assert study.transfer is not None
    more = study.model_copy(update={"transfer": study.transfer.model_copy(update={"pairs": 500, "contexts": 2})})
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
    asked = effect_edits.Asked(np.repeat(np.arange(pairs), contexts), np.zeros(n, np.int64), 0, nothing)
    found = [effect_edits.Profiles(of_a, None, own[:, 0] ** 2), effect_edits.Profiles(of_b, control, other[:, 0] ** 2)]
    table = pd.DataFrame({"correlation": rng.random(pairs)})
    strings_ = SharedStrings(("a",) * strings, nothing, nothing, nothing, nothing)
    facts = effects._Comparison(table, asked, strings_, seed, 0.95)._removed(table, found)
    assert facts is not None
    return facts


def test_p_of_a_removal_is_uniform_where_nothing_is_shared() -> None:
    p = np.array([removals(seed, 0.0)["p"] for seed in range(300)])
    assert stats.kstest(p - np.random.default_rng(0).random(300) / 1001, "uniform").pvalue > 0.01
    assert np.mean(p <= 0.05) < 0.09
    alike = [removals(seed, 0.5) for seed in range(10)]
    assert all(own["p"] < 0.01 for own in alike)
    assert np.mean([own["value"] for own in alike]) == pytest.approx(0.5, abs=0.05)
    assert abs(np.mean([own["control"] for own in alike])) < 0.05
