"""The paper's studies run whole and offline: tiny random models under the real names, in a hub cache on disk.

Names, layer counts, architectures, SAE formats and every setting are the study files' own; only the text is another,
and where said fewer layers are read and fewer nulls drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub import Hub
from tiny import sentences, write_text

STUDIES = Path(__file__).parents[2] / "studies" / "paper"
DOCUMENTS = 24
# The real models' architectures and numbers of blocks.
MODELS = {
    "EleutherAI/pythia-70m": ("gpt_neox", 6, "bpe"),
    "EleutherAI/pythia-160m": ("gpt_neox", 12, "bpe"),
    "google/gemma-2b": ("gemma", 18, "wordish"),
    "google/gemma-2-2b": ("gemma2", 26, "wordish"),
}
WIDTHS = {"EleutherAI/pythia-70m": 24, "EleutherAI/pythia-160m": 32, "google/gemma-2b": 32, "google/gemma-2-2b": 24}
RunStudy = Callable[..., Any]


def study_data(name: str) -> dict[str, Any]:
    """A study file as it is."""
    return yaml.safe_load((STUDIES / f"{name}.yaml").read_text(encoding="utf-8"))


def saes_of(data: dict[str, Any]) -> dict[str, str]:
    """Every SAE that a study names, with its model's hub name."""
    return {
        group["sae"].format(layer=layer): data["models"][group["model"]]["name"]
        for group in data["spaces"]
        for layer in group["layers"]
    }


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Everything that the eight studies name, tiny."""
    hub = Hub(tmp_path_factory.mktemp("hub"))
    for seed, (name, (architecture, layers, tokenizer)) in enumerate(MODELS.items()):
        hub.model(
            name,
            architecture,
            layers=layers,
            width=WIDTHS[name],
            vocab=768,
            seed=seed,
            tokenizer=tokenizer,
            positions=300,
        )
    saes: dict[str, str] = {}
    for path in sorted(STUDIES.glob("*.yaml")):
        saes |= saes_of(study_data(path.stem))
    for seed, (name, model) in enumerate(saes.items()):
        hub.sae(name, width=WIDTHS[model], d_sae=96, k=6, seed=seed)
    return hub


@pytest.fixture(scope="session")
def run_study(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> RunStudy:
    """Run a study file over other text, each version once a session: `run_study("pythia", inference={...})`.

    All share one cache, as they would on a user's machine.
    """
    import unifeat as uf

    home = tmp_path_factory.mktemp("paper")
    short = sentences(3 * DOCUMENTS, seed=5)
    text = write_text(home, [" ".join(short[n::DOCUMENTS]) for n in range(DOCUMENTS)])
    done: dict[str, Any] = {}

    def run(name: str, layers: dict[str, list[int]] | None = None, **changes: Any) -> Any:
        key = repr((name, layers, changes))
        if key not in done:
            data = study_data(name)
            data["text"]["source"] = str(text)
            for group in data["spaces"]:
                group["layers"] = (layers or {}).get(group.get("name", group["model"]), group["layers"])
            for part, settings in changes.items():
                data[part] = data.get(part, {}) | settings
            path = home / f"{name}-{len(done)}.yaml"
            path.write_text(yaml.safe_dump(data, sort_keys=False))
            with pytest.MonkeyPatch.context() as patched:
                hub.use(patched)
                patched.setenv("UNIFEAT_CACHE", str(home / "cache"))
                # The stand-ins are random: their FVU is bad and their L0 another than the real ones say.
                done[key] = uf.run(path, home / "runs" / path.stem, force="preset" not in data)
        return done[key]

    return run
