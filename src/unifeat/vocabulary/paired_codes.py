"""Two code matrices over the same tokens, as a stream of aligned row chunks.

All correlation code reads codes through `PairedCodes`, whether they are in memory or in a store on disk, and needs only
a few chunks in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError

Array: TypeAlias = NDArray[Any]


class CsrArrays(NamedTuple):
    """Rows of codes in CSR form; entries of row i are `indptr[i]:indptr[i + 1]` of the other two.

    No feature may appear twice in a row. Order within a row is free, explicit zeros are read as "did not fire",
    and `indptr[0]` need not be 0, so that rows can be sliced without copying entries.
    """

    indptr: Array  # (rows + 1,) int64
    index: Array  # type: ignore[assignment]  # (entries,) int32, feature ids; hides tuple.index
    value: Array  # (entries,) float32 or float64

    @property
    def rows(self) -> int:
        return len(self.indptr) - 1

    @property
    def entries(self) -> int:
        return int(self.indptr[-1] - self.indptr[0])


ChunkPair: TypeAlias = tuple[CsrArrays, CsrArrays]


@runtime_checkable
class PairedCodes(Protocol):
    """Codes of two spaces on the tokens they share. They are read several times, with the same chunks each time."""

    @property
    def n_rows(self) -> int:
        """Number of tokens."""
        ...

    @property
    def features_a(self) -> int:
        """Number of features of A."""
        ...

    @property
    def features_b(self) -> int:
        """Number of features of B."""
        ...

    def chunks(self) -> Iterator[ChunkPair]:
        """Aligned chunks in row order: both sides hold the same rows. Arrays may be memory-mapped."""
        ...


@dataclass(frozen=True)
class CodesOver:
    """What paired codes made from other paired codes have in common with these.

    Attributes:
        codes: the other codes.
    """

    codes: PairedCodes

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.codes.n_rows

    @property
    def features_a(self) -> int:
        """Number of features of A."""
        return self.codes.features_a

    @property
    def features_b(self) -> int:
        """Number of features of B."""
        return self.codes.features_b

    def chunks(self) -> Iterator[ChunkPair]:
        """The chunks of the other codes."""
        return self.codes.chunks()


@dataclass(frozen=True)
class InMemoryCodes:
    """Two code matrices in memory, as one chunk or as chunks of `chunk_rows` rows."""

    a: CsrArrays
    b: CsrArrays
    features_a: int
    features_b: int
    chunk_rows: int | None = None

    @property
    def n_rows(self) -> int:
        return self.a.rows

    def chunks(self) -> Iterator[ChunkPair]:
        step = self.chunk_rows or max(self.n_rows, 1)
        for first in range(0, self.n_rows, step):
            last = min(first + step, self.n_rows)
            yield row_slice(self.a, first, last), row_slice(self.b, first, last)


def in_memory(paired: PairedCodes, most: int) -> PairedCodes:
    """The same codes read into memory, if both sides together have at most `most` entries; else `paired` itself."""
    chunks: list[ChunkPair] = []
    entries = 0
    for a, b in paired.chunks():
        entries += a.entries + b.entries
        if entries > most:
            return paired
        chunks.append((a, b))
    if not chunks:
        return paired
    sides = [joined([pair[side] for pair in chunks]) for side in (0, 1)]
    return InMemoryCodes(sides[0], sides[1], paired.features_a, paired.features_b)


def joined(chunks: list[CsrArrays]) -> CsrArrays:
    """The rows of several chunks, copied into memory."""
    lengths = np.concatenate([np.diff(chunk.indptr) for chunk in chunks])
    own = [slice(chunk.indptr[0], chunk.indptr[-1]) for chunk in chunks]
    return CsrArrays(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([chunk.index[part] for chunk, part in zip(chunks, own, strict=True)]),
        np.concatenate([chunk.value[part] for chunk, part in zip(chunks, own, strict=True)]),
    )


def as_paired(codes_a: Any, codes_b: Any = None, *, chunk_rows: int | None = None) -> PairedCodes:
    """Two code matrices (see `as_csr`) as `PairedCodes`; `PairedCodes` are returned unchanged.

    Duplicate entries are summed on a copy; the inputs are never changed.

    Raises:
        UserError: not two-dimensional, complex, or different numbers of rows; places of rows that differ, where both
            know them.
    """
    if codes_b is None:
        if isinstance(codes_a, tuple) and len(codes_a) == 2:
            return as_paired(*codes_a, chunk_rows=chunk_rows)
        if isinstance(codes_a, PairedCodes):
            return codes_a
        raise UserError(f"expected two code matrices or PairedCodes, got one {type(codes_a).__name__}")
    a, features_a = _csr_arrays(codes_a, "A")
    b, features_b = _csr_arrays(codes_b, "B")
    if a.rows != b.rows:
        raise UserError(
            f"codes A have {a.rows} rows and codes B {b.rows}: both must cover the same tokens in the same order"
        )
    if _at_different_places(codes_a, codes_b):
        raise UserError("codes A and B are at different places of the text: uf.compare, or a study, aligns them")
    return InMemoryCodes(a, b, features_a, features_b, chunk_rows)


def _at_different_places(codes_a: Any, codes_b: Any) -> bool:
    """Whether both have places (`unifeat.Codes`, what `run.codes` gives), and they are not the same."""
    known = [
        getattr(codes, "places", None) for codes in (codes_a, codes_b) if not getattr(codes, "named_by_rows", False)
    ]
    if len(known) < 2 or any(places is None for places in known):
        return False
    return not all(np.array_equal(*(getattr(of, column) for of in known)) for column in ("document", "char_end"))


def row_slice(codes: CsrArrays, first: int, last: int) -> CsrArrays:
    """Rows first:last. The entries are shared, not copied."""
    return CsrArrays(codes.indptr[first : last + 1], codes.index, codes.value)


def checked_chunks(paired: PairedCodes) -> Iterator[ChunkPair]:
    """The chunks in the kernels' form, with row counts and row pointers checked. (`moments` checks ids and values.)

    Raises:
        UserError: chunks that disagree on their rows, malformed pointers, or not `n_rows` rows in all.
    """
    rows = 0
    for a, b in normal_chunks(paired):
        if a.rows != b.rows:
            raise UserError(f"a chunk holds {a.rows} rows of codes A but {b.rows} of codes B")
        for side, codes in (("A", a), ("B", b)):
            limit = min(len(codes.index), len(codes.value))
            steps_down = bool(np.any(codes.indptr[1:] < codes.indptr[:-1]))
            if steps_down or codes.indptr[0] < 0 or codes.indptr[-1] > limit:
                raise UserError(f"codes {side}: row pointers do not fit the entries (damaged CSR arrays)")
        rows += a.rows
        yield a, b
    if rows != paired.n_rows:
        raise UserError(f"the chunks hold {rows} rows, but n_rows is {paired.n_rows}")


def normal_chunks(paired: PairedCodes, dtype: Any = None) -> Iterator[ChunkPair]:
    """The chunks as contiguous read-only arrays, both sides' values in `dtype`, without empty chunks.

    The views are read-only because numba compiles a kernel once per argument type: memory-mapped and ordinary arrays
    then share one compiled form.
    """
    for a, b in paired.chunks():
        if len(a.indptr) > 1 or len(b.indptr) > 1:
            yield normal(a, dtype), normal(b, dtype)


def normal(codes: CsrArrays, dtype: Any = None) -> CsrArrays:
    """One side of a chunk in the form of `normal_chunks`."""
    kind = dtype or _value_type(codes.value.dtype)
    return CsrArrays(
        _read_only(codes.indptr, np.int64), _read_only(codes.index, np.int32), _read_only(codes.value, kind)
    )


def _read_only(array: Array, dtype: Any) -> Array:
    view = np.ascontiguousarray(array, dtype=dtype).view(np.ndarray)
    view.flags.writeable = False
    return view


def _value_type(dtype: np.dtype[Any]) -> Any:
    """float32 where it holds every value of `dtype` exactly, else float64."""
    return np.float32 if np.result_type(dtype, np.float32) == np.float32 else np.float64


def as_csr(codes: Any, what: str = "codes") -> Any:
    """Codes as a two-dimensional scipy CSR array in canonical form, float32 where that holds every value.

    Args:
        codes: (tokens, features): a scipy sparse matrix, a NumPy array or anything that becomes one, or a torch tensor,
            dense or sparse, on any device; or what holds one as `matrix`: `unifeat.Codes`, what `run.codes` gives. The
            caller's matrix is not changed.
        what: what messages call them.

    Raises:
        UserError: not two-dimensional, or not real numbers.
    """
    from scipy import sparse

    codes = getattr(codes, "matrix", codes)
    if hasattr(codes, "detach") and hasattr(codes, "layout"):  # torch, which need not be imported here
        codes = _from_torch(codes.detach())
    if not sparse.issparse(codes):
        codes = np.asarray(codes)
    if codes.ndim != 2 or codes.dtype.kind not in "buif":
        raise UserError(f"{what} must be (tokens, features) of real numbers, not {codes.ndim}-D {codes.dtype}")
    if codes.dtype == np.float16:  # scipy has no such type
        codes = codes.astype(np.float32)
    csr = sparse.csr_array(codes)  # (shares the arrays of one that is CSR)
    if not csr.has_canonical_format:
        csr = csr.copy()  # sum_duplicates works in place and must not change the caller's matrix
        csr.sum_duplicates()
    return csr.astype(_value_type(csr.dtype), copy=False)


def _from_torch(codes: Any) -> Any:
    """A torch tensor as a scipy or NumPy array."""
    from scipy import sparse

    if codes.is_floating_point() and codes.element_size() < 4:  # scipy, or NumPy, has no such type
        codes = codes.float()
    if codes.is_sparse and codes.dense_dim():  # (hybrid: its entries are rows)
        codes = codes.to_dense()
    if str(codes.layout) == "torch.strided":
        return codes.cpu().numpy()
    if str(codes.layout) == "torch.sparse_csr":
        parts = (part.cpu().numpy() for part in (codes.values(), codes.col_indices(), codes.crow_indices()))
        return sparse.csr_array(tuple(parts), shape=tuple(codes.shape))
    plain = (codes if codes.is_sparse else codes.to_sparse()).coalesce().cpu()
    return sparse.coo_array((plain.values().numpy(), tuple(plain.indices().numpy())), shape=tuple(codes.shape))


def _csr_arrays(codes: Any, side: str) -> tuple[CsrArrays, int]:
    csr = as_csr(codes, f"codes {side}")
    features = int(csr.shape[1])
    if features > np.iinfo(np.int32).max:
        raise UserError(f"codes {side} have {features} features; feature ids are 32 bits")
    arrays = CsrArrays(np.asarray(csr.indptr, np.int64), np.asarray(csr.indices, np.int32), np.asarray(csr.data))
    return arrays, features
