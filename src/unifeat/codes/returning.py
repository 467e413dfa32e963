"""Tensors on their way from a device, while it goes on computing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Returning:
    """Parts of an array, sent to the host one by one: through page-locked memory, beside the device's own work."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._parts: list[Tensor] = []
        self._copies: torch.cuda.Stream | None = None

    def send(self, part: Tensor) -> None:
        """Begin to copy the next part. It may be a CPU tensor, which is kept as it is."""
        if not part.is_cuda:
            self._parts.append(part)
            return
        if self._copies is None:
            self._copies = torch.cuda.Stream(part.device)
        host = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
        self._copies.wait_stream(torch.cuda.current_stream(part.device))
        with torch.cuda.stream(self._copies):
            host.copy_(part, non_blocking=True)
        part.record_stream(self._copies)  # its memory is not given away before it is copied
        self._parts.append(host)

    def whole(self) -> Any:
        """All parts joined, as a NumPy array, when they have arrived."""
        if self._copies is not None:
            self._copies.synchronize()
        return torch.cat([torch.empty(0, dtype=self._dtype), *self._parts]).numpy()
