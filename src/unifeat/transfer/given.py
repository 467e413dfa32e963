"""Arrays and ids as users give them: checked, and as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from unifeat.errors import UserError
from unifeat.vocabulary.paired_codes import as_csr


def numbers(values: Any, name: str, dims: tuple[int, ...] = (2,)) -> NDArray[Any]:
    """An array or a torch tensor as an array of floating point numbers, in their own precision.

    Args:
        name: what they are, for messages.
        dims: how many dimensions they may have.

    Raises:
        UserError: not real numbers of so many dimensions.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values if str(values.layout) == "torch.strided" else values.to_dense()
        values = values.float().numpy() if values.dtype.itemsize < 4 else values.numpy()
    try:
        rows = np.asarray(values)
        if rows.dtype.kind not in "fiubO":  # text would be read as numbers, and complex ones cut
            raise TypeError
        rows = rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: give an array of numbers") from error
    if rows.ndim not in dims:
        raise UserError(f"{name}: give an array of {' or '.join(map(str, dims))} dimensions, not {rows.ndim}")
    return rows


def finite(values: Any, name: str, dtype: type[np.floating[Any]], dims: tuple[int, ...] = (2,)) -> NDArray[Any]:
    """The same in a given precision, without NaN and infinity.

    Raises:
        UserError: as `numbers` does, and for NaN, infinity, and numbers that the precision does not hold.
    """
    with np.errstate(over="ignore"):
        rows = numbers(values, name, dims).astype(dtype)
    if not np.isfinite(rows).all():
        raise UserError(f"{name} holds NaN or infinity, or numbers too large for {np.dtype(dtype)}")
    return rows


def finite_csr(codes: Any, name: str) -> sparse.csr_array:
    """`as_csr`, without NaN and infinity."""
    matrix: sparse.csr_array = as_csr(codes, name)
    if not np.isfinite(matrix.data).all():
        raise UserError(f"{name} holds NaN or infinity")
    return matrix


def check_varies(x: NDArray[Any], name: str) -> None:
    """Raise a UserError if all rows of (n, d) are the same."""
    if (x == x[:1]).all():
        raise UserError(f"{name} is the same at all judged tokens, so there is no variance to explain")
