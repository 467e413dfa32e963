"""Correlation on a device: torch's loops on the CPU, Triton's under its interpreter, and both on CUDA if there is one.

All of them must give the same bits, and the CPU's correlations within 1e-9.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

import unifeat as uf
from oracles import awkward, check, check_both, pearson, same
from unifeat.correlation import device as engine
from unifeat.correlation import device_codes, keys, torch_kernels
from unifeat.correlation.correlate import Correlation, Partners, correlate
from unifeat.errors import UserError
from unifeat.threads import Team
from unifeat.vocabulary.paired_codes import CsrArrays, InMemoryCodes, as_paired

HAS_TRITON = importlib.util.find_spec("triton") is not None
CPU = torch.device("cpu")


def on_device(
    codes_a: Any,
    codes_b: Any = None,
    *,
    top: int = 4,
    memory_gb: float | None = 1.0,
    kernels: ModuleType | None = None,
    device: torch.device = CPU,
) -> Correlation:
    """As `correlate`, by the device's code."""
    paired = as_paired(codes_a, codes_b)
    with ThreadPoolExecutor(2) as pool:
        found = engine.find_partners(paired, top, memory_gb, Team(pool, 2), device, kernels)
    return Correlation(
        paired.n_rows,
        Partners(found.index_ab, found.value_ab, found.count_ab),
        Partners(found.index_ba, found.value_ba, found.count_ba),
        found.moments_a,
        found.moments_b,
    )


def alike(one: Correlation, other: Correlation) -> None:
    """The same partners but for ties within 1e-9."""
    for left, right in ((one.a_to_b, other.a_to_b), (one.b_to_a, other.b_to_a)):
        np.testing.assert_allclose(left.value, right.value, rtol=0, atol=1e-9)
        for index, expected, value in zip(left.index, right.index, right.value, strict=True):
            clear = np.ones(len(value), bool)
            near = np.abs(np.diff(value)) < 1e-9
            clear[1:] &= ~near
            clear[:-1] &= ~near
            clear[-1] = False  # it may tie with one that is not listed
            np.testing.assert_array_equal(index[clear], expected[clear])


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several steps even for little codes."""
    monkeypatch.setattr(torch_kernels, "_at_once", lambda _: 1 << 12)


@pytest.fixture(params=["sparse", "dense"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By sparse products, or by a matrix product."""
    monkeypatch.setattr(engine, "is_dense", lambda *_: request.param == "dense")
    return str(request.param)


