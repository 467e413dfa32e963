"""Names of CUDA devices, checked."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from unifeat.errors import UserError

if TYPE_CHECKING:
    import torch


def cuda_device(name: str, what: str) -> torch.device:
    """The CUDA device of this name.

    Args:
        what: what is to run there, for the message.

    Raises:
        UserError: not the name of a CUDA device, or one that this machine does not have.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of obsolete names
            found = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"unknown device {name!r}: use cpu, cuda or cuda:1 …") from error
    if found.type != "cuda":
        raise UserError(f"device {name!r}: {what} on cpu, cuda or cuda:1 …")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of drivers that are too old
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UserError(f"device {name!r}: this machine has no CUDA device; use cpu")
    if (found.index or 0) >= count:
        raise UserError(f"device {name!r}: this machine has {count} CUDA devices, counted from 0; use one of them")
    return torch.device("cuda", torch.cuda.current_device() if found.index is None else found.index)
