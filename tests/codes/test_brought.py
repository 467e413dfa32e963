"""Codes that a user brings: their places, what is refused, and that blocks make what the whole makes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from unifeat.codes.brought import Codes, SavedCodes, save_codes
from unifeat.errors import UserError

TOKENS = [" The", " White", " House", " is", " white", "."]


def codes(rows: int = 6, features: int = 4, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return sparse.random(rows, features, density=0.5, format="csr", rng=rng)


def saved(path: Path) -> list[tuple[Any, ...]]:
    """Every row of saved codes: its place, its token and its codes."""
    own = SavedCodes.open(path)
    rows = []
    for shard in own.shards_of(0, 10**6):
        matrix = sparse.csr_array(
            (shard.value, shard.feature, shard.indptr), shape=(shard.rows, own.features)
        ).toarray()
        for row in range(shard.rows):
            places = [int(getattr(shard.places, name)[row]) for name in ("document", "char_end", "order")]
            token = own.vocabulary[shard.places.token[row]] if own.vocabulary else None
            rows.append((*places, token, tuple(matrix[row].tolist())))
    return rows


def test_tokens_make_the_text(tmp_path: Path) -> None:
    own = Codes(codes(), [0, 0, 0, 1, 1, 1], tokens=TOKENS)
    assert own.ends.tolist() == [4, 10, 16, 3, 9, 10]
    own.save(tmp_path / "c")
    lines = (tmp_path / "c" / "text.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [" The White House", " is white."]
    assert [row[3] for row in saved(tmp_path / "c")] == TOKENS


@pytest.mark.parametrize("cuts", [[3], [1, 2, 3, 4, 5], [2, 2, 5]])
@pytest.mark.parametrize("tokens", [True, False])
def test_blocks_make_what_the_whole_makes(tmp_path: Path, cuts: list[int], tokens: bool) -> None:
    """Also where a document goes on in the next block, and with an empty block."""
    matrix, documents = codes(), np.array([0, 0, 0, 0, 1, 1])

    def block(start: int, stop: int) -> Codes:
        own = TOKENS[start:stop] if tokens else None
        return Codes(matrix[start:stop], documents[start:stop], tokens=own)

    save_codes(block(0, 6), tmp_path / "whole")
    save_codes((block(a, b) for a, b in zip([0, *cuts], [*cuts, 6], strict=True)), tmp_path / "blocks")
    assert saved(tmp_path / "blocks") == saved(tmp_path / "whole")
    for name in ("text.jsonl", "tokens.json"):
        assert (tmp_path / "blocks" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_saved_twice_they_have_one_identity(tmp_path: Path) -> None:
    own = Codes(codes(), tokens=TOKENS)
    identities = {SavedCodes.open(own.save(tmp_path / name)).identity for name in "ab"}
    other = Codes(codes(seed=1), tokens=TOKENS).save(tmp_path / "c")
    assert len(identities | {SavedCodes.open(other).identity}) == 2


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(
    "kind",
    [
        lambda x: x,
        lambda x: x.toarray(),
        lambda x: x.toarray().astype(np.float64),
        lambda x: torch.tensor(x.toarray()),
        lambda x: torch.tensor(x.toarray()).to_sparse(),
        lambda x: torch.tensor(x.toarray()).to_sparse_csr(),
        lambda x: torch.tensor(x.toarray(), requires_grad=True),
        sparse.coo_matrix,
        sparse.csc_array,
    ],
)
def test_every_kind_of_matrix(kind: Any) -> None:
    matrix = codes(50, 8)
    found = Codes(kind(matrix))
    assert np.allclose(found.matrix.toarray(), matrix.toarray())
    assert found.matrix.dtype == np.float32
    assert found.matrix.has_canonical_format


def test_the_caller_s_matrix_is_not_changed() -> None:
    matrix = sparse.csr_array((np.array([1.0, 0.0, 2.0], np.float32), np.array([0, 1, 1]), np.array([0, 2, 3])))
    assert Codes(matrix).matrix.nnz == 2
    assert matrix.nnz == 3


def test_tokens_may_be_an_array() -> None:
    assert Codes(codes(), tokens=np.array(TOKENS)).tokens == TOKENS


def test_tokens_that_end_at_one_character_are_told_apart() -> None:
    own = Codes(codes(5), [0, 0, 0, 1, 1], ends=[2, 2, 2, 2, 3])
    assert own.places.order.tolist() == [2, 1, 0, 0, 0]


def test_negative_codes_and_dead_rows_stay(tmp_path: Path) -> None:
    matrix = np.array([[0, -1.5], [0, 0], [2, 0]])
    Codes(matrix).save(tmp_path / "c")
    assert [row[4] for row in saved(tmp_path / "c")] == [(0, -1.5), (0, 0), (2, 0)]


def test_a_decoder_may_be_an_sae_s(tmp_path: Path) -> None:
    rows = np.ones((4, 2), np.float32)
    path = save_codes(Codes(codes()), tmp_path / "c", decoder=SimpleNamespace(W_dec=torch.from_numpy(rows)))
    assert np.array_equal(np.load(path / "decoder.npy"), rows)


def test_it_shows_itself() -> None:
    assert repr(Codes(np.eye(4), [0, 0, 1, 1])) == "Codes(4 rows × 4 features, 1.0 active a row, 2 documents)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matrix": np.ones(3)}, r"codes must be \(tokens, features\) of real numbers, not 1-D"),
        ({"matrix": np.array([["a"]])}, "of real numbers"),
        ({"matrix": [[np.nan]]}, "NaN or Inf"),
        ({"matrix": [[1e300]]}, "beyond float32"),
        ({"matrix": np.eye(2), "documents": [1, 0]}, "they fall somewhere"),
        ({"matrix": np.eye(2), "documents": [0]}, r"documents: shape \(1,\) for 2 rows"),
        ({"matrix": np.eye(2), "documents": [0.5, 1]}, "whole numbers from 0"),
        ({"matrix": np.eye(2), "documents": [-1, 0]}, "whole numbers from 0"),
        ({"matrix": np.eye(2), "documents": [2**31, 2**31]}, r"documents: .* below 2\*\*31"),
        ({"matrix": np.eye(2), "ends": [2**32 + 1, 2**32 + 2]}, r"ends: .* below 2\*\*31"),
        ({"matrix": np.eye(2), "ends": [5, 3]}, "row 1 ends before the row before it, in document 0"),
        ({"matrix": np.eye(2), "ends": [5, 6, 7]}, r"ends: shape \(3,\)"),
        ({"matrix": np.ones((2, 0))}, r"codes have no features: their shape is \(2, 0\)"),
        ({"matrix": np.eye(2), "tokens": ["a", "\ud800"]}, r"tokens: that of row 1, '\\ud800', is no text"),
        ({"matrix": np.eye(2), "tokens": ["a"]}, "tokens: 1 for 2 rows"),
    ],
)
def test_what_are_no_codes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Codes(**arguments)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    def refused(message: str, *blocks: Codes, **settings: Any) -> None:
        with pytest.raises(UserError, match=message):
            save_codes(iter(blocks), tmp_path / "c", **settings)
        assert not list(tmp_path.iterdir()), "nothing half-written"

    one = Codes(codes(), tokens=TOKENS)
    refused("no codes to save")
    refused("no codes to save", Codes(np.zeros((0, 3))))
    refused("has 5 features, no ends and tokens, and those before it 4", one, Codes(codes(6, 5), tokens=TOKENS))
    refused("keep the order", Codes(codes(2), [3, 3], ends=[1, 9]), Codes(codes(1), [3], ends=[8]))
    refused("number 0 has no rows", Codes(codes(), [1] * 6, tokens=TOKENS))
    refused("of number 0 are all blank", Codes(codes(2), [0, 1], tokens=[" ", "a"]))
    refused(r"decoder: shape \(3, 2\) for 4 features", one, decoder=np.ones((3, 2)))
    refused("NaN or Inf", one, decoder=np.full((4, 2), np.nan))
    refused("decoder: give the rows, an array .*, not 'rows.npy'", one, decoder="rows.npy")
    refused("decoder: give the rows, an array .*, not object", one, decoder=object())
    refused(r"codes to save are uf.Codes\(matrix, …\), or blocks of them, not ndarray", np.eye(3))  # type: ignore[arg-type]
    for wrong in (codes(), None):
        with pytest.raises(UserError, match=r"codes to save are uf.Codes\(matrix, …\), or blocks of them, not"):
            save_codes(wrong, tmp_path / "c")  # type: ignore[arg-type]
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists: name a new folder"):
        one.save(tmp_path / "there")


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a finished store of codes"):
        SavedCodes.open(tmp_path)
    Codes(codes(), tokens=TOKENS).save(tmp_path / "c")
    (tmp_path / "c" / "tokens.json").unlink()
    with pytest.raises(UserError, match="were not written by save_codes"):
        SavedCodes.open(tmp_path / "c")
