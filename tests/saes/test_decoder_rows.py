"""A study's word on its SAEs reaches the codes: the format, and controls of random directions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoints
from homes import make_home, write_study
from unifeat.errors import UserError
from unifeat.pipeline.encode import prepare_spaces
from unifeat.saes import decoder_rows, load_sae
from unifeat.saes.controls import random_directions
from unifeat.study.read import load_study


@pytest.fixture
def home(tmp_path: Path, model_folder: Callable[..., Path]) -> Path:
    make_home(tmp_path / "home", model_folder, documents=12)
    return tmp_path / "home"


def spaces_of(home: Path, *spaces: dict[str, Any]) -> list[Any]:
    """Spaces of the study's first model, layer 0, encoded; a plain one besides, since a study compares."""
    groups = [{"model": "one", "layers": 0} | space for space in ({"sae": "saes/one_0", "name": "plain"}, *spaces)]
    study = load_study(write_study(home, "other.yaml", spaces=groups))
    return prepare_spaces(study, force=True).spaces[1:]  # their SAEs are random


def test_random_directions_are_a_space_of_their_own(home: Path):
    sae = {"sae": "saes/one_0"}
    trained, seven, eight = spaces_of(
        home,
        sae | {"name": "trained"},
        sae | {"name": "seven", "random_directions": 7},
        sae | {"name": "eight", "random_directions": 8},
    )
    expected = decoder_rows(random_directions(load_sae(home / "saes" / "one_0"), 7))
    np.testing.assert_allclose(seven.decoder.rows(np.arange(64)), expected, rtol=1e-6)
    np.testing.assert_allclose(trained.decoder.rows(np.arange(64)), decoder_rows(load_sae(home / "saes" / "one_0")))
    assert len({space.store.folder for space in (trained, seven, eight)}) == 3
    assert trained.store.rows == seven.store.rows > 0
    assert not np.array_equal(seven.store.shard(0).feature, eight.store.shard(0).feature)


def test_the_format_is_the_study_s(home: Path):
    both = home / "saes" / "both"
    checkpoints.write_saelens(both, checkpoints.tensors(32, 64, seed=1))
    checkpoints.write_gemma_scope(both, checkpoints.tensors(32, 48, seed=2))
    auto, named = spaces_of(
        home,
        {"name": "auto", "sae": "saes/both"},
        {"name": "named", "sae": "saes/both", "format": "gemma_scope"},
    )
    assert (auto.store.features, named.store.features) == (64, 48)
    with pytest.raises(UserError, match=r"no SAE format 'gemma_scop' \(did you mean 'gemma_scope"):
        spaces_of(home, {"sae": "saes/both", "format": "gemma_scop"})


def test_codes_are_those_of_the_format(home: Path):
    """A sparsify folder and an OpenAI file with the same weights: the layer norm of the second changes its codes."""
    held = checkpoints.tensors(32, 64, seed=5)
    checkpoints.write_sparsify(home / "saes" / "layers.0", held, k=3)
    checkpoints.write_openai(home / "saes" / "0.pt", held, 3)
    sparsify, openai = spaces_of(
        home, {"sae": "saes/layers.0", "name": "sparsify"}, {"sae": "saes/0.pt", "name": "openai"}
    )
    for space in (sparsify, openai):
        assert np.diff(space.store.shard(0).indptr).max() == 3
        assert space.info["fvu"] is not None  # decoded in the order in which layer norm keeps its mean and deviation
    assert not np.array_equal(sparsify.store.shard(0).feature, openai.store.shard(0).feature)
