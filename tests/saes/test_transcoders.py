"""Transcoders: read at the MLP's input, judged by the MLP's output, spliced in its place, and a space of a study."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
from homes import make_home, write_study
from tiny import sentences, write_text
from unifeat.errors import UserError
from unifeat.models.activations import run_group
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.pipeline.encode import prepare_spaces
from unifeat.saes import is_transcoder, load_sae, reconstruct, writes_at
from unifeat.saes.checking.check import check_sae
from unifeat.saes.checking.loss import measure_loss
from unifeat.saes.quality import Quality
from unifeat.study.read import load_study
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HookKind, HookPoint
from unifeat.vocabulary.windowing import Windowing

CONTEXT = 32
PARTS = [Part(n, 0, text) for n, text in enumerate(sentences(60, seed=8))]


@pytest.fixture(scope="module")
def folder(model_folder: Callable[..., Path]) -> Path:
    return model_folder("gemma3", tokenizer="wordish")


def rows(folder: Path, layer: int, reads: HookKind) -> tuple[torch.Tensor, torch.Tensor]:
    """What the MLP of a layer is given and what it adds, token by token."""
    points = [HookPoint(layer, reads), HookPoint(layer, "mlp_out")]
    model = load_language_model(str(folder), points, dtype="float32")
    values = run_group(model, PARTS, points, Windowing(CONTEXT, 2)).values
    return values[points[0]], values[points[1]]


def fitted(at: Path, folder: Path, *, layer: int = 1, reads: HookKind = "mlp_in", skip: bool = False) -> Path:
    """A ReLU transcoder whose encoder is random and whose decoder, with its skip, is a least-squares fit."""
    x, y = rows(folder, layer, reads)
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randn((x.shape[1], 96), generator=generator) / x.norm(dim=-1).mean()
    b_enc = 0.3 * torch.randn(96, generator=generator)
    design = [torch.relu(x @ W_enc + b_enc), torch.ones(len(x), 1)] + [x] * skip
    solution = torch.linalg.lstsq(torch.cat(design, 1).double(), y.double()).solution.float()
    held = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": solution[:96], "b_dec": solution[96]}
    if reads == "mlp_in":
        path = at / f"layer_{layer}.safetensors"
        checkpoints.write_circuit_tracer(path, held, skip=solution[97:].T.contiguous() if skip else None)
        return path
    path = at / "gemma-scope-2b-pt-transcoders" / f"layer_{layer}" / "width_16k" / "average_l0_48"
    checkpoints.write_gemma_scope(
        path, {k: v.contiguous() for k, v in held.items()}, threshold=np.zeros(96, np.float32)
    )
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_text(tmp_path_factory.mktemp("text"), sentences(60, seed=8)))


def checked(sae: Path, folder: Path, text: str, **settings: Any) -> Any:
    settings = {"dtype": "float32", "loss": False, "context": CONTEXT} | settings
    return check_sae(str(sae), str(folder), text=text, **settings)


class TestCheck:
    def test_it_is_judged_by_what_the_mlp_puts_out(self, folder: Path, text: str, tmp_path: Path):
        found = checked(fitted(tmp_path, folder), folder, text)
        assert found.point == HookPoint(1, "mlp_in")
        assert found.findings == []
        x, y = rows(folder, 1, "mlp_in")
        norms = rows(folder, 1, "resid_pre")[0].norm(dim=-1)  # by which sinks are told
        keep = norms <= 5 * norms.median()
        assert found.quality.tokens == int(keep.sum())
        held = load_sae(tmp_path / "layer_1.safetensors").state_dict()
        made = torch.relu(x @ held["W_enc"] + held["b_enc"]) @ held["W_dec"] + held["b_dec"]
        error, spread = ((made - y)[keep]).double().pow(2).sum(), (y[keep] - y[keep].mean(0)).double().pow(2).sum()
        assert found.quality.fvu == pytest.approx(float(error / spread), rel=1e-4)
        assert found.quality.fvu < 0.4

    def test_the_skip_is_part_of_what_it_makes(self, folder: Path, text: str, tmp_path: Path):
        with_skip = checked(fitted(tmp_path / "skip", folder, skip=True), folder, text)
        without = checked(fitted(tmp_path / "none", folder), folder, text)
        assert with_skip.quality.fvu < without.quality.fvu - 0.005
        sae, (x, _) = load_sae(tmp_path / "skip" / "layer_1.safetensors"), rows(folder, 1, "mlp_in")
        assert torch.allclose(reconstruct(sae, x, sae.encode(x)), sae(x), atol=1e-5)

    @pytest.mark.parametrize("layer", [0, 2])
    def test_a_neighbouring_layer_is_caught(self, folder: Path, text: str, tmp_path: Path, layer: int):
        said = " ".join(f.text for f in checked(fitted(tmp_path, folder), folder, text, layer=layer).findings)
        assert "with layer 1, mlp_in" in said

    def test_the_norm_s_weights_tell_two_hook_points_apart(self, folder: Path, text: str, tmp_path: Path):
        """Gemma Scope's transcoders name `ln2.hook_normalized`, which stands before the norm's weights."""
        sae = fitted(tmp_path, folder, reads="ln2_normalized")
        right = checked(sae, folder, text)
        assert (right.point, right.findings) == (HookPoint(1, "ln2_normalized"), [])
        wrong = checked(sae, folder, text, hook="mlp_in", layer=1)
        assert wrong.quality.fvu > 1.03 * right.quality.fvu
        assert any("but is given blocks.1.mlp.hook_in" in finding.text for finding in wrong.findings)
        others = {one.what: one.fvu for one in right.others}
        assert others["layer 1, mlp_in"] > 1.03 * right.own.fvu  # the tiny model's weights are within a tenth of 1

    def test_the_config_beside_it_says_where_it_reads(self, folder: Path, text: str, tmp_path: Path):
        sae = fitted(tmp_path, folder)
        (tmp_path / "config.yaml").write_text("feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n")
        assert checked(sae, folder, text).point == HookPoint(1, "resid_mid")

    def test_loss_is_measured_at_the_mlp_s_output(self, folder: Path, text: str, tmp_path: Path):
        found = checked(fitted(tmp_path, folder), folder, text, loss=True, tokens=1000)
        assert found.loss.tokens > 500
        assert abs(found.loss.spliced - found.loss.clean) < abs(found.loss.zeroed - found.loss.clean)


@pytest.mark.parametrize("kind", ["mlp_in", "ln2_normalized"])
def test_attention_sinks_are_told_by_the_stream(folder: Path, kind: HookKind):
    """Behind a norm every token has much the same norm."""
    points = [HookPoint(1, kind), HookPoint(1, "resid_pre")]
    model = load_language_model(str(folder), points, dtype="float32")
    tokens = run_group(model, PARTS, points, Windowing(CONTEXT, 2)).places.token
    model.decoder.get_input_embeddings().weight[int(np.bincount(tokens).argmax())] *= 30
    found = run_group(model, PARTS, points, Windowing(CONTEXT, 2))
    sinks = [found.without_sinks(point)[2].sink for point in points]
    assert sinks[0] == sinks[1] > 5
    assert found.sink_norm(points[0]) == found.sink_norm(points[1])


def test_a_block_that_goes_on_to_add_in_place(tmp_path: Path):
    """Falcon adds attention's output to what its MLP has put out, in the same memory."""
    from transformers import AutoModelForCausalLM, FalconConfig

    from tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer("wordish")
    config = FalconConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "falcon")
    tokenizer.save_pretrained(tmp_path / "falcon")
    points = [HookPoint(1, kind) for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    model = load_language_model(str(tmp_path / "falcon"), points, dtype="float32")
    values = run_group(model, PARTS[:5], points, Windowing(CONTEXT)).values
    before, attention, mlp, after = (values[point] for point in points)
    torch.testing.assert_close(before + attention + mlp, after, rtol=1e-4, atol=1e-5)


def test_what_a_transcoder_writes_is_tried_too(tmp_path: Path, text: str):
    """BLOOM's MLP module puts out the whole stream: no transcoder's output can be compared with that."""
    from transformers import AutoModelForCausalLM, BloomConfig

    from tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer("wordish")
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "bloom")
    tokenizer.save_pretrained(tmp_path / "bloom")
    checkpoints.write_circuit_tracer(tmp_path / "layer_1.safetensors", checkpoints.tensors(32, 64))
    with pytest.raises(UserError, match="the outputs of its attention and MLP modules are not what is added"):
        checked(tmp_path / "layer_1.safetensors", tmp_path / "bloom", text)


