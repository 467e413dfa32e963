"""The engine of a Ray cluster: several nodes on this machine; workers, nodes and drivers are killed; the same bits.

Run by `make test-cluster`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from homes import hashes, make_home, write_study
from tiny import sentences, write_text
from unifeat.engine.choose import engine_called
from unifeat.engine.unit import Unit
from unifeat.errors import UserError
from unifeat.pipeline.run import run
from unifeat.pipeline.train import train as train_saes
from unifeat.progress import set_mode
from unifeat.store import JSON, Piece
from unifeat.study.read import load_study

pytestmark = pytest.mark.cluster
ray = pytest.importorskip("ray")

CHANGING = ("run.json", "report.html")
NODES = 2
QUICKLY = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each; a third, the head, only keeps the books."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICKLY})
    for _ in range(NODES):
        found.add_node(num_cpus=1)
    found.wait_for_nodes()
    yield found
    found.shutdown()


@pytest.fixture(autouse=True)
def all_nodes(cluster: Any) -> None:
    """What an earlier test has killed comes back."""
    while len(cluster.worker_nodes) < NODES:
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import tiny_model

    folder = tmp_path_factory.mktemp("cluster")
    models: dict[str, Path] = {}

    def model_folder(kind: str, **how: Any) -> Path:
        return models.setdefault(kind, tiny_model(folder / f"model-{kind}", kind, **how))

    make_home(folder / "home", model_folder, documents=60)
    return folder / "home"


@pytest.fixture(scope="module")
def study(home: Path) -> Path:
    inference = {"permutations": 20, "rematches": 3, "bootstraps": 10, "subsamples": 5}
    text = {"source": "text.jsonl", "context": 32, "group": 700, "elsewhere": {"source": "other.jsonl"}}
    write_text(home, sentences(12, seed=7), "other.jsonl")
    return write_study(home, inference=inference, text=text)


@pytest.fixture(scope="module")
def expected(home: Path, study: Path) -> dict[str, str]:
    """The files of a run on this machine, with one core."""
    with pytest.MonkeyPatch.context() as patch, engine_called("local", threads=1) as engine:
        patch.chdir(home)
        patch.setenv("UNIFEAT_CACHE", str(home / "cache-local"))
        run(load_study(study), home / "run-local", engine=engine, force=True)
    return hashes(home / "run-local", but=CHANGING) | hashes(home / "cache-local")


def results(home: Path, name: str) -> dict[str, str]:
    return hashes(home / f"run-{name}", but=CHANGING) | hashes(home / f"cache-{name}")


def driver(home: Path, study: Path, cluster: Any, name: str) -> subprocess.Popen[str]:
    """`unifeat run` on the cluster, as a process of its own."""
    command = [sys.executable, "-c", "from unifeat.cli import main; main()", "run", str(study), "--force", "--quiet"]
    command += ["--out", str(home / f"run-{name}"), "--engine", "ray", "--address", cluster.address, "--threads", "1"]
    where = os.environ | {"UNIFEAT_CACHE": str(home / f"cache-{name}")}
    return subprocess.Popen(command, cwd=home, env=where, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def workers() -> list[psutil.Process]:
    """Processes that run, or ran, units of work."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if line.startswith(("ray::run_unit", "ray::_Worker")):
            found.append(process)
    return found


def pieces(home: Path, name: str) -> int:
    return len(hashes(home / f"cache-{name}"))


def test_same_bits_as_this_machine(home: Path, study: Path, cluster: Any, expected: dict[str, str]) -> None:
    process = driver(home, study, cluster, "plain")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert results(home, "plain") == expected


def test_workers_and_a_node_are_killed(home: Path, study: Path, cluster: Any, expected: dict[str, str]) -> None:
    process = driver(home, study, cluster, "killed")
    chance, killed, node_gone = random.Random(0), 0, False
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.4)
        running = workers()
        if running and killed < 6:
            chance.choice(running).kill()
            killed += 1
            time.sleep(1.0)
        if not node_gone and pieces(home, "killed") > 12:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            node_gone = True
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert killed >= 2
    assert node_gone
    assert results(home, "killed") == expected


def test_the_driver_is_killed_and_started_again(
    home: Path, study: Path, cluster: Any, expected: dict[str, str]
) -> None:
    for least in (4, 14):
        process = driver(home, study, cluster, "again")
        end = time.monotonic() + 300
        while pieces(home, "again") < least and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = driver(home, study, cluster, "again")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert results(home, "again") == expected


