"""Arrays in files of other programs: the same numbers in every kind, in blocks, and one line for what is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unifeat.codes.array_files import ArrayFile, array_files, row_blocks
from unifeat.errors import UserError

X = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)


def written(path: Path, x: Any = X) -> Path:
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"x": np.ascontiguousarray(x)}, path)
    elif path.suffix in (".pt", ".pth"):
        torch.save(torch.from_numpy(x), path)
    else:
        zarr = pytest.importorskip("zarr")
        array = zarr.open(str(path), mode="w", shape=x.shape, chunks=(20, *x.shape[1:]), dtype="f4")
        array[:] = x
    return path


@pytest.mark.parametrize("kind", ["npy", "safetensors", "pt", "pth", "zarr"])
@pytest.mark.parametrize("rows", [1, 7, 50, 1000])
def test_rows_in_blocks(tmp_path: Path, kind: str, rows: int) -> None:
    files = array_files(written(tmp_path / f"x.{kind}"))
    assert files[0].shape == (50, 6)
    blocks = list(row_blocks(files, rows))
    assert max(map(len, blocks)) <= rows
    assert np.array_equal(np.concatenate(blocks), X)


def test_documents_times_positions_are_rows(tmp_path: Path) -> None:
    x = X.reshape(5, 10, 6)
    blocks = list(row_blocks(array_files(written(tmp_path / "x.npy", x)), 25))
    assert [len(block) for block in blocks] == [20, 20, 10]
    assert np.array_equal(np.concatenate(blocks), X)


def test_folders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number, start in ((2, 30), (0, 0), (1, 10)):
        written(tmp_path / f"{number}.npy", X[start : {0: 10, 10: 30, 30: 50}[start]])
    (tmp_path / "notes.txt").write_text("not an array")
    assert np.array_equal(np.concatenate(list(row_blocks(array_files(tmp_path), 16))), X)


def test_numbers_in_names_are_numbers(tmp_path: Path) -> None:
    for number in range(12):
        written(tmp_path / f"x_{number}.npy", np.full((1, 2), number))
    assert [block[0, 0] for block in row_blocks(array_files(tmp_path), 16)] == list(range(12))


def test_other_numbers_become_float32(tmp_path: Path) -> None:
    for name, x in (("half", X.astype(np.float16)), ("double", X.astype(np.float64)), ("whole", np.arange(6)[None])):
        np.save(tmp_path / f"{name}.npy", x)
        assert ArrayFile(tmp_path / f"{name}.npy")[slice(None)].dtype == np.float32
    torch.save(torch.from_numpy(X).bfloat16(), tmp_path / "b.pt")
    assert np.allclose(ArrayFile(tmp_path / "b.pt")[slice(None)], X, rtol=1e-2)


def test_the_array_of_the_name_that_is_wanted(tmp_path: Path) -> None:
    torch.save({"W_dec": torch.ones(3, 2), "b": torch.zeros(2)}, tmp_path / "x.pt")
    assert ArrayFile(tmp_path / "x.pt", "W_dec").shape == (3, 2)
    with pytest.raises(UserError, match=r"holds 2 arrays \(W_dec, b\): keep one, or call it x"):
        ArrayFile(tmp_path / "x.pt", "x")
    with pytest.raises(UserError, match=r"holds 2 arrays \(W_dec, b\): keep one$"):
        ArrayFile(tmp_path / "x.pt")
    torch.save(X, tmp_path / "numpy.pt")
    with pytest.raises(UserError, match=r"cannot be read as an array: [^\x1b\n]+$"):
        ArrayFile(tmp_path / "numpy.pt")


def test_what_is_no_array(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 2 3")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    written(tmp_path / "one.npy")
    for name, message in (
        ("x.txt", "is in a file that ends in .npy"),
        ("broken.npy", "cannot be read as an array"),
        ("objects.npy", "cannot be read as an array"),
        ("empty", "holds no array"),
        ("nowhere.npy", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            array_files(tmp_path / name)
    (tmp_path / "two").mkdir()
    written(tmp_path / "two" / "a.npy")
    written(tmp_path / "two" / "b.npy", X[:, :3])
    with pytest.raises(UserError, match="different shapes"):
        array_files(tmp_path / "two")
