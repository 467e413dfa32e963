"""Training: the SAEs a study lacks come to be, explain held-out text, and say the same to SAELens as to unifeat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tiny import saelens, sentences, tiny_sae, write_text
from unifeat.errors import UserError
from unifeat.models.activations import GroupActivations, run_group
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.pipeline.train import train, training_corpus
from unifeat.progress import set_mode
from unifeat.saes import decoder_rows, load_sae
from unifeat.saes.checking.loss import Loss
from unifeat.saes.checking.sample import measure_quality
from unifeat.saes.training.activations import ActivationSource
from unifeat.saes.training.card import cast
from unifeat.saes.training.checkpoints import Checkpoints
from unifeat.saes.training.run import train_saes
from unifeat.saes.training.trainers import Job
from unifeat.study.spec import ModelSpec, SpacesSpec, Study
from unifeat.study.text import TextSpec
from unifeat.study.training import TrainSpec
from unifeat.text.corpus import build_corpus
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import Masked
from unifeat.vocabulary.places import Places
from unifeat.vocabulary.windowing import Windowing

NO_LOSS = Loss(1.0, 1.0, 2.0, 0)
D_SAE, K, LAYERS = 96, 6, [0, 2]


def make_study(folder: Path, model: Path, text: Path, *, layers: list[int] = LAYERS, **train_settings: Any) -> Study:
    """A study of one model whose SAEs `folder/sae-LAYER` do not exist yet."""
    settings: dict[str, Any] = {
        "text": TextSpec(source=str(text), context=32),
        "features": D_SAE,
        "k": K,
        "tokens": 60_000,
        "batch": 256,
        "buffer": 4096,
        "heldout_documents": 30,
    }
    return Study(
        text=TextSpec(source=str(text), context=32),
        models={"tiny": ModelSpec(name=str(model), dtype="float32", device="cpu")},
        spaces=[SpacesSpec(model="tiny", layers=layers, sae=f"{folder}/sae-{{layer}}")],
        compare=[("tiny", "tiny")],
        train=TrainSpec(**(settings | train_settings)),
        seed=1,
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text"), sentences(200, seed=4))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[..., Path], text: Path) -> Any:
    """One training, looked at by many tests: (study, what `train` returned, its folder, its progress on stderr)."""
    folder = tmp_path_factory.mktemp("saes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFEAT_CACHE", str(folder / "cache"))
        set_mode("quiet")
        study = make_study(folder, model_folder("llama", tokenizer="wordish"), text)
        return study, train(study), folder


def model_of(study: Study, layers: list[int] = LAYERS) -> LanguageModel:
    return load_language_model(study.models["tiny"].name, [HookPoint(n) for n in layers], dtype="float32")


def heldout_activations(study: Study) -> dict[HookPoint, torch.Tensor]:
    model, corpus = model_of(study), training_corpus(study, "tiny")
    parts = [part for part in corpus.parts(corpus.groups - 1) if part.document >= corpus.documents - 30]
    points = [HookPoint(n) for n in LAYERS]
    found = run_group(model, parts, points, Windowing(32, 2))
    return {point: found.without_sinks(point)[0] for point in points}


class TestTrained:
    def test_one_for_each_layer(self, trained: Any):
        _, results, folder = trained
        assert [result.folder for result in results] == [folder / "sae-0", folder / "sae-2"]
        assert sorted(p.name for p in folder.iterdir()) == ["cache", "sae-0", "sae-2"]
        assert {p.name for p in (folder / "sae-2").iterdir()} == {
            "cfg.json",
            "sae_weights.safetensors",
            "training.json",
            "README.md",
        }

    def test_explain_held_out_text(self, trained: Any, tmp_path: Path):
        study, results, _ = trained
        untrained = load_sae(tiny_sae(tmp_path / "sae", 32, D_SAE, K))
        points = [HookPoint(n) for n in LAYERS]
        corpus = training_corpus(study, "tiny")
        random = measure_quality(
            model_of(study), corpus, dict.fromkeys(points, untrained), Windowing(32, 2), first_document=170
        )
        for result, point in zip(results, points, strict=True):
            quality = result.quality
            assert quality.fvu < 0.5, (quality, random[point])
            assert quality.fvu < 0.5 * random[point].fvu
            assert quality.l0 == pytest.approx(K, abs=0.01)
            assert quality.dead_share < 0.3
            assert quality.tokens == random[point].tokens > 1000

    def test_the_figures_are_those_of_the_saved_sae(self, trained: Any):
        study, results, _ = trained
        for result, (point, x) in zip(results, heldout_activations(study).items(), strict=True):
            sae = saelens().SAE.load_from_disk(result.folder)
            with torch.no_grad():
                error = (x - sae.decode(sae.encode(x))).double().pow(2).sum()
            fvu = float(error / (x - x.mean(0)).double().pow(2).sum())
            assert result.quality.fvu == pytest.approx(fvu, rel=1e-4), point
            assert result.quality.tokens == len(x)

    def test_saelens_loads_the_same_codes(self, trained: Any):
        study, results, _ = trained
        for result, x in zip(results, heldout_activations(study).values(), strict=True):
            theirs, ours = saelens().SAE.load_from_disk(result.folder), load_sae(result.folder)
            assert torch.equal(theirs.encode(x), ours.encode(x))
            # What is saved takes activations as they are: the scale they were trained at is folded in.
            assert theirs.cfg.normalize_activations == "none"
            assert theirs.cfg.architecture() == "topk"
            assert (theirs.cfg.d_in, theirs.cfg.d_sae, theirs.cfg.k) == (32, D_SAE, K)
            assert theirs.cfg.device == "cpu"
            assert theirs.cfg.metadata["hook_name"] in ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post")
            assert theirs.cfg.metadata["context_size"] == 32
            assert theirs.cfg.metadata["prepend_bos"] is True

    def test_training_json_tells_how(self, trained: Any):
        _, results, folder = trained
        card = json.loads((folder / "sae-2" / "training.json").read_text())
        assert card["hook"] == "blocks.2.hook_resid_post"
        assert card["model"] == "tiny-llama"
        assert card["context"] == 32
        assert card["training_documents"] == 170
        assert card["activations_per_second"] > 0
        assert card["settings"]["k"] == K
        assert card["settings"]["features"] == D_SAE
        assert "text" not in card["settings"]
        assert card["heldout"] == results[1].quality.as_dict() | {"documents": 30}

    def test_layers_differ(self, trained: Any):
        _, _, folder = trained
        first, second = (load_file(folder / name / "sae_weights.safetensors") for name in ("sae-0", "sae-2"))
        assert not torch.equal(first["W_enc"], second["W_enc"])

    def test_is_not_done_twice(self, trained: Any, capfd: pytest.CaptureFixture[str]):
        study, _, folder = trained
        before = (folder / "sae-0" / "sae_weights.safetensors").stat().st_mtime_ns
        set_mode("log")
        assert train(study) == []
        assert "nothing to train" in capfd.readouterr().err
        assert (folder / "sae-0" / "sae_weights.safetensors").stat().st_mtime_ns == before


class TestQuick:
    """Trainings of a few steps."""

    @pytest.fixture
    def study(self, tmp_path: Path, model_folder: Callable[..., Path], text: Path) -> Study:
        model = model_folder("llama", tokenizer="wordish")
        return make_study(tmp_path, model, text, tokens=2_000, features=32, k=3)

    def test_only_what_is_missing_is_trained(self, study: Study, tmp_path: Path):
        existing = tiny_sae(tmp_path / "sae-0", 32)
        before = (existing / "sae_weights.safetensors").read_bytes()
        assert [result.folder.name for result in train(study)] == ["sae-2"]
        assert (existing / "sae_weights.safetensors").read_bytes() == before

    def test_out_trains_all_anew_elsewhere(self, study: Study, tmp_path: Path):
        existing = tiny_sae(tmp_path / "sae-0", 32)
        before = (existing / "sae_weights.safetensors").read_bytes()
        out = tmp_path / "out"
        assert [result.folder for result in train(study, out)] == [out / "sae-0", out / "sae-2"]
        assert (existing / "sae_weights.safetensors").read_bytes() == before
        assert not (tmp_path / "sae-2").exists()

    def test_same_seed_same_sae(self, study: Study, tmp_path: Path):
        weights = []
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            train(study.model_copy(update={"seed": seed}), tmp_path / name)
            weights.append((tmp_path / name / "sae-2" / "sae_weights.safetensors").read_bytes())
        assert weights[0] == weights[1] != weights[2]

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_save_dtype(self, study: Study, tmp_path: Path, dtype: str):
        train(study, tmp_path / "float32")
        small = study.model_copy(update={"train": study.train.model_copy(update={"save_dtype": dtype})})
        (result, _) = train(small, tmp_path / dtype)
        stored = load_file(result.folder / "sae_weights.safetensors")
        whole = load_file(tmp_path / "float32" / "sae-0" / "sae_weights.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
        for key, tensor in whole.items():
            assert torch.equal(stored[key], tensor.to(getattr(torch, dtype)))
        assert json.loads((result.folder / "cfg.json").read_text())["dtype"] == dtype
        theirs, ours = saelens().SAE.load_from_disk(result.folder, dtype="float32"), load_sae(result.folder)
        x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
        assert torch.equal(theirs.encode(x), ours.encode(x))

    @pytest.mark.parametrize("hook", ["resid_pre", "attn_out", "mlp_out"])
    def test_other_hooks(self, study: Study, tmp_path: Path, hook: str):
        spaces = [study.spaces[0].model_copy(update={"hook": hook})]
        (_, result) = train(study.model_copy(update={"spaces": spaces}))
        metadata = json.loads((result.folder / "cfg.json").read_text())["metadata"]
        assert metadata["hook_name"] == f"blocks.2.hook_{hook}"

    def test_progress_tells_loss_fvu_l0_dead_and_eta(
        self, study: Study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ):
        monkeypatch.setattr("unifeat.progress._QUIET_START_S", 0.0)
        monkeypatch.setattr("unifeat.progress._LOG_EVERY_S", 0.0)
        set_mode("log")
        train(study)
        err = capfd.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("training 2 SAEs of tiny-llama: ")]
        assert len(lines) > 3
        for word in ("sae-0 loss ", "sae-2 loss ", "FVU ", "L0 3 ", "dead ", "tokens/s, ", " left"):
            assert word in lines[0], word
        assert "sae-0: held-out FVU " in err

    def test_a_failure_leaves_no_folder(self, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def broken(*_: Any) -> None:
            raise UserError("no")

        monkeypatch.setattr("unifeat.saes.training.card.model_card", broken)
        with pytest.raises(UserError, match="no"):
            train(study, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []


def test_planted_features_are_found(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch):
    """Activations that are sparse sums of 40 directions in 32 dimensions: training finds the directions."""
    generator = torch.Generator().manual_seed(0)
    planted = torch.nn.functional.normalize(torch.randn(40, 32, generator=generator), dim=-1)
    mean = torch.randn(32, generator=generator)

    def run(_: Any, parts: list[Any], points: list[HookPoint], _windowing: Any) -> GroupActivations:
        n = 50
        at = torch.rand(n * len(parts), 40, generator=generator).topk(3, dim=-1).indices
        codes = torch.zeros(len(at), 40).scatter(1, at, 1 + torch.rand(len(at), 3, generator=generator))
        none = torch.zeros(len(at), dtype=torch.int32).numpy()
        document = torch.tensor([part.document for part in parts], dtype=torch.int32).repeat_interleave(n).numpy()
        return GroupActivations(Places(document, none, none, none), {points[0]: 7 * (codes @ planted + mean)}, Masked())

    monkeypatch.setattr("unifeat.saes.training.activations.run_group", run)
    corpus = build_corpus(str(text), documents=None, tokens=None, count_tokens=len, tokenizer_digest="")
    spec = TrainSpec(
        text=TextSpec(source=str(text)), features=64, k=3, tokens=100_000, batch=256, buffer=8000, heldout_documents=4
    )
    point = HookPoint(0)
    monkeypatch.setattr("unifeat.saes.training.run.measure_losses", lambda _, saes, *__: dict.fromkeys(saes, NO_LOSS))
    (trained,) = train_saes(
        ActivationSource(corpus, {}, [point], Windowing(128), tmp_path / "activations", load=lambda: None),  # type: ignore[arg-type, return-value]
        [Job(point, tmp_path / "sae", spec, seed=0)],
        spec,
        ModelSpec(name="planted", bos=False),
        seed=0,
        prepend_bos=False,
        device=torch.device("cpu"),
        checkpoints=Checkpoints(tmp_path / "training", {"one": tmp_path / "sae"}, [point]),
    )
    nearest = (planted @ torch.from_numpy(decoder_rows(load_sae(trained.folder))).T).max(dim=1).values
    assert (nearest > 0.95).float().mean() > 0.9
    assert trained.quality.fvu < 0.1


class TestWrongInput:
    def study(self, tmp_path: Path, model_folder: Callable[..., Path], documents: list[str], **settings: Any) -> Study:
        return make_study(
            tmp_path, model_folder("llama", tokenizer="wordish"), write_text(tmp_path, documents), **settings
        )

    def test_no_train_section(self, tmp_path: Path, model_folder: Callable[..., Path]):
        study = self.study(tmp_path, model_folder, ["x"]).model_copy(update={"train": None})
        with pytest.raises(UserError, match="the study has no train section"):
            train(study)

    def test_too_few_documents_to_hold_some_back(self, tmp_path: Path, model_folder: Callable[..., Path]):
        study = self.study(tmp_path, model_folder, sentences(30))
        with pytest.raises(UserError, match=r"30 documents, and 30 are to be held out.*lower train\.heldout_documents"):
            train(study)

    @pytest.mark.parametrize("documents", [["The tide."] * 10, ["x"] * 10])
    def test_too_little_text(self, tmp_path: Path, model_folder: Callable[..., Path], documents: list[str]):
        study = self.study(tmp_path, model_folder, documents, heldout_documents=2)
        with pytest.raises(UserError, match=r"train\.text is too short to fill one batch"):
            train(study)
        assert not (tmp_path / "sae-0").exists()

    def test_text_without_a_row(self, tmp_path: Path, model_folder: Callable[..., Path]):
        """Documents of one token, which is first in its window and masked: there is nothing to train on."""
        study = make_study(tmp_path, model_folder("llama"), write_text(tmp_path, ["x"] * 10), heldout_documents=2)
        with pytest.raises(UserError, match=r"train\.text is too short"):
            train(study)

    def test_a_layer_out_of_range(self, tmp_path: Path, model_folder: Callable[..., Path]):
        study = self.study(tmp_path, model_folder, sentences(3), layers=[0, 3])
        with pytest.raises(UserError, match="tiny-llama has layers 0 to 2, not 3"):
            train(study)

    def test_one_folder_for_two_saes(self, tmp_path: Path, model_folder: Callable[..., Path]):
        study = self.study(tmp_path, model_folder, sentences(3))
        same = [study.spaces[0].model_copy(update={"sae": str(tmp_path / "sae")})]
        with pytest.raises(
            UserError, match=r"two SAEs of the study would be saved in .*/sae: give each its own folder name"
        ):
            train(study.model_copy(update={"spaces": same}))
        nested = [
            SpacesSpec(model="tiny", layers=[layer], sae=str(tmp_path / folder / "sae"))
            for layer, folder in enumerate(("a", "b"))
        ]
        with pytest.raises(UserError, match=r"two SAEs of the study would be saved in .*out/sae"):
            train(study.model_copy(update={"spaces": nested}), tmp_path / "out")

    def test_one_sae_twice(self, tmp_path: Path, model_folder: Callable[..., Path]):
        study = self.study(tmp_path, model_folder, sentences(3))
        twice = [SpacesSpec(model="tiny", layers=[1], sae=str(tmp_path / name)) for name in ("a", "b")]
        with pytest.raises(UserError, match="would be the same SAE twice: model tiny, layer 1, resid_post"):
            train(study.model_copy(update={"spaces": twice}))

    def test_a_name_that_is_neither_folder_nor_release(self, tmp_path: Path, model_folder: Callable[..., Path]):
        study = self.study(tmp_path, model_folder, sentences(3))
        spaces = [study.spaces[0].model_copy(update={"sae": "saes/tiny-{layer}"})]
        with pytest.raises(UserError, match=r"SAE saes/tiny-0: no such folder.*name the folder \./saes/tiny-0"):
            train(study.model_copy(update={"spaces": spaces}))

    def test_released_saes_are_not_trained(self, tmp_path: Path, model_folder: Callable[..., Path]):
        study = self.study(tmp_path, model_folder, sentences(3))
        spaces = [study.spaces[0].model_copy(update={"sae": "gpt2-small-res-jb/blocks.{layer}.hook_resid_pre"})]
        assert train(study.model_copy(update={"spaces": spaces})) == []

    def test_a_relative_folder_is_one(
        self, tmp_path: Path, model_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        study = self.study(tmp_path, model_folder, sentences(40), tokens=600, layers=[1])
        spaces = [study.spaces[0].model_copy(update={"sae": "./made/{layer}"})]
        (result,) = train(study.model_copy(update={"spaces": spaces}))
        assert load_sae(result.folder).cfg.d_in == 32
        assert (tmp_path / "made" / "1" / "cfg.json").exists()

    def test_weights_that_overflow_the_save_dtype(self, tmp_path: Path):
        sae = load_sae(tiny_sae(tmp_path / "sae", 8))
        sae.b_dec.data[2] = 1e6
        with pytest.raises(UserError, match=r"train\.save_dtype float16 cannot hold b_dec: use float32 or bfloat16"):
            cast(sae, "float16")