@pytest.mark.usefixtures("way")
class TestBothWays:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("dtypes", [(np.float32, np.float32), (np.float64, np.float64), (np.float32, np.float64)])
    def test_codes_of_all_kinds(self, seed: int, dtypes: tuple[type, type]) -> None:
        rng = np.random.default_rng(seed)
        rows, features_a, features_b = rng.integers([2, 1, 1], [300, 90, 150])
        x, y = awkward(rng, rows, features_a, dtypes[0]), awkward(rng, rows, features_b, dtypes[1])
        y[:, : min(features_a, features_b) // 2] = x[:, : min(features_a, features_b) // 2]
        a, b = sparse.csr_array(x), sparse.csr_array(y)
        corr = on_device(a, b, top=5)
        check_both(corr, x, y, 5)
        alike(corr, correlate(a, b, top=5))

    @pytest.mark.parametrize("density", [0.001, 0.03, 0.5, 1.0])
    def test_densities_of_codes_of_both_signs(self, density: float) -> None:
        rng = np.random.default_rng(int(1000 * density))
        x, y = (rng.standard_normal((200, f)) * (rng.random((200, f)) < density) for f in (30, 170))
        check_both(on_device(sparse.csr_array(x), sparse.csr_array(y), top=3), x, y, 3)

    @pytest.mark.parametrize("shape", [(0, 5, 3), (1, 5, 3), (2, 4, 4), (9, 0, 4), (9, 4, 0), (0, 0, 0), (50, 1, 1)])
    def test_small_shapes(self, shape: tuple[int, int, int]) -> None:
        rng = np.random.default_rng(sum(shape))
        x, y = (rng.integers(0, 3, (shape[0], f)).astype(np.float32) for f in shape[1:])
        check_both(on_device(sparse.csr_array(x), sparse.csr_array(y)), x, y, 4)

    @pytest.mark.parametrize("top", [1, 12, 200])
    def test_top_beyond_a_tile_and_beyond_the_features(self, top: int) -> None:
        rng = np.random.default_rng(0)
        x, y = awkward(rng, 60, 70), awkward(rng, 60, 140)
        check_both(on_device(sparse.csr_array(x), sparse.csr_array(y), top=top), x, y, top)

    def test_always_on_far_from_zero(self) -> None:
        rng = np.random.default_rng(7)
        hidden = rng.standard_normal((1000, 4))
        x = 1e6 + 1e-2 * hidden
        y = -1e6 + 1e-2 * (hidden @ rng.standard_normal((4, 4)))
        x[:, 0] *= np.arange(1000) != 11  # always on but once
        y[:, 1] *= np.arange(1000) != 11
        a, b = sparse.csr_array(x), sparse.csr_array(y)
        corr = on_device(a, b)
        check_both(corr, x, y, 4, tolerance=1e-6)
        alike(corr, correlate(a, b))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_however_it_is_cut(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    a, b = (sparse.csr_array(awkward(rng, 200, f, dtype)) for f in (150, 110))
    whole = on_device(a, b)
    same(whole, on_device(a, b, memory_gb=2e-4))  # panels of one tile, groups of a few rows
    monkeypatch.setattr(torch_kernels, "_at_once", lambda _: 1 << 20)
    for chunk_rows, memory_gb in ((1, 1.0), (64, 1.0), (77, 2e-3)):
        same(whole, on_device(as_paired(a, b, chunk_rows=chunk_rows), memory_gb=memory_gb))
    monkeypatch.setattr(device_codes, "_STAGING_BYTES", 1000)
    monkeypatch.setattr(device_codes, "_COPY_BYTES", 300)
    same(whole, on_device(as_paired(a, b, chunk_rows=31)))


def test_swapping_the_sides_swaps_the_result_bit_for_bit() -> None:
    rng = np.random.default_rng(6)
    a, b = (sparse.csr_array(awkward(rng, 150, f)) for f in (40, 60))
    forth, back = on_device(a, b), on_device(b, a)
    for one, other in ((forth.a_to_b, back.b_to_a), (forth.b_to_a, back.a_to_b)):
        np.testing.assert_allclose(one.value, other.value, rtol=0, atol=2e-12)
        np.testing.assert_array_equal(one.count, other.count)


def test_ties_go_to_the_lower_id_even_between_multiples() -> None:
    rng = np.random.default_rng(3)
    x = rng.gamma(1, 1, (300, 60)) * (rng.random((300, 60)) < 0.2)
    y = np.hstack([x * 3.1, x, x * 0.7])[:, rng.permutation(180)]
    a, b = sparse.csr_array(x), sparse.csr_array(y)
    corr = on_device(a, b, top=3)
    np.testing.assert_array_equal(corr.a_to_b.value, 1)
    assert (np.diff(corr.a_to_b.index) > 0).all()
    np.testing.assert_array_equal(corr.a_to_b.index, correlate(a, b, top=3).a_to_b.index)


def test_whole_numbers_give_the_cpus_partners_exactly() -> None:
    rng = np.random.default_rng(4)
    x, y = (rng.integers(-2, 3, (12, f)) * (rng.random((12, f)) < 0.4) for f in (90, 130))
    a, b = (sparse.csr_array(codes.astype(np.float32)) for codes in (x, y))
    ours, cpu = on_device(a, b, top=6), correlate(a, b, top=6)
    np.testing.assert_array_equal(ours.a_to_b.index, cpu.a_to_b.index)
    np.testing.assert_array_equal(ours.b_to_a.index, cpu.b_to_a.index)
    same(ours, on_device(a, b, top=6, memory_gb=1e-3))


def test_empty_chunks_and_chunks_of_different_types() -> None:
    rng = np.random.default_rng(2)
    x, y = awkward(rng, 120, 40), awkward(rng, 120, 50).astype(np.float64)

    class Mixed:
        n_rows, features_a, features_b = 120, 40, 50

        def chunks(self) -> Any:
            for first, last, kind in ((0, 0, np.float32), (0, 60, np.float32), (60, 60, float), (60, 120, np.float64)):
                parts = [sparse.csr_array(side[first:last].astype(t)) for side, t in ((x, kind), (y, float))]
                yield tuple(CsrArrays(part.indptr, part.indices, part.data) for part in parts)

    check_both(on_device(Mixed(), top=3), x, y, 3)


def test_more_features_than_two_bytes_can_number() -> None:
    rng = np.random.default_rng(9)
    wide = 70_000
    row_of = rng.integers(0, 200, wide)
    y = sparse.csr_array((rng.exponential(1, wide).astype(np.float32), (row_of, np.arange(wide))), shape=(200, wide))
    x = awkward(rng, 200, 6)
    x[:, 4], x[:, 5] = y[:, [65_535]].toarray()[:, 0], y[:, [69_999]].toarray()[:, 0] * 2
    a = sparse.csr_array(x)
    corr = on_device(a, y, top=2)
    check(corr.a_to_b, pearson(x, y.toarray()), (x != 0).astype(int).T @ (y != 0), 2)
    alike(corr, correlate(a, y, top=2))
    back = on_device(y, a, top=2, memory_gb=0.02)  # several panels
    np.testing.assert_array_equal(back.a_to_b.index, corr.b_to_a.index)


def test_explicit_zeros_do_not_fire() -> None:
    rng = np.random.default_rng(10)
    x, y = awkward(rng, 80, 20), awkward(rng, 80, 20)
    full = [sparse.csr_array(np.where(c == 0, 1, c)) for c in (x, y)]
    for matrix, codes in zip(full, (x, y), strict=True):
        matrix.data[:] = codes.ravel()
        matrix.data[3] = -0.0 if codes.ravel()[3] == 0 else matrix.data[3]
    same(on_device(*full), on_device(sparse.csr_array(x), sparse.csr_array(y)))


def test_dense_codes_go_to_a_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    a, b = (sparse.csr_array(rng.random((300, f)) * (rng.random((300, f)) < 0.5)) for f in (70, 90))
    gone: list[int] = []
    plain = engine.written_out
    monkeypatch.setattr(engine, "written_out", lambda *args: gone.append(1) or plain(*args))
    on_device(a, b)
    assert not gone, "too small to be worth it"
    monkeypatch.setattr(engine, "_FEWEST_ADDS_FOR_BLAS", 0)
    alike(on_device(a, b), correlate(a, b))
    assert gone


def test_codes_stay_on_the_device_between_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    a, b = (sparse.csr_array(awkward(rng, 100, f)) for f in (70, 90))
    sent: list[int] = []
    plain = device_codes.DeviceCodes._sent
    monkeypatch.setattr(device_codes.DeviceCodes, "_sent", lambda *args: sent.append(1) or plain(*args))
    whole = on_device(a, b)
    assert len(sent) == 2, "both sides once, for products and co-firing"
    monkeypatch.setattr(engine, "_SHARE_KEPT", 1e-5)
    same(whole, on_device(as_paired(a, b, chunk_rows=25), memory_gb=3e-3))
    assert len(sent) > 2 + 2 * 2, "again for each pass"


def test_keys_are_ordered_as_partners_are() -> None:
    ids = torch.tensor([5, 2, 0, keys.LAST_ID, 7])
    units = torch.tensor([3, 3, -8, 3, 4], dtype=torch.int64) << 30
    zero = torch.zeros(5, dtype=torch.float64)
    made = torch_kernels.keys_of(units, 2.0**-40, zero, zero, ids, ids)
    index, r = keys.decoded(torch.sort(made, descending=True).values.numpy())
    assert index.tolist() == [7, 2, 5, keys.LAST_ID, 0]
    np.testing.assert_array_equal(r, np.array([4, 3, 3, 3, -8]) * 2.0**-10)
    none = torch_kernels.keys_of(units, 2.0**-40, zero, zero, torch.full((5,), -1), ids)
    assert keys.decoded(none.numpy())[0].tolist() == [-1] * 5


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        ([0, 2], [1.0, np.nan], r"codes B hold NaN or infinite values \(feature 2\)"),
        ([0, 2], [np.inf, 1.0], r"codes B hold NaN or infinite values \(feature 0\)"),
        ([0, 3], [1.0, 1.0], "codes B name feature 3, but there are 3 features"),
        ([0, -1], [1.0, 1.0], "codes B name feature -1, but there are 3 features"),
        ([0, 1], [1.0, 1e200], r"codes B, feature 1: values of size 1e\+200 are beyond"),
        ([0, 1], [1.0, 1e-320], r"codes B, feature 1: values of size 1e-320 are beyond"),
    ],
)
def test_codes_that_are_not_valid(index: list[int], value: list[float], message: str) -> None:
    def codes(index: list[int], value: list[float]) -> CsrArrays:
        return CsrArrays(np.array([0, 1, 2]), np.array(index, np.int32), np.array(value))

    wrong = InMemoryCodes(codes([0, 1], [1.0, 2.0]), codes(index, value), 3, 3)
    with pytest.raises(UserError, match=message):
        correlate(wrong)
    with pytest.raises(UserError, match=message):
        on_device(wrong)


