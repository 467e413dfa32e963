"""SAEs from SAELens folders and its registry: the codes are SAELens' own; what is damaged or dangerous is refused."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from tiny import saelens, tiny_sae
from unifeat.errors import UserError
from unifeat.saes import check_fits, decoder_rows, is_local, load_sae, sae_digest
from unifeat.vocabulary.hook_points import HookPoint

D_IN, D_SAE, K = 24, 64, 4


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(50, D_IN, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_sae(tmp_path / "sae", D_IN, D_SAE, K)


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "sae_weights.safetensors")
    change(tensors)
    save_file(tensors, folder / "sae_weights.safetensors")


def rewrite_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "cfg.json").read_text()) | changes
    (folder / "cfg.json").write_text(json.dumps(config))


def write_architecture(folder: Path, architecture: str) -> Path:
    """A SAELens folder with random weights of some architecture."""
    lens = saelens()
    base = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}
    sae = {
        "standard": lambda: lens.StandardSAE(lens.StandardSAEConfig(**base, apply_b_dec_to_input=False)),
        "jumprelu": lambda: lens.JumpReLUSAE(lens.JumpReLUSAEConfig(**base)),
        "gated": lambda: lens.GatedSAE(lens.GatedSAEConfig(**base)),
        "layer_norm": lambda: lens.StandardSAE(lens.StandardSAEConfig(**base, normalize_activations="layer_norm")),
        "rescaled": lambda: lens.TopKSAE(lens.TopKSAEConfig(**base, k=K, rescale_acts_by_decoder_norm=True)),
    }[architecture]()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(sae.named_parameters()):
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    sae.save_model(folder)
    return folder


class TestFolder:
    def test_gives_the_codes_of_saelens(self, folder: Path, x: torch.Tensor):
        ours, theirs = load_sae(folder), saelens().SAE.load_from_disk(folder, device="cpu")
        codes = ours.encode(x)
        assert torch.equal(codes, theirs.encode(x))
        assert torch.equal(ours.decode(codes), theirs.decode(codes))
        assert torch.equal(ours.W_dec, theirs.W_dec)
        assert ((codes != 0).sum(-1) <= K).all()
        assert (codes != 0).sum() > 40 * K

    def test_gives_the_codes_of_the_formula(self, folder: Path, x: torch.Tensor):
        t = {key: value.double() for key, value in load_file(folder / "sae_weights.safetensors").items()}
        pre = (x.double() - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
        values, at = pre.topk(K, dim=-1)
        expected = torch.zeros_like(pre).scatter(-1, at, values.relu())
        sae = load_sae(folder)
        torch.testing.assert_close(sae.encode(x).double(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            sae.decode(sae.encode(x)).double(), expected @ t["W_dec"] + t["b_dec"], rtol=1e-5, atol=1e-5
        )

    @pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated", "layer_norm", "rescaled"])
    def test_of_other_architectures(self, tmp_path: Path, x: torch.Tensor, architecture: str):
        folder = write_architecture(tmp_path / "sae", architecture)
        ours, theirs = load_sae(str(folder)), saelens().SAE.load_from_disk(folder, device="cpu")
        codes = theirs.encode(x)
        assert 0 < (codes != 0).float().mean() < 1
        assert torch.equal(ours.encode(x), codes)
        assert torch.equal(ours.decode(codes), theirs.decode(codes))

    def test_is_ready_to_encode_and_nothing_else(self, folder: Path):
        sae = load_sae(folder)
        assert not sae.training
        assert not any(parameter.requires_grad for parameter in sae.parameters())

    def test_is_float32_whatever_it_is_stored_in(self, folder: Path, x: torch.Tensor):
        whole = load_sae(folder)
        rewrite_weights(folder, lambda tensors: tensors.update({k: v.half() for k, v in tensors.items()}))
        rewrite_config(folder, dtype="float16")
        sae = load_sae(folder)
        assert {parameter.dtype for parameter in sae.parameters()} == {torch.float32}
        assert torch.equal(sae.W_dec, whole.W_dec.half().float())
        assert load_sae(folder, dtype="bfloat16").W_dec.dtype == torch.bfloat16

    def test_saved_on_a_gpu_loads_on_a_cpu(self, folder: Path):
        rewrite_config(folder, device="cuda")
        assert load_sae(folder).W_dec.device.type == "cpu"

    def test_public_name(self, folder: Path):
        import unifeat as uf

        assert torch.equal(uf.load_sae(folder).W_dec, load_sae(folder).W_dec)


class TestDecoderRows:
    def test_are_of_unit_norm_and_keep_their_direction(self, folder: Path):
        sae = load_sae(folder)
        rows = decoder_rows(sae)
        assert (rows.shape, rows.dtype) == ((D_SAE, D_IN), np.float32)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
        norms = sae.W_dec.norm(dim=-1, keepdim=True)
        assert norms.min() < 0.9 * norms.max()
        np.testing.assert_allclose(rows * norms.numpy(), sae.W_dec.numpy(), rtol=1e-5, atol=1e-6)

    def test_of_zeros_stay_zero(self, folder: Path):
        rewrite_weights(folder, lambda tensors: tensors["W_dec"][7].zero_())
        rows = decoder_rows(load_sae(folder))
        assert np.isfinite(rows).all()
        assert (rows[7] == 0).all()
        np.testing.assert_allclose(np.linalg.norm(np.delete(rows, 7, 0), axis=1), 1, rtol=1e-6)

    def test_of_half_precision_are_float32(self, folder: Path):
        rows = decoder_rows(load_sae(folder, dtype="bfloat16"))
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


class TestDigest:
    def test_is_that_of_what_the_sae_does(self, folder: Path, tmp_path: Path):
        digest = sae_digest(load_sae(folder))
        rewrite_config(folder, metadata={"model_name": "another name"})
        assert sae_digest(load_sae(folder)) == digest
        assert sae_digest(load_sae(tiny_sae(tmp_path / "twin", D_IN, D_SAE, K))) == digest

    def test_changes_with_any_weight_or_setting(self, folder: Path, tmp_path: Path):
        seen = [sae_digest(load_sae(folder))]
        rewrite_weights(folder, lambda tensors: tensors["b_dec"][3].add_(1e-3))
        seen.append(sae_digest(load_sae(folder)))
        rewrite_config(folder, k=K + 1)
        seen.append(sae_digest(load_sae(folder)))
        rewrite_config(folder, apply_b_dec_to_input=False)
        seen.append(sae_digest(load_sae(folder)))
        assert len(set(seen)) == 4

    def test_of_scalar_tensors(self, folder: Path):
        sae = load_sae(folder)
        sae.register_buffer("scale", torch.tensor(2.0))
        assert sae_digest(sae) != sae_digest(load_sae(folder))


class TestRegistry:
    def test_an_unknown_release_suggests_the_nearest(self):
        with pytest.raises(UserError, match=r"no release 'gpt2-small-res-jbb' \(did you mean 'gpt2-small-res-jb'\?\)"):
            load_sae("gpt2-small-res-jbb/blocks.0.hook_resid_pre")

    def test_an_unknown_id_suggests_the_nearest(self):
        with pytest.raises(UserError, match=r"no SAE 'blocks\.5\.hook_resid_prr' \(did you mean 'blocks\.5\.hook_resi"):
            load_sae("gpt2-small-res-jb/blocks.5.hook_resid_prr")

    @pytest.mark.parametrize("name", ["nonsense", "qqqq/zzzz", ""])
    def test_a_name_like_nothing(self, name: str):
        with pytest.raises(UserError, match=r"the folder holds neither|no release"):
            load_sae(name)

    @pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/no-where", "../no/where"])
    def test_a_missing_folder(self, name: str):
        with pytest.raises(UserError, match=f"SAE {name}: no such folder$"):
            load_sae(name)

    def test_a_known_one_that_cannot_be_fetched(self):
        with pytest.raises(UserError, match="cannot be downloaded from the hub now, and is not in the cache") as caught:
            load_sae("gpt2-small-res-jb/blocks.5.hook_resid_pre")
        assert "\n" not in str(caught.value)

    def test_what_is_local(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        assert is_local(folder)
        assert all(is_local(name) for name in ("./a", "../a", "~/a", "/a/b"))
        assert not is_local("gpt2-small-res-jb/blocks.5.hook_resid_pre")
        monkeypatch.chdir(folder.parent)
        assert is_local("sae")


class TestWrongInput:
    def test_an_sae_of_another_width(self, folder: Path):
        sae = load_sae(folder)
        check_fits(sae, "my-sae", "gpt2", GPT2Config(n_embd=D_IN), HookPoint(0))
        with pytest.raises(UserError, match="my-sae takes vectors of width 24, but gpt2 has width 768 there"):
            check_fits(sae, "my-sae", "gpt2", GPT2Config(n_embd=768), HookPoint(0))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_nan_weights(self, folder: Path, bad: float):
        rewrite_weights(folder, lambda tensors: tensors["W_enc"][1].fill_(bad))
        with pytest.raises(UserError, match="sae: W_enc holds NaN or Inf"):
            load_sae(folder)

    @pytest.mark.parametrize("kept", [0, 4, 300, -100])
    def test_truncated_weights(self, folder: Path, kept: int):
        weights = folder / "sae_weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:kept])
        with pytest.raises(UserError, match=r"sae cannot be read \(.+\): is the file whole"):
            load_sae(folder)

    @pytest.mark.parametrize("key", ["W_enc", "W_dec", "b_enc", "b_dec"])
    def test_missing_tensors(self, folder: Path, key: str):
        rewrite_weights(folder, lambda tensors: tensors.pop(key))
        with pytest.raises(UserError, match="sae cannot be read"):
            load_sae(folder)

    def test_tensors_that_do_not_fit_the_config(self, folder: Path):
        rewrite_config(folder, d_in=D_IN + 1)
        with pytest.raises(UserError, match=r"sae cannot be read.*does cfg\.json fit it"):
            load_sae(folder)

    @pytest.mark.parametrize("config", ["", "{", "[]", "{}", "3", '{"architecture": "topkk", "d_in": 24, "d_sae": 64}'])
    def test_a_wrong_config(self, folder: Path, config: str):
        (folder / "cfg.json").write_text(config)
        with pytest.raises(UserError, match="sae cannot be read"):
            load_sae(folder)

    @pytest.mark.parametrize("k", [0, D_SAE + 1])
    def test_a_k_that_cannot_be(self, folder: Path, k: int):
        rewrite_config(folder, k=k)
        with pytest.raises(UserError, match=f"k = {k} of 64 features"):
            load_sae(folder)

    @pytest.mark.parametrize("missing", ["cfg.json", "sae_weights.safetensors"])
    def test_half_a_folder(self, folder: Path, missing: str):
        (folder / missing).unlink()
        with pytest.raises(UserError, match="the folder holds neither a SAELens SAE"):
            load_sae(folder)

    def test_the_file_instead_of_the_folder(self, folder: Path):
        with pytest.raises(UserError, match="give the folder that holds the file, not the file"):
            load_sae(folder / "sae_weights.safetensors")


class _Trap:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


class TestPickles:
    def test_that_run_code_are_refused_and_not_run(self, tmp_path: Path):
        trap, sprung = tmp_path / "sae.pt", tmp_path / "sprung"
        held = {"W_dec": torch.ones(2, 2), "note": _Trap(sprung)}
        for save in (torch.save, self._save_legacy, self._save_bare):
            save(held, trap)
            for name in (trap, tmp_path):
                with pytest.raises(UserError, match=r"sae\.pt holds more than tensors, or is damaged: it is refused"):
                    load_sae(name)
                assert not sprung.exists()
        torch.load(trap, weights_only=False) if zipfile.is_zipfile(trap) else pickle.loads(trap.read_bytes())
        assert sprung.exists(), "the trap itself must work, or this test shows nothing"

    @staticmethod
    def _save_legacy(held: Any, path: Path) -> None:
        torch.save(held, path, _use_new_zipfile_serialization=False)

    @staticmethod
    def _save_bare(held: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(held))

    def test_beside_good_weights_are_not_opened(self, folder: Path, tmp_path: Path):
        sprung = tmp_path / "sprung"
        for name in ("trainer_state.pt", "sae_weights.pt", "a.pt"):
            torch.save(_Trap(sprung), folder / name)
        load_sae(folder)
        assert not sprung.exists()

    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
    def test_with_only_tensors_lack_a_description(self, tmp_path: Path, suffix: str):
        path = tmp_path / f"sae{suffix}"
        torch.save({"encoder.weight": torch.ones(2, 2), "bias": torch.ones(2)}, path)
        with pytest.raises(UserError, match=r"bare file of tensors \(bias, encoder\.weight\)"):
            load_sae(path)

    def test_of_other_things_than_tensors(self, tmp_path: Path):
        path = tmp_path / "sae.pt"
        for held in ([1, 2], {3: torch.ones(1), "a": 1}, torch.ones(2), "text", None):
            torch.save(held, path)
            with pytest.raises(UserError, match=r"sae\.pt"):
                load_sae(path)

    def test_damaged_ones(self, tmp_path: Path):
        path = tmp_path / "sae.pt"
        torch.save({"W": torch.arange(100.0)}, path)
        whole = path.read_bytes()
        rng = np.random.default_rng(0)
        spoilt = [b"", b"\x80", b"noise" * 9, whole[:50], whole[: len(whole) // 2], whole[: len(whole) - 10]]
        for _ in range(60):
            noise = bytearray(whole if rng.random() < 0.5 else pickle.dumps({"W": [1, 2.5, "a"]}, protocol=2))
            for at in rng.integers(0, len(noise), size=8):
                noise[at] = rng.integers(256)
            spoilt.append(bytes(noise))
        for content in spoilt:
            path.write_bytes(content)
            with pytest.raises(UserError, match=r"sae\.pt"):
                load_sae(path)
