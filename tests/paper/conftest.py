"""The paper's studies run whole and offline: tiny random models under the real names, in a hub cache on disk.

Names, layer counts, architectures, SAE formats and every setting are the study files' own; only the text is another,
and where said fewer layers are read and fewer nulls drawn.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from papers import DOCUMENTS, MODELS, STUDIES, WIDTHS, RunStudy, saes_of, study_data

from hub import Hub
from tiny import sentences, write_text


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
