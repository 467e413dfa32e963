"""SAEs of random directions: the same norms, biases and gates, and nothing else left of the trained ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoints
from tiny import tiny_sae
from unifeat.errors import UserError
from unifeat.saes import decoder_rows, load_sae, provenance_of, sae_digest
from unifeat.saes.controls import random_directions

D, M = 24, 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_sae(tmp_path / "sae", D, M, 4)


def test_norms_biases_and_k_are_kept_and_directions_are_not(folder: Path):
    trained, random = load_sae(folder), random_directions(load_sae(folder), seed=3)
    for of, dim in (("W_dec", 1), ("W_enc", 0)):
        before, after = getattr(trained, of), getattr(random, of)
        torch.testing.assert_close(after.norm(dim=dim), before.norm(dim=dim), rtol=1e-5, atol=1e-6)
        assert (torch.cosine_similarity(before, after, dim=dim).abs().max()) < 0.8
    assert torch.equal(random.b_enc, trained.b_enc)
    assert torch.equal(random.b_dec, trained.b_dec)
    assert random.cfg.k == trained.cfg.k
    assert provenance_of(random).control == "random directions, seed 3"


def test_encoder_and_decoder_of_a_feature_are_one_direction(folder: Path):
    random = random_directions(load_sae(folder), seed=0)
    cosines = torch.cosine_similarity(random.W_enc.T, random.W_dec, dim=1)
    torch.testing.assert_close(cosines, torch.ones(M), rtol=1e-5, atol=1e-5)


def test_directions_are_uniform_on_the_sphere(tmp_path: Path):
    """Second moments of 20,000 unit vectors: I/d, and fourth moments of a coordinate: 3/(d(d+2))."""
    d = 6
    sae = random_directions(load_sae(tiny_sae(tmp_path / "wide", d, 20_000, 4)), seed=1)
    rows = decoder_rows(sae).astype(float)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(d) / d, atol=0.006)
    np.testing.assert_allclose((rows**4).mean(0), 3 / (d * (d + 2)), atol=0.003)
    np.testing.assert_allclose(rows.mean(0), 0, atol=0.012)


def test_a_seed_gives_the_same_and_another_seed_another(folder: Path):
    first, again = (random_directions(load_sae(folder), seed=5) for _ in range(2))
    assert sae_digest(first) == sae_digest(again)
    assert len({sae_digest(random_directions(load_sae(folder), seed)) for seed in range(4)} | {sae_digest(first)}) == 5
    assert sae_digest(load_sae(folder)) != sae_digest(first)


def test_thresholds_are_kept(tmp_path: Path):
    checkpoints.write_gemma_scope(tmp_path, checkpoints.tensors(D, M))
    trained, random = load_sae(tmp_path), random_directions(load_sae(tmp_path), seed=0)
    assert torch.equal(random.threshold, trained.threshold)
    assert not torch.equal(random.W_dec, trained.W_dec)


def test_a_transcoder_has_no_one_space(tmp_path: Path):
    checkpoints.write_circuit_tracer(tmp_path / "layer_5.safetensors", checkpoints.tensors(D, M))
    with pytest.raises(UserError, match="writes where it reads"):
        random_directions(load_sae(tmp_path / "layer_5.safetensors"), seed=0)
