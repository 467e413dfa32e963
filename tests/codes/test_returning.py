"""Parts of codes come back whole and in order, from the CPU and from CUDA if there is one."""

import numpy as np
import pytest
import torch

from unifeat.codes.returning import Returning


def returned(parts: list[torch.Tensor], dtype: torch.dtype) -> np.ndarray:
    returning = Returning(dtype)
    for part in parts:
        returning.send(part)
    whole = returning.whole()
    assert isinstance(whole, np.ndarray)
    return whole


@pytest.mark.parametrize("sizes", [[], [0], [3], [5, 0, 2], [1000, 1, 77]])
def test_parts_are_joined_in_order(sizes: list[int]) -> None:
    whole = np.arange(sum(sizes), dtype=np.int32)
    found = returned(list(torch.from_numpy(whole).split(sizes)) if sizes else [], torch.int32)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, whole)


@pytest.mark.gpu
def test_from_cuda_while_it_goes_on_computing() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    returning, wanted = Returning(torch.float32), []
    x = torch.randn(512, 512, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    for step in range(200):
        part = torch.nn.functional.normalize(x @ x.T + step, dim=1)
        returning.send(part)
        wanted.append(part.cpu().numpy())  # (waits, and then the memory is free for the next part)
        del part
    np.testing.assert_array_equal(returning.whole(), np.concatenate(wanted))
