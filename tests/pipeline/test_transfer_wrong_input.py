"""What `transfer` cannot do is said in one line: SAEs that write elsewhere, no pairs, tokenizers that share no string.

(Cells that were not run: `test_transfer.py`; fewer pairs than asked for: `test_effects.py`; models without unembedding:
`transfer/test_direct.py`; doses that make NaN: `models/test_edits.py`.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
import unifeat as uf
from unifeat.models import load_language_model
from unifeat.models.activations import run_group
from unifeat.pipeline import effects, transfer_step
from unifeat.pipeline.encode import prepare_spaces
from unifeat.pipeline.match import compare
from unifeat.pipeline.transfer import Direction
from unifeat.saes import load_sae
from unifeat.saes.quality import Variance
from unifeat.study.read import load_study
from unifeat.study.spec import MatchingSpec, SpacesSpec, Study, SubspacesSpec
from unifeat.study.transfer import TransferSpec
from unifeat.synthetic import PlantedModels, plant_models
from unifeat.vocabulary.hook_points import HookPoint

D = 32
MATCHING = MatchingSpec(method="assignment", min_correlation=-1, min_count=1, exclude_tokens=[])
TRANSFER = TransferSpec(draws=3, loss_draws=1, loss_tokens=60, pairs=8, contexts=2)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedModels:
    folder = tmp_path_factory.mktemp("planted") / "models"
    return plant_models(folder, concepts=8, words=40, d=D, documents=20, context=24)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for module in (effects, transfer_step):
        monkeypatch.setattr(module, "say", lines.append)
    return lines


def study_of(made: PlantedModels, sae: Path | None = None, hook: Any = "resid_post", **changes: Any) -> Study:
    """The planted study; B's space has another SAE, if one is given."""
    study = load_study(made.study)
    spaces = list(study.spaces)
    if sae is not None:
        spaces[1] = SpacesSpec(model="b", layers=[0], sae=str(sae), hook=hook)
    return study.model_copy(update={"spaces": spaces, "matching": MATCHING, "transfer": TRANSFER} | changes)


class TestThatWriteElsewhere:
    @pytest.mark.slow
    def test_a_transcoder_is_rebuilt_where_the_mlp_writes(self, planted: PlantedModels, tmp_path: Path) -> None:
        path = tmp_path / "layer_0.safetensors"
        checkpoints.write_circuit_tracer(path, checkpoints.tensors(D, 48))
        study = study_of(planted, path, "mlp_in")
        run = uf.run(study, tmp_path / "run", force=True)
        own = run.transfer.query("direction == 'a_to_b' and variant == 'own'").iloc[0]
        # By hand: the transcoder's output beside the MLP's, at the judged tokens.
        prepared = prepare_spaces(study, force=True)
        direction = Direction.both(compare(study, *prepared.spaces, prepared.corpus.documents))[0]
        points = [HookPoint(0, "mlp_in"), HookPoint(0, "mlp_out")]
        model = load_language_model(study.models["b"].name, points, dtype="float32")
        assert direction.target.windowing is not None
        found = run_group(model, prepared.corpus.parts(0), points, direction.target.windowing)
        x, places, _ = found.without_sinks(points[0])
        judged = torch.from_numpy(~direction.fitting[places.document])
        sae, variance = load_sae(path), Variance()
        with torch.inference_mode():
            variance.add(found.beside(*points)[judged], sae.decode(sae.encode(x[judged])))
        assert own["fvu"] == pytest.approx(variance.fvu, rel=1e-5)
        assert own["tokens"] == variance.rows
        assert own["loss_tokens"] >= 60
        assert run.effects["direct"].notna().all()  # what the MLP adds is in the stream

    def test_one_that_needs_its_input_is_refused(self, planted: PlantedModels, tmp_path: Path) -> None:
        path = tmp_path / "layer_0.safetensors"
        held = checkpoints.tensors(D, 48)
        checkpoints.write_circuit_tracer(path, held, skip=0.1 * torch.eye(D))
        message = r"layer_0.safetensors: transfer rebuilds the MLP's output from codes alone.*leave its cells out"
        with pytest.raises(uf.UserError, match=message):
            uf.run(study_of(planted, path, "mlp_in"), tmp_path / "run", force=True)

    @pytest.mark.slow
    def test_attention_heads_have_no_direct_effect(
        self, planted: PlantedModels, tmp_path: Path, said: list[str]
    ) -> None:
        """Their width may be the stream's: nothing else would tell."""
        checkpoints.write_attention_z(tmp_path / "heads.pt", checkpoints.tensors(D, 48))
        run = uf.run(study_of(planted, tmp_path / "heads.pt", "attn_z"), tmp_path / "run", force=True)
        assert run.effects["direct"].isna().all()
        assert run.effects["added"].notna().any()
        (line,) = [line for line in said if "no direct effects" in line]
        assert line == (
            "effects of b@0: no direct effects (its SAE writes the outputs of the attention heads, concatenated, "
            "before the output projection, not to the residual stream)"
        )


