"""The stand-in hub of the tests: real names resolve to its files through the real clients, with no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hub import Hub


def test_a_model_s_name_resolves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hub = Hub(tmp_path / "hub")
    hub.model("google/gemma-2-2b", "gemma2", tokenizer="wordish")
    hub.use(monkeypatch)
    model = AutoModelForCausalLM.from_pretrained("google/gemma-2-2b")
    assert (model.config.model_type, model.config.hidden_size) == ("gemma2", 32)
    assert AutoTokenizer.from_pretrained("google/gemma-2-2b")("The tide.")["input_ids"][0] == 2


def test_files_resolve_and_what_is_not_there_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    hub = Hub(tmp_path / "hub")
    at = hub.sae("gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical")
    hub.use(monkeypatch)
    found = hf_hub_download("google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82/params.npz")
    assert Path(found) == at / "params.npz"
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("google/gemma-scope-2b-pt-res", "layer_13/width_16k/average_l0_84/params.npz")


def test_a_child_process_resolves_from_the_environment(tmp_path: Path):
    hub = Hub(tmp_path / "hub")
    at = hub.sae("EleutherAI/sae-pythia-70m-32k/layers.3")
    code = (
        "from huggingface_hub import hf_hub_download as find; "
        "print(find('EleutherAI/sae-pythia-70m-32k', 'layers.3/cfg.json'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | hub.env, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == at / "cfg.json"
