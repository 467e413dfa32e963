"""JumpReLU's two parts, against SAELens' dense code: thresholds that follow a selection, then ones that are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import saelens
from unifeat.saes.training.architectures import SparseJumpReLU
from unifeat.saes.training.trainers import Job, made_so_far, make_trainer
from unifeat.study.text import TextSpec
from unifeat.study.training import TrainSpec
from unifeat.vocabulary.hook_points import HookPoint

pytestmark = pytest.mark.slow

D_IN, D_SAE, K, TOKENS = 24, 80, 5, 64
AUXILIARY, L0_COEFFICIENT = 0.7, 3.0
WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")


def training_sae(*, selection_steps: int = 0, seed: int = 0) -> Any:
    """Weights whose decoder norms differ, biases that are not zero, thresholds in the midst of the pre-activations."""
    lens = saelens()
    config = lens.JumpReLUTrainingSAEConfig(
        d_in=D_IN,
        d_sae=D_SAE,
        dtype="float32",
        device="cpu",
        apply_b_dec_to_input=True,
        jumprelu_sparsity_loss_mode="quadratic",
        target_l0=float(K),
        l0_coefficient=L0_COEFFICIENT,
        jumprelu_bandwidth=0.4,
        jumprelu_ste_to_input=True,
    )
    sae = SparseJumpReLU(config)
    sae.selection_steps, sae.auxiliary = selection_steps, AUXILIARY
    generator = torch.Generator().manual_seed(seed)
    for name in WEIGHTS:
        parameter = getattr(sae, name)
        scale = 0.1 if name.startswith("b_") else 0.3
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    sae.threshold.data.copy_(1.0 + torch.rand(D_SAE, generator=generator))
    return sae


def forward(sae: Any, x: Tensor, dead: Tensor | None = None, step: int = 0) -> Any:
    from sae_lens.saes.sae import TrainStepInput

    return sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients={"l0": L0_COEFFICIENT},
            dead_neuron_mask=dead,
            n_training_steps=step,
            is_logging_step=False,
        )
    )


@pytest.fixture
def x() -> Tensor:
    return torch.randn(TOKENS, D_IN, generator=torch.Generator().manual_seed(7)) + 0.3


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max().clamp(min=1e-6)))


def dead_mask(n: int) -> Tensor:
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[torch.randperm(D_SAE, generator=torch.Generator().manual_seed(1))[:n]] = True
    return dead


@pytest.mark.parametrize("n_dead", [0, 9, 40])  # none, some, more than d_in / 2
def test_trained_thresholds_have_the_gradients_of_saelens_estimators(x: Tensor, n_dead: int):
    """The same losses from SAELens' `JumpReLU` and `Step`, over the whole dictionary."""
    from sae_lens.saes.jumprelu_sae import JumpReLU, Step
    from sae_lens.saes.topk_sae import calculate_topk_aux_acts

    sae, dead = training_sae(), dead_mask(n_dead)
    mine = forward(sae, x, dead)
    mine.loss.backward()
    grads = {name: p.grad.clone() for name, p in sae.named_parameters()}
    sae.zero_grad()

    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    codes = JumpReLU.apply(pre, sae.threshold, sae.bandwidth, True)
    l0 = Step.apply(pre, sae.threshold, sae.bandwidth, True).sum(dim=-1)
    decoded = codes @ sae.W_dec + sae.b_dec
    mse = (decoded - x).pow(2).sum(dim=-1).mean()
    l0_loss = L0_COEFFICIENT * 2 / K * (l0.mean() - K) ** 2
    auxiliary = x.new_zeros(())
    if n_dead:
        k_aux = min(D_IN // 2, n_dead)
        norm = sae.W_dec.norm(dim=-1).detach()
        chosen = calculate_topk_aux_acts(k_aux, pre * norm, dead) != 0
        explained = torch.where(chosen, pre, 0.0) @ sae.W_dec
        auxiliary = (
            AUXILIARY * min(n_dead / (D_IN // 2), 1) * (explained - (x - decoded).detach()).pow(2).sum(-1).mean()
        )
    (mse + l0_loss + auxiliary).backward()

    mean_l0 = float(l0.detach().mean())
    assert 2 < mean_l0 < 40
    assert mean_l0 != pytest.approx(K, abs=0.5)
    for name, loss in (("mse_loss", mse), ("l0_loss", l0_loss), ("auxiliary_reconstruction_loss", auxiliary)):
        assert float(mine.losses[name].detach()) == pytest.approx(float(loss.detach()), rel=1e-5), name
    assert close(mine.feature_acts.to_dense(), codes.detach())
    for name, parameter in sae.named_parameters():
        assert float(parameter.grad.abs().max()) > 1e-3, name
        assert close(grads[name], parameter.grad), name


@pytest.mark.parametrize("n_dead", [0, 9, 40])
def test_the_selection_has_the_losses_and_gradients_of_saelens_batch_top_k(x: Tensor, n_dead: int):
    lens = saelens()
    ours = training_sae(selection_steps=3)
    config = lens.BatchTopKTrainingSAEConfig(
        d_in=D_IN, d_sae=D_SAE, k=K, dtype="float32", device="cpu", aux_loss_coefficient=AUXILIARY
    )
    theirs = lens.BatchTopKTrainingSAE(config)
    for name in WEIGHTS:
        getattr(theirs, name).data.copy_(getattr(ours, name).data)
    mine, expected = forward(ours, x, dead_mask(n_dead), step=1), forward(theirs, x, dead_mask(n_dead))
    for name, loss in expected.losses.items():
        assert float(mine.losses[name].detach()) == pytest.approx(float(loss.detach()), rel=1e-5), name
    assert not mine.losses["l0_loss"]
    mine.loss.backward()
    expected.loss.backward()
    for name in WEIGHTS:
        assert close(getattr(ours, name).grad, getattr(theirs, name).grad), name
    assert ours.threshold.grad is None
    assert int((mine.feature_acts.to_dense() > 0).sum()) == K * TOKENS


def test_thresholds_begin_at_the_least_activation_chosen_and_follow_it(x: Tensor):
    sae = training_sae(selection_steps=5)
    norm = sae.W_dec.norm(dim=-1).detach()
    codes = forward(sae, x, step=0).feature_acts.to_dense()
    least = float((codes * norm)[codes > 0].min())
    assert torch.allclose(sae.threshold.data, least / norm)
    sae.threshold.data *= 2
    forward(sae, x, step=1)
    assert torch.allclose(sae.threshold.data, (2 - 0.02) * least / norm, rtol=1e-5)
    forward(sae, x, step=5)  # from here on only gradients move them
    assert torch.allclose(sae.threshold.data, (2 - 0.02) * least / norm, rtol=1e-5)


def test_thresholds_stay_at_zero_or_above(x: Tensor):
    sae = training_sae()
    sae.threshold.data[:7] = -0.5
    codes = forward(sae, x).feature_acts.to_dense()
    assert float(sae.threshold.data.min()) == 0.0
    assert float(codes.min()) == 0.0


def test_no_feature_active_at_all(x: Tensor):
    for step, steps in ((0, 0), (0, 5)):
        sae = training_sae(selection_steps=steps)
        sae.b_enc.data.fill_(-1e3)
        output = forward(sae, x, step=step)
        output.loss.backward()
        assert torch.equal(output.sae_out, sae.b_dec.expand_as(x))
        assert not sae.W_enc.grad.any()
        assert bool(torch.isfinite(sae.threshold).all())


def test_ends_near_the_l0_aimed_at_with_few_dead():
    """Sparse sums of 150 directions in 48 dimensions, 128 features."""
    d_in, k = 48, 6
    directions = torch.nn.functional.normalize(
        torch.randn(150, d_in, generator=torch.Generator().manual_seed(9)), dim=-1
    )

    def batch(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        at = torch.rand(128, 150, generator=generator).topk(5, dim=-1).indices
        codes = torch.zeros(128, 150).scatter(1, at, 1 + torch.rand(128, 5, generator=generator))
        return 5 * (codes @ directions) + 2

    spec = TrainSpec(
        text=TextSpec(source="x"),
        architecture="jumprelu",
        features=128,  # all of them have work
        k=k,
        tokens=128 * 2000,
        batch=128,
        dead_after=1280,
    )
    trainer = make_trainer(Job(HookPoint(0), None, spec, 0), torch.device("cpu"), [batch(n) for n in range(4)])  # type: ignore[arg-type]
    for n in range(2000):
        trainer.step(batch(n))
        trainer.n_training_steps += 1
    sae, x = made_so_far(trainer), torch.cat([batch(10_000 + n) for n in range(20)])
    codes = sae.encode(x)
    fvu = float((x - sae.decode(codes)).pow(2).sum() / (x - x.mean(0)).pow(2).sum())
    fired = (codes > 0).any(dim=0).float().mean()
    assert float((codes > 0).sum(-1).float().mean()) == pytest.approx(k, rel=0.15)
    assert float(fired) > 0.97
    assert fvu < 0.25
