"""Language models: what names them, what identifies them, and one clear line for every way to get them wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import tiny_model, tiny_tokenizer
from unifeat.errors import UserError
from unifeat.models.language import (
    check_layers,
    load_language_model,
    load_tokenizer,
    model_identity,
    read_config,
    resolve_dtype,
    tokenizer_digest,
)
from unifeat.models.opening import bos_of
from unifeat.models.placement import resolve_device
from unifeat.vocabulary.hook_points import HookPoint

POINT = HookPoint(1)


@pytest.fixture
def copy(model_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A tiny Llama that a test may break."""
    return Path(shutil.copytree(model_folder("llama"), tmp_path / "copy"))


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_knows_what_it_is(model_folder: Callable[..., Path]):
    model = load_language_model(str(model_folder("gemma3", tokenizer="wordish")), [HookPoint(0)])
    assert (model.architecture, model.n_layers, model.d_model) == ("gemma3_text", 3, 32)
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert len(model.blocks) == 1
    assert model.special_ids == {0, 1, 2, 3}
    assert not any(p.requires_grad for p in model.decoder.parameters())
    assert not model.decoder.training


def test_the_configuration_is_read_without_weights(copy: Path):
    (copy / "model.safetensors").unlink()
    config = read_config(str(copy))
    assert (config.num_hidden_layers, config.hidden_size) == (3, 32)


class TestBos:
    def test_auto_does_what_the_tokenizer_does(self):
        assert bos_of(tiny_tokenizer("bpe"), "auto") is None
        assert bos_of(tiny_tokenizer("wordish"), "auto") == 2

    def test_can_be_forced_and_forbidden(self):
        assert bos_of(tiny_tokenizer("bpe"), True) == 0
        assert bos_of(tiny_tokenizer("wordish"), True) == 2
        assert bos_of(tiny_tokenizer("wordish"), False) is None

    def test_asked_for_but_not_there(self):
        tokenizer = tiny_tokenizer("bpe")
        tokenizer.bos_token = None
        with pytest.raises(UserError, match="has no BOS token: set bos to false or auto"):
            bos_of(tokenizer, True)


class TestIdentity:
    def test_is_that_of_the_files_not_of_the_folder(self, copy: Path, model_folder: Callable[..., Path]):
        original = model_identity(str(model_folder("llama")), "float32")
        assert model_identity(str(copy), "float32") == original
        assert set(original["files"]) == {"config.json", "model.safetensors"}
        assert json.loads(json.dumps(original)) == original

    def test_changes_with_dtype_weights_and_config(self, copy: Path):
        seen = [model_identity(str(copy), dtype) for dtype in ("float32", "bfloat16")]
        rewrite_weights(copy, lambda tensors: tensors["model.norm.weight"].mul_(1.5))
        seen.append(model_identity(str(copy), "float32"))
        config = json.loads((copy / "config.json").read_text()) | {"rms_norm_eps": 1e-3}
        (copy / "config.json").write_text(json.dumps(config))
        seen.append(model_identity(str(copy), "float32"))
        assert all(a != b for n, a in enumerate(seen) for b in seen[:n])

    def test_of_a_tokenizer(self):
        assert tokenizer_digest(tiny_tokenizer("bpe")) == tokenizer_digest(tiny_tokenizer("bpe"))
        others = [tiny_tokenizer("bpe"), tiny_tokenizer("bpe", 300), tiny_tokenizer("wordish")]
        assert len({tokenizer_digest(tokenizer) for tokenizer in others}) == 3

    def test_of_a_tokenizer_is_the_same_after_saving(self, model_folder: Callable[..., Path]):
        for kind in ("bpe", "wordish"):
            loaded = load_tokenizer(str(model_folder("llama", tokenizer=kind)))
            assert tokenizer_digest(loaded) == tokenizer_digest(tiny_tokenizer(kind))

    def test_of_a_tokenizer_does_not_depend_on_what_it_did(self):
        """Padding and truncation are settings of a call, but the backend remembers them."""
        tokenizer = tiny_tokenizer("wordish")
        before = tokenizer_digest(tokenizer)
        tokenizer(["a", "the tide"], padding=True, truncation=True, max_length=5)
        assert tokenizer_digest(tokenizer) == before


