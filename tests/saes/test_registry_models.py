"""Every model and every SAE of SAELens' registry: a stand-in of its architecture is read at the SAE's hook point."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers as tf

from hub import Hub
from tiny import tiny_tokenizer
from unifeat.errors import UserError
from unifeat.models import load_language_model
from unifeat.saes import known_releases, load_sae, provenance_of
from unifeat.saes.listing import saes_of
from unifeat.saes.registry import find
from unifeat.vocabulary.hook_points import HOOK_KINDS, HookKind, HookPoint, parse_hook

# The architecture of each of the registry's models.
MODELS = {
    "gpt2-small": "gpt2",
    "pythia-70m-deduped": "gpt_neox",
    "mistral-7b": "mistral",
    "gemma-2b": "gemma",
    "gemma-2b-it": "gemma",
    "gemma-2-2b": "gemma2",
    "gemma-2-9b": "gemma2",
    "gemma-2-9b-it": "gemma2",
    "gemma-2-27b": "gemma2",
    "google/gemma-3-270m": "gemma3",
    "google/gemma-3-270m-it": "gemma3",
    "google/gemma-3-1b-pt": "gemma3",
    "google/gemma-3-1b-it": "gemma3",
    **{f"google/gemma-3-{size}-{kind}": "gemma3-sees" for size in ("4b", "12b", "27b") for kind in ("pt", "it")},
    "meta-llama/Llama-3.1-8B": "llama",
    "meta-llama/Llama-3.1-8B-Instruct": "llama",
    "meta-llama/Llama-3.3-70B-Instruct": "llama",
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": "llama",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2",
    **{f"qwen3-{size}": "qwen3" for size in ("0.6b", "1.7b", "4b", "8b", "14b")},
    "Qwen/Qwen3-1.7B-Base": "qwen3",
    "Qwen/Qwen3-8B-Base": "qwen3",
    "Qwen/Qwen3-30B-A3B-Base": "qwen3-moe",
    "Qwen/Qwen3.5-2B-Base": "qwen3.5-sees",
    "Qwen/Qwen3.5-9B-Base": "qwen3.5-sees",
    "Qwen/Qwen3.5-27B": "qwen3.5-sees",
    "Qwen/Qwen3.5-35B-A3B-Base": "qwen3.5-moe-sees",
    "openai/gpt-oss-20b": "gpt-oss",
}
LAYERS = 3
IDS = torch.randint(1, 300, (2, 12), generator=torch.Generator().manual_seed(0))
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "vocab_size": 300,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR: dict[str, Any] = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
}
SIGHT: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16}
SIGHT_OF_QWEN = SIGHT | {"depth": 1, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2}
SIGHT_OF_GEMMA = SIGHT | {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
# Those that `tiny_model` does not know. (Published files of Gemma 3 from 4B on, and of Qwen 3.5, also take images.)
CONFIGS: dict[str, Callable[[], Any]] = {
    "gemma3-sees": lambda: tf.Gemma3Config(
        text_config=tf.Gemma3TextConfig(**TEXT, sliding_window=8), vision_config=SIGHT_OF_GEMMA
    ),
    "qwen3-moe": lambda: tf.Qwen3MoeConfig(**TEXT, **EXPERTS),
    "qwen3.5-sees": lambda: tf.Qwen3_5Config(text_config=TEXT | LINEAR, vision_config=SIGHT_OF_QWEN),
    "qwen3.5-moe-sees": lambda: tf.Qwen3_5MoeConfig(
        text_config=TEXT | LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16}, vision_config=SIGHT_OF_QWEN
    ),
    "gpt-oss": lambda: tf.GptOssConfig(**TEXT, num_local_experts=4, num_experts_per_tok=2, sliding_window=8),
}
ARCHITECTURES = sorted(set(MODELS.values()))
# How the SAEs of a loader are called: with the hook point's name, or otherwise (see `stand_in`).
_NAMED = re.compile(r"(blocks\.\d+\.(?:hook_resid_(?:pre|mid|post)|hook_(?:attn|mlp)_out|hook_z))(?:_|$)")


class Named(NamedTuple):
    """One SAE of the registry that is not refused."""

    name: str
    loader: str
    model: str
    place: str


@cache
def all_saes() -> tuple[Named, ...]:
    """All of them; those that `find` refuses are left out."""
    found = []
    for release, held in known_releases().items():
        for sae_id, within in held.saes_map.items():
            try:
                entry = find(f"{release}/{sae_id}")
            except UserError:
                continue
            assert entry is not None
            loader = held.conversion_func or "sae_lens"
            found.append(Named(f"{release}/{sae_id}", loader, held.model, f"{held.repo_id}/{within}"))
    return tuple(found)


def family(sae: Named) -> tuple[str, ...]:
    """What is the same for SAEs whose files say their hook points alike: all but numbers and sizes."""
    _, _, sae_id = sae.name.partition("/")
    words = re.split(r"[^a-z]+", f"{sae.place.partition('/')[2]} {sae_id}".lower())
    sizes = {"", "b", "k", "m", "w", "x", "l", "it", "pt", "all", "big", "medium", "small", "canonical", "affine"}
    return (sae.loader, MODELS[sae.model], *sorted(set(words) - sizes))


@cache
def representatives() -> dict[tuple[str, ...], Named]:
    """One SAE of each family."""
    return {family(sae): sae for sae in reversed(all_saes())}


def test_the_architecture_of_every_model_is_known() -> None:
    assert set(MODELS) == {held.model for held in known_releases().values()}
    assert len(all_saes()) > 13_000


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], list[str]]:
    """The names of the hook points that an SAE of each family reads and writes, from files like its own."""
    hub = Hub(tmp_path_factory.mktemp("hub"))
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        hub.use(patch)
        for key, sae in representatives().items():
            stand_in(hub, sae)
            provenance = provenance_of(load_sae(sae.name))
            found[key] = [provenance.hook] + ([provenance.hook_out] if provenance.hook_out else [])
    return found


def stand_in(hub: Hub, sae: Named) -> None:
    """Tiny files of an SAE; where a configuration says the hook point, it is in the words of the real ones."""
    import json

    at = hub.sae(sae.name)
    release, _, sae_id = sae.name.partition("/")
    named = _NAMED.match(sae_id)
    layer = re.search(r"\d+", sae_id)
    if sae.loader == "sae_lens":
        assert named is not None, sae.name
        change(at / "cfg.json", hook_point=named[1])
    elif sae.loader == "connor_rob_hook_z":
        assert named is not None, sae.name
        change(
            at.parent / f"{at.name.removesuffix('.pt')}_cfg.json", act_name=named[1].replace("hook_z", "attn.hook_z")
        )
    elif sae.loader == "dictionary_learning_1":
        assert "resid_post" in sae_id
        config = json.loads((at / "config.json").read_text())
        found = re.search(r"resid_post_layer_(\d+)", sae.place)
        assert found is not None
        config["trainer"] |= {"layer": int(found[1]), "submodule_name": f"resid_post_layer_{found[1]}"}
        (at / "config.json").write_text(json.dumps(config))
    elif sae.loader == "llama_scope":
        assert layer is not None
        site = {"r": "hook_resid_post", "a": "hook_attn_out", "m": "hook_mlp_out"}[release.split("_lx")[1][0]]
        point = f"blocks.{layer[0]}.{site}"
        change(at / "hyperparams.json", hook_point_in=point, hook_point_out=point)


def change(path: Path, **settings: Any) -> None:
    import json

    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_every_hook_name_is_understood(hooks: dict[tuple[str, ...], list[str]]) -> None:
    """Of the families by their files; of every SAE called by its hook point, by that name too."""
    assert len(hooks) > 40
    for key, names in hooks.items():
        for name in names:
            kind, layer = parse_hook(name)
            assert kind in HOOK_KINDS, (key, name)
            assert layer is not None
        # What a name says, without a file, is what the files say.
        sae = representatives()[key]
        said = next((one for one in saes_of(sae.name.partition("/")[0]) if one.name == sae.name), None)
        assert said is not None, sae.name
        kind, layer = parse_hook(names[0])
        assert said.hook == kind, sae.name
        assert said.layer == layer or sae.loader == "llama_scope_r1_distill", "(whose stand-in is of one layer)"
    called = [match[1] for sae in all_saes() if (match := _NAMED.match(sae.name.partition("/")[2]))]
    assert len(called) > 1000
    for name in called:
        assert parse_hook(name.replace(".hook_z", ".attn.hook_z"))[0] in HOOK_KINDS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stand_in_is_read_wherever_its_saes_read(
    model_folder: Callable[..., Path],
    tmp_path: Path,
    hooks: dict[tuple[str, ...], list[str]],
    architecture: str,
) -> None:
    """One load for all hook points of the architecture's SAEs, at every layer; and the width that they have there."""
    kinds: set[HookKind] = set()
    for key, names in hooks.items():
        if key[1] == architecture:
            kinds |= {parse_hook(name)[0] for name in names}  # type: ignore[misc]
    assert kinds
    folder = written(tmp_path / architecture, architecture) if architecture in CONFIGS else model_folder(architecture)
    points = [HookPoint(layer, kind) for layer in range(LAYERS) for kind in sorted(kinds)]
    model = load_language_model(str(folder), points, dtype="float32")
    found = model.activations(IDS, points)
    for point in points:
        assert found[point].shape == (*IDS.shape, model.width(point))
        assert bool(torch.isfinite(found[point]).all())
        assert found[point].std() > 0


def written(folder: Path, architecture: str) -> Path:
    """A folder of a stand-in that `tiny_model` does not know, saved as its published files are."""
    config = CONFIGS[architecture]()
    torch.manual_seed(0)
    sees = architecture.endswith("sees")
    kind = tf.AutoModelForImageTextToText if sees else tf.AutoModelForCausalLM
    model = kind.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    tiny_tokenizer("bpe").save_pretrained(folder)
    return folder
