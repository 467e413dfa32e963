"""A folder with all that a small study names: two models with different tokenizers, their SAEs, text, `study.yaml`."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tiny import sentences, tiny_sae, write_text
from warm import Done, Warm

GROUP = 1500  # characters in a unit of work: a small text has eight of them
STUDY: dict[str, Any] = {
    "name": "tiny",
    "text": {"source": "text.jsonl", "context": 32, "group": GROUP},
    "models": {"one": {"name": "model-one", "dtype": "float32"}, "two": {"name": "model-two", "dtype": "float32"}},
    "spaces": [
        {"model": "one", "layers": [0, 2], "sae": "saes/one_{layer}"},
        {"model": "two", "layers": 1, "sae": "saes/two_{layer}"},
    ],
    "matching": {"min_count": 3, "min_correlation": 0.05, "exclude_tokens": ["."]},
    "geometry": [{"svcca": {"dims": 3}}, "rsa", "cka"],
    "inference": {"permutations": 20},
    "seed": 3,
}


def make_home(folder: Path, model_folder: Callable[..., Path], documents: int = 40) -> Path:
    """Write it and return the study's path."""
    folder.mkdir(exist_ok=True)
    (folder / "model-one").symlink_to(model_folder("gpt2", tokenizer="bpe"))
    (folder / "model-two").symlink_to(model_folder("llama", tokenizer="wordish"))
    for name in ("one_0", "one_2", "two_1"):
        layer = int(name[-1])
        mean = mean_activation(folder / f"model-{name[:3]}", layer)
        tiny_sae(folder / "saes" / name, 32, seed=len(name) + layer, mean=mean)
    write_text(folder, sentences(documents))
    return write_study(folder)


def mean_activation(model: Path, layer: int) -> Any:
    """The mean output of a tiny model's block over some sentences."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    outputs: list[Any] = []
    blocks = getattr(network.base_model, "layers", None) or network.base_model.h
    blocks[layer].register_forward_hook(lambda _, __, y: outputs.append(y[0] if isinstance(y, tuple) else y))
    with torch.inference_mode():
        for text in sentences(20):
            network(torch.tensor([tokenizer(text)["input_ids"]])[:, :32])
    return torch.cat([y.reshape(-1, y.shape[-1])[1:] for y in outputs]).mean(0)


def write_study(home: Path, file: str = "study.yaml", /, **changes: Any) -> Path:
    """Write the study with some keys changed; a key set to `...` is left out."""
    study = {key: value for key, value in (STUDY | changes).items() if value is not ...}
    path = home / file
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def hashes(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder by its path; what a kill left aside is not looked at."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        aside = any(part.startswith(".partial-") for part in relative.parts)
        noted = relative.parts[0] in ("digests", "runs")  # what the cache remembers of files and of runs
        if path.is_file() and not aside and not noted and path.name not in but:
            found[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@dataclass(frozen=True)
class Place:
    """Where a study is, where it is run from, and the cache."""

    home: Path
    work: Path
    cache: Path

    @property
    def study(self) -> Path:
        return self.home / "study.yaml"

    @property
    def run(self) -> Path:
        return self.work / "runs" / "tiny"

    def unifeat(self, warm: Warm, *args: object, **settings: Any) -> Done:
        """Run a command here."""
        return warm.run(*args, cache=self.cache, cwd=self.work, **settings)

    def copy(self, folder: Path) -> Place:
        """The same files elsewhere; codes are found again there, since their keys hold no path."""
        shutil.copytree(self.home.parent, folder, symlinks=True)
        return Place(folder / "home", folder / "work", folder / "cache")


def make_place(folder: Path, model_folder: Callable[..., Path]) -> Place:
    """A place with the study not run yet."""
    folder.mkdir(exist_ok=True)
    make_home(folder / "home", model_folder)
    (folder / "work").mkdir()
    return Place(folder / "home", folder / "work", folder / "cache")


_shared: dict[str, Any] = {}


def shared_warm() -> Warm:
    """One server for all tests of a session."""
    if "warm" not in _shared:
        folder = Path(tempfile.mkdtemp(prefix="unifeat-warm-"))
        _shared["warm"] = Warm(folder)
        atexit.register(shutil.rmtree, folder)
        atexit.register(_shared["warm"].close)
    return _shared["warm"]


def shared_place(factory: pytest.TempPathFactory, model_folder: Callable[..., Path]) -> Place:
    """One place for all tests of a session where the study has been run. Read only: copy it to change it."""
    if "place" not in _shared:
        place = make_place(factory.mktemp("place") / "finished", model_folder)
        done = place.unifeat(shared_warm(), "run", place.study, "--quiet")
        assert done.code == 0, done.err
        _shared["place"] = place
        _shared["out"] = done
    return _shared["place"]


def shared_output() -> Done:
    """What the run of the shared place, with --quiet, printed."""
    return _shared["out"]
