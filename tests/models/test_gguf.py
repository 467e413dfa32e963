"""GGUF files: converted once into the cache, with the same weights and tokenizer as the model they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tiny import sentences
from unifeat.errors import UserError
from unifeat.models import gguf as gguf_module
from unifeat.models.language import load_language_model, load_tokenizer, model_identity
from unifeat.vocabulary.hook_points import HookPoint

_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(source: Path, path: Path) -> Path:
    """Write a transformers Llama folder with a byte-level BPE tokenizer as llama.cpp's converter does, in float32."""
    import gguf

    config = json.loads((source / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    inner = json.loads((source / "tokenizer.json").read_text())["model"]
    pieces = sorted(inner["vocab"], key=inner["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if piece == "<|endoftext|>" else normal for piece in pieces])
    writer.add_token_merges([" ".join(merge) for merge in inner["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in load_file(source / "model.safetensors").items():
        stem = name.removesuffix(".weight")
        if stem in _ENDS:
            target = _ENDS[stem]
        else:
            _, _, layer, module = stem.split(".", 3)
            target = f"blk.{layer}.{_BLOCK[module]}"
            if module == "self_attn.q_proj":
                tensor = _permuted(tensor, heads)
            elif module == "self_attn.k_proj":
                tensor = _permuted(tensor, kv_heads)
        writer.add_tensor(f"{target}.weight", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp interleaves the two halves of each rotary head."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture
def source(model_folder: Callable[..., Path]) -> Path:
    return model_folder("llama")


@pytest.fixture
def gguf_file(source: Path, tmp_path: Path) -> Path:
    return write_gguf(source, tmp_path / "tiny.gguf")


def test_gives_the_activations_of_the_model_it_was_made_from(source: Path, gguf_file: Path):
    points = [HookPoint(0), HookPoint(2)]
    text = sentences(1, seed=7)[0]
    original = load_language_model(str(source), points, dtype="float32")
    unpacked = load_language_model(str(gguf_file), points, dtype="float32")
    ids = original.tokenizer(text)["input_ids"]
    assert unpacked.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    batch = torch.tensor([ids[:60]])
    expected, found = (m.activations(batch, points) for m in (original, unpacked))
    for point in points:
        torch.testing.assert_close(found[point], expected[point], rtol=1e-5, atol=1e-5)


def test_is_converted_once(gguf_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    first = model_identity(str(gguf_file), "float32")
    folders = list((own_cache / "models").iterdir())
    assert len(folders) == 1
    about = json.loads((folders[0] / "piece.json").read_text())["content"]["made_from"]
    assert (about["gguf"], about["dtype"]) == (hashlib.sha256(gguf_file.read_bytes()).hexdigest(), "float32")
    assert set(first["files"]) == {"config.json", "model.safetensors"}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(gguf_module, "say", never)
    assert model_identity(str(gguf_file), "float32") == first
    assert load_tokenizer(str(gguf_file), "float32").is_fast
    moved = gguf_file.rename(gguf_file.with_name("renamed.gguf"))
    assert model_identity(str(moved), "float32") == first


def test_its_header_is_read_once(gguf_file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    """And transformers' reader is its own again afterwards, even if it fails."""
    import gguf

    reader, read = gguf.GGUFReader, []
    build = reader._build_fields
    monkeypatch.setattr(reader, "_build_fields", lambda self, *args: (read.append(self), build(self, *args))[1])
    gguf_module.converted_folder(gguf_file, torch.float32)
    assert len(read) == 1
    assert gguf.GGUFReader is reader
    with pytest.raises(RuntimeError), gguf_module._header_read_once():
        raise RuntimeError
    assert gguf.GGUFReader is reader


def test_is_converted_anew_for_another_dtype(gguf_file: Path, own_cache: Path):
    model_identity(str(gguf_file), "float32")
    model = load_language_model(str(gguf_file), [HookPoint(0)], dtype="bfloat16")
    assert next(model.decoder.parameters()).dtype == torch.bfloat16
    assert len(list((own_cache / "models").iterdir())) == 2


def test_a_damaged_folder_is_made_again(gguf_file: Path, own_cache: Path):
    first = model_identity(str(gguf_file), "float32")
    (folder,) = (own_cache / "models").iterdir()
    whole = (folder / "model.safetensors").read_bytes()
    for damage in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:1000], None):
        if damage is None:
            (folder / "model.safetensors").unlink()
        else:
            (folder / "model.safetensors").write_bytes(damage)
        model = load_language_model(str(gguf_file), [HookPoint(0)], dtype="float32")
        assert model.n_layers == 3
        assert (folder / "model.safetensors").read_bytes() == whole
        assert [path.name for path in (own_cache / "models").iterdir()] == [folder.name]
    assert model_identity(str(gguf_file), "float32") == first


def test_a_folder_that_is_whole_is_read_once(gguf_file: Path, monkeypatch: pytest.MonkeyPatch):
    from unifeat.store import pieces

    model_identity(str(gguf_file), "float32")
    monkeypatch.setattr(pieces, "read_sha256", lambda path: pytest.fail(f"{path} is read again"))
    with pieces.recording() as used:
        load_tokenizer(str(gguf_file), "float32")
    assert [kind for kind, _ in used] == ["models"]  # a run notes it all the same


@pytest.mark.slow
def test_two_processes_at_once(gguf_file: Path, own_cache: Path):
    code = (
        "import sys; from unifeat.models.language import load_language_model; "
        "from unifeat.vocabulary.hook_points import HookPoint; "
        "print(load_language_model(sys.argv[1], [HookPoint(0)], dtype='float32').n_layers)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(gguf_file)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in both] == ["3\n", "3\n"]
    assert [path.name for path in (own_cache / "models").iterdir() if path.name.startswith(".")] == []
    assert len(list((own_cache / "models").iterdir())) == 1


def header(tensors: int, entries: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


def entry(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


ARCHITECTURE = entry("general.architecture", 8, struct.pack("<Q", 5) + b"llama")
TENSOR = struct.pack("<Q1sI2QIQ", 1, b"a", 2, 1 << 40, 1 << 22, 0, 0)
BROKEN = {
    "noise": (b"no gguf at all" * 100, "it does not begin like a GGUF file"),
    "zeros": (bytes(5000), "it does not begin like a GGUF file"),
    "empty": (b"", "it is empty"),
    "only the magic": (b"GGUF", "it is truncated"),
    "half a header": (header(1, 1)[:20], "it is truncated"),
    "nothing behind the header": (header(1, 1), "it is truncated"),
    "an old version": (header(0, 0, version=1), "of version 1"),
    "a version to come": (header(0, 0, version=99), "of version 99"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "it is big-endian"),
    "very many tensors": (header(10**12, 1, ARCHITECTURE), "claims 1,000,000,000,000 tensors"),
    "very many entries": (header(1, 2**63, ARCHITECTURE), "metadata entries, more than the file can hold"),
    "a long key": (header(0, 1, struct.pack("<Q", 2**62) + bytes(100)), "truncated or damaged"),
    "a long text": (header(0, 1, entry("a", 8, struct.pack("<Q", 2**62))), "truncated or damaged"),
    "a long list": (header(0, 1, entry("a", 9, struct.pack("<IQ", 4, 2**61))), "truncated or damaged"),
    "a long list of texts": (header(0, 1, entry("a", 9, struct.pack("<IQ", 8, 2**40))), "a list of 1,099,511,627,776"),
    "lists in lists": (header(0, 1, entry("a", 9, struct.pack("<IQ", 9, 1) * 50)), "unknown type|file can hold"),
    "an unknown type": (header(0, 1, entry("a", 77, bytes(100))), "the unknown type 77"),
    "a tensor of four exabytes": (header(1, 1, ARCHITECTURE + TENSOR), "a tensor larger than the file"),
    "no architecture": (header(0, 0), "general.architecture"),
    "an unknown architecture": (
        header(0, 1, entry("general.architecture", 8, struct.pack("<Q", 3) + b"\xff\xfex")),
        "cannot read this GGUF file",
    ),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_header_is_a_users_error(damage: str, tmp_path: Path, own_cache: Path):
    held, reason = BROKEN[damage]
    path = tmp_path / "tiny.gguf"
    path.write_bytes(held)
    with pytest.raises(UserError, match=rf"tiny\.gguf: .*({reason})") as caught:
        load_language_model(str(path), [HookPoint(0)])
    assert "\n" not in str(caught.value)
    assert not list(own_cache.glob("models/*"))


@pytest.mark.parametrize("share", [0.001, 0.02, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short(gguf_file: Path, own_cache: Path, share: float):
    whole = gguf_file.read_bytes()
    gguf_file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"tiny\.gguf") as caught:
        load_language_model(str(gguf_file), [HookPoint(0)])
    assert "\n" not in str(caught.value)
    assert not list(own_cache.glob("models/*"))


def said_by(call: Callable[[], object]) -> str:
    """The one line that a call ends in, or nothing if it goes well."""
    try:
        call()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(30))
def test_noise_in_the_header(gguf_file: Path, seed: int):
    """Whatever single bytes are changed to, it loads or it is one line."""
    rng = np.random.default_rng(seed)
    held = bytearray(gguf_file.read_bytes())
    for at in rng.integers(0, 400 if seed % 2 else 20_000, size=1 + seed % 3):
        held[at] = rng.integers(256)
    gguf_file.write_bytes(held)
    said = said_by(lambda: load_language_model(str(gguf_file), [HookPoint(0)], dtype="float32"))
    assert "tiny.gguf" in said or not said
    assert "\n" not in said


@pytest.mark.parametrize(("key", "value"), [("block_count", 10**9), ("embedding_length", 10**9)])
def test_sizes_that_its_tensors_do_not_bear_out(gguf_file: Path, key: str, value: int):
    held = bytearray(gguf_file.read_bytes())
    at = held.index(f"llama.{key}".encode()) + len(f"llama.{key}")
    assert struct.unpack_from("<I", held, at) == (4,)  # an unsigned number of 32 bits
    held[at + 4 : at + 8] = struct.pack("<I", value)
    gguf_file.write_bytes(held)
    with pytest.raises(UserError, match=rf"it says llama\.{key} = 1,000,000,000, which contradicts its tensors"):
        load_language_model(str(gguf_file), [HookPoint(0)])
