"""Shuffles on a GPU, for the measures that gather entries of n × n matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from unifeat.devices import cuda_device
from unifeat.errors import UserError
from unifeat.geometry.measure import Prepared

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ELEMENTS_AT_ONCE = 1 << 24  # of a square, in float64: 128 MB
_turn = Lock()  # tests in several threads take turns: the squares of one can fill the device


@runtime_checkable
class Movable(Prepared, Protocol):
    """A prepared measure whose shuffles can run on a torch device."""

    def on(self, device: torch.device) -> Self:
        """The same with its arrays on the device. Its values differ from the CPU's by rounding alone."""
        ...


@contextmanager
def shuffling_on(device: str, prepared: Prepared) -> Iterator[Prepared]:
    """`prepared`, on a device where its measure has a way to shuffle there.

    Args:
        device: cpu, cuda or cuda:1 …

    Raises:
        UserError: no such device, or its memory is too small.
    """
    if device == "cpu":
        yield prepared
        return
    where = cuda_device(device, "shuffles run")
    if not isinstance(prepared, Movable):
        yield prepared
        return
    import torch

    try:
        with _turn:
            yield prepared.on(where)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"device {device!r}: out of memory while shuffling {prepared.n} pairs; stop what else runs there, or "
            "use cpu"
        ) from error


class SquareSum:
    """Σ_{i<j} a_ij · b_π(i)π(j) on a device: what `PairSum` does on the CPU."""

    def __init__(self, a: Any, b: Any, device: torch.device) -> None:
        """a, b: symmetric (n, n) arrays with zero diagonals, float64 or float32."""
        import torch

        self._a, self._b = (torch.from_numpy(side).to(device) for side in (a, b))

    def __call__(self, order: Any) -> float:
        import torch

        moved = torch.from_numpy(order).to(self._b.device)
        n = len(moved)
        rows = max(_ELEMENTS_AT_ONCE // n, 1)
        sums: list[Tensor] = []
        for low in range(0, n, rows):
            part = self._b[moved[low : low + rows]].index_select(1, moved)
            sums.append((self._a[low : low + rows].double() * part.double()).sum())
        return float(torch.stack(sums).sum()) / 2  # each pair of rows was counted twice


class Product:
    """‖XᵀPY‖²_F for permutations P of Y's rows, on a device."""

    def __init__(self, x: Any, y: Any, device: torch.device) -> None:
        """x: (n, d_a), y: (n, d_b), float64."""
        import torch

        self._x, self._y = torch.from_numpy(x).to(device).T, torch.from_numpy(y).to(device)

    def __call__(self, order: Any) -> float:
        import torch

        product = self._x @ self._y[torch.from_numpy(order).to(self._y.device)]
        return float((product * product).sum())
