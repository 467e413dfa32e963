"""dictionary_learning folders: the codes are those of its own classes, with files that they wrote."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes import load_sae, provenance_of

D, M, K = 18, 40, 4


@pytest.fixture
def x() -> Tensor:
    return 1.5 * torch.randn(50, D, generator=torch.Generator().manual_seed(8)) + 0.3


@pytest.fixture(scope="module")
def library() -> Iterator[dict[str, Any]]:
    """Its classes by name, without the buffers and trainers that its package imports beside them."""
    spec = importlib.util.find_spec("dictionary_learning")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs `pip install --no-deps dictionary-learning`")
    before = set(sys.modules)
    for name, sub in (("dictionary_learning", ""), ("dictionary_learning.trainers", "/trainers")):
        package = types.ModuleType(name)
        package.__path__ = [spec.submodule_search_locations[0] + sub]
        sys.modules[name] = package
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from dictionary_learning import dictionary as plain  # type: ignore[import-not-found]
            from dictionary_learning.trainers import (  # type: ignore[import-not-found]
                batch_top_k,
                matryoshka_batch_top_k,
                top_k,
            )
        yield {
            "AutoEncoder": plain.AutoEncoder,
            "AutoEncoderNew": plain.AutoEncoderNew,
            "GatedAutoEncoder": plain.GatedAutoEncoder,
            "JumpReluAutoEncoder": plain.JumpReluAutoEncoder,
            "AutoEncoderTopK": top_k.AutoEncoderTopK,
            "BatchTopKSAE": batch_top_k.BatchTopKSAE,
            "MatryoshkaBatchTopKSAE": matryoshka_batch_top_k.MatryoshkaBatchTopKSAE,
        }
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "dictionary_learning":
                del sys.modules[name]


SETTINGS: dict[str, dict[str, Any]] = {
    "AutoEncoder": {},
    "AutoEncoderNew": {},
    "GatedAutoEncoder": {},
    "JumpReluAutoEncoder": {},
    "AutoEncoderTopK": {"k": K},
    "BatchTopKSAE": {"k": K},
    "MatryoshkaBatchTopKSAE": {"k": K, "group_sizes": [8, 12, 20]},
}


def write(at: Path, library: dict[str, Any], name: str, **trainer: Any) -> Any:
    """A class with random weights, decoder rows of many norms, and its folder as the trainer saves it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = library[name](D, M, **SETTINGS[name])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in sorted(made.named_parameters()):
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
            if key == "threshold":
                parameter.abs_()
        if "TopK" in name:
            made.threshold.fill_(0.7)
    at.mkdir(parents=True, exist_ok=True)
    torch.save(made.state_dict(), at / "ae.pt")
    config = {"dict_class": name, "activation_dim": D, "dict_size": M, "layer": 12, "lm_name": "google/gemma-2-2b"}
    config |= {"submodule_name": "resid_post_layer_12"} | ({"k": K} if "k" in SETTINGS[name] else {})
    (at / "config.json").write_text(json.dumps({"trainer": config | trainer, "buffer": {"ctx_len": 128}}))
    return made


class TestCodes:
    @pytest.mark.parametrize("name", SETTINGS)
    def test_are_those_of_the_class(self, tmp_path: Path, x: Tensor, library: dict[str, Any], name: str):
        theirs = write(tmp_path, library, name)
        if name == "AutoEncoder":  # its from_pretrained does this first, unless asked not to
            theirs.normalize_decoder()
        sae = load_sae(tmp_path)
        with torch.no_grad():
            codes = theirs.encode(x)
            decoded = theirs.decode(codes)
        assert 0.02 < (codes != 0).float().mean() < 0.98
        torch.testing.assert_close(sae.encode(x), codes, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sae.decode(codes), decoded, rtol=1e-5, atol=1e-5)
        provenance = provenance_of(sae)
        assert (provenance.format, provenance.hook, provenance.model) == (
            "dictionary_learning",
            "blocks.12.hook_resid_post",
            "google/gemma-2-2b",
        )

    def test_are_those_of_from_pretrained(self, tmp_path: Path, x: Tensor, library: dict[str, Any]):
        write(tmp_path, library, "AutoEncoder")
        theirs = library["AutoEncoder"].from_pretrained(tmp_path / "ae.pt")
        torch.testing.assert_close(load_sae(tmp_path).encode(x), theirs.encode(x), rtol=1e-5, atol=1e-5)
        assert provenance_of(load_sae(tmp_path)).folds == ("decoder norms into the encoder",)

    def test_with_a_threshold_never_set(self, tmp_path: Path, x: Tensor, library: dict[str, Any]):
        theirs = write(tmp_path, library, "BatchTopKSAE")
        theirs.threshold.fill_(-1.0)
        torch.save(theirs.state_dict(), tmp_path / "ae.pt")
        torch.testing.assert_close(load_sae(tmp_path).encode(x), theirs.encode(x).detach(), rtol=1e-5, atol=1e-5)

    def test_biases_scaled_at_the_end(self, tmp_path: Path, x: Tensor, library: dict[str, Any]):
        """What its trainer does when it saves: the SAE then takes activations as the model has them."""
        theirs = write(tmp_path, library, "BatchTopKSAE")
        with torch.no_grad():
            before = theirs.encode(x / 7.0) * 7.0
            theirs.scale_biases(7.0)
        torch.save(theirs.state_dict(), tmp_path / "ae.pt")
        torch.testing.assert_close(load_sae(tmp_path).encode(x), before, rtol=1e-4, atol=1e-4)