def test_moments_are_the_cpus() -> None:
    rng = np.random.default_rng(8)
    a, b = (sparse.csr_array(awkward(rng, 300, f, float) * 10.0 ** rng.integers(-30, 30, f)) for f in (80, 90))
    ours, cpu = on_device(a, b), correlate(a, b)
    for one, other in ((ours.moments_a, cpu.moments_a), (ours.moments_b, cpu.moments_b)):
        np.testing.assert_array_equal(one.count, other.count)
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-13)
        np.testing.assert_allclose(one.sd, other.sd, rtol=1e-13)


def test_too_many_features() -> None:
    codes = sparse.csr_array((3, keys.MOST_FEATURES + 1))
    with pytest.raises(UserError, match=r"device 'cpu': at most 4,194,304 features a side, not 4,194,305; use cpu"):
        on_device(codes, codes)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "device 'cuda': this machine has no CUDA device; use cpu"),
        ("cuda:1", "device 'cuda:1': this machine has no CUDA device; use cpu"),
        ("gpu", "unknown device 'gpu': use cpu, cuda or cuda:1 …"),
        ("mps", "device 'mps': correlation runs on cpu, cuda or cuda:1 …"),
    ],
)
def test_a_device_that_is_not_there(device: str, message: str) -> None:
    codes = sparse.csr_array(np.eye(3))
    with pytest.raises(UserError) as caught:
        uf.correlate(codes, codes, device=device)
    assert str(caught.value) == message