def test_training_takes_the_engine_too(home: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models at once, and the SAEs are those of this machine with one core, bit for bit."""
    spaces = [{"model": name, "layers": 1, "sae": f"trained/{name}"} for name in ("one", "two")]
    train = {"text": {"source": "text.jsonl", "context": 32}, "features": 48, "k": 4, "tokens": 2000}
    train |= {"batch": 64, "buffer": 512, "heldout_documents": 8}
    study = load_study(write_study(home, "train.yaml", spaces=spaces, train=train))
    monkeypatch.chdir(home)
    found = {}
    for name, how in (("local", ("local", None, 1)), ("ray", ("ray", cluster.address, 1))):
        monkeypatch.setenv("UNIFEAT_CACHE", str(home / f"cache-train-{name}"))
        with engine_called(*how) as engine:
            trained = train_saes(study, home / f"trained-{name}", engine=engine)
        assert [one.folder.name for one in trained] == ["one", "two"]
        assert all(0 < one.quality.fvu < 2 and one.loss.tokens > 0 for one in trained)
        found[name] = {k: v for k, v in hashes(home / f"trained-{name}").items() if k.endswith("safetensors")}
    assert found["ray"] == found["local"]
    assert len(found["ray"]) == 2


def test_a_process_for_each_gpu(home: Path, study: Path, expected: dict[str, str]) -> None:
    """Two processes in the place of two GPUs: the models run in them, one core each, and the bits are the same."""
    from unifeat.engine import Local

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("UNIFEAT_CACHE", str(home / "cache-gpus"))
        patch.setattr("unifeat.pipeline.loading.load_language_model", lambda *_, **__: pytest.fail("loaded here"))
        run(load_study(study), home / "run-gpus", engine=Local(1, devices=["", ""]), force=True)
    assert results(home, "gpus") == expected


def unit_of(work: Callable[[], Any], name: str) -> Unit[Any]:
    return Unit(Piece("tries", {"name": name}, JSON, "a try"), work)


@pytest.fixture(scope="module")
def connected(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIFEAT_CACHE", str(tmp_path_factory.mktemp("cache")))
        with engine_called("ray", cluster.address, 1) as engine:
            yield engine


@pytest.fixture
def engine(connected: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("UNIFEAT_CACHE", connected._home.cache)
    return connected


class TestUnits:
    def test_results_come_in_order_and_are_stored(self, engine: Any) -> None:
        units = [unit_of(lambda n=n: {"n": n}, f"order {n}") for n in range(40)]
        assert [found["n"] for found in engine.map(iter(units))] == list(range(40))
        assert [unit.piece.read() for unit in units] == [{"n": n} for n in range(40)]

    def test_units_are_taken_as_they_are_needed(self, engine: Any) -> None:
        taken = []

        def units() -> Iterator[Unit[Any]]:
            for n in range(1000):
                taken.append(n)
                yield unit_of(lambda n=n: n, f"few {n}")

        results = engine.map(units())
        assert next(results) == 0
        results.close()
        assert len(taken) < 50

    def test_a_user_s_mistake_is_the_same_line(self, engine: Any) -> None:
        def wrong() -> None:
            raise UserError("the text is too short")

        with pytest.raises(UserError, match=r"^the text is too short$"):
            list(engine.map([unit_of(wrong, "wrong")]))

    def test_what_a_unit_says_is_said_here(self, engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
        def talk() -> int:
            from unifeat.progress import say

            say("warning: from afar")
            return 1

        set_mode("log")
        assert list(engine.map([unit_of(talk, "talk")])) == [1]
        assert "warning: from afar" in capsys.readouterr().err

    def test_a_worker_that_always_dies_is_told(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr("unifeat.engine.ray._TRIES", 2)
        with pytest.raises(UserError, match=r"a worker died 2 times on the same unit of work, for want of memory"):
            list(engine.map([unit_of(die, "die")]))

    def test_a_cache_that_workers_do_not_see(self, engine: Any) -> None:
        from dataclasses import replace

        home, engine._home = engine._home, replace(engine._home, secret="of another folder")
        try:
            with pytest.raises(UserError, match=r"a worker on .* does not see the cache .*: set UNIFEAT_CACHE to"):
                list(engine.map([unit_of(lambda: 1, "unseen")]))
        finally:
            engine._home = home

    def test_a_model_stays_loaded(self, engine: Any) -> None:
        def pid() -> int:
            return os.getpid()

        units = [
            Unit(Piece("tries", {"name": f"model {n}"}, JSON, "a try"), pid, model="a model", fills_machine=True)
            for n in range(12)
        ]
        assert len(set(engine.map(units))) <= NODES

    def test_a_gpu_that_is_not_there(
        self, engine: Any, home: Path, study: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(home)
        asked = load_study(study)
        models = {name: model.model_copy(update={"device": "cuda"}) for name, model in asked.models.items()}
        with pytest.raises(UserError, match=r"device 'cuda': no node of the cluster has a GPU; use auto or cpu"):
            run(asked.model_copy(update={"models": models}), home / "run-gpu", engine=engine)
