"""Shuffles by the device's code: on the CPU here, and on CUDA if there is one."""

import numpy as np
import pytest
import torch
from test_shuffled import SETTINGS

import unifeat as uf
from unifeat.errors import UserError
from unifeat.geometry import MEASURES, _cka, _device, _pairs
from unifeat.inference import null_scores

CPU = torch.device("cpu")
MOVABLE = [(name, settings) for name, settings in SETTINGS if MEASURES[name].on_device]
EVERY = pytest.mark.parametrize(("name", "settings"), MOVABLE)


def gap(name, settings, x, y, device=CPU, shuffles=6):
    """The largest difference of null scores on a device from those of the CPU, and the tolerance that is promised."""
    prepared = MEASURES[name].prepare(x, y, **settings)
    moved = prepared.on(device)
    assert moved.score() == prepared.score()
    ours, theirs = null_scores(moved, shuffles, 3), null_scores(prepared, shuffles, 3)
    assert ours.std() > 0
    return np.abs(ours - theirs).max(), prepared.tolerance


def test_the_registry_says_what_can_move(views_for):
    for name, measure in MEASURES.items():
        x, y = views_for(measure, n=30)
        assert isinstance(measure.prepare(x, y), _device.Movable) == measure.on_device, name
    assert {name for name, _ in MOVABLE} == {"rsa", "cka"}


@EVERY
@pytest.mark.parametrize("n", [5, 60, 700])
def test_equals_the_cpu(name, settings, n, views_for):
    worst, promised = gap(name, settings, *views_for(MEASURES[name], n=n))
    assert worst < 1e-12 <= promised


@EVERY
def test_in_parts_of_the_square(name, settings, views_for, monkeypatch):
    monkeypatch.setattr(_device, "_ELEMENTS_AT_ONCE", 1000)
    assert gap(name, settings, *views_for(MEASURES[name], n=130))[0] < 1e-12


@EVERY
def test_float32_of_large_n(name, settings, views_for, monkeypatch):
    monkeypatch.setattr(_pairs, "FLOAT64_UP_TO", 10)
    monkeypatch.setattr(_cka, "FLOAT64_UP_TO", 10)
    worst, promised = gap(name, settings, *views_for(MEASURES[name], n=400))
    assert worst < min(promised, 1e-9)


@pytest.mark.parametrize("debiased", [False, True])
def test_products_of_many_pairs(debiased, views, monkeypatch):
    monkeypatch.setattr(_cka, "_GRAM_UP_TO_PAIRS", 0)
    assert gap("cka", {"debiased": debiased}, *views(n=300))[0] < 1e-12


def test_no_such_device(views):
    x, y = views(n=30)
    for device in ("gpu", "mps", "cuda:99"):
        with pytest.raises(UserError, match=f"device '{device}'"):
            uf.permutation_test("rsa", x, y, permutations=5, device=device)


def test_a_device_too_small_is_named(views, monkeypatch):
    x, y = views(n=30)
    monkeypatch.setattr(_device, "cuda_device", lambda *_: CPU)

    def no_room(*_):
        raise torch.OutOfMemoryError("16 GiB")

    monkeypatch.setattr(_device.SquareSum, "__call__", no_room)
    with pytest.raises(UserError, match="device 'cuda': out of memory while shuffling 30 pairs"):
        uf.permutation_test("rsa", x, y, permutations=5, device="cuda")


def test_a_test_by_the_devices_code_decides_alike(views, monkeypatch):
    monkeypatch.setattr(_device, "cuda_device", lambda *_: CPU)
    x, y = views(n=80)
    for measure in ("rsa", "cka", "svcca"):
        here = uf.permutation_test(measure, x, y, permutations=60)
        there = uf.permutation_test(measure, x, y, permutations=60, device="cuda")
        assert there.p == here.p
        np.testing.assert_allclose(there.null, here.null, rtol=0, atol=1e-12)


@pytest.mark.gpu
@EVERY
@pytest.mark.parametrize("n", [60, 5000])
def test_on_cuda(name, settings, n, views_for):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    worst, promised = gap(name, settings, *views_for(MEASURES[name], n=n), device=torch.device("cuda", 0))
    assert worst < 10 * promised