def test_memory_that_does_not_suffice_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 …")

    monkeypatch.setattr(torch_kernels, "multiply", full)
    codes = sparse.csr_array(np.eye(3))
    with pytest.raises(UserError, match="out of memory while correlating"):
        on_device(codes, codes)


def test_a_triton_that_does_not_work_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        @staticmethod
        def multiply(*_: Any) -> None:
            raise RuntimeError("Failed to find C compiler")

    broken = Broken("unifeat.correlation.triton_kernels")
    assert not engine.works(broken, CPU)
    assert engine.works(torch_kernels, CPU)
    assert engine.kernels_for(CPU) is torch_kernels


def test_cpu_is_the_cpus_own_code() -> None:
    rng = np.random.default_rng(0)
    a, b = (sparse.csr_array(awkward(rng, 50, f)) for f in (20, 30))
    same(correlate(a, b, device="cpu"), correlate(a, b))


TRITON_SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:]
import numpy as np
from scipy import sparse
from oracles import awkward, check_both, same
from test_device import on_device
from unifeat.correlation import torch_kernels, triton_kernels
from unifeat.progress import set_mode
from unifeat.vocabulary.paired_codes import as_paired
set_mode("quiet")
for seed, dtype, features_a, top in ((0, np.float32, 70, 3), (1, np.float64, 50, 1), (2, np.float32, 130, 5)):
    rng = np.random.default_rng(seed)
    x, y = awkward(rng, 30, features_a, dtype), awkward(rng, 30, 100, dtype)
    codes = as_paired(sparse.csr_array(x), sparse.csr_array(y), chunk_rows=20)
    corr = on_device(codes, top=top, kernels=triton_kernels)
    check_both(corr, x, y, top)
    same(corr, on_device(codes, top=top, kernels=torch_kernels))