@pytest.mark.parametrize("reads", ["mlp_in", "ln2_normalized", "resid_mid"])
def test_the_mlp_itself_recovers_the_whole_loss(folder: Path, reads: HookKind):
    """A stand-in that decodes by calling the MLP and its norms: the model goes on as if nothing had happened."""
    point = HookPoint(1, reads)
    model = load_language_model(str(folder), [point], dtype="float32", whole=True)
    block: Any = model.blocks[1]

    def decode(x: torch.Tensor) -> torch.Tensor:
        if reads == "resid_mid":
            x = block.pre_feedforward_layernorm.forward(x)
        elif reads == "ln2_normalized":
            x = x * (1 + block.pre_feedforward_layernorm.weight)
        return block.post_feedforward_layernorm.forward(block.mlp.forward(x))

    sae = SimpleNamespace(encode=lambda x: x, decode=decode, unifeat_provenance=SimpleNamespace(hook_out="mlp_out"))
    assert writes_at(sae, point) == HookPoint(1, "mlp_out")
    above = run_group(model, PARTS, [point], Windowing(CONTEXT, 2)).sink_norm(point)
    loss = measure_loss(model, PARTS[:20], point, sae, Windowing(CONTEXT, 2), sink_norm=above)
    assert loss.tokens > 100
    assert loss.spliced == pytest.approx(loss.clean, abs=1e-6)
    assert abs(loss.zeroed - loss.clean) > 1e-3