class TestWrongInput:
    @pytest.mark.parametrize("layer", [3, 30, -1])
    def test_a_layer_out_of_range(self, model_folder: Callable[..., Path], layer: int):
        name = str(model_folder("gpt2"))
        with pytest.raises(UserError, match=rf"tiny-gpt2 has layers 0 to 2, not {layer} "):
            load_language_model(name, [HookPoint(0), HookPoint(layer)])
        with pytest.raises(UserError, match=rf"gpt has layers 0 to 2, not {layer} "):
            check_layers("gpt", [HookPoint(layer)], 3)

    @pytest.mark.parametrize("name", ["no-such-model", "no-such/model", "a b", "org/name:tag"])
    def test_an_unknown_hub_name(self, name: str):
        with pytest.raises(UserError, match=f"model '{name}' is neither a local folder or GGUF file nor a hub model"):
            load_language_model(name, [POINT])

    @pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/no-where", "a/b/c", "nowhere.gguf"])
    def test_a_path_that_is_not_there(self, name: str):
        with pytest.raises(UserError, match=f"model {name}: no such file or folder"):
            load_language_model(name, [POINT])

    def test_a_folder_without_config(self, copy: Path):
        (copy / "config.json").unlink()
        with pytest.raises(UserError, match=r"copy: the folder has no config\.json"):
            load_language_model(str(copy), [POINT])

    def test_a_file_that_is_not_gguf(self, copy: Path):
        with pytest.raises(UserError, match=r"model\.safetensors: a file must be GGUF; give the folder"):
            load_language_model(str(copy / "model.safetensors"), [POINT])

    @pytest.mark.parametrize("config", ["{", "[]", "{}", '{"model_type": "llamma"}', '{"model_type": "t5"}'])
    def test_a_wrong_config(self, copy: Path, config: str):
        (copy / "config.json").write_text(config)
        with pytest.raises(UserError, match="copy cannot be loaded: "):
            load_language_model(str(copy), [POINT])

    def test_a_config_with_a_wrong_type(self, copy: Path):
        config = json.loads((copy / "config.json").read_text()) | {"num_hidden_layers": "three"}
        (copy / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="num_hidden_layers"):
            load_language_model(str(copy), [POINT])

    @pytest.mark.parametrize("kept", [0, 5, 5000])
    def test_truncated_weights(self, copy: Path, kept: int):
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:kept])
        with pytest.raises(UserError, match="copy cannot be loaded"):
            load_language_model(str(copy), [POINT])

    def test_no_weights(self, copy: Path):
        (copy / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"copy cannot be loaded.*model\.safetensors"):
            load_language_model(str(copy), [POINT])

    def test_missing_weights_are_not_made_up(self, copy: Path):
        rewrite_weights(copy, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
        with pytest.raises(UserError, match=r"hold no weights model\.layers\.1\.mlp\.up_proj\.weight$"):
            load_language_model(str(copy), [POINT])

    def test_a_head_that_is_missing_is_not_missed(self, copy: Path):
        rewrite_weights(copy, lambda tensors: tensors.pop("lm_head.weight"))
        load_language_model(str(copy), [POINT])

    def test_weights_of_another_shape(self, copy: Path):
        rewrite_weights(copy, lambda tensors: tensors.update({"model.norm.weight": torch.ones(7)}))
        with pytest.raises(UserError, match=r"do not fit config\.json in the weights model\.norm\.weight"):
            load_language_model(str(copy), [POINT])

    @pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
    def test_a_wrong_tokenizer(self, copy: Path, content: str | None):
        for path in copy.glob("tokenizer*"):
            path.unlink()
        if content:
            (copy / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match="copy cannot be loaded"):
            load_language_model(str(copy), [POINT])

    def test_dtypes_and_devices(self):
        with pytest.raises(UserError, match=r"unknown dtype 'float23' \(did you mean 'float32'\?\)"):
            resolve_dtype("float23")
        with pytest.raises(UserError, match="unknown device 'gpu'"):
            resolve_device("gpu")
        if not torch.cuda.is_available():
            with pytest.raises(UserError, match="'cuda:1': this machine has no CUDA device"):
                resolve_device("cuda:1")


def test_a_tiny_model_is_the_same_every_time(tmp_path: Path):
    first, second = (tiny_model(tmp_path / name, "qwen2", layers=1) for name in ("a", "b"))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert model_identity(str(first), "auto") == model_identity(str(second), "auto")
