"""Heavy libraries are loaded when they are used: what answers at once must not wait for them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import unifeat

SRC = Path(unifeat.__file__).parent
HEAVY = (
    *("torch", "transformers", "sae_lens", "datasets", "numba", "scipy", "pandas", "pyarrow", "plotly", "numpy"),
    *("pydantic", "safetensors", "tokenizers", "huggingface_hub", "accelerate", "sklearn", "yaml", "jinja2", "typer"),
    *("rich", "gguf", "llvmlite"),
)
VOCABULARY = [f"unifeat.vocabulary.{path.stem}" for path in sorted((SRC / "vocabulary").glob("[!_]*.py"))]
LIGHT_WITHOUT = {
    "unifeat": HEAVY,
    "unifeat.errors": HEAVY,
    "unifeat.progress": HEAVY,
    "unifeat.store": ("numpy", "pandas", "torch", "pyarrow", "numba", "scipy"),
    "unifeat.engine": ("numpy", "pandas", "torch", "pyarrow", "numba", "scipy"),
    "unifeat.codes.shard": ("torch", "transformers", "sae_lens", "numba", "pandas", "scipy"),
    "unifeat.codes": ("torch", "transformers", "sae_lens"),
    "unifeat.study.read": ("torch", "transformers", "sae_lens", "numba", "scipy", "pandas", "pyarrow", "plotly"),
    "unifeat.geometry": ("torch", "numba", "transformers", "sae_lens", "pandas", "pyarrow"),
    "unifeat.inference": ("torch", "numba", "transformers", "sae_lens", "pandas", "pyarrow"),
    "unifeat.correlation.correlate": ("torch", "transformers", "sae_lens"),
    "unifeat.matching.candidates": ("torch", "transformers", "sae_lens"),
    "unifeat.runs.folder": ("torch", "transformers", "sae_lens", "numba"),
    "unifeat.report.html": ("torch", "numba", "transformers", "sae_lens"),
    "unifeat.report.terminal": ("torch", "numba", "transformers", "sae_lens"),
    "unifeat.cli": ("torch", "numba", "transformers", "sae_lens", "scipy", "pandas", "pyarrow", "plotly", "numpy"),
} | dict.fromkeys(VOCABULARY, ("torch", "transformers", "sae_lens", "numba"))


@cache
def loaded_by(module: str) -> frozenset[str]:
    """The top-level packages that are there once a module is imported in a fresh process."""
    code = f"import sys, json, {module}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout))


@pytest.mark.parametrize("module", LIGHT_WITHOUT)
def test_is_imported_without(module: str) -> None:
    loaded = loaded_by(module)
    assert "unifeat" in loaded
    assert not loaded & set(LIGHT_WITHOUT[module])


def test_what_is_used_is_loaded() -> None:
    """The other way round, so that the test above is known to see what it looks for."""
    assert "torch" in loaded_by("unifeat.models.language")
    assert "numba" in loaded_by("unifeat.correlation.kernels")
    assert "numpy" in loaded_by("unifeat.codes.shard")


def test_every_public_name_is_there_when_asked_for() -> None:
    assert set(dir(unifeat)) == set(unifeat.__all__)
    for name in unifeat.__all__:
        assert getattr(unifeat, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        unifeat.nothing  # noqa: B018