class TestSaelensLoader:
    """Why ours is used. When one of these fails, SAELens has mended its loader."""

    def load(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        from sae_lens.loading import pretrained_sae_loaders as theirs

        monkeypatch.setattr(theirs, "hf_hub_download", lambda repo_id, filename, **_: str(folder / Path(filename).name))
        return theirs.dictionary_learning_sae_huggingface_loader_1("a/b", "c")

    def test_has_no_decoder_bias_for_the_new_autoencoder(
        self, tmp_path: Path, library: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ):
        write(tmp_path, library, "AutoEncoderNew")
        config, state, _ = self.load(tmp_path, monkeypatch)
        assert state["b_dec"] is None
        assert config["apply_b_dec_to_input"]

    def test_agrees_on_batch_top_k(self, tmp_path: Path, library: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
        write(tmp_path, library, "BatchTopKSAE")
        _, state, _ = self.load(tmp_path, monkeypatch)
        ours = load_sae(tmp_path).state_dict()
        assert ours.keys() == state.keys()
        assert all(torch.equal(ours[key], state[key]) for key in ours)


class TestWrongInput:
    def test_a_backup_is_refused(self, tmp_path: Path, library: dict[str, Any]):
        made = write(tmp_path, library, "BatchTopKSAE")
        backup = {"step": 900, "ae": made.state_dict(), "optimizer": {}, "config": {}, "norm_factor": torch.tensor(7.0)}
        torch.save(backup, tmp_path / "ae.pt")
        with pytest.raises(UserError, match=r"backup of a run that did not finish \(step 900\).*not folded in"):
            load_sae(tmp_path)

    def test_a_crosscoder_is_refused(self, tmp_path: Path, library: dict[str, Any]):
        write(tmp_path, library, "AutoEncoder", dict_class="CrossCoder")
        torch.save({"encoder.weight": torch.ones(2, D, M), "encoder.bias": torch.ones(M)}, tmp_path / "ae.pt")
        with pytest.raises(UserError, match="is a crosscoder"):
            load_sae(tmp_path)

    @pytest.mark.parametrize(
        ("trainer", "message"),
        [
            ({"dict_class": "IdentityDict"}, "dictionary_learning's IdentityDict is not supported"),
            ({"dict_class": "AutoEncoder"}, "ae.pt lacks bias"),
            ({"activation_dim": D + 1}, f"config.json says activation_dim = {D + 1}, but the weights have {D}"),
            ({"dict_size": M * 2}, f"config.json says dict_size = {M * 2}, but the weights have {M}"),
            ({"k": K + 1}, f"config.json says k = {K + 1}, but the weights have {K}"),
        ],
    )
    def test_a_config_that_contradicts_the_weights(
        self, tmp_path: Path, library: dict[str, Any], trainer: dict[str, Any], message: str
    ):
        write(tmp_path, library, "AutoEncoderTopK", **trainer)
        with pytest.raises(UserError, match=message):
            load_sae(tmp_path)

    def test_a_config_that_says_no_class(self, tmp_path: Path, library: dict[str, Any]):
        write(tmp_path, library, "AutoEncoder")
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(UserError, match=r"no trainer\.dict_class"):
            load_sae(tmp_path)
