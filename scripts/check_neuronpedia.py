"""Is an export what SAEDashboard's own classes take?

    pip install --no-deps --target build/sae-dashboard sae-dashboard
    python scripts/check_neuronpedia.py EXPORT --package build/sae-dashboard

SAEDashboard asks for other versions of transformers, rich and typer than unifeat, so it cannot be installed beside it.
Its schema is one module that needs only NumPy: that module is loaded by itself, and every feature of `saedashboard/`
goes through it and back. The same features must be in `exports/`.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

SCHEMA = "sae_dashboard/neuronpedia/neuronpedia_dashboard.py"


def schema_of(package: Path) -> ModuleType:
    """SAEDashboard's schema, without the rest of the package."""
    spec = importlib.util.spec_from_file_location("neuronpedia_dashboard", package / SCHEMA)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_batch(schema: ModuleType, data: dict[str, Any]) -> int:
    """Check one batch; returns how many features it has."""
    batch = schema.NeuronpediaDashboardBatch(**data)
    back = batch.to_dict()
    assert back == data, "a batch comes back as it was"
    other = schema.NeuronpediaDashboardBatch(**json.loads(json.dumps(back)))
    assert all(one == two for one, two in zip(batch.features, other.features, strict=True))
    for feature in back["features"]:
        assert len(feature["correlated_features_indices"]) == len(feature["correlated_features_pearson"])
        for one in feature["activations"]:
            assert len(one["tokens"]) == len(one["values"])
            assert one["values"][one["qualifying_token_index"]] != 0
    return len(batch.features)


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of an export."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--package", type=Path, required=True)
    options = parser.parse_args()
    schema = schema_of(options.package)
    for folder in sorted((options.export / "saedashboard").iterdir()):
        features = sum(check_batch(schema, json.loads(path.read_text("utf-8"))) for path in folder.glob("batch-*.json"))
        model, _, source = folder.name.partition("_")
        exported = options.export / "exports" / model / source
        counts = {
            kind: sum(len(lines(path)) for path in (exported / kind).glob("batch-*.jsonl.gz"))
            for kind in ("features", "activations", "explanations")
        }
        assert counts["features"] == features
        print(f"{folder.name}: {features:,} features as SAEDashboard reads them; in exports/: {counts}")


if __name__ == "__main__":
    main()
