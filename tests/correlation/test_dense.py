"""Dense codes: which way they go, that both ways agree, and what memory it takes. `test_correlation` tries both."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from oracles import awkward, check_both, same
from unifeat.correlation import best_partners as engine
from unifeat.correlation import dense
from unifeat.correlation.correlate import correlate
from unifeat.correlation.pair_sums import correlate_pairs
from unifeat.vocabulary.paired_codes import CsrArrays, as_paired


def preactivations(rng: np.random.Generator, rows: int, features: int, hidden: np.ndarray) -> np.ndarray:
    """What an encoder gives before its top k, with features on for 5 to 60 % of the rows."""
    codes = hidden @ rng.standard_normal((hidden.shape[1], features)) + 0.3 * rng.standard_normal((rows, features))
    share = rng.uniform(0.4, 0.95, features)
    floor = np.array([np.quantile(column, s) for column, s in zip(codes.T, share, strict=True)])
    return np.maximum(codes - floor, 0).astype(np.float32)


@pytest.fixture
def ways(monkeypatch):
    """The ways that correlations went, in order."""
    gone = []
    for name in ("search_dense", "search_in_memory", "search_in_panels"):
        plain = getattr(engine._Search, name)

        def spy(self, *args, name=name, plain=plain):
            gone.append(name)
            return plain(self, *args)

        monkeypatch.setattr(engine._Search, name, spy)
    return gone


def test_dense_codes_go_the_dense_way_and_sparse_codes_do_not(ways) -> None:
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((700, 8))
    x, y = preactivations(rng, 700, 400, hidden), preactivations(rng, 700, 600, hidden)
    a, b = sparse.csr_array(x), sparse.csr_array(y)
    corr = correlate(a, b, top=3)
    check_both(corr, x, y, 3)
    few = sparse.random_array((700, 400), density=0.01, rng=rng, format="csr")
    correlate(few, b)
    assert ways == ["search_dense", "search_in_memory"]
    # The codes alone decide: not the memory, not the threads, not the chunks.
    for memory_gb, threads, chunk_rows in ((1e-4, 1, 100), (1e-3, 3, None), (30.0, 2, 1)):
        same(corr, correlate(as_paired(a, b, chunk_rows=chunk_rows), top=3, memory_gb=memory_gb, threads=threads))
    assert ways[2:] == ["search_dense"] * 3


def test_both_ways_find_the_same_partners(monkeypatch) -> None:
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((900, 8))
    a, b = (sparse.csr_array(preactivations(rng, 900, f, hidden)) for f in (300, 500))
    monkeypatch.setattr(engine, "_is_dense", lambda *_: True)
    densely = correlate(a, b)
    monkeypatch.setattr(engine, "_is_dense", lambda *_: False)
    sparsely = correlate(a, b)
    for one, other in ((densely.a_to_b, sparsely.a_to_b), (densely.b_to_a, sparsely.b_to_a)):
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_array_equal(one.count, other.count)
        np.testing.assert_allclose(one.value, other.value, rtol=0, atol=1e-12)
    table = densely.candidates()
    r, count = correlate_pairs((a, b), table["feature_a"], table["feature_b"])
    np.testing.assert_allclose(r, table["correlation"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(count, table["cofiring"])


def test_chunks_of_different_types_and_sides_of_different_types(monkeypatch) -> None:
    monkeypatch.setattr(engine, "_is_dense", lambda *_: True)
    rng = np.random.default_rng(2)
    x, y = awkward(rng, 120, 40), awkward(rng, 120, 50).astype(np.float64)

    class Mixed:
        n_rows, features_a, features_b = 120, 40, 50

        def chunks(self):
            for first, kind in ((0, np.float32), (60, np.float64)):
                parts = [sparse.csr_array(side[first : first + 60].astype(t)) for side, t in ((x, kind), (y, float))]
                yield tuple(CsrArrays(part.indptr, part.indices, part.data) for part in parts)

    check_both(correlate(Mixed(), top=3), x, y, 3)


@pytest.mark.parametrize("features_a", [1, 63, 64, 1000, 5000])
@pytest.mark.parametrize("width_b", [64, 1024, 6400])
@pytest.mark.parametrize("memory_gb", [1e-9, 1e-4, 1e-2, 1.0])
def test_panels_cover_every_pair_once_within_the_memory(features_a: int, width_b: int, memory_gb: float) -> None:
    plan = dense.panels(features_a, width_b, memory_gb)
    seen = np.zeros((features_a, width_b), np.int8)
    for low_a, high_a, low_b, high_b in plan:
        assert low_a % 64 == low_b % 64 == high_b % 64 == 0
        seen[low_a:high_a, low_b:high_b] += 1
    assert (seen == 1).all()
    buffers = dense.Buffers.of(plan)
    assert all(buffers.totals_of(panel).size <= buffers.totals.size for panel in plan)
    assert buffers.totals.nbytes <= max(memory_gb * 1e9, 64 * 64 * 8)
    if memory_gb >= 1e-2:  # what is written out fits beside it
        assert buffers.rows_a.nbytes + buffers.rows_b.nbytes <= memory_gb * 1e9 / 2


def test_products_are_added_in_place() -> None:
    rng = np.random.default_rng(3)
    rows_a, rows_b = rng.integers(-9, 9, (5, 64)).astype(float), rng.integers(-9, 9, (5, 128)).astype(float)
    totals = np.ones((64, 128))
    dense._add_product(rows_a, rows_b, totals)
    np.testing.assert_array_equal(totals, 1 + rows_a.T @ rows_b)


SCRIPT = """
import hashlib, resource, sys
import numpy as np
from scipy import sparse
from unifeat.correlation.correlate import correlate
rows, features, memory_gb = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
rng = np.random.default_rng(0)
a, b = (sparse.random_array((rows, features), density=0.4, rng=rng, format="csr", dtype=np.float32) for _ in range(2))
correlate(a[:40], b[:40])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
corr = correlate(a, b, memory_gb=memory_gb)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, hashlib.sha256(corr.a_to_b.value.tobytes() + corr.b_to_a.value.tobytes()).hexdigest())
"""


def run_script(*args: object, **environment: str) -> tuple[float, str]:
    """(GB beyond the inputs, hash of the correlations) from a process of its own."""
    command = [sys.executable, "-c", SCRIPT, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    grown, digest = done.stdout.split()
    return int(grown) * 1024 / 1e9, digest


@pytest.mark.slow
def test_memory_is_bounded_where_all_correlations_would_not_fit() -> None:
    features = 16_384  # all sums: 2.1 GB
    grown, digest = run_script(64, features, 0.1)
    assert grown < 0.25
    assert run_script(64, features, 0.4)[1] == digest


def test_the_threads_of_blas_do_not_change_a_bit() -> None:
    results = {run_script(600, 700, 0.5, OPENBLAS_NUM_THREADS=threads)[1] for threads in ("1", "2", "3")}
    assert len(results) == 1