class TestSpace:
    @pytest.fixture
    def home(self, tmp_path: Path, model_folder: Callable[..., Path]) -> Path:
        make_home(tmp_path / "home", model_folder, documents=12)
        return tmp_path / "home"

    def spaces(self, home: Path, *groups: dict[str, Any], force: bool = True) -> list[Any]:
        plain = {"model": "one", "layers": 0, "sae": "saes/one_0", "name": "plain"}
        groups_ = [plain, *({"model": "one", "layers": 0} | group for group in groups)]
        study = load_study(write_study(home, "other.yaml", spaces=groups_))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return prepare_spaces(study, force=force).spaces[1:]

    def test_codes_are_of_the_mlp_s_input_and_the_fvu_of_its_output(self, home: Path):
        held = checkpoints.tensors(32, 64, seed=3)
        checkpoints.write_circuit_tracer(home / "saes" / "layer_0.safetensors", held)
        sae = load_sae(home / "saes" / "layer_0.safetensors")
        assert is_transcoder(sae)
        (space,) = self.spaces(home, {"sae": "saes/layer_0.safetensors", "name": "coder", "hook": "mlp_in"})
        model, corpus_rows = self.model(home), space.store.shard(0)
        points = [HookPoint(0, "mlp_in"), HookPoint(0, "mlp_out")]
        study = load_study(home / "other.yaml")
        corpus = prepare_spaces(study, force=True).corpus
        activations = run_group(model, corpus.parts(0), points, Windowing(study.text.context, self.bos(space)))
        x, places, _ = activations.without_sinks(points[0])
        np.testing.assert_array_equal(corpus_rows.places.token, places.token)
        codes = sae.encode(x)
        assert corpus_rows.value.sum() == pytest.approx(float(codes.sum()), rel=1e-4)
        quality = Quality()
        quality.add(activations.beside(*points), codes, sae.decode(codes))
        assert space.info["fvu"] == pytest.approx(quality.fvu, rel=1e-3)
        assert space.decoder.rows(np.arange(64)).shape == (64, 32)

    def model(self, home: Path) -> LanguageModel:
        study = load_study(home / "other.yaml")
        points = [HookPoint(0, "mlp_in"), HookPoint(0, "mlp_out")]
        return load_language_model(study.models["one"].name, points, dtype=study.models["one"].dtype)

    def bos(self, space: Any) -> int | None:
        from unifeat.models.opening import bos_of

        return bos_of(space.tokenizer(), "auto")

    def test_the_hook_has_to_be_said(self, home: Path):
        checkpoints.write_circuit_tracer(home / "saes" / "layer_0.safetensors", checkpoints.tensors(32, 64))
        with pytest.raises(UserError, match=r"reads blocks\.0\.mlp\.hook_in, not resid_post: set hook to mlp_in"):
            self.spaces(home, {"sae": "saes/layer_0.safetensors", "name": "coder"})

    def test_one_that_writes_elsewhere_is_no_space(self, home: Path):
        checkpoints.write_sparsify(home / "saes" / "layers.0", checkpoints.tensors(32, 64), k=3, transcode=True)
        with pytest.raises(
            UserError, match=r"to blocks\.0\.hook_resid_post: unifeat supports only transcoders that write"
        ):
            self.spaces(home, {"sae": "saes/layers.0", "name": "coder", "hook": "mlp_in"})

    def test_attention_s_heads_make_a_space(self, home: Path):
        checkpoints.write_attention_z(home / "saes" / "heads.pt", checkpoints.tensors(32, 64))
        (space,) = self.spaces(home, {"sae": "saes/heads.pt", "name": "heads", "hook": "attn_z"})
        assert space.store.rows > 0
        assert space.info["hook"] == "attn_z"
