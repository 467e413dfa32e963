"""Routines of SciPy's BLAS and LAPACK, called so that they release the GIL.

SciPy's own wrappers of these hold it (measured: with two threads, one waits while the other is in `eigh`,
`solve_triangular` or `dsytrd`). NumPy's `eigh` and `cholesky`, and SciPy's `dgeqrf` and `dormqr`, release it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.linalg import cython_blas, cython_lapack

from unifeat.geometry._input import Matrix


def _routine(module: Any, name: str, arguments: int) -> Any:
    """A Fortran routine of a module that exports it to Cython. Every argument is a pointer."""
    capsule, interface = module.__pyx_capi__[name], ctypes.pythonapi
    interface.PyCapsule_GetName.restype = ctypes.c_char_p
    interface.PyCapsule_GetName.argtypes = [ctypes.py_object]
    interface.PyCapsule_GetPointer.restype = ctypes.c_void_p
    interface.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    signature = interface.PyCapsule_GetName(capsule)
    assert signature.count(b",") == arguments - 1, signature
    pointers = [ctypes.c_void_p] * arguments
    return ctypes.CFUNCTYPE(None, *pointers)(interface.PyCapsule_GetPointer(capsule, signature))


_dtrsm = _routine(cython_blas, "dtrsm", 11)
_dsytrd = _routine(cython_lapack, "dsytrd", 10)


def _int(value: int) -> Any:
    return ctypes.byref(ctypes.c_int(value))


def solve_lower(
    lower: Float64[np.ndarray, "k k"], columns: Float64[np.ndarray, "k m"], *, transposed: bool = False
) -> Float64[np.ndarray, "k m"]:
    """lower⁻¹ columns, or lower⁻ᵀ columns; of `lower`, in C order, the upper triangle is not read."""
    assert lower.flags.c_contiguous
    k, m = columns.shape
    by_columns = columns.flags.f_contiguous
    solved: Matrix = np.array(columns, np.float64, order="F" if by_columns else "C")
    # Fortran sees the transposes of arrays in C order: an upper triangle, which solves from the right.
    side, sizes, stride = (b"L", (k, m), k) if by_columns else (b"R", (m, k), m)
    trans = b"T" if by_columns != transposed else b"N"
    one = ctypes.byref(ctypes.c_double(1.0))
    a, b = lower.ctypes.data, solved.ctypes.data
    _dtrsm(side, b"U", trans, b"N", *map(_int, sizes), one, a, _int(max(k, 1)), b, _int(max(stride, 1)))
    return solved


def tridiagonal(gram: Float64[np.ndarray, "k k"]) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """The tridiagonal form T = Zᵀ gram Z of a symmetric matrix in C order, which is overwritten.

    Returns the diagonal (k,), the one beside it (k − 1,), and what dormqr takes to multiply by Z without its first row
    and column, which are those of the identity: reflections (k − 1, k − 1) and their factors (k − 1,).
    """
    assert gram.flags.c_contiguous
    k = len(gram)
    diagonal, beside, factors, work = np.empty(k), np.empty(k - 1), np.empty(k - 1), np.empty(32 * k)
    info = ctypes.c_int()
    outputs = (array.ctypes.data for array in (diagonal, beside, factors, work))
    _dsytrd(b"L", _int(k), gram.ctypes.data, _int(k), *outputs, _int(work.size), ctypes.byref(info))
    assert info.value == 0
    return diagonal, beside, np.asfortranarray(gram.T[1:, :-1]), factors
