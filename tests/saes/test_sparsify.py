"""sparsify folders: the codes are those of sparsify itself, which SAELens' own loader does not give."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config

from tiny import saelens
from unifeat.errors import UserError
from unifeat.saes import check_fits, decoder_rows, load_sae, provenance_of, reconstruct, sae_digest
from unifeat.vocabulary.hook_points import HookPoint

D_IN, K = 24, 5


@pytest.fixture
def x() -> Tensor:
    return 2 * torch.randn(40, D_IN, generator=torch.Generator().manual_seed(8)) + 0.5


def write_sparsify(folder: Path, d_sae: int = 60, dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    """A folder as sparsify's `SparseCoder.save_to_disk` writes it; decoder rows of many norms, unlike the encoder's."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {
        "encoder.weight": 0.3 * random(d_sae, D_IN),
        "encoder.bias": 0.2 * random(d_sae),
        "W_dec": random(d_sae, D_IN) * (0.2 + random(d_sae, 1).abs()),
        "b_dec": random(D_IN),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, folder / "sae.safetensors")
    settings = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": False,
        "num_latents": d_sae,
        "k": K,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": D_IN,
    }
    (folder / "cfg.json").write_text(json.dumps(settings | config))
    return folder


def by_hand(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """sparsify's arithmetic: subtract b_dec, linear, relu, then top-k; decode with rows of W_dec."""
    t = {key: value.float() for key, value in load_file(folder / "sae.safetensors").items()}
    pre = torch.relu(torch.nn.functional.linear(x - t["b_dec"], t["encoder.weight"], t["encoder.bias"]))
    values, at = pre.topk(json.loads((folder / "cfg.json").read_text())["k"], dim=-1, sorted=False)
    codes = torch.zeros_like(pre).scatter(-1, at, values)
    return codes, codes @ t["W_dec"] + t["b_dec"]


@pytest.fixture(scope="module")
def sparse_coder() -> Any:
    """sparsify's own `SparseCoder`, without the trainer that its package imports beside it."""
    spec = importlib.util.find_spec("sparsify")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs `pip install --no-deps eai-sparsify`")
    before = set(sys.modules)
    # Its kernels need a GPU where Triton is installed, which other tests need for its interpreter.
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    package = types.ModuleType("sparsify")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["sparsify"] = package
    if importlib.util.find_spec("natsort") is None:
        sys.modules["natsort"] = types.ModuleType("natsort")
        sys.modules["natsort"].natsorted = sorted  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = pytest.importorskip("sparsify.sparse_coder", exc_type=ImportError)
        yield module.SparseCoder
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("sparsify", "natsort"):
                del sys.modules[name]


class TestCodes:
    @pytest.mark.parametrize("d_sae", [60, D_IN, 7])
    def test_follow_the_format(self, tmp_path: Path, x: Tensor, d_sae: int):
        folder = write_sparsify(tmp_path / "layers.1", d_sae)
        sae = load_sae(folder)
        codes, reconstruction = by_hand(folder, x)
        found = sae.encode(x)
        assert found.shape == (len(x), d_sae)
        assert torch.equal(found != 0, codes != 0)
        torch.testing.assert_close(found, codes, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sae.decode(found), reconstruction, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("normalize_decoder", [False, True])
    def test_are_those_of_sparsify_itself(self, tmp_path: Path, x: Tensor, sparse_coder: Any, normalize_decoder: bool):
        folder = write_sparsify(tmp_path / "layers.1", normalize_decoder=normalize_decoder)
        theirs = sparse_coder.load_from_disk(folder)
        ours = load_sae(folder)
        with torch.no_grad():
            values, at, _ = theirs.encode(x)
            reconstruction = theirs.decode(values, at)
        codes = ours.encode(x)
        torch.testing.assert_close(codes, torch.zeros_like(codes).scatter(-1, at, values), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.decode(codes), reconstruction, rtol=1e-5, atol=1e-5)
        assert torch.equal(ours.W_dec, theirs.W_dec)

    def test_of_a_folder_sparsify_wrote(self, tmp_path: Path, x: Tensor, sparse_coder: Any):
        config = sparse_coder.__init__.__globals__["SparseCoderConfig"](num_latents=50, k=3)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            theirs = sparse_coder(D_IN, config)
        theirs.save_to_disk(tmp_path / "layers.0")
        with torch.no_grad():
            values, at, _ = theirs.encode(x)
        codes = load_sae(tmp_path / "layers.0").encode(x)
        torch.testing.assert_close(codes, torch.zeros_like(codes).scatter(-1, at, values), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("config", [{"activation": "groupmax"}, {"transcode": True}])
    def test_of_the_other_kinds(self, tmp_path: Path, x: Tensor, sparse_coder: Any, config: dict[str, Any]):
        folder = write_sparsify(tmp_path / "layers.1.mlp", **config)
        theirs, ours = sparse_coder.load_from_disk(folder), load_sae(folder)
        with torch.no_grad():
            values, at, _ = theirs.encode(x)
            reconstruction = theirs.decode(values, at)
        codes = ours.encode(x)
        torch.testing.assert_close(codes, torch.zeros_like(codes).scatter(-1, at, values), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.decode(codes), reconstruction, rtol=1e-5, atol=1e-5)
        assert 0 < (codes != 0).float().mean() < 0.2

    def test_of_groups_are_not_those_of_top_k(self, tmp_path: Path, x: Tensor):
        grouped = load_sae(write_sparsify(tmp_path / "a" / "layers.1", activation="groupmax"))
        topped = load_sae(write_sparsify(tmp_path / "b" / "layers.1"))
        assert torch.equal(grouped.W_dec, topped.W_dec)
        assert not torch.equal(grouped.encode(x), topped.encode(x))
        assert sae_digest(grouped) != sae_digest(topped)

    def test_a_transcoder_reads_the_mlp_s_input(self, tmp_path: Path):
        sae = load_sae(write_sparsify(tmp_path / "layers.1.mlp", transcode=True))
        provenance = provenance_of(sae)
        assert (provenance.hook, provenance.hook_out) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
        check_fits(sae, "a", "model", GPT2Config(n_embd=D_IN, n_head=2), HookPoint(1, "mlp_in"))
        with pytest.raises(UserError, match=r"and reads blocks\.1\.mlp\.hook_in, not resid_post: set hook to"):
            check_fits(sae, "a", "model", GPT2Config(n_embd=D_IN, n_head=2), HookPoint(1))

    def test_a_skip_transcoder_adds_its_skip(self, tmp_path: Path, x: Tensor, sparse_coder: Any):
        """x · W_skipᵀ is added, and no b_dec taken off."""
        folder = write_sparsify(tmp_path / "layers.1.mlp", transcode=True, skip_connection=True)
        held = load_file(folder / "sae.safetensors")
        held["W_skip"] = torch.randn((D_IN, D_IN), generator=torch.Generator().manual_seed(5))
        save_file(held, folder / "sae.safetensors")
        sae = load_sae(folder)
        pre = torch.relu(torch.nn.functional.linear(x, held["encoder.weight"], held["encoder.bias"]))
        values, at = pre.topk(K, dim=-1)
        codes = torch.zeros_like(pre).scatter(-1, at, values)
        made = codes @ held["W_dec"] + held["b_dec"] + x @ held["W_skip"].T
        torch.testing.assert_close(sae.encode(x), codes, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(reconstruct(sae, x, sae.encode(x)), made, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            theirs = sparse_coder.load_from_disk(folder)(x).sae_out
        torch.testing.assert_close(reconstruct(sae, x, sae.encode(x)), theirs, rtol=1e-5, atol=1e-5)

    def test_where_fewer_than_k_features_are_positive(self, tmp_path: Path, x: Tensor):
        folder = write_sparsify(tmp_path / "layers.1", 12, k=10)
        codes, _ = by_hand(folder, x)
        assert ((codes > 0).sum(-1) < 10).float().mean() > 0.8
        torch.testing.assert_close(load_sae(folder).encode(x), codes, rtol=1e-5, atol=1e-5)

    def test_of_bfloat16_weights_are_computed_in_float32(self, tmp_path: Path, x: Tensor):
        folder = write_sparsify(tmp_path / "layers.1", dtype=torch.bfloat16)
        sae = load_sae(folder)
        assert sae.W_dec.dtype == torch.float32
        torch.testing.assert_close(sae.encode(x), by_hand(folder, x)[0], rtol=1e-5, atol=1e-5)

    def test_do_not_depend_on_the_folder_s_name(self, tmp_path: Path, x: Tensor):
        for name in ("layers.3.mlp", "embed_tokens", "h.0.attn"):
            folder = write_sparsify(tmp_path / name)
            torch.testing.assert_close(load_sae(folder).encode(x), by_hand(folder, x)[0], rtol=1e-5, atol=1e-5)

    def test_of_an_old_checkpoint_without_num_latents(self, tmp_path: Path, x: Tensor):
        folder = write_sparsify(tmp_path / "layers.1", num_latents=0, signed=False)
        torch.testing.assert_close(load_sae(folder).encode(x), by_hand(folder, x)[0], rtol=1e-5, atol=1e-5)

    def test_decoder_rows_are_rows_of_w_dec(self, tmp_path: Path):
        folder = write_sparsify(tmp_path / "layers.1", D_IN)
        stored = load_file(folder / "sae.safetensors")["W_dec"]
        expected = torch.nn.functional.normalize(stored, dim=-1)
        torch.testing.assert_close(torch.from_numpy(decoder_rows(load_sae(folder))), expected)


class TestSaelensLoader:
    """Why ours is used. When one of these fails, SAELens has mended its loader: look whether ours can go."""

    @staticmethod
    def load(folder: Path) -> Any:
        from sae_lens.loading.pretrained_sae_loaders import sparsify_disk_loader

        return saelens().SAE.load_from_disk(folder, dtype="float32", converter=sparsify_disk_loader)

    def test_fails_on_every_sae_that_is_not_square(self, tmp_path: Path):
        with pytest.raises(RuntimeError, match="size mismatch for W_dec"):
            self.load(write_sparsify(tmp_path / "layers.1"))

    def test_transposes_the_decoder_of_a_square_one(self, tmp_path: Path, x: Tensor):
        folder = write_sparsify(tmp_path / "layers.1", D_IN)
        theirs, (codes, reconstruction) = self.load(folder), by_hand(folder, x)
        torch.testing.assert_close(theirs.encode(x), codes, rtol=1e-5, atol=1e-5)
        assert (theirs.decode(codes) - reconstruction).norm() > 0.5 * reconstruction.norm()

    def test_does_not_subtract_b_dec_where_the_decoder_is_normalised(self, tmp_path: Path, x: Tensor):
        folder = write_sparsify(tmp_path / "layers.1", D_IN, normalize_decoder=True)
        codes, _ = by_hand(folder, x)
        assert (self.load(folder).encode(x) - codes).norm() > 0.1 * codes.norm()


class TestWrongInput:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"activation": "batchtopk"}, "sparsify's 'batchtopk' activation is not supported, only topk, groupmax"),
            ({"activation": "groupmax", "k": 7}, "60 features cannot be divided into 7 groups"),
            ({"skip_connection": True}, "has a skip connection but is not a transcoder"),
            ({"signed": True}, "signed top-k is not supported"),
        ],
    )
    def test_what_is_not_supported(self, tmp_path: Path, config: dict[str, Any], message: str):
        with pytest.raises(UserError, match=message):
            load_sae(write_sparsify(tmp_path / "layers.1", **config))

    @pytest.mark.parametrize("key", ["encoder.weight", "encoder.bias", "W_dec", "b_dec"])
    def test_missing_tensors(self, tmp_path: Path, key: str):
        folder = write_sparsify(tmp_path / "layers.1")
        tensors = load_file(folder / "sae.safetensors")
        del tensors[key]
        save_file(tensors, folder / "sae.safetensors")
        with pytest.raises(UserError, match=rf"layers\.1: sae\.safetensors lacks {key}"):
            load_sae(folder)

    def test_nan(self, tmp_path: Path):
        folder = write_sparsify(tmp_path / "layers.1")
        tensors = load_file(folder / "sae.safetensors")
        tensors["b_dec"][0] = float("nan")
        save_file(tensors, folder / "sae.safetensors")
        with pytest.raises(UserError, match="b_dec holds NaN or Inf"):
            load_sae(folder)

    @pytest.mark.parametrize("kept", [0, 300])
    def test_truncated(self, tmp_path: Path, kept: int):
        weights = write_sparsify(tmp_path / "layers.1") / "sae.safetensors"
        weights.write_bytes(weights.read_bytes()[:kept])
        with pytest.raises(UserError, match=r"layers\.1 cannot be read"):
            load_sae(weights.parent)

    @pytest.mark.parametrize("config", ["{", "[]", "{}", '{"k": "many"}', '{"k": 0}', '{"k": 99}'])
    def test_a_wrong_config(self, tmp_path: Path, config: str):
        folder = write_sparsify(tmp_path / "layers.1")
        (folder / "cfg.json").write_text(config)
        with pytest.raises(UserError, match=r"layers\.1"):
            load_sae(folder)

    def test_tensors_that_do_not_fit_each_other(self, tmp_path: Path):
        folder = write_sparsify(tmp_path / "layers.1")
        tensors = load_file(folder / "sae.safetensors")
        save_file(tensors | {"W_dec": tensors["W_dec"].T.contiguous()}, folder / "sae.safetensors")
        with pytest.raises(UserError, match=r"layers\.1 cannot be read"):
            load_sae(folder)
