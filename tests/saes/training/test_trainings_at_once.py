"""Several processes train over one stream of activations at once; one is killed; all end with the same bits."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tiny import sentences, write_text
from unifeat.pipeline.train import train
from unifeat.progress import set_mode
from unifeat.saes.training import checkpoints
from unifeat.store import cache_root
from unifeat.study.spec import ModelSpec, SpacesSpec, Study
from unifeat.study.text import TextSpec
from unifeat.study.training import TrainOverride, TrainSpec

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")  # what is loaded is loaded; the children differ in nothing but their number


def process(study: Study, log: Path, interval_s: float) -> None:
    """What a process does: train, its stderr in a file."""
    sys.stderr = log.open("a", buffering=1)
    set_mode("log")
    checkpoints.INTERVAL_S = interval_s
    train(study)


@contextmanager
def started(study: Study, log: Path, interval_s: float = 0.02) -> Iterator[Any]:
    child = FORK.Process(target=process, args=(study, log, interval_s))
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def wait_for(done: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def ended(*children: Any) -> None:
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * len(children)


def saved_checkpoints() -> list[Path]:
    return list((cache_root() / "training").glob("*/[!.]*/checkpoint-*"))


@pytest.fixture
def study(tmp_path: Path, model_folder: Callable[..., Path]) -> Callable[..., Study]:
    """`study("a", "b")`: SAEs of two seeds, named after them, over one stream of 16 groups and a small buffer."""
    text = TextSpec(source=str(write_text(tmp_path, sentences(100, seed=4))), context=32, group=2500)
    seeds = {"a": 1, "b": 2, "c": 3}

    def make(*names: str, folder: str = "saes", layers: tuple[int, ...] = (1,), **settings: Any) -> Study:
        return Study(
            text=text,
            models={
                "tiny": ModelSpec(name=str(model_folder("llama", tokenizer="wordish")), dtype="float32", device="cpu")
            },
            spaces=[
                SpacesSpec(
                    model="tiny",
                    layers=list(layers),
                    sae=f"{tmp_path / folder}/{name}-{{layer}}",
                    name=name,
                    train=TrainOverride(seed=seeds[name]),
                )
                for name in names
            ],
            compare=[(names[0], names[0])],
            train=TrainSpec(
                **{"text": text, "features": 48, "k": 4, "tokens": 20_000, "batch": 128, "buffer": 1024}
                | {"heldout_documents": 15}
                | settings
            ),
        )

    return make


@pytest.fixture
def expected(study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bytes]:
    """The weights that an undisturbed training gives, made in a cache of their own."""

    def weights(name: str, layers: tuple[int, ...] = (1,), layer: int = 1) -> bytes:
        with monkeypatch.context() as patch:
            patch.setenv("UNIFEAT_CACHE", str(tmp_path / "undisturbed-cache"))
            train(study(name, layers=layers), tmp_path / "undisturbed")
        return weights_of(tmp_path / "undisturbed" / f"{name}-{layer}")

    return weights


def weights_of(folder: Path) -> bytes:
    return (folder / "sae_weights.safetensors").read_bytes()


@pytest.mark.parametrize("store", [False, True])
def test_three_trainings_of_different_saes(
    study: Callable[..., Study], expected: Callable[[str], bytes], tmp_path: Path, store: bool
):
    logs = [tmp_path / f"log-{name}" for name in "abc"]
    with (
        started(study("a", store=store), logs[0]) as one,
        started(study("b", store=store), logs[1]) as two,
        started(study("c", store=store), logs[2]) as three,
    ):
        ended(one, two, three)
    for name, log in zip("abc", logs, strict=True):
        assert weights_of(tmp_path / "saes" / f"{name}-1") == expected(name)
        assert "warning" not in log.read_text()
    assert not list((cache_root() / "training").iterdir())
    assert (cache_root() / "activations").exists() is store


def test_one_that_ends_leaves_the_checkpoint_of_one_that_was_killed(
    study: Callable[..., Study], expected: Callable[[str], bytes], tmp_path: Path
):
    with started(study("a"), tmp_path / "log-a") as one, started(study("b"), tmp_path / "log-b") as two:
        wait_for(lambda: len({path.parent for path in saved_checkpoints()}) == 2)
        one.kill()
        ended(two)
    assert weights_of(tmp_path / "saes" / "b-1") == expected("b")
    assert not (tmp_path / "saes" / "a-1").exists()
    assert len({path.parent for path in saved_checkpoints()}) == 1
    with started(study("a"), tmp_path / "log-again") as again:
        ended(again)
    assert "resuming from the last checkpoint" in (tmp_path / "log-again").read_text()
    assert weights_of(tmp_path / "saes" / "a-1") == expected("a")
    assert not list((cache_root() / "training").iterdir())


@pytest.mark.parametrize("offset_s", [0.0, 0.3])
def test_two_of_the_very_same_sae(
    study: Callable[..., Study], expected: Callable[[str], bytes], tmp_path: Path, offset_s: float
):
    """The slower one finds what it reads, writes and goes on from taken away, and its SAE in place."""
    logs = [tmp_path / "log-one", tmp_path / "log-two"]
    with started(study("a"), logs[0]) as one:
        time.sleep(offset_s)
        with started(study("a"), logs[1]) as two:
            ended(one, two)
    assert weights_of(tmp_path / "saes" / "a-1") == expected("a")
    told = [log.read_text() for log in logs]
    assert sum("held-out FVU" in text for text in told) == 1
    assert sum("another process has saved an SAE there meanwhile, which is kept" in text for text in told) == 1
    assert not any("warning" in text or "Traceback" in text for text in told)
    assert [p.name for p in (tmp_path / "saes").iterdir()] == ["a-1"]
    assert not list((cache_root() / "training").iterdir())


def test_two_of_the_very_same_sae_and_both_killed(
    study: Callable[..., Study], expected: Callable[[str], bytes], tmp_path: Path
):
    with started(study("a"), tmp_path / "one") as one, started(study("a"), tmp_path / "two") as two:
        wait_for(lambda: max((path.name for path in saved_checkpoints()), default="") > "checkpoint-000000000030")
        os.kill(one.pid, signal.SIGKILL)
        os.kill(two.pid, signal.SIGKILL)
        one.join()
        two.join()
    with started(study("a"), tmp_path / "log") as again:
        ended(again)
    assert "resuming from the last checkpoint" in (tmp_path / "log").read_text()
    assert weights_of(tmp_path / "saes" / "a-1") == expected("a")


def test_folders_that_are_taken_away_all_the_time(
    study: Callable[..., Study], expected: Callable[[str], bytes], tmp_path: Path
):
    """Whatever a training has on disk goes at any moment: it makes again what it reads and never stumbles."""
    from unifeat.store.writing import take_away

    log = tmp_path / "log"
    taken = 0
    with started(study("a"), log, interval_s=0.0) as one:
        rng = random.Random(3)
        while one.is_alive():
            inside = rng.choice(["", "", "/activations", "/activations/[!.]*", "/checkpoint-*", "/checkpoint-*"])
            found = list((cache_root() / "training").glob(f"[!.]*/[!.]*{inside}"))
            if found:
                take_away(rng.choice(found))
                taken += 1
            time.sleep(rng.uniform(0, 0.06))
        ended(one)
    assert taken > 10
    assert weights_of(tmp_path / "saes" / "a-1") == expected("a")
    assert "warning" not in log.read_text()


class TestKilledBetweenTwoSaves:
    """One SAE of two is in place: the same command goes on for the other where the training of both was over."""

    def killed(self, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        from unifeat.saes.training import run

        inner, calls = run.write_sae, []

        def write(*args: Any) -> bool:
            calls.append(args)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return inner(*args)

        with monkeypatch.context() as patch:
            patch.setattr(run, "write_sae", write)
            with pytest.raises(KeyboardInterrupt):
                train(study)

    def test_at_two_layers(self, study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """Their tokens that are sinks at either layer are left out for both: trained alone it would be another SAE."""
        both = study("a", layers=(0, 2))
        train(both, tmp_path / "undisturbed")
        self.killed(both, monkeypatch)
        assert [path.name for path in (tmp_path / "saes").iterdir()] == ["a-0"]
        steps: list[int] = []
        monkeypatch.setattr(checkpoints.Checkpoints, "save", lambda *_, **__: steps.append(1))
        (result,) = train(both)
        assert result.folder.name == "a-2"
        assert not steps
        for name in ("a-0", "a-2"):
            for file in ("sae_weights.safetensors", "cfg.json", "README.md"):
                ours, theirs = (tmp_path / folder / name / file for folder in ("saes", "undisturbed"))
                assert ours.read_bytes() == theirs.read_bytes(), (name, file)
        assert not list((cache_root() / "training").iterdir())

    def test_to_another_folder(self, study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """The other training's checkpoint serves and stays: its own SAEs are not all in place."""
        self.killed(study("a", "b"), monkeypatch)
        train(study("a", "b"), tmp_path / "elsewhere")
        assert len(saved_checkpoints()) == 1
        train(study("a", "b"))
        assert weights_of(tmp_path / "saes" / "b-1") == weights_of(tmp_path / "elsewhere" / "b-1")
        assert not list((cache_root() / "training").iterdir())


def test_threads_that_take_a_group_from_each_other(tmp_path: Path, study: Callable[..., Study]):
    """Two sources in one folder, each discarding what the other reads: both give the same rows all the time."""
    import torch

    from unifeat.models.language import load_language_model
    from unifeat.pipeline.train import training_corpus
    from unifeat.saes.training.activations import ActivationSource
    from unifeat.vocabulary.hook_points import HookPoint
    from unifeat.vocabulary.windowing import Windowing

    made = study("a")
    point = HookPoint(1)
    model = load_language_model(made.models["tiny"].name, [point], dtype="float32")
    sources = [
        ActivationSource(training_corpus(made, "tiny"), {}, [point], Windowing(32, 2), tmp_path / "x", lambda: model)
        for _ in range(2)
    ]
    expected = sources[0].group(0).values[point]
    failures: list[Any] = []

    def read(source: ActivationSource) -> None:
        try:
            for _ in range(40):
                if not torch.equal(source.group(0).values[point], expected):
                    failures.append("other rows")
                source.discard(0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
