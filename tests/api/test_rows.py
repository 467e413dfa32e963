"""Row i is row i: one rule for codes, blocks and files, in studies and in `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import unifeat as uf
from tiny import tiny_sae
from unifeat.errors import UserError
from unifeat.pipeline.plan import plan_study
from unifeat.study.read import study_from

N, WIDTH = 600, 16
X = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)
DOCUMENTS = np.repeat(np.arange(10), 60)
TOKENS = [f" w{number % 37}" for number in range(N)]
PLACES = {"document": DOCUMENTS, "token": TOKENS}
SMALL: dict[str, Any] = {
    "matching": {"min_count": 3},
    "geometry": ["rsa"],
    "inference": {"permutations": 5, "bootstraps": 0, "subsamples": 0},
}
ALONE, PLACED = ["codes", "saved", "blocks", "file", "file of documents"], ["tokens", "block tokens", "file tokens"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tiny_sae(tmp_path / "sae", WIDTH)
    np.save("x.npy", X)
    pd.DataFrame({"document": DOCUMENTS}).to_csv("documents.csv", index=False)
    pd.DataFrame(PLACES).to_parquet("places.parquet")
    return tmp_path


def codes() -> Any:
    return uf.load_sae("sae").encode(torch.from_numpy(X)).detach()


def source(kind: str, name: str) -> Any:
    """The same codes, brought in every way."""
    rows = uf.load_sae("sae").W_dec.detach().numpy()
    in_files = {"file": None, "file of documents": "documents.csv", "file tokens": "places.parquet"}
    if kind in in_files:
        return uf.space(name, activations="x.npy", places=in_files[kind], sae="sae")
    if kind in ("blocks", "block tokens"):
        places: Any = DOCUMENTS if kind == "blocks" else PLACES
        return uf.space(name, activations=[(X, places)], sae="sae")
    own = uf.Codes(codes(), DOCUMENTS, tokens=TOKENS if kind == "tokens" else None)
    return uf.space(name, codes=uf.save_codes(own, f"saved-{name}") if kind == "saved" else own, decoder=rows)


def aligned(run: uf.Run) -> int:
    kept = run.space_pair("a@0", "b@0").query("kept")
    assert len(kept) > 5
    assert (kept["feature_a"] == kept["feature_b"]).mean() > 0.9
    assert kept["correlation"].median() > 0.999
    return int(run.info["pairs"][0]["tokens_aligned"])


@pytest.mark.parametrize("one", ALONE)
@pytest.mark.parametrize("other", ["codes", "tokens", "block tokens", "file tokens"])
def test_rows_are_rows(work: Path, one: str, other: str) -> None:
    if one == "file" and other == "codes":
        documents = uf.Codes(codes(), DOCUMENTS)  # (files alone have one document: they take the other's)
        spaces = [source(one, "a"), uf.space("b", codes=documents, decoder=np.eye(documents.shape[1]))]
    else:
        spaces = [source(one, "a"), source(other, "b")]
    run = uf.compare(spaces, **SMALL)
    assert aligned(run) == N
    words = {token.strip() for tokens in run.pairs["top_tokens_a"] for token in tokens}
    if other == "codes":
        assert all(word.isdigit() for word in words), "rows are called by their numbers"
    else:
        assert words <= {token.strip() for token in TOKENS}
    assert run.codes("a@0").places["document"].tolist() == DOCUMENTS.tolist()


def test_in_a_study(work: Path) -> None:
    """Saved codes and activations without places: the rows are the text."""
    uf.save_codes(uf.Codes(codes(), DOCUMENTS), "mine", decoder=uf.load_sae("sae").W_dec)
    spaces = [{"name": "a", "activations": "x.npy", "sae": "sae"}, {"name": "b", "codes": "mine"}]
    study = {"name": "s", "text": {"source": "rows"}, "spaces": spaces} | SMALL
    run = uf.run(study)
    assert aligned(run) == N
    assert run.info["text"]["documents"] == 10
    again = uf.run(run.folder / "study.yaml", "again")
    pd.testing.assert_frame_equal(again.pairs, run.pairs)
    assert plan_study(study_from(study, work)).cells == 1
    Path("text.jsonl").write_text('{"text": "another"}\n' * 10)
    with pytest.raises(UserError, match=r"space a@0: its rows have no places in this text: .*text: {source: rows}"):
        uf.run(study | {"text": {"source": "text.jsonl"}})


def test_an_sae_object_reads_files(work: Path) -> None:
    class Mine:
        W_dec = uf.load_sae("sae").W_dec

        def encode(self, x: Any) -> Any:
            return uf.load_sae("sae").encode(x)

    one = uf.space("a", activations="x.npy", places="places.parquet", sae=Mine())
    run = uf.compare([one, source("block tokens", "b")], **SMALL)
    assert aligned(run) == N
    assert run.info["spaces"]["a@0"]["sae"] == "Mine"


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"rows": 500}, {}, r"space a@0: .*row i must be row i, and they have \[500, 600\] rows"),
        ({"rows": 500}, {"tokens": TOKENS}, r"space a@0: .*row i must be row i, and they have \[500, 600\] rows"),
        ({"documents": DOCUMENTS // 2}, {}, "row i must be row i of b@0, and their documents differ"),
        ({"documents": DOCUMENTS // 2}, {"tokens": TOKENS}, "row i must be row i of b@0, and their documents differ"),
        ({}, {"ends": np.tile(np.arange(1, 61), 10)}, "the study needs a text"),
    ],
)
def test_rows_that_are_not(work: Path, one: dict[str, Any], other: dict[str, Any], message: str) -> None:
    def space(name: str, rows: int = N, documents: Any = DOCUMENTS, **more: Any) -> Any:
        return uf.space(name, codes=uf.Codes(X[:rows].clip(0), documents[:rows], **more), decoder=np.eye(WIDTH))

    with pytest.raises(UserError, match=message):
        uf.compare([space("a", **one), space("b", **other)], **SMALL)
