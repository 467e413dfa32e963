"""`kill -9` in the middle of a training: the same command goes on at its checkpoint and ends with the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from homes import shared_warm
from tiny import sentences, write_text
from unifeat.pipeline.train import train
from unifeat.saes import load_sae
from unifeat.saes.training import checkpoints
from unifeat.saes.training.checkpoints import Checkpoints
from unifeat.store import cache_root
from unifeat.store.pieces import read_about
from unifeat.study.read import load_study
from unifeat.vocabulary.hook_points import HookPoint
from warm import KILLED, Started

pytestmark = pytest.mark.slow

NAMES = ("topk-1", "matryoshka-1", "jumprelu-1")
TOKENS = 80_000


@pytest.fixture
def study(tmp_path: Path, model_folder: Callable[..., Path]) -> Path:
    """Three SAEs of one model, of different architectures and lengths; more text than the buffer holds."""
    text = str(write_text(tmp_path, sentences(150, seed=4)))
    spaces = [
        {"model": "tiny", "layers": 1, "sae": f"{tmp_path}/saes/{a}-{{layer}}", "name": a, "train": {"architecture": a}}
        for a in ("topk", "matryoshka", "jumprelu")
    ]
    spaces[1]["train"] |= {"tokens": TOKENS // 2, "seed": 5}
    made = {
        "text": {"source": text, "context": 32},
        "models": {"tiny": {"name": str(model_folder("llama", tokenizer="wordish")), "dtype": "float32"}},
        "spaces": spaces,
        "train": {
            "text": {"source": text, "context": 32, "group": 4000},
            "features": 96, "k": 6, "tokens": TOKENS, "batch": 128, "buffer": 2048, "heldout_documents": 20,
        },
    }  # fmt: skip
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


def start(study: Path) -> Started:
    return shared_warm().start("train", study, cache=cache_root(), cwd=study.parent, checkpoints_every=0.2)


def checkpoint_files() -> list[Path]:
    """The checkpoints that have their final names, the newest last."""
    return sorted((cache_root() / "training").glob("*/[!.]*/checkpoint-*"))


def resumed_at(err: str) -> list[int]:
    found = re.findall(r"resuming from the last checkpoint, at ([\d,]+) activations", err)
    return [int(number.replace(",", "")) for number in found]


def about(path: Path) -> dict[str, Any]:
    return json.loads((path / "about.json").read_text())["content"]


def assert_whole() -> None:
    """Whatever has its final name can be read to its end: the newest checkpoint, perhaps the one before it, groups."""
    files = checkpoint_files()
    assert 1 <= len(files) <= 2
    for path in files:
        assert hashlib.sha256((path / "state.pt").read_bytes()).hexdigest() == about(path)["state"]
        assert len(about(path)["jobs"]) == 3
    groups = list(files[0].parent.glob("activations/[!.]*/piece.json"))
    assert groups
    for group in groups:
        for name, expected in read_about(group)["files"].items():
            assert hashlib.sha256((group.parent / name).read_bytes()).hexdigest() == expected


def test_killed_again_and_again(study: Path, tmp_path: Path):
    rng = np.random.default_rng()
    went_on = []
    for _ in range(2):
        known = checkpoint_files()
        command = start(study)
        deadline = time.monotonic() + 240
        while not command.ended() and set(checkpoint_files()) <= set(known):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.7))
        command.kill()
        done = command.wait()
        err = done.err
        assert done.code == KILLED, err
        went_on += [
            int(n.replace(",", ""))
            for n in re.findall(r"resuming from the last checkpoint, at ([\d,]+) activations", err)
        ]
        assert not (tmp_path / "saes").exists()
        assert_whole()
    done = start(study).wait()
    err = done.err
    assert done.code == 0, err
    went_on += [
        int(n.replace(",", "")) for n in re.findall(r"resuming from the last checkpoint, at ([\d,]+) activations", err)
    ]
    assert len(went_on) == 2
    assert 0 < went_on[0] < went_on[1] < TOKENS
    assert not list((cache_root() / "training").iterdir())  # nothing is left of it

    undisturbed = tmp_path / "undisturbed"
    train(load_study(study), undisturbed)
    for name in NAMES:
        ours, theirs = ((folder / name) for folder in (tmp_path / "saes", undisturbed))
        for file in ("sae_weights.safetensors", "cfg.json"):
            assert (ours / file).read_bytes() == (theirs / file).read_bytes(), (name, file)
        one, other = (json.loads((folder / "training.json").read_text()) for folder in (ours, theirs))
        assert one["curve"] == other["curve"]
        assert one["heldout"] == other["heldout"]
        assert one["tokens"] == (TOKENS // 128 // (2 if name == "matryoshka-1" else 1)) * 128
        assert load_sae(ours).cfg.d_sae == 96


@pytest.mark.parametrize("moment", ["before its rename", "half written"])
def test_killed_while_it_writes_a_checkpoint(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str):
    """Stopped in the third checkpoint, the second stands; going on from it ends with the same bits."""

    class Killed(BaseException):
        pass

    monkeypatch.setattr("unifeat.saes.training.checkpoints.INTERVAL_S", 0.0)
    spec = load_study(study)
    spec = spec.model_copy(
        update={"spaces": spec.spaces[:1], "train": spec.train.model_copy(update={"tokens": 128 * 12})}
    )
    train(spec, tmp_path / "undisturbed")
    calls: list[Any] = []
    whole = checkpoints._write_state

    def save(state: Any, path: Path) -> str:
        digest = whole(state, path)
        calls.append(path)
        if len(calls) == 3:
            if moment == "half written":
                os.truncate(path, path.stat().st_size // 2)
            raise Killed
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_write_state", save)
        patch.setattr("unifeat.store.writing.remove", lambda path: None)  # a killed process tidies nothing up
        with pytest.raises(Killed):
            train(spec)
    (path,) = checkpoint_files()
    assert about(path)["step"] == 2
    assert list(path.parent.glob(".partial-*/state.pt"))
    train(spec)
    weights = [
        folder / "topk-1" / "sae_weights.safetensors" for folder in (tmp_path / "saes", tmp_path / "undisturbed")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


FIRST, SECOND = HookPoint(0), HookPoint(1)


def saved(
    stream: Path, keys: list[str], *, step: int, points: Sequence[HookPoint] = (FIRST,), over: bool = False
) -> Checkpoints:
    """A training's checkpoint, its SAEs to go beside the stream's folders under their keys."""
    made = Checkpoints(stream, {key: stream / key for key in keys}, list(points))
    made.save({"jobs": dict.fromkeys(keys, step)}, step=step, over=over, points=list(points))
    return made


class TestFound:
    """Which checkpoint is gone on from."""

    def test_none(self, tmp_path: Path):
        assert Checkpoints(tmp_path / "none", {"a": tmp_path / "a"}, [FIRST]).load() is None

    def test_one_that_holds_more(self, tmp_path: Path):
        """One of two SAEs was saved before the kill; the other still finds its state."""
        saved(tmp_path, ["a", "b"], step=7)
        found, state = Checkpoints(tmp_path, {"b": tmp_path / "b"}, [FIRST]).load()
        assert found.step == 7
        assert state == {"jobs": {"a": 7, "b": 7}}

    def test_not_one_that_lacks_a_job(self, tmp_path: Path):
        saved(tmp_path, ["a"], step=7)
        assert Checkpoints(tmp_path, {key: tmp_path / key for key in "ab"}, [FIRST]).load() is None

    def test_the_one_that_is_furthest_along(self, tmp_path: Path):
        for keys, step in ((["a"], 3), (["a", "b"], 10), (["a", "c"], 9)):
            saved(tmp_path, keys, step=step)
        found, _ = Checkpoints(tmp_path, {"a": tmp_path / "a"}, [FIRST]).load()
        assert found.step == 10

    def test_other_points_are_another_training(self, tmp_path: Path):
        """Sinks of any point are left out at all; but at the end of a training its saved SAEs are not asked for."""
        ours = Checkpoints(tmp_path, {"b": tmp_path / "b"}, [FIRST])
        saved(tmp_path, ["a", "b"], step=7, points=[FIRST, SECOND])
        assert ours.load() is None
        saved(tmp_path, ["a", "b"], step=8, points=[FIRST, SECOND], over=True)
        assert ours.load() is None
        (tmp_path / "a").mkdir()
        found, _ = ours.load()
        assert found.points == [FIRST, SECOND]
        assert Checkpoints(tmp_path, {"b": tmp_path / "elsewhere"}, [FIRST]).load() is None

    def test_a_setting_that_matters_begins_anew(self, study: Path, monkeypatch: pytest.MonkeyPatch):
        from unifeat.pipeline.train import _missing

        spec = load_study(study)
        key = _missing(spec, None)["tiny"][0].key
        for change in ({"lr": 1e-4}, {"features": 90}, {"k": 5}, {"dead_after": 5000}, {"tokens": 10_000}):
            other = spec.model_copy(update={"train": spec.train.model_copy(update=change)})
            assert _missing(other, None)["tiny"][0].key != key, change
        same = spec.model_copy(update={"train": spec.train.model_copy(update={"save_dtype": "bfloat16"})})
        assert _missing(same, None)["tiny"][0].key == key


def test_killed_at_the_end_of_a_buffer(study: Path, monkeypatch: pytest.MonkeyPatch):
    """The last checkpoint then stands where a buffer has nothing left to give, while the result is measured."""
    from unifeat.saes.training import run

    settings = yaml.safe_load(study.read_text())
    settings |= {"spaces": settings["spaces"][:1], "compare": [["topk", "topk"]]}
    settings["train"] |= {"tokens": 4096, "buffer": 2048}
    study.write_text(yaml.safe_dump(settings))

    def die(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "measure_heldout", die)
        with pytest.raises(KeyboardInterrupt):
            train(load_study(study))
    steps = []
    inner = run.make_trainer
    monkeypatch.setattr(run, "make_trainer", lambda *args: steps.append(1) or inner(*args))
    (result,) = train(load_study(study))
    assert steps == [1]
    assert result.about["tokens"] == 4096


def test_saes_of_two_widths_from_one_stream(study: Path, tmp_path: Path, model_folder: Callable[..., Path]):
    """Heads that are wider together than the stream, as Qwen 3's and Gemma's are."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    from tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer("wordish")
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")
    settings = yaml.safe_load(study.read_text())
    settings["models"]["tiny"]["name"] = str(tmp_path / "wide")
    settings["spaces"] = [
        {"model": "tiny", "layers": 1, "sae": f"{tmp_path}/saes/{hook}", "name": hook, "hook": hook}
        for hook in ("resid_post", "attn_z", "mlp_in")
    ]
    settings["train"] |= {"tokens": 8192, "store": True}
    study.write_text(yaml.safe_dump(settings))
    results = {one.folder.name: one for one in train(load_study(study))}
    assert {name: load_sae(one.folder).cfg.d_in for name, one in results.items()} == {
        "resid_post": 32,
        "attn_z": 64,
        "mlp_in": 32,
    }
    assert all(one.quality.fvu < 1 and one.loss.tokens > 100 for one in results.values())
