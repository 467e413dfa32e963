"""Models that bring Python code: nothing of it runs and nothing asks, unless the study says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from homes import STUDY, make_home
from tiny import tiny_model, tiny_sae
from unifeat.errors import UserError
from unifeat.models.language import load_language_model, load_tokenizer, model_identity, read_config
from unifeat.saes.checking.check import check_sae
from unifeat.study.spec import ModelSpec, Study
from unifeat.vocabulary.hook_points import HookPoint

POINT = HookPoint(1)
REFUSED = r"it has code of its own, which unifeat runs only if the study says `trust_remote_code: true`"
CONFIGURATION = """
from pathlib import Path
from transformers import LlamaConfig
with Path({marker!r}).open("a") as file:
    file.write("config ")

class OwnConfig(LlamaConfig):
    model_type = {kind!r}
"""
MODELING = """
from pathlib import Path
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
with Path({marker!r}).open("a") as file:
    file.write("model ")

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.register_forward_hook(lambda _, __, output: 2 * output)
"""
TOKENIZING = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
with Path({marker!r}).open("a") as file:
    file.write("tokenizer ")

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Written by a model's code when it runs; transformers' copies of such code go where the test goes."""
    import transformers.dynamic_module_utils as dynamic

    modules = tmp_path / "modules"
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(modules))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("HF_MODULES_CACHE", str(modules))
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "it-ran"


@pytest.fixture
def own(model_folder: Callable[..., Path], tmp_path: Path, marker: Path) -> Path:
    """A Llama whose blocks double what they put out, as its own code says; a kind that transformers does not know."""
    return with_code(Path(shutil.copytree(model_folder("llama"), tmp_path / "evil")), marker)


def with_code(folder: Path, marker: Path, kind: str = "own") -> Path:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": kind,
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_own.py").write_text(CONFIGURATION.format(marker=str(marker), kind=kind))
    (folder / "modeling_own.py").write_text(MODELING.format(marker=str(marker)))
    return folder


def with_own_tokenizer(folder: Path, marker: Path) -> Path:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config |= {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]},
    }
    path.write_text(json.dumps(config))
    (folder / "tokenization_own.py").write_text(TOKENIZING.format(marker=str(marker)))
    return folder


def never_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any) -> str:
        raise AssertionError("it asks")

    monkeypatch.setattr("builtins.input", asked)


class TestNotTrusted:
    def test_nothing_runs_and_nothing_asks(self, own: Path, marker: Path, monkeypatch: pytest.MonkeyPatch):
        never_asks(monkeypatch)
        for call in (
            lambda: read_config(str(own)),
            lambda: load_language_model(str(own), [POINT]),
            lambda: check_sae(str(tiny_sae(own.parent / "sae", 32)), str(own), 1),
        ):
            with pytest.raises(UserError, match=REFUSED) as caught:
                call()
            assert "\n" not in str(caught.value)
            assert str(own) in str(caught.value)
        assert not marker.exists()

    def test_a_tokenizer(self, model_folder: Callable[..., Path], tmp_path: Path, marker: Path, monkeypatch: Any):
        never_asks(monkeypatch)
        folder = with_own_tokenizer(Path(shutil.copytree(model_folder("llama"), tmp_path / "words")), marker)
        with pytest.raises(UserError, match=REFUSED):
            load_tokenizer(str(folder))
        assert not marker.exists()

    def test_a_kind_that_transformers_knows_is_read_by_transformers(
        self, model_folder: Callable[..., Path], tmp_path: Path, marker: Path, monkeypatch: Any
    ):
        never_asks(monkeypatch)
        folder = with_code(Path(shutil.copytree(model_folder("llama"), tmp_path / "llama")), marker, kind="llama")
        ids = torch.arange(12)[None]
        plain, found = (
            load_language_model(str(path), [POINT], dtype="float32").activations(ids, [POINT])[POINT]
            for path in (model_folder("llama"), folder)
        )
        assert torch.equal(plain, found)
        assert not marker.exists()
        assert set(model_identity(str(folder), "float32")["files"]) == {"config.json", "model.safetensors"}

    @pytest.mark.parametrize("answers", ["1\n" * 20, "y\n" * 20])
    @pytest.mark.slow
    def test_what_standard_input_holds_is_no_answer(self, own: Path, marker: Path, tmp_path: Path, answers: str):
        sae = tiny_sae(tmp_path / "sae", 32)
        command = "from unifeat.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", command, "check", str(sae), "--model", str(own), "--layer", "1", "--quiet"],
            input=answers,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert "it has code of its own" in done.stderr
        assert "Do you wish to run" not in done.stdout + done.stderr
        assert not marker.exists()


