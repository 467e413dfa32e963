"""SAE objects of a user: every form of codes gives the same codes and FVU, and what does not fit is one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from unifeat.errors import UserError
from unifeat.pipeline.brought import encoded_matrix
from unifeat.saes.own import OwnSAE
from unifeat.saes.quality import Variance

ROWS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
CODES = (X @ ROWS.T - 1).clip(0)
MADE = CODES @ ROWS
FVU = ((X - MADE) ** 2).sum() / ((X - X.mean(0)) ** 2).sum()


class InNumpy:
    W_dec: Any = ROWS

    def encode(self, x: Any) -> Any:
        return (np.asarray(x) @ ROWS.T - 1).clip(0)

    def decode(self, codes: Any) -> Any:
        assert isinstance(codes, np.ndarray)
        return codes @ ROWS


class InScipy(InNumpy):
    def encode(self, x: Any) -> Any:
        return sparse.csr_array(super().encode(x))

    def decode(self, codes: Any) -> Any:
        assert isinstance(codes, sparse.csr_array)
        return codes @ ROWS


class SparseTensors(InNumpy):
    layout = torch.sparse_coo

    def encode(self, x: Any) -> Any:
        return torch.from_numpy(super().encode(x)).to_sparse(layout=self.layout)

    def decode(self, codes: Any) -> Any:
        assert codes.layout == self.layout
        return codes.to_dense() @ torch.from_numpy(ROWS)


class CompressedTensors(SparseTensors):
    layout = torch.sparse_csr


class Module(torch.nn.Module):
    """A plain one: its weights ask for gradients, and it has a dtype and a device of its own."""

    def __init__(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        super().__init__()
        self.W_dec = torch.nn.Parameter(torch.tensor(ROWS, dtype=dtype, device=device))

    def encode(self, x: Any) -> Any:
        return torch.relu(x @ self.W_dec.T - 1)

    def decode(self, codes: Any) -> Any:
        return codes @ self.W_dec


def coded(sae: Any) -> tuple[Any, float]:
    unexplained = Variance()
    return encoded_matrix("mine", OwnSAE(sae), torch.from_numpy(X), unexplained).toarray(), unexplained.fvu


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", [InNumpy, InScipy, SparseTensors, CompressedTensors, Module])
def test_decode_gets_what_encode_gave(kind: Any) -> None:
    codes, fvu = coded(kind())
    np.testing.assert_allclose(codes, CODES, atol=1e-5)
    assert fvu == pytest.approx(FVU, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_activations_have_the_dtype_of_the_weights(dtype: torch.dtype) -> None:
    codes, fvu = coded(Module(dtype))
    np.testing.assert_allclose(codes, CODES, atol=0.1)
    assert fvu == pytest.approx(FVU, rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_object_stays_on_its_device() -> None:
    assert coded(Module(device="cuda"))[1] == pytest.approx(FVU, rel=1e-3)


def test_a_decode_that_is_not_there() -> None:
    class Half(InNumpy):
        def decode(self, codes: Any) -> Any:
            raise NotImplementedError

    codes, fvu = coded(Half())
    np.testing.assert_allclose(codes, CODES, atol=1e-5)
    assert np.isnan(fvu)


def giving(**parts: Any) -> Any:
    """An SAE of which some parts are others: constants or, for methods, what they give."""
    own = {name: value if name == "W_dec" else lambda _, x, value=value: value for name, value in parts.items()}
    return type("Mine", (InNumpy,), own)()


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        (giving(encode=(CODES, None)), "SAE Mine: encode gives tuple, not an array of numbers"),
        (giving(encode=None), "SAE Mine: encode gives NoneType, not an array of numbers"),
        (giving(encode=CODES[:, 0]), r"codes of shape \(40,\) for 40 rows"),
        (giving(encode=X, W_dec=ROWS), "must have one row for each feature"),
        (giving(decode=MADE[:, :3]), r"decode gives shape \(40, 3\), not \(rows, width\) \(40, 5\)"),
        (giving(decode=None), "decode gives NoneType, not an array"),
        (giving(W_dec=None), "W_dec gives NoneType, not an array"),
        (giving(W_dec=np.ones(3)), r"W_dec has shape \(3,\)"),
        (giving(W_dec=np.ones((12, 7))), "space mine: activations of width 5 for an SAE of width 7"),
    ],
)
def test_what_does_not_fit(sae: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        coded(sae)