same(on_device(codes, kernels=triton_kernels, memory_gb=2e-4), on_device(codes))
print("interpreted")
"""
COMPILE_SCRIPT = """
from unifeat.correlation.triton_kernels import compiled
for capability in (80, 90):
    for name, ptx in compiled(capability).items():
        assert "fma.rn.f64" not in ptx, name
print("compiled")
"""


def in_process_of_its_own(script: str, **environment: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(
        [sys.executable, "-c", script, str(here), str(here.parent)],
        capture_output=True, text=True, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment,
    ).stdout  # fmt: skip


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
@pytest.mark.slow
def test_triton_gives_the_same_bits_as_torch() -> None:
    assert in_process_of_its_own(TRITON_SCRIPT, TRITON_INTERPRET="1") == "interpreted\n"


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
@pytest.mark.slow
def test_triton_compiles_without_a_gpu_and_fuses_no_multiply_add(tmp_path: Path) -> None:
    assert in_process_of_its_own(COMPILE_SCRIPT, TRITON_CACHE_DIR=str(tmp_path)) == "compiled\n"


@pytest.mark.gpu
class TestCuda:
    """On a machine with CUDA: `pytest -m gpu tests/correlation`."""

    @pytest.fixture(autouse=True)
    def cuda(self) -> None:
        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")

    @pytest.fixture(params=["triton", "torch"])
    def kernels(self, request: pytest.FixtureRequest) -> ModuleType:
        if request.param == "triton":
            pytest.importorskip("triton")
        return importlib.import_module(f"unifeat.correlation.{request.param}_kernels")

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_same_bits_as_the_torch_loops_on_the_cpu(self, seed: int, dtype: type, kernels: ModuleType) -> None:
        rng = np.random.default_rng(seed)
        x, y = awkward(rng, 500, 150, dtype), awkward(rng, 500, 230, dtype)
        codes = as_paired(sparse.csr_array(x), sparse.csr_array(y), chunk_rows=200)
        corr = on_device(codes, device=torch.device("cuda", 0), kernels=kernels)
        check_both(corr, x, y, 4)
        same(corr, on_device(codes))
        same(corr, on_device(codes, device=torch.device("cuda", 0), kernels=kernels, memory_gb=1e-3))

    @pytest.mark.parametrize("shape", [(0, 5, 3), (1, 5, 3), (9, 0, 4), (9, 4, 0), (50, 1, 1)])
    def test_small_shapes(self, shape: tuple[int, int, int], kernels: ModuleType) -> None:
        rng = np.random.default_rng(sum(shape))
        x, y = (rng.integers(0, 3, (shape[0], f)).astype(np.float32) for f in shape[1:])
        codes = sparse.csr_array(x), sparse.csr_array(y)
        check_both(on_device(*codes, device=torch.device("cuda", 0), kernels=kernels), x, y, 4)

    def test_dense_codes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "is_dense", lambda *_: True)
        rng = np.random.default_rng(1)
        x, y = awkward(rng, 700, 150), awkward(rng, 700, 230)
        a, b = sparse.csr_array(x), sparse.csr_array(y)
        check_both(correlate(a, b, device="cuda"), x, y, 4)
        alike(correlate(a, b, device="cuda"), correlate(a, b))

    def test_many_tokens_and_features_agree_with_the_cpu(self) -> None:
        rng = np.random.default_rng(2)
        a, b = (
            sparse.random_array((100_000, 3000), density=0.005, rng=rng, format="csr", dtype=np.float32) for _ in "ab"
        )
        alike(correlate(a, b, device="cuda"), correlate(a, b))
        same(correlate(a, b, device="cuda"), correlate(as_paired(a, b, chunk_rows=7000), device="cuda", memory_gb=0.2))

    def test_a_device_beyond_those_there_are(self) -> None:
        codes = sparse.csr_array(np.eye(3))
        with pytest.raises(UserError, match=r"this machine has \d+ CUDA devices, counted from 0"):
            uf.correlate(codes, codes, device="cuda:99")