class TestTrusted:
    def test_it_runs(self, own: Path, marker: Path, model_folder: Callable[..., Path]):
        ids = torch.arange(12)[None]
        first = HookPoint(0)
        plain = load_language_model(str(model_folder("llama")), [POINT], dtype="float32")
        model = load_language_model(str(own), [POINT], dtype="float32", trust_remote_code=True)
        assert model.architecture == "own"
        assert set(marker.read_text().split()) == {"config", "model"}
        torch.testing.assert_close(
            model.activations(ids, [first])[first], 2 * plain.activations(ids, [first])[first], rtol=1e-5, atol=1e-5
        )

    def test_a_tokenizer(self, model_folder: Callable[..., Path], tmp_path: Path, marker: Path):
        folder = with_own_tokenizer(Path(shutil.copytree(model_folder("llama"), tmp_path / "words")), marker)
        assert type(load_tokenizer(str(folder), trust_remote_code=True)).__name__ == "OwnTokenizer"
        assert marker.read_text() == "tokenizer "

    def test_the_code_is_part_of_what_the_model_is(self, own: Path, model_folder: Callable[..., Path]):
        identity = model_identity(str(own), "float32", trust_remote_code=True)
        assert set(identity["files"]) == {
            "config.json",
            "model.safetensors",
            "configuration_own.py",
            "modeling_own.py",
        }
        (own / "modeling_own.py").write_text("# another\n")
        assert model_identity(str(own), "float32", trust_remote_code=True) != identity
        plain = str(model_folder("llama"))  # a trusted model without code is what it was
        assert model_identity(plain, "float32", trust_remote_code=True) == model_identity(plain, "float32")

    @pytest.mark.parametrize(
        "code", ["raise ZeroDivisionError('oh\\nno')", "class OwnForCausalLM: pass", "def", "x = 1"]
    )
    def test_code_that_is_broken_is_one_line(self, own: Path, code: str):
        (own / "modeling_own.py").write_text(code)
        with pytest.raises(UserError, match="evil cannot be loaded: ") as caught:
            load_language_model(str(own), [POINT], trust_remote_code=True)
        assert "\n" not in str(caught.value)

    def test_a_hub_model_has_its_commit(self, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        home = tmp_path / "hub" / "models--some--own"
        commit = "0123456789abcdef0123456789abcdef01234567"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(commit)
        with_code(tiny_model(home / "snapshots" / commit, "llama"), marker)
        with pytest.raises(UserError, match=REFUSED):
            model_identity("some/own", "float32")
        assert not marker.exists()
        assert model_identity("some/own", "float32", trust_remote_code=True) == {
            "dtype": "float32",
            "hub": "some/own",
            "commit": commit,
            "own_code": True,
        }


def test_a_study_says_it_for_each_model():
    assert not ModelSpec(name="x").trust_remote_code
    study = yaml.safe_load(yaml.safe_dump(STUDY))
    study["models"]["one"]["trust_remote_code"] = True
    models = Study.model_validate(study).models
    assert [models[name].trust_remote_code for name in ("one", "two")] == [True, False]


def test_a_study_runs_it_where_it_says_so(
    own: Path, marker: Path, model_folder: Callable[..., Path], tmp_path: Path, own_cache: Path
):
    from unifeat.pipeline.encode import prepare_spaces

    home = make_home(tmp_path / "home", model_folder).parent
    study = STUDY | {
        "text": STUDY["text"] | {"source": str(home / "text.jsonl"), "documents": 6},
        "models": {
            "one": {"name": str(own), "dtype": "float32"},
            "two": {"name": str(home / "model-two"), "dtype": "float32"},
        },
        "spaces": [
            {"model": "one", "layers": 1, "sae": str(tiny_sae(tmp_path / "sae", 32))},
            {"model": "two", "layers": 1, "sae": str(home / "saes" / "two_1")},
        ],
    }
    with pytest.raises(UserError, match=REFUSED):
        prepare_spaces(Study.model_validate(study), force=True)
    assert not marker.exists()
    study["models"]["one"]["trust_remote_code"] = True
    prepared = prepare_spaces(Study.model_validate(study), force=True)
    assert "model" in marker.read_text().split()
    assert all(space.store.finished() for space in prepared.spaces)
    assert "modeling_own.py" in prepared.spaces[0].store.settings["model"]["files"]


def test_the_option_of_check(own: Path, marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from typer.testing import CliRunner

    from unifeat.cli import app

    arguments = ["check", str(tiny_sae(tmp_path / "sae", 32)), "--model", str(own), "--layer", "1", "--tokens", "200"]
    refused = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert isinstance(refused.exception, UserError)
    assert not marker.exists()
    done = CliRunner().invoke(app, [*arguments, "--quiet", "--trust-remote-code"])
    assert done.exit_code in (0, 1), done.exception
    assert "L0" in done.output
    assert marker.exists()
