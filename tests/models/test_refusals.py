"""Hub names resolved from a local cache without a network, and one clear line for each model that cannot be had."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from tiny import tiny_model, tiny_tokenizer
from unifeat.errors import UserError
from unifeat.models.activations import run_group
from unifeat.models.language import load_language_model, load_tokenizer, model_folder, model_identity, read_config
from unifeat.models.refusals import cached_models, cannot_load
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

POINT = HookPoint(1)
PYTHIA = "EleutherAI/pythia-70m"


class Hub:
    """A hub cache in the client's own layout: `models--ORG--NAME/refs/REVISION` names the folder in `snapshots`."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def snapshot(self, repo: str, revision: str = "main") -> Path:
        home = self.cache / f"models--{repo.replace('/', '--')}"
        commit = hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs" / revision).write_text(commit)
        (home / "snapshots" / commit).mkdir(parents=True)
        return home / "snapshots" / commit


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    made = Hub(tmp_path / "hub")
    tiny_model(made.snapshot(PYTHIA), "gpt_neox")
    return made


@pytest.fixture
def copy(model_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("llama"), tmp_path / "copy"))


def line(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestHubCache:
    def test_a_cached_name_loads_without_a_network(self, hub: Hub):
        model = load_language_model(PYTHIA, [POINT], dtype="float32")
        assert (model.name, model.architecture, model.n_layers) == (PYTHIA, "gpt_neox", 3)
        assert cached_models() == [PYTHIA]

    def test_a_revision_is_another_model(self, hub: Hub):
        tiny_model(hub.snapshot(PYTHIA, "step1000"), "gpt_neox", seed=1)
        ids = torch.arange(12)[None]
        plain, early = (load_language_model(PYTHIA, [POINT], dtype="float32", revision=r) for r in (None, "step1000"))
        assert not torch.allclose(
            plain.activations(ids, [POINT])[POINT], early.activations(ids, [POINT])[POINT], atol=0.1
        )
        same = load_language_model(PYTHIA, [POINT], dtype="float32", revision="main")
        assert torch.equal(plain.activations(ids, [POINT])[POINT], same.activations(ids, [POINT])[POINT])

    def test_identity_is_the_commit(self, hub: Hub):
        """transformers 5 leaves no commit in a configuration: without one, two revisions would share their codes."""
        commit = hub.snapshot(PYTHIA, "step1000")
        tiny_model(commit, "gpt_neox", seed=1)
        main, early = (model_identity(PYTHIA, "float32", revision=r) for r in (None, "step1000"))
        assert early == {"dtype": "float32", "hub": PYTHIA, "commit": commit.name}
        assert main["commit"] != early["commit"]
        assert model_identity(PYTHIA, "float32", revision="main") == main
        assert model_identity(PYTHIA, "float32", revision=commit.name) == early

    def test_a_revision_that_is_not_there(self, hub: Hub):
        said = line(lambda: load_language_model(PYTHIA, [POINT], revision="step9"))
        assert f"{PYTHIA!r} at revision step9 is neither" in said
        assert "the hub cannot be reached, and the local cache holds only a part of it" in said

    def test_a_revision_of_a_folder(self, copy: Path):
        said = line(lambda: model_folder(str(copy), torch.float32, "step1"))
        assert said.endswith("only hub models have revisions, and this one is local; leave revision out")

    @pytest.mark.parametrize(
        "name", ["EleutherAI/pythia-70", "elutherai/pythia-70m", "pythia-70m", "EleutherAI/pythia70m"]
    )
    def test_a_name_that_nearly_matches_a_cached_one(self, hub: Hub, name: str):
        said = line(lambda: load_language_model(name, [POINT]))
        assert "the hub cannot be reached, and the local cache holds no such model" in said
        assert said.endswith(f"(did you mean {PYTHIA!r}?)")

    def test_a_name_unlike_any(self, hub: Hub):
        said = line(lambda: load_tokenizer("google/gemma-2-2b"))
        assert said.endswith("the local cache holds no such model")

    def test_weights_that_were_never_fetched(self, hub: Hub):
        folder = tiny_model(hub.snapshot("google/gemma-2-2b"), "gemma2")
        (folder / "model.safetensors").unlink()
        said = line(lambda: load_language_model("google/gemma-2-2b", [POINT]))
        assert said.endswith("the hub cannot be reached, and the local cache holds only a part of it")

    def test_a_gated_model(self):
        said = str(cannot_load("meta/llama", OSError("You are trying to access a gated repo.\nMake sure …")))
        assert "request it on the model's page, then log in with `hf auth login`" in said


class TestFolders:
    def test_no_weights(self, copy: Path):
        (copy / "model.safetensors").unlink()
        assert "model.safetensors" in line(lambda: load_language_model(str(copy), [POINT]))

    @pytest.mark.parametrize("kept", [5, 5000, -64])
    def test_weights_cut_short(self, copy: Path, kept: int):
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:kept])
        said = line(lambda: load_language_model(str(copy), [POINT]))
        assert "a weights file is damaged or truncated (" in said
        assert said.endswith("; download it again")

    def test_a_missing_shard(self, model_folder: Callable[..., Path], tmp_path: Path):
        model = tf.AutoModelForCausalLM.from_pretrained(model_folder("llama"))
        model.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
        tiny_tokenizer("bpe").save_pretrained(tmp_path / "shards")
        shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
        assert len(shards) > 2
        load_language_model(str(tmp_path / "shards"), [POINT])
        shards[1].unlink()
        assert shards[1].name in line(lambda: load_language_model(str(tmp_path / "shards"), [POINT]))

    @pytest.mark.parametrize("spread", [False, True])
    def test_a_missing_tensor_is_not_made_up(self, copy: Path, spread: bool):
        tensors = load_file(copy / "model.safetensors")
        del tensors["model.layers.2.self_attn.q_proj.weight"]
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        said = line(lambda: load_language_model(str(copy), [POINT], device="map" if spread else "cpu"))
        assert "hold no weights model.layers.2.self_attn.q_proj.weight" in said

    @pytest.mark.parametrize("config", [tf.T5Config(), tf.BartConfig(), tf.MarianConfig(decoder_start_token_id=0)])
    def test_an_encoder_decoder(self, copy: Path, config: tf.PreTrainedConfig):
        (copy / "config.json").write_text(json.dumps(config.to_dict()))
        for call in (lambda: load_language_model(str(copy), [POINT]), lambda: read_config(str(copy))):
            assert f"it is an encoder–decoder model ({config.model_type}), and unifeat reads only decoders" in line(
                call
            )

    def test_no_language_model(self, copy: Path):
        (copy / "config.json").write_text(json.dumps(tf.ViTConfig().to_dict()))
        assert "transformers has no language model of its kind (vit)" in line(lambda: read_config(str(copy)))

    @pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "qwen2", "llama"])
    def test_no_tokenizer_is_not_made_up(self, architecture: str, model_folder: Callable[..., Path], tmp_path: Path):
        """Without files transformers builds some tokenizers with nothing but special tokens in them."""
        folder = Path(shutil.copytree(model_folder(architecture), tmp_path / "copy"))
        for path in folder.glob("tokenizer*"):
            path.unlink()
        assert "cannot be loaded: " in line(lambda: load_language_model(str(folder), [POINT]))

    def test_another_models_tokenizer(self, copy: Path):
        tiny_tokenizer("wordish", 1500).save_pretrained(copy)
        model = load_language_model(str(copy), [POINT], dtype="float32")
        ends = int(model.decoder.get_input_embeddings().num_embeddings) - 1
        parts = [Part(0, 0, "the tide 😀 ŷ")]
        said = line(lambda: run_group(model, parts, [POINT], Windowing(32, None)))
        assert f"but its embeddings end at {ends}: the tokenizer belongs to another model" in said
