"""What may be correlated, and what is said about the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from oracles import awkward, same
from unifeat.codes.brought import Codes
from unifeat.correlation.correlate import correlate
from unifeat.errors import UserError
from unifeat.vocabulary.paired_codes import ChunkPair, CsrArrays, PairedCodes, as_paired


@dataclass
class Stored:
    """The protocol as another module would implement it."""

    pairs: list[ChunkPair]
    n_rows: int
    features_a: int
    features_b: int

    def chunks(self) -> Iterator[ChunkPair]:
        yield from self.pairs


def arrays(codes: np.ndarray) -> CsrArrays:
    csr = sparse.csr_array(codes)
    return CsrArrays(csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.data)


def test_memory_mapped_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = awkward(rng, 90, 20), awkward(rng, 90, 30)
    pairs = []
    for first, last in ((0, 40), (40, 40), (40, 90)):
        sides = []
        for name, codes in (("a", x), ("b", y)):
            mapped = []
            for field, array in zip(CsrArrays._fields, arrays(codes[first:last]), strict=True):
                path = tmp_path / f"{name}-{first}-{last}-{field}.npy"
                np.save(path, array)
                mapped.append(np.load(path, mmap_mode="r") if array.size else array)
            sides.append(CsrArrays(*mapped))
        pairs.append((sides[0], sides[1]))
    stored = Stored(pairs, 90, 20, 30)
    assert isinstance(stored, PairedCodes)
    assert as_paired(stored) is stored
    same(correlate(stored), correlate(sparse.csr_array(x), sparse.csr_array(y)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["A", "B"])
def test_values_that_are_not_finite(bad: float, side: str) -> None:
    good, spoilt = np.eye(5), np.eye(5)
    spoilt[3, 3] = bad
    codes = [sparse.csr_array(c) for c in ((spoilt, good) if side == "A" else (good, spoilt))]
    with pytest.raises(UserError, match=rf"codes {side} hold NaN or infinite values \(feature 3\)"):
        correlate(*codes)


@pytest.mark.parametrize("size", [1e-120, 1e120])
def test_values_beyond_what_squares_can_hold(size: float) -> None:
    with pytest.raises(UserError, match=r"codes B, feature 1: values of size 1e.120 are beyond 1e±100"):
        correlate(sparse.csr_array(np.eye(3)), sparse.csr_array(np.diag([1, size, 1])))


def test_inputs_that_are_no_codes() -> None:
    good = sparse.csr_array(np.eye(4))
    with pytest.raises(UserError, match=r"codes A have 4 rows and codes B 3: both must cover the same tokens"):
        correlate(good, sparse.csr_array(np.eye(3)))
    with pytest.raises(UserError, match=r"codes A must be \(tokens, features\) of real numbers, not 1-D float64"):
        correlate(np.ones(4), good)
    with pytest.raises(UserError, match=r"codes B must be \(tokens, features\) of real numbers, not 2-D complex128"):
        correlate(good, good.astype(complex))
    with pytest.raises(UserError, match="expected two code matrices or PairedCodes, got one csr_array"):
        correlate(good)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_dense_and_torch_codes_are_those_of_scipy() -> None:
    import torch

    rng = np.random.default_rng(0)
    x, y = awkward(rng, 90, 20), awkward(rng, 90, 30)
    expected = correlate(sparse.csr_array(x), sparse.csr_array(y))
    for kind in (
        np.asarray,
        torch.tensor,
        lambda z: torch.tensor(z).to_sparse(),
        lambda z: torch.tensor(z).to_sparse_csr(),
        lambda z: torch.tensor(z).to_sparse(1),
    ):
        same(correlate(kind(x), kind(y)), expected)
    single = [sparse.csr_array(z.astype(np.float32)) for z in (x, y)]
    same(correlate(Codes(x), Codes(y)), correlate(*single))
    for x16 in (torch.tensor(x).bfloat16(), torch.tensor(x).half(), torch.tensor(x).to(torch.float8_e4m3fn)):
        narrow = correlate(sparse.csr_array(x16.float().numpy()), sparse.csr_array(y))
        same(correlate(x16, y), narrow)
    half = correlate(sparse.csr_array(torch.tensor(x).half().float().numpy()), sparse.csr_array(y))
    same(correlate(x.astype(np.float16), y), half)
    same(correlate(torch.tensor(x).half().to_sparse(), y), half)


def test_codes_at_different_places_are_not_taken_for_the_same_tokens() -> None:
    placed = [Codes(np.eye(4), ends=ends) for ends in ([1, 2, 3, 4], [1, 2, 3, 5])]
    with pytest.raises(UserError, match=r"codes A and B are at different places of the text: uf\.compare"):
        correlate(*placed)
    assert correlate(placed[0], Codes(np.eye(4))).n == 4, "row i is row i"


def test_damaged_chunks() -> None:
    eye = arrays(np.eye(4, dtype=np.float32))
    sound = Stored([(eye, eye)], 4, 4, 4)
    assert correlate(sound).n == 4

    def refused(pairs: list[ChunkPair], message: str, rows: int = 4, features: int = 4) -> None:
        with pytest.raises(UserError, match=message):
            correlate(Stored(pairs, rows, 4, features))

    refused([(eye, eye)], "the chunks hold 4 rows, but n_rows is 5", rows=5)
    refused([(eye, arrays(np.eye(3)))], "a chunk holds 4 rows of codes A but 3 of codes B")
    refused([(eye, eye)], "codes B name feature 3, but there are 3 features", features=3)
    refused([(eye, eye._replace(index=eye.index - 1))], "codes B name feature -1, but there are 4 features")
    refused([(eye, eye._replace(indptr=eye.indptr[::-1]))], "codes B: row pointers do not fit")
    refused([(eye, eye._replace(indptr=eye.indptr + 1))], "codes B: row pointers do not fit")
    refused([(eye, eye._replace(value=eye.value[:2]))], "codes B: row pointers do not fit")
    refused([(eye, eye._replace(indptr=eye.indptr - 1))], "codes B: row pointers do not fit")
