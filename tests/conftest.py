"""What every test gets: no network, a cache of its own, one thread, nothing left over from the test before."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
from jaxtyping import install_import_hook

# Shapes and dtypes in the signatures of these modules are checked at every call.
CHECKED = [
    *(f"unifeat.geometry.{name}" for name in ("_components", "_folds", "_input", "_pairs")),
    *("unifeat.inference.multiplicity", "unifeat.correlation.csls", "unifeat.matching.methods"),
    *("unifeat.vocabulary.places", "unifeat.saes.quality"),
]
install_import_hook(CHECKED, "beartype.beartype")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TQDM_DISABLE"] = "1"
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_threads] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Hide CUDA from all but the tests marked `gpu`: on every machine the others run as in CI."""
    chosen = config.option.markexpr or ""
    if "gpu" not in chosen or "not gpu" in chosen:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish() -> None:
    """What the imports made stays for good: without this, every full collection of garbage walks through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("UNIFEAT_CACHE", str(cache))
    return cache


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No progress, and whatever mode a test chooses ends with it."""
    from unifeat.progress import set_mode

    set_mode("quiet")
    yield
    set_mode("auto")


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """No checks of shapes where thousands of small studies are simulated: they would double the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of tiny models, each made once a session: `model_folder("llama", tokenizer="wordish")`."""
    from tiny import tiny_model

    made: dict[tuple[object, ...], Path] = {}

    def make(architecture: str = "llama", **settings: object) -> Path:
        key = (architecture, *sorted(settings.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp(f"model-{architecture}") / f"tiny-{architecture}"
            made[key] = tiny_model(folder, architecture, **settings)  # type: ignore[arg-type]
        return made[key]

    return make
