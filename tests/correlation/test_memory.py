"""Codes laid out in memory in parts, or on disk: the same bits each way, and nothing left behind."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from test_correlate import awkward, same

from unifeat import UserError, correlate
from unifeat.correlation import best_partners as search_module
from unifeat.correlation import spill as spill_module
from unifeat.correlation.laid_out import LaidOut
from unifeat.memory import free_memory, working_memory
from unifeat.vocabulary.paired_codes import as_paired


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was laid out: ranges of columns in memory, or "spill" and the number of its groups."""
    seen: list[Any] = []
    ranges = LaidOut.column_ranges

    def in_memory(self: LaidOut, memory: float) -> Any:
        found = list(ranges(self, memory))
        seen.append(len(found))
        return iter(found)

    class Spied(spill_module.Spill):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            seen.append(("spill", len(self._groups)))

    monkeypatch.setattr(LaidOut, "column_ranges", in_memory)
    monkeypatch.setattr(search_module, "Spill", Spied)
    return seen


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("chunk_rows", [None, 37])
def test_same_bits_in_memory_in_parts_and_on_disk(dtype: type, chunk_rows: int | None, ways: list[Any]) -> None:
    rng = np.random.default_rng(0)
    a, b = (sparse.csr_array(awkward(rng, 600, f, dtype)) for f in (90, 40))
    whole = correlate(a, b, memory_gb=1.0)
    codes = as_paired(a, b, chunk_rows=chunk_rows)
    size = 12 if dtype == np.float64 else 6
    records = b.nnz * size + 600 * 30 * (size / 6)  # about what B's records take
    for share in (3.0, 1.4, 0.2):
        same(whole, correlate(codes, memory_gb=share * records / 1e9, threads=2))
    assert ways[0] == 1, "everything at once"
    assert ways[1] > 1, "A's columns in several ranges"
    assert [way[0] for way in ways[2:]] == ["spill", "spill"]
    assert ways[3][1] > ways[2][1] > 1, "less memory, more groups"


def test_nothing_is_left_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ways: list[Any]) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rng = np.random.default_rng(1)
    a, b = (sparse.csr_array(awkward(rng, 300, 40)) for _ in "ab")
    correlate(a, b, memory_gb=1e-5)
    assert ways == [("spill", ways[0][1])]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    a, b = (sparse.csr_array(awkward(rng, 300, 40)) for _ in "ab")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spill_module.Spill, "_append", full)
    with pytest.raises(
        UserError, match=r"disk full while laying out codes in .*: free some space there, or set TMPDIR"
    ):
        correlate(a, b, memory_gb=1e-5)


def test_a_file_that_became_shorter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    a, b = (sparse.csr_array(awkward(rng, 300, 40)) for _ in "ab")
    monkeypatch.setattr(spill_module.os, "preadv", lambda *_: 0)
    with pytest.raises(OSError, match="shorter than it was"):
        correlate(a, b, memory_gb=1e-5)


@pytest.mark.parametrize("first", [0, 1])
def test_dense_features_of_a_in_any_range(first: int, ways: list[Any]) -> None:
    """Features that fire on most rows are laid out in two parts, at the front of the columns."""
    rng = np.random.default_rng(4)
    x = awkward(rng, 500, 60)
    x[:, first::20] = rng.normal(5, 1, (500, len(range(first, 60, 20))))
    y = awkward(rng, 500, 20)
    a, b = sparse.csr_array(x), sparse.csr_array(y)
    whole = correlate(a, b)
    same(whole, correlate(a, b, memory_gb=(b.nnz * 6 + 500 * 40) * 1.5 / 1e9))
    same(whole, correlate(a, b, memory_gb=4e-6))
    assert ways[1] > 1


def test_free_memory_is_known() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < working_memory() < free_memory() <= total


def test_a_limit_of_the_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat import memory

    group = tmp_path / "job"
    group.mkdir()
    (group / "memory.max").write_text("3000000\n")
    (group / "memory.current").write_text("2500000\n")
    (group / "memory.stat").write_text("anon 2000000\ninactive_file 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, *a, **k: "0::/job\n" if str(path) == "/proc/self/cgroup" else read(path, *a, **k),
    )
    assert free_memory() == 600_000
