"""Each format's own arithmetic in NumPy, float64, against what `load_sae` makes of a file of that format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
from tiny import saelens
from unifeat.errors import UserError
from unifeat.saes import Provenance, decoder_rows, load_sae, provenance_of

D, M, K = 20, 48, 5
Codes = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def held() -> checkpoints.Tensors:
    return checkpoints.tensors(D, M, seed=4)


@pytest.fixture
def w(held: checkpoints.Tensors) -> dict[str, np.ndarray]:
    return {key: tensor.double().numpy() for key, tensor in held.items()}


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(60, D)) * 1.5 + 0.3


def relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0)


def top(z: np.ndarray, k: int) -> np.ndarray:
    """All but the k largest of each row set to 0; what is left below 0 too."""
    cut = np.sort(z, axis=1)[:, [-k]]
    return np.where(z >= cut, relu(z), 0)


def norms(w: dict[str, np.ndarray]) -> np.ndarray:
    return np.linalg.norm(w["W_dec"], axis=1)


def same(sae: Any, x: np.ndarray, expected: Codes, *, tolerance: float = 2e-5) -> Provenance:
    """Codes and reconstruction are those expected, some but not all features fire, decoder rows are unit rows."""
    codes, reconstruction = expected
    found = sae.encode(torch.from_numpy(x).float())
    share = (codes != 0).mean()
    assert 0.02 < share < 0.98, f"{share:.2f} of the codes are not 0, so the gate shows nothing"
    assert np.array_equal(found.numpy() != 0, codes != 0)
    np.testing.assert_allclose(found.numpy(), codes, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(sae.decode(found).numpy(), reconstruction, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(decoder_rows(sae), axis=1), 1, rtol=1e-5)
    assert (sae.cfg.d_sae, sae.cfg.d_in) == (codes.shape[1], x.shape[1])
    return provenance_of(sae)


class TestGemmaScope:
    def test_follows_the_format(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        at = tmp_path / "gemma-scope-2b-pt-res" / "layer_12" / "width_16k" / "average_l0_82"
        checkpoints.write_gemma_scope(at, held)
        z = x @ w["W_enc"] + w["b_enc"]
        codes = z * (z > w["threshold"])
        provenance = same(load_sae(at), x, (codes, codes @ w["W_dec"] + w["b_dec"]))
        assert (provenance.hook, provenance.layer, provenance.hook_kind) == (
            "blocks.12.hook_resid_post",
            12,
            "resid_post",
        )
        assert (provenance.model, provenance.claimed_l0, provenance.pre_bias) == ("gemma-2-2b", 82, False)
        assert provenance.decoder_norms == pytest.approx((norms(w).min(), norms(w).max()))

    def test_with_lower_case_names(self, tmp_path: Path, held: Any):
        checkpoints.write_gemma_scope(tmp_path / "a", held)
        upper = load_sae(tmp_path / "a")
        lower = {key.replace("W_", "w_"): tensor for key, tensor in held.items()}
        checkpoints.write_gemma_scope(tmp_path / "b", lower)
        assert torch.equal(load_sae(tmp_path / "b").W_dec, upper.W_dec)

    def test_of_embeddings(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        at = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6"
        checkpoints.write_gemma_scope(at, held)
        z = x @ w["W_enc"] / np.sqrt(D) + w["b_enc"]
        codes = z * (z > w["threshold"])
        provenance = same(load_sae(at), x, (codes, codes @ w["W_dec"] * np.sqrt(D) + w["b_dec"]))
        assert (provenance.hook_kind, provenance.layer) == ("resid_pre", 0)
        assert "√d" in provenance.folds[0]

    def test_a_transcoder(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        at = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3" / "width_16k" / "average_l0_76"
        checkpoints.write_gemma_scope(at, held)
        z = x @ w["W_enc"] + w["b_enc"]
        codes = z * (z > w["threshold"])
        provenance = same(load_sae(at), x, (codes, codes @ w["W_dec"] + w["b_dec"]))
        assert (provenance.architecture, provenance.hook_out) == ("jumprelu_transcoder", "blocks.3.hook_mlp_out")


class TestGemmaScope2:
    def test_follows_the_format(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        at = tmp_path / "resid_post" / "layer_9_width_16k_l0_medium"
        checkpoints.write_gemma_scope_2(at, held, hf_hook_point_in="model.layers.9.output")
        z = x @ w["W_enc"] + w["b_enc"]
        codes = z * (z > w["threshold"])
        provenance = same(load_sae(at), x, (codes, codes @ w["W_dec"] + w["b_dec"]))
        assert (provenance.format, provenance.hook, provenance.hook_out) == (
            "gemma_scope_2",
            "blocks.9.hook_resid_post",
            None,
        )

    def test_without_a_config(self, tmp_path: Path, held: Any):
        at = tmp_path / "mlp_out_all" / "layer_0_width_16k_l0_big"
        checkpoints.write_gemma_scope_2(at, held)
        (at / "config.json").unlink()
        assert provenance_of(load_sae(at)).hook == "blocks.0.hook_mlp_out"

    def test_an_affine_transcoder_of_two_widths(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        at = tmp_path / "transcoder" / "layer_4_width_16k_l0_small_affine"
        rng = torch.Generator().manual_seed(1)
        skip = torch.randn((D, 12), generator=rng)
        wide = {"W_dec": held["W_dec"][:, :12], "b_dec": held["b_dec"][:12]}
        checkpoints.write_gemma_scope_2(at, held | wide, skip=skip)
        sae = load_sae(at)
        z = x @ w["W_enc"] + w["b_enc"]
        codes = z * (z > w["threshold"])
        provenance = same(sae, x, (codes, codes @ w["W_dec"][:, :12] + w["b_dec"][:12]))
        assert (provenance.hook, provenance.hook_out) == ("blocks.4.mlp.hook_in", "blocks.4.hook_mlp_out")
        whole = codes @ w["W_dec"][:, :12] + w["b_dec"][:12] + x @ skip.double().numpy()
        np.testing.assert_allclose(sae(torch.from_numpy(x).float()).numpy(), whole, rtol=1e-4, atol=1e-4)


class TestLlamaScope:
    """Load order of the authors: the data set's norm, then unit decoder norm, then the threshold."""

    def by_hand(self, w: Any, x: np.ndarray, theta: float = 0.25, average: float = 3.0) -> Codes:
        factor = np.sqrt(D) / average
        g = norms(w)
        z = (x @ w["W_enc"] + w["b_enc"] / factor) * g
        codes = z * (z > theta)
        return codes, codes @ (w["W_dec"] / g[:, None]) + w["b_dec"] / factor

    def test_follows_the_format(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_llama_scope(tmp_path, held)
        provenance = same(load_sae(tmp_path), x, self.by_hand(w, x))
        assert len(provenance.folds) == 2
        assert "0.25" in provenance.gate
        assert provenance.layer == 15

    def test_in_another_order_of_scales(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        """Scaling activations up front gives the same mask: θ is compared on the activations' own scale."""
        checkpoints.write_llama_scope(tmp_path, held)
        factor, g = np.sqrt(D) / 3.0, norms(w)
        z = (x * factor) @ w["W_enc"] + w["b_enc"]
        fires = z * g > 0.25 * factor
        assert np.array_equal(load_sae(tmp_path).encode(torch.from_numpy(x).float()).numpy() != 0, fires)

    def test_without_the_decoder_s_norm(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_llama_scope(tmp_path, held, sparsity_include_decoder_norm=False)
        factor = np.sqrt(D) / 3.0
        z = x @ w["W_enc"] + w["b_enc"] / factor
        codes = z * (z > 0.25)
        same(load_sae(tmp_path), x, (codes, codes @ w["W_dec"] + w["b_dec"] / factor))

    def test_with_another_norm_on_the_way_out(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        average = {"in": 3.0, "out": 5.0}
        out = {"hook_point_out": "blocks.15.hook_mlp_out", "dataset_average_activation_norm": average}
        checkpoints.write_llama_scope(tmp_path, held, **out)
        fin, fout = np.sqrt(D) / 3.0, np.sqrt(D) / 5.0
        decoder = w["W_dec"] * fin / fout
        g = np.linalg.norm(decoder, axis=1)
        z = (x @ w["W_enc"] + w["b_enc"] / fin) * g
        codes = z * (z > 0.25)
        provenance = same(load_sae(tmp_path), x, (codes, codes @ (decoder / g[:, None]) + w["b_dec"] / fout))
        assert provenance.hook_out == "blocks.15.hook_mlp_out"

    def test_with_top_k(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_llama_scope(tmp_path, held, k=K, act_fn="topk", jump_relu_threshold=0)
        factor, g = np.sqrt(D) / 3.0, norms(w)
        codes = top((x @ w["W_enc"] + w["b_enc"] / factor) * g, K)
        decoded = codes @ (w["W_dec"] / g[:, None]) + w["b_dec"] / factor
        assert same(load_sae(tmp_path), x, (codes, decoded)).k == K

    def test_with_a_pre_bias(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_llama_scope(tmp_path, held, apply_decoder_bias_to_pre_encoder=True)
        factor, g = np.sqrt(D) / 3.0, norms(w)
        z = ((x - w["b_dec"] / factor) @ w["W_enc"] + w["b_enc"] / factor) * g
        codes = z * (z > 0.25)
        same(load_sae(tmp_path), x, (codes, codes @ (w["W_dec"] / g[:, None]) + w["b_dec"] / factor))

    def test_pruned_weights_come_first(self, tmp_path: Path, held: Any):
        checkpoints.write_llama_scope(tmp_path / "a", held)
        other = checkpoints.tensors(D, M, seed=9)
        checkpoints.write_llama_scope(tmp_path / "b", other)
        pruned = tmp_path / "a" / "checkpoints" / "pruned.safetensors"
        pruned.write_bytes((tmp_path / "b" / "checkpoints" / "final.safetensors").read_bytes())
        assert torch.equal(load_sae(tmp_path / "a").W_enc, load_sae(tmp_path / "b").W_enc)


class TestLlamascopium:
    def by_hand(self, w: Any, x: np.ndarray, factor: float) -> Codes:
        """z · ‖d‖ against θ on activations scaled to a mean norm of √d; the code carries the norm of its row."""
        g = norms(w)
        z = (x * factor @ w["W_enc"] + w["b_enc"]) * g
        codes = z * (z > w["threshold"])
        return codes, (codes @ (w["W_dec"] / g[:, None]) + w["b_dec"]) / factor

    @pytest.mark.parametrize("old", [True, False])
    def test_follows_the_format(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray, old: bool):
        checkpoints.write_llamascopium(tmp_path, held, old=old, average=2.5)
        provenance = same(load_sae(tmp_path), x, self.by_hand(w, x, np.sqrt(D) / 2.5))
        assert provenance.format == "llamascopium"
        assert len(provenance.folds) == 2

    def test_once_standardised(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_llamascopium(tmp_path, held, old=False, norm_activation="inference")
        same(load_sae(tmp_path), x, self.by_hand(w, x, 1.0))

    def test_token_by_token(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_llamascopium(tmp_path, held, old=False, norm_activation="token-wise")
        scale = np.sqrt(D) / np.linalg.norm(x, axis=1, keepdims=True)
        codes, decoded = self.by_hand(w, x * scale, 1.0)
        assert "token by token" in same(load_sae(tmp_path), x, (codes, decoded / scale)).normalisation

    def test_pickled(self, tmp_path: Path, held: Any):
        from safetensors.torch import load_file

        checkpoints.write_llamascopium(tmp_path, held, average=2.5)
        sae, weights = load_sae(tmp_path), tmp_path / "sae_weights.safetensors"
        torch.save({"sae": load_file(weights), "version": "2.0"}, tmp_path / "sae_weights.pt")
        weights.unlink()
        assert torch.equal(load_sae(tmp_path).W_enc, sae.W_enc)

    def test_with_top_k(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_llamascopium(tmp_path, held, k=K, old=False, average=2.5, act_fn="topk")
        factor, g = np.sqrt(D) / 2.5, norms(w)
        codes = top((x * factor @ w["W_enc"] + w["b_enc"]) * g, K)
        same(load_sae(tmp_path), x, (codes, (codes @ (w["W_dec"] / g[:, None]) + w["b_dec"]) / factor))


class TestBareFiles:
    def test_openai_with_top_k(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_openai(tmp_path / "6.pt", held, K)
        mean, std = x.mean(1, keepdims=True), x.std(1, ddof=1, keepdims=True)
        codes = top(((x - mean) / (std + 1e-5) - w["b_dec"]) @ w["W_enc"] + w["b_enc"], K)
        provenance = same(load_sae(tmp_path / "6.pt"), x, (codes, (codes @ w["W_dec"] + w["b_dec"]) * std + mean))
        assert (provenance.format, provenance.k, provenance.pre_bias) == ("openai", K, True)
        assert "layer norm" in provenance.normalisation

    def test_openai_with_relu(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_openai(tmp_path / "6.pt", held, None)
        codes = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        provenance = same(load_sae(tmp_path / "6.pt"), x, (codes, codes @ w["W_dec"] + w["b_dec"]))
        assert provenance.normalisation == "none"

    @pytest.mark.parametrize(
        ("write", "format"), [(checkpoints.write_goodfire, "goodfire"), (checkpoints.write_linear, "linear")]
    )
    @pytest.mark.parametrize("by", ["file", "folder"])
    def test_linear_ones(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray, write: Any, format: str, by: str):
        file = tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth"
        write(file, held)
        codes = relu(x @ w["W_enc"] + w["b_enc"])
        sae = load_sae(file if by == "file" else tmp_path)
        provenance = same(sae, x, (codes, codes @ w["W_dec"] + w["b_dec"]))
        assert (provenance.format, provenance.layer, provenance.pre_bias) == (format, 19, False)

    def test_qwen_scope(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        file = tmp_path / f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}" / "layer7.sae.pt"
        checkpoints.write_qwen_scope(file, held)
        codes = top(x @ w["W_enc"] + w["b_enc"], K)
        provenance = same(load_sae(file), x, (codes, codes @ w["W_dec"] + w["b_dec"]))
        assert (provenance.hook, provenance.model) == ("blocks.7.hook_resid_post", "Qwen/Qwen3-1.7B-Base")

    def test_attention_z(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_attention_z(tmp_path / "gpt2-small_L0_Hcat_z.pt", held)
        codes = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        provenance = same(load_sae(tmp_path / "gpt2-small_L0_Hcat_z.pt"), x, (codes, codes @ w["W_dec"] + w["b_dec"]))
        assert (provenance.pre_bias, provenance.hook) == (True, "blocks.0.attn.hook_z")

    def test_circuit_tracer(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        skip = torch.randn((D, D), generator=torch.Generator().manual_seed(3))
        codes = relu(x @ w["W_enc"] + w["b_enc"])
        decoded = codes @ w["W_dec"] + w["b_dec"]
        checkpoints.write_circuit_tracer(tmp_path / "layer_5.safetensors", held)
        provenance = same(load_sae(tmp_path / "layer_5.safetensors"), x, (codes, decoded))
        assert (provenance.layer, provenance.hook_out) == (5, "blocks.5.hook_mlp_out")
        checkpoints.write_circuit_tracer(tmp_path / "layer_6.safetensors", held, skip=skip)
        sae = load_sae(tmp_path / "layer_6.safetensors")
        same(sae, x, (codes, decoded))
        whole = decoded + x @ skip.double().numpy().T
        np.testing.assert_allclose(sae(torch.from_numpy(x).float()).numpy(), whole, rtol=1e-4, atol=1e-4)


class TestSaelensFolders:
    """SAELens reads its own; what it leaves to the caller is done here."""

    def test_before_6_0(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        at = tmp_path / "blocks.6.hook_resid_post"
        checkpoints.write_saelens(at, held)
        codes = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        provenance = same(load_sae(at), x, (codes, codes @ w["W_dec"] + w["b_dec"]))
        assert (provenance.hook, provenance.bos, provenance.gate) == ("blocks.6.hook_resid_post", True, "relu")

    def test_before_6_0_with_top_k(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        top_k = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "apply_b_dec_to_input": False}
        checkpoints.write_saelens(tmp_path / "a", held, **top_k)
        codes = top(x @ w["W_enc"] + w["b_enc"], K)
        assert same(load_sae(tmp_path / "a"), x, (codes, codes @ w["W_dec"] + w["b_dec"])).k == K

    def test_a_scale_is_folded(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_saelens(tmp_path / "a", held, normalize_activations="expected_average_only_in")
        (tmp_path / "a" / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.4}))
        codes = relu((0.4 * x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        provenance = same(load_sae(tmp_path / "a"), x, (codes, (codes @ w["W_dec"] + w["b_dec"]) / 0.4))
        assert "0.4" in provenance.normalisation
        theirs = saelens().SAE.load_from_disk(tmp_path / "a", device="cpu")  # runs, and forgets the scale
        assert np.abs(theirs.encode(torch.from_numpy(x).float()).detach().numpy() - codes).max() > 0.1

    @pytest.mark.parametrize("factors", ["ones", "others", "no word in the config"])
    def test_finetuned_before_6_0(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray, factors: str):
        """Codes were multiplied by a factor of the feature's before they were decoded."""
        scale = torch.ones(M) if factors == "ones" else torch.linspace(0.5, 1.5, M)
        config = {"finetuning_scaling_factor": factors != "no word in the config"}
        checkpoints.write_saelens(tmp_path / "a", held | {"scaling_factor": scale}, **config)
        if factors == "no word in the config":
            with pytest.raises(UserError, match="Scaling factor is present but finetuning_scaling_factor is False"):
                load_sae(tmp_path / "a")
            return
        codes = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        decoded = (codes * scale.double().numpy()) @ w["W_dec"] + w["b_dec"]
        folds = same(load_sae(tmp_path / "a"), x, (codes, decoded)).folds
        assert len(folds) == (factors == "others")

    @pytest.mark.parametrize("pre_bias", [True, False])
    def test_trained_on_a_centred_stream(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray, pre_bias: bool):
        kwargs: dict[str, Any] = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
        checkpoints.write_saelens(tmp_path / "blocks.6.hook_resid_pre", held, apply_b_dec_to_input=pre_bias, **kwargs)
        centred = x - x.mean(1, keepdims=True)
        codes = relu((centred - pre_bias * w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        sae = load_sae(tmp_path / "blocks.6.hook_resid_pre")
        assert any("mean" in fold for fold in same(sae, x, (codes, codes @ w["W_dec"] + w["b_dec"])).folds)
        np.testing.assert_allclose(sae.encode(torch.from_numpy(centred).float()).numpy(), codes, rtol=1e-4, atol=1e-5)

    def test_of_heads_take_them_concatenated(self, tmp_path: Path, held: Any, w: Any, x: np.ndarray):
        checkpoints.write_saelens(tmp_path / "a", held, hook_point="blocks.6.attn.hook_z")
        codes = relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
        same(load_sae(tmp_path / "a"), x, (codes, codes @ w["W_dec"] + w["b_dec"]))

    @pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
    def test_training_only_architectures_come_as_jumprelu(self, tmp_path: Path, x: np.ndarray, architecture: str):
        lens = saelens()
        made = {
            "batchtopk": (lens.BatchTopKTrainingSAE, lens.BatchTopKTrainingSAEConfig, {}),
            "matryoshka_batchtopk": (
                lens.MatryoshkaBatchTopKTrainingSAE,
                lens.MatryoshkaBatchTopKTrainingSAEConfig,
                {"matryoshka_widths": [16, M]},
            ),
        }[architecture]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sae = made[0](made[1](d_in=D, d_sae=M, k=K, dtype="float32", device="cpu", **made[2]))
        sae.topk_threshold.fill_(0.3)
        sae.save_inference_model(tmp_path / "a")
        loaded = load_sae(tmp_path / "a")
        assert provenance_of(loaded).architecture == "jumprelu"
        rows = torch.from_numpy(20 * x).float()
        codes = saelens().SAE.load_from_disk(tmp_path / "a", device="cpu").encode(rows)
        assert torch.equal(loaded.encode(rows), codes)
        assert 0.02 < (codes != 0).float().mean() < 0.98


@pytest.mark.parametrize(
    ("write", "named"),
    [(checkpoints.write_gemma_scope, "gemma_scope"), (checkpoints.write_gemma_scope_2, "gemma_scope_2")],
)
def test_a_format_can_be_named(tmp_path: Path, held: Any, write: Callable[..., None], named: str):
    write(tmp_path / "a", held)
    checkpoints.write_saelens(tmp_path / "a", checkpoints.tensors(D, M, seed=8))  # two formats in one folder
    assert provenance_of(load_sae(tmp_path / "a")).format == "saelens"
    assert provenance_of(load_sae(tmp_path / "a", format=named)).format == named
