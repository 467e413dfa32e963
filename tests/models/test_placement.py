"""Models spread over the processor's memory and the disk give what they give in one piece."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import ARCHITECTURES, points_of
from unifeat.errors import UserError
from unifeat.models.activations import run_group
from unifeat.models.language import load_language_model
from unifeat.models.placement import map_settings, resolve_device
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

POINTS = points_of("llama", 3)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(1, 300, (2, 24), generator=torch.Generator().manual_seed(0))


def places(module: torch.nn.Module) -> set[str]:
    return {parameter.device.type for parameter in module.parameters()}


def bytes_of(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mamba"])
def test_the_same_from_memory_and_disk(architecture: str, model_folder: Callable[..., Path], ids: Tensor):
    """Nine tenths of the model fit into memory: a later block waits on the disk and comes back bit for bit."""
    folder = model_folder(architecture)
    points = points_of(architecture, 3)
    plain = load_language_model(str(folder), points, dtype="float32")
    memory = {"cpu": bytes_of(folder) * 9 // 10}
    spread = load_language_model(str(folder), points, dtype="float32", device="map", max_memory=memory)
    assert places(plain.decoder) == {"cpu"}
    assert places(spread.decoder) == {"cpu", "meta"}  # what waits on the disk has no storage between two passes
    assert (places(spread.blocks[0]), places(spread.blocks[2])) == ({"cpu"}, {"meta"})
    for _ in range(2):
        found, expected = spread.activations(ids, points), plain.activations(ids, points)
        for point in points:
            assert found[point].device.type == "cpu"
            assert torch.equal(found[point], expected[point]), point


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_of_it_on_the_disk(dtype: str, model_folder: Callable[..., Path], ids: Tensor):
    folder = model_folder("llama")
    plain = load_language_model(str(folder), POINTS, dtype=dtype)
    spread = load_language_model(str(folder), POINTS, dtype=dtype, device="map", max_memory={"cpu": 1})
    assert places(spread.decoder) == {"meta"}
    found, expected = spread.activations(ids, POINTS), plain.activations(ids, POINTS)
    assert all(torch.equal(found[point], expected[point]) for point in POINTS)


def test_groups_of_text_through_a_spread_model(model_folder: Callable[..., Path]):
    folder, points = model_folder("gemma3"), [HookPoint(0), HookPoint(1)]
    parts = [Part(0, 0, "the tide carried the old ship"), Part(1, 0, "a bee")]
    spread = load_language_model(
        str(folder), points, dtype="float32", device="map", max_memory={"cpu": bytes_of(folder) // 3}
    )
    plain = load_language_model(str(folder), points, dtype="float32")
    assert "meta" in places(spread.decoder)
    assert len(spread.blocks) == 2
    found, expected = (run_group(model, parts, points, Windowing(16, None)) for model in (spread, plain))
    for point in points:
        assert torch.equal(found.values[point], expected.values[point])


def test_without_limits_it_is_the_plain_model(model_folder: Callable[..., Path], ids: Tensor):
    name = str(model_folder("qwen2"))
    spread = load_language_model(name, POINTS, dtype="float32", device="map")
    assert places(spread.decoder) == {"cpu"}
    expected = load_language_model(name, POINTS, dtype="float32").activations(ids, POINTS)
    found = spread.activations(ids, POINTS)
    assert all(torch.equal(found[point], expected[point]) for point in POINTS)


def test_the_folder_of_waiting_weights_goes_with_the_model(model_folder: Callable[..., Path], own_cache: Path):
    model = load_language_model(
        str(model_folder("gpt2")), [HookPoint(0)], dtype="float32", device="map", max_memory={"cpu": 1}
    )
    (folder,) = own_cache.glob(".offload-*")
    assert model.blocks[0] is not None
    del model
    gc.collect()
    assert not folder.exists()


class TestSettings:
    def test_devices_have_numbers(self):
        settings = map_settings({"0": "20GiB", 1: 5, "cpu": "1GiB"})
        assert settings["max_memory"] == {0: "20GiB", 1: 5, "cpu": "1GiB"}

    def test_map_is_a_device(self):
        assert resolve_device("map") == resolve_device("auto")
        with pytest.raises(UserError, match="use auto, map, cpu, cuda"):
            resolve_device("everywhere")

    def test_redrawn_weights_need_one_device(self, model_folder: Callable[..., Path]):
        with pytest.raises(UserError, match="randomise needs the weights on one device"):
            load_language_model(str(model_folder()), [HookPoint(0)], device="map", randomise=0)

    @pytest.mark.parametrize("memory", [{"cpu": "a lot"}, {"gpu": "1GiB"}])
    def test_a_memory_that_cannot_be_read(self, model_folder: Callable[..., Path], memory: Any):
        with pytest.raises(UserError, match="max_memory"):
            load_language_model(str(model_folder()), [HookPoint(0)], device="map", max_memory=memory)


@pytest.mark.gpu
class TestCuda:
    def test_the_same_from_gpu_memory_and_disk(self, model_folder: Callable[..., Path], ids: Tensor):
        folder = model_folder("llama", layers=6)
        points = points_of("llama", 6)
        plain = load_language_model(str(folder), points, dtype="float32", device="cuda")
        third = bytes_of(folder) // 3
        spread = load_language_model(
            str(folder), points, dtype="float32", device="map", max_memory={0: third, "cpu": third}
        )
        assert spread.device.type == "cuda"
        found, expected = spread.activations(ids, points), plain.activations(ids, points)
        for point in points:
            assert found[point].device.type == "cuda"
            torch.testing.assert_close(found[point], expected[point])
