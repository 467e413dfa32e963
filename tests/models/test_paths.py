"""Names that can be no path, folders that hold no model, and devices that compute nothing: one clear line each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unifeat.errors import UserError
from unifeat.models.language import load_language_model, load_tokenizer, model_identity, read_config
from unifeat.models.placement import resolve_device
from unifeat.vocabulary.hook_points import HookPoint

POINT = HookPoint(1)
# What transformers goes on without, with the model that is there.
_NOT_MINDED = (
    *("torch_dtype", "quantization_config", "architectures", "layer_types", "text_config", "rope_parameters"),
)


@pytest.fixture
def copy(model_folder: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("llama"), tmp_path / "copy"))


def line(name: str) -> str:
    """What every way to look at a model says of a name: one line, and the same."""
    said = set()
    for call in (
        lambda: read_config(name),
        lambda: load_language_model(name, [POINT], dtype="float32"),
        lambda: model_identity(name, "float32"),
        lambda: load_tokenizer(name),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
        said.add(str(caught.value))
    assert len(said) == 1, said
    return said.pop()


def said_by(call: Callable[[], object]) -> str:
    """The one line that a call ends in, or nothing if it goes well."""
    try:
        call()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0b", "a path cannot hold a NUL byte"),
        ("./a\0b.gguf", "a path cannot hold a NUL byte"),
        ("x" * 300, "longer than a file name may be"),
        ("/" + "x/" * 4000, "longer than a file name may be"),
        ("a\ud800b", "half a character"),
        ("~nobody-here/model", "~nobody-here has no home directory"),
        ("/dev/null", "no such file or folder"),
        ("", "has no config.json"),
        ("two words", "is neither a local folder or GGUF file nor a hub model"),
        ("ORG/NAME@main?x=1", "is neither a local folder or GGUF file nor a hub model"),
    ],
)
def test_names(name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert reason in line(name)


def test_paths_on_which_there_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.gguf").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("loop", "nowhere", str(tmp_path / "file" / "below"), "loop/below", "pipe"):
        assert "no such file or folder" in line(name) or "is neither a local folder" in line(name)
    assert "no such file or folder" in line("loop")
    assert "a file must be GGUF" in line("file")
    assert "has no config.json" in line("folder.gguf")


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ("[]", "its config.json is not a JSON object"),
        ("3", "its config.json is not a JSON object"),
        ("", "its config.json is damaged: "),
        ("[" * 100_000 + "]" * 100_000, "its config.json is nested too deeply"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "its config.json is nested too deeply"),
        ('{"a": "' + "x" * (1 << 24) + '"}', "bytes, too many for a configuration"),
    ],
)
def test_a_config_that_is_none(copy: Path, held: str, reason: str):
    (copy / "config.json").write_text(held)
    assert reason in line(str(copy))


def test_a_config_that_cannot_be_read(copy: Path):
    (copy / "config.json").write_bytes(b'{"a": "\xff\xfe"}')
    assert "its config.json is damaged" in line(str(copy))
    (copy / "config.json").unlink()
    (copy / "config.json").mkdir()
    assert "config.json: a folder is where a file should be" in line(str(copy))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**12},
        {"vocab_size": 10**12},
        {"vocab_size": 10**8},
        {"intermediate_size": 10**12},
        {"intermediate_size": 10**9},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": "3"},
        {"num_hidden_layers": None},
        {"num_hidden_layers": 3.5},
        {"hidden_size": 0},
        {"hidden_size": [32]},
        {"vocab_size": None},
        {"vocab_size": {}},
        {"vocab_size": True},
        {"num_attention_heads": 0},
        {"num_attention_heads": 10**9},
        {"head_dim": 10**12},
        {"num_key_value_heads": 0},
        {"rope_parameters": 3},
        {"rope_parameters": {"rope_type": "unheard-of"}},
        {"hidden_act": "unheard-of"},
        {"torch_dtype": "float999"},
        {"model_type": 3},
        {"model_type": ["llama"]},
        {"architectures": 3},
        {"quantization_config": {"quant_method": "unheard-of"}},
        {"quantization_config": 3},
        {"tie_word_embeddings": "perhaps"},
        {"layer_types": ["unheard-of"] * 3},
        {"text_config": 3},
    ],
    ids=lambda changes: "-".join(f"{key}={str(value)[:20]}" for key, value in changes.items()),
)
def test_sizes_and_kinds_that_cannot_be(copy: Path, changes: dict[str, Any]):
    """One line, or, where transformers does not mind, a model: never a traceback, nor memory without end."""
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    said = said_by(lambda: load_language_model(str(copy), [POINT], dtype="float32"))
    assert "\n" not in said
    assert "copy" in said or next(iter(changes)) in _NOT_MINDED


@pytest.mark.parametrize("positions", [10**12, 10**15])
def test_learnt_positions_beyond_all_memory(model_folder: Callable[..., Path], tmp_path: Path, positions: int):
    folder = Path(shutil.copytree(model_folder("gpt2"), tmp_path / "copy"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_positions": positions}))
    with pytest.raises(UserError, match=r"copy cannot be loaded: .*more memory|do not fit config") as caught:
        load_language_model(str(folder), [POINT], dtype="float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("held", ["", "[]", "{", '{"model": 3}', "[" * 100_000, "null"])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_none(copy: Path, file: str, held: str):
    (copy / file).write_text(held)
    said = said_by(lambda: load_tokenizer(str(copy)))
    assert "copy cannot be loaded" in said or (not said and file == "tokenizer_config.json")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("meta", "does not work on this machine"),
        ("mps", "does not work on this machine"),
        ("xla", "does not work on this machine"),
        ("vulkan", "does not work on this machine"),
        ("xpu", "does not work on this machine"),
        ("hpu", "does not work on this machine"),
        ("mkldnn", "does not work on this machine"),
        ("cuda:99", "no CUDA device"),
        ("cuda:-1", "no CUDA device"),
        ("cpu:-1", "unknown device"),
        ("", "unknown device"),
        ("gpu", "unknown device"),
    ],
)
def test_devices_that_compute_nothing(device: str, reason: str):
    with pytest.raises(UserError, match=reason) as caught:
        resolve_device(device)
    assert "\n" not in str(caught.value)
    assert repr(device) in str(caught.value)


def test_a_cuda_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match="this machine has 2 CUDA devices"):
        resolve_device("cuda:2")
    assert resolve_device("cuda:1").index == 1


def test_devices_that_compute():
    assert [resolve_device(name).type for name in ("cpu", "auto", "map")] == ["cpu"] * 3
