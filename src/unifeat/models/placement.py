"""Where a model's weights go: on one device, or spread over several devices, the CPU's memory and the disk."""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unifeat.errors import UserError
from unifeat.memory import free_memory
from unifeat.store import cache_root

MAP = "map"
ONE_GPU = ("auto", "cuda")  # the devices of models of which each GPU can have one
MaxMemory = Mapping[int | str, int | str]


def resolve_device(device: str) -> torch.device:
    """A torch device from its name; "auto", and the first device of a "map", is CUDA if available.

    Raises:
        UserError: a name that torch does not know, or a device that this machine does not have or cannot use.
    """
    if device in ("auto", MAP):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {device!r}: this machine has no CUDA device; use auto or cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of obsolete names
            found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"unknown device {device!r}: use auto, map, cpu, cuda or cuda:1 …") from error
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            raise UserError(
                f"device {device!r}: this machine has {count} CUDA devices, counted from 0; use auto or cpu"
            )
    elif found.type != "cpu":
        try:
            float(torch.zeros(1, device=found) + 1)
        except Exception as error:  # torch raises a different type for each missing device
            raise UserError(f"device {device!r} does not work on this machine; use auto or cpu") from error
    return found


def device_memory() -> float:
    """Bytes of memory of the first CUDA device or, without one, those free on this machine."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return free_memory()


def map_settings(max_memory: MaxMemory | None) -> dict[str, Any]:
    """Settings of `from_pretrained` for spreading a model.

    Args:
        max_memory: for each CUDA device number, and "cpu", bytes or "20GiB"; by default all memory available.

    The offload folder is in the cache, where there is room for models, and must live as long as the model: see
    `removed_with`.

    Raises:
        UserError: an invalid device or amount of memory.
    """
    from accelerate.utils import convert_file_size_to_int

    settings: dict[str, Any] = {"device_map": "auto"}
    if max_memory:
        # JSON turns keys into strings.
        settings["max_memory"] = {int(k) if str(k).isdigit() else k: v for k, v in max_memory.items()}
    for place, size in settings.get("max_memory", {}).items():
        if not isinstance(place, int) and place != "cpu":
            raise UserError(f"max_memory names {place!r}: use the numbers of CUDA devices, and cpu")
        try:
            convert_file_size_to_int(size)
        except ValueError as error:
            raise UserError(
                f"max_memory of {place}: {size!r} is not an amount of memory; write bytes or 20GiB"
            ) from error
    cache_root().mkdir(parents=True, exist_ok=True)
    return settings | {"offload_folder": tempfile.mkdtemp(prefix=".offload-", dir=cache_root())}


def removed_with(model: object, settings: Mapping[str, Any]) -> None:
    """Remove the offload folder of `map_settings` when the model is deleted."""
    weakref.finalize(model, shutil.rmtree, settings["offload_folder"], True)


def first_device(module: nn.Module, otherwise: torch.device) -> torch.device:
    """The device on which a module runs, even if its weights are kept elsewhere."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):  # accelerate may chain several
        place = getattr(one, "execution_device", None)
        if place is not None:
            return torch.device(place)
    return otherwise