def test_no_pairs(planted: PlantedModels, tmp_path: Path, said: list[str]) -> None:
    strict = MATCHING.model_copy(update={"min_count": 10_000_000})
    run = uf.run(study_of(planted, matching=strict), tmp_path / "run")
    assert said == ["transfer: a@0 × b@0 has no pairs, so neither model is run on the other's features"]
    assert not len(run.transfer)
    assert not len(run.effects)
    assert run.report.exists()


def test_tokenizers_that_share_no_string(
    planted: PlantedModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B reads the same words and calls them otherwise."""
    made = plant_models(tmp_path / "models", **planted.settings)
    path = made.study.parent / "model-b" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    other = str.maketrans("aeiou.", "AEIOU1")
    special = {token["content"] for token in tokenizer["added_tokens"]}
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {w if w in special else w.translate(other): i for w, i in vocabulary.items()}
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Replace", "pattern": {"String": one}, "content": two}
            for one, two in zip("aeiou.", "AEIOU1", strict=True)
        ],
    }
    path.write_text(json.dumps(tokenizer))
    monkeypatch.setattr(transfer_step, "rebuild_unit", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(uf.UserError, match="the two models' tokenizers share no string, so what their features do"):
        uf.run(study_of(made), tmp_path / "run")
    without = study_of(made, transfer=TRANSFER.model_copy(update={"pairs": 0}))
    monkeypatch.undo()
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "cache"))
    mixed = uf.run(without, tmp_path / "run").transfer.query("variant == 'own_and_from_a'")
    np.testing.assert_allclose(mixed["carried"], 1, atol=1e-3)  # nothing but the effects needs strings


def test_short_documents(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No document has more than 16 sampled tokens: doses and steering are left out, and all else is measured."""
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "cache"))
    made = plant_models(tmp_path / "models", concepts=8, words=40, d=D, documents=24, context=12)
    order = np.argsort(-made.effects_b[:, :-1], axis=1)[:3, :14]
    lists = {f"concept {i}": [made.words[word] for word in row] for i, row in enumerate(order)}
    (tmp_path / "words.yaml").write_text(json.dumps(lists))
    words = SubspacesSpec(categories=str(tmp_path / "words.yaml"), top_tokens=3, at_least=1, subsets=0, control_lists=0)
    for _ in range(2):  # computed, and from the cache
        said.clear()
        run = uf.run(study_of(made, subspaces=words), tmp_path / "run", force=True)
        assert sum("no dose is added in a@0 × b@0: no judged document has more than 16" in line for line in said) == 1
        assert sum("b@0 is not steered by a@0" in line for line in said) == 1
        assert sum("a@0 is not steered by b@0" in line for line in said) == 1
    assert run.steering is not None
    assert not len(run.steering)
    assert run.effects is not None
    assert run.effects["added"].isna().all()
    assert run.effects["direct"].notna().all()
    assert run.transfer is not None
    mixed = run.transfer.query("variant == 'own_and_from_a'")
    assert mixed["carried"].notna().all()
    assert (mixed["loss_tokens"] > 0).all()
    assert "What pairs do to the next token" in run.report.read_text()
