"""Where a model's weights go: on one device, or spread over several, the processor's memory and the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unifeat.errors import UserError
from unifeat.storage import cache_root

MAP = "map"
MaxMemory = Mapping[int | str, int | str]


def resolve_device(device: str) -> torch.device:
    """A torch device from its name; "auto" is CUDA when there is one, and so is the first device of a "map"."""
    if device in ("auto", MAP):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {device!r}: this machine has no CUDA device; use auto or cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise UserError(f"unknown device {device!r}: use auto, map, cpu, cuda or cuda:1 …") from error


def map_settings(max_memory: MaxMemory | None) -> tuple[dict[str, Any], tempfile.TemporaryDirectory[str]]:
    """What `from_pretrained` needs to spread a model, and the folder that holds what goes to the disk.

    Args:
        max_memory: for each CUDA device's number, and "cpu", bytes or "20GiB"; all there is when left out.

    The folder must live as long as the model. It stands in the cache, where models have room.
    """
    cache_root().mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(prefix=".offload-", dir=cache_root())
    settings: dict[str, Any] = {"device_map": "auto", "offload_folder": folder.name}
    if max_memory:
        # YAML keys that went through JSON are strings.
        settings["max_memory"] = {int(k) if str(k).isdigit() else k: v for k, v in max_memory.items()}
    return settings, folder


def first_device(module: nn.Module, otherwise: torch.device) -> torch.device:
    """The device on which a module runs, wherever its weights wait."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):  # accelerate may chain several
        place = getattr(one, "execution_device", None)
        if place is not None:
            return torch.device(place)
    return otherwise
