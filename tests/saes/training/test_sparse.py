"""The sparse forward pass against SAELens' dense one: same losses, same gradients, same SAE after some steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import saelens
from unifeat.saes.training.architectures import SparseBatchTopK, SparseMatryoshka, SparseTopK
from unifeat.saes.training.sparse import Active
from unifeat.saes.training.trainers import Job, made_so_far, make_trainer
from unifeat.study.text import TextSpec
from unifeat.study.training import TrainSpec
from unifeat.vocabulary.hook_points import HookPoint

D_IN, D_SAE, K, TOKENS = 24, 80, 5, 64
CASES = ["topk", "batchtopk", "matryoshka"]


def pair(architecture: str, seed: int = 0) -> tuple[Any, Any]:
    """Ours and SAELens' training SAE with equal weights: decoder norms that differ, biases that are not zero."""
    lens = saelens()
    settings: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE, "k": K, "dtype": "float32", "device": "cpu"}
    settings |= {"apply_b_dec_to_input": True, "aux_loss_coefficient": 0.7}
    if architecture == "topk":
        made = [cls(lens.TopKTrainingSAEConfig(**settings)) for cls in (SparseTopK, lens.TopKTrainingSAE)]
    elif architecture == "batchtopk":
        made = [
            cls(lens.BatchTopKTrainingSAEConfig(**settings)) for cls in (SparseBatchTopK, lens.BatchTopKTrainingSAE)
        ]
    else:
        settings["matryoshka_widths"] = [8, 30, D_SAE]
        made = [
            cls(lens.MatryoshkaBatchTopKTrainingSAEConfig(**settings))
            for cls in (SparseMatryoshka, lens.MatryoshkaBatchTopKTrainingSAE)
        ]
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = made
    for name, parameter in ours.named_parameters():
        value = torch.randn(parameter.shape, generator=generator) * (0.1 if name.startswith("b_") else 0.3)
        parameter.data.copy_(value)
        dict(theirs.named_parameters())[name].data.copy_(value)
    return ours, theirs


def forward(sae: Any, x: Tensor, dead: Tensor | None) -> Any:
    from sae_lens.saes.sae import TrainStepInput

    return sae.training_forward_pass(
        TrainStepInput(sae_in=x, coefficients={}, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False)
    )


@pytest.fixture
def x() -> Tensor:
    return torch.randn(TOKENS, D_IN, generator=torch.Generator().manual_seed(7)) + 0.3


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max().clamp(min=1e-6)))


@pytest.mark.parametrize("architecture", CASES)
@pytest.mark.parametrize("n_dead", [0, 1, 9, 40])  # none, some, more than d_in / 2
def test_losses_and_gradients_are_saelens(architecture: str, n_dead: int, x: Tensor):
    ours, theirs = pair(architecture)
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[torch.randperm(D_SAE, generator=torch.Generator().manual_seed(1))[:n_dead]] = True
    mine, expected = forward(ours, x, dead), forward(theirs, x, dead)
    assert mine.losses.keys() == expected.losses.keys()
    for name, loss in expected.losses.items():
        assert float(mine.losses[name].detach()) == pytest.approx(float(loss.detach()), rel=1e-5), name
    assert float(expected.losses["auxiliary_reconstruction_loss"].detach()) > 0 or not n_dead
    assert float(mine.loss.detach()) == pytest.approx(float(expected.loss.detach()), rel=1e-5)
    assert close(mine.sae_out.detach(), expected.sae_out.detach())
    assert close(mine.feature_acts.to_dense(), expected.feature_acts.detach())
    mine.loss.backward()
    expected.loss.backward()
    theirs_by_name = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert float(theirs_by_name[name].grad.abs().max()) > 1e-3
        assert close(parameter.grad, theirs_by_name[name].grad), name
    if architecture != "topk":
        assert float(ours.topk_threshold) == pytest.approx(float(theirs.topk_threshold), rel=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 5.0])
def test_batch_top_k_is_exact_whatever_the_threshold_so_far(x: Tensor, threshold: float):
    """Candidates are only looked for above a part of it; when they are too few, all positive ones are."""
    ours, theirs = pair("batchtopk")
    ours.topk_threshold.fill_(threshold)
    assert close(forward(ours, x, None).feature_acts.to_dense(), forward(theirs, x, None).feature_acts.detach())


@pytest.mark.parametrize("architecture", CASES)
def test_fewer_positive_features_than_k(architecture: str, x: Tensor):
    ours, theirs = pair(architecture)
    for sae in (ours, theirs):
        sae.b_enc.data.fill_(-2.5)
    mine, expected = forward(ours, x, None), forward(theirs, x, None)
    assert 0 < int((expected.feature_acts > 0).sum()) < K * TOKENS
    assert close(mine.feature_acts.to_dense(), expected.feature_acts.detach())
    assert close(mine.sae_out.detach(), expected.sae_out.detach())


def test_no_feature_active_at_all(x: Tensor):
    ours, _ = pair("batchtopk")
    ours.b_enc.data.fill_(-1e3)
    output = forward(ours, x, None)
    output.loss.backward()
    assert torch.equal(output.sae_out, ours.b_dec.expand_as(x))
    assert not ours.W_enc.grad.any()


@pytest.mark.parametrize("architecture", CASES)
def test_some_steps_of_the_trainer_end_where_saelens_ends(architecture: str):
    """Through SAELens' trainer, dead features and all: firing counts, clipping, schedules and Adam's moments."""
    spec = TrainSpec(
        text=TextSpec(source="x"), architecture=architecture, features=D_SAE, k=K, tokens=64 * 40, batch=64,
        dead_after=256, lr=1e-3,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(64, D_IN, generator=generator) for _ in range(30)]
    job = Job(HookPoint(0), None, spec, 0)  # type: ignore[arg-type]
    mine = make_trainer(job, torch.device("cpu"), batches[:4])
    reference = make_trainer(job, torch.device("cpu"), batches[:4])
    dense = next(cls for cls in type(mine.sae).__mro__ if cls.__module__.startswith("sae_lens"))
    reference.sae.__class__ = dense
    dead = 0
    for trainer in (mine, reference):
        trainer.sae.b_enc.data[:10] = -3.0
    for batch in batches:
        for trainer in (mine, reference):
            trainer.step(batch)
            trainer.n_training_steps += 1
        dead = max(dead, int(mine.dead_neurons.sum()))
    assert dead >= 10
    assert torch.equal(mine.n_forward_passes_since_fired, reference.n_forward_passes_since_fired)
    assert torch.equal(mine.act_freq_scores, reference.act_freq_scores)
    ours, theirs = made_so_far(mine).state_dict(), made_so_far(reference).state_dict()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-3, atol=1e-4), name


def test_sums_against_dense_products():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(9, 13, generator=generator) * (torch.rand(9, 13, generator=generator) < 0.3)
    codes[4] = 0  # a token without features; some feature is without tokens
    codes[:, 2] = 0
    token, feature = codes.nonzero(as_tuple=True)
    active = Active(token, feature, 9, 13)
    value = codes[token, feature]
    decoder, rows = torch.randn(13, 6, generator=generator), torch.randn(9, 6, generator=generator)
    assert torch.allclose(active.sum_by_token(decoder, value), codes @ decoder, atol=1e-5)
    assert torch.allclose(active.sum_by_feature(rows, value), codes.T @ rows, atol=1e-5)
    assert torch.allclose(active.dot(decoder, rows), (rows @ decoder.T)[token, feature], atol=1e-5)
    assert torch.allclose(active.total(value), codes.sum(0), atol=1e-5)
    assert torch.equal(active.as_sparse(value).to_dense(), codes)
