"""Spaces described in Python: named ones, functions, objects, activations and codes give what a study gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import unifeat as uf
from homes import GROUP, STUDY, Place
from unifeat.api.compare import study_of
from unifeat.codes.brought import SavedCodes
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.models.language import load_tokenizer

LIKE = {key: STUDY[key] for key in ("matching", "geometry", "inference", "seed")}
PAIRS = ["feature_a", "feature_b", "correlation", "correlation_heldout", "kept", "dropped_because"]


def text_of(place: Place) -> dict[str, Any]:
    return {"source": str(place.home / "text.jsonl"), "context": 32, "group": GROUP}


def named(place: Place, model: str, layer: int, **settings: Any) -> Any:
    return uf.space(
        model, model=str(place.home / f"model-{model}"), sae=str(place.home / f"saes/{model}_{layer}"), layer=layer,
        dtype="float32", **settings,
    )  # fmt: skip


def pairs_of(run: uf.Run, a: str = "one@0", b: str = "two@1") -> pd.DataFrame:
    found = run.space_pair(a, b)[[*PAIRS, "top_tokens_a", "top_tokens_b"]]
    return found.sort_values(["feature_a", "feature_b"], ignore_index=True)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    for side in "ab":
        column = f"top_tokens_{side}"
        assert [list(x) for x in found[column]] == [list(x) for x in expected[column]]
    pd.testing.assert_frame_equal(found[PAIRS], expected[PAIRS], check_exact=True)


class Reading:
    """A model of transformers as a function: plain PyTorch, whole, with a hook of one's own."""

    def __init__(self, folder: Path, layer: int) -> None:
        from transformers import AutoModelForCausalLM

        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        blocks = getattr(self.network.base_model, "layers", None) or self.network.base_model.h
        blocks[layer].register_forward_hook(self._keep)
        self.calls = 0

    def _keep(self, module: Any, inputs: Any, output: Any) -> None:
        self.seen = output[0] if isinstance(output, tuple) else output

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.network(ids)
        return self.seen


class Bare:
    """An SAE that has nothing but what is asked for, and gives sparse codes."""

    def __init__(self, path: Path) -> None:
        self._sae: Any = uf.load_sae(str(path))
        self.W_dec = self._sae.W_dec.detach().clone()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self._sae.encode(x).to_sparse()


def test_named_spaces_give_the_study_s_run(here: Place, finished: Place) -> None:
    run = uf.compare([named(here, "one", 0), named(here, "two", 1)], text_of(here), **LIKE)
    assert run.folder == Path("runs/comparison")
    theirs = uf.open(finished.run)
    same(pairs_of(run), pairs_of(theirs))
    own, study = (
        table.query("space_a == 'one@0' and space_b == 'two@1'")[["metric", "score", "null_mean", "p"]].reset_index(
            drop=True
        )
        for table in (run.scores, theirs.scores)
    )
    pd.testing.assert_frame_equal(own, study, check_exact=True)


def test_a_function_and_an_object_give_the_same_codes(here: Place, finished: Place) -> None:
    reading = Reading(here.home / "model-two", 1)
    tokenizer = load_tokenizer(str(here.home / "model-two"))
    two = uf.space("two", model=reading, tokenizer=tokenizer, sae=Bare(here.home / "saes/two_1"), layer=1)
    run = uf.compare([named(here, "one", 0), two], text_of(here), **LIKE)
    same(pairs_of(run), pairs_of(uf.open(finished.run)))
    assert run.info["spaces"]["two@1"]["sae"] == "Bare"
    assert run.info["spaces"]["two@1"]["fvu"] is None
    # The same function again: it is asked about the beginning of the text, and the codes are found.
    calls = reading.calls
    again = uf.compare([named(here, "one", 0), two], text_of(here), out="runs/again", **LIKE)
    assert reading.calls <= calls + 2
    same(pairs_of(again), pairs_of(run))


def test_another_function_is_not_taken_for_it(here: Place) -> None:
    tokenizer = load_tokenizer(str(here.home / "model-two"))
    folders = set()
    for layer in (0, 1):
        reading = Reading(here.home / "model-two", layer)
        two = uf.space("two", model=reading, tokenizer=tokenizer, sae=str(here.home / "saes/two_1"), layer=1)
        study = study_of([named(here, "one", 0), two], text_of(here), **LIKE)
        folders.add(study.brought[0].codes)
    assert len(folders) == 2


def test_a_decode_that_came_later_is_asked(here: Place) -> None:
    """The same function and codes, and now an FVU: the stored codes, which have none, are not taken."""
    reading = Reading(here.home / "model-two", 1)
    tokenizer = load_tokenizer(str(here.home / "model-two"))
    fvu = []
    for kind in (Bare, Wrong):
        two = uf.space("two", model=reading, tokenizer=tokenizer, sae=kind(here.home / "saes/two_1"), layer=1)
        study = study_of([named(here, "one", 0), two], text_of(here), **LIKE)
        fvu.append(SavedCodes.open(Path(str(study.brought[0].codes))).about["fvu"])
    assert fvu[0] is None
    assert fvu[1] > 1


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda x: (x, None), "space two: the function gave tuple, not activations: return the array alone"),
        (lambda x: {"hidden": x}, "the function gave dict, not activations"),
        (lambda x: None, "the function gave NoneType, not activations"),
        (lambda x: x[0], "it gave activations of shape"),
        (lambda x: x[:, :, :3], "space two: activations of width 3 for an SAE of width"),
    ],
)
def test_functions_that_give_no_activations(here: Place, give: Any, message: str) -> None:
    reading = Reading(here.home / "model-two", 1)
    tokenizer = load_tokenizer(str(here.home / "model-two"))
    sae = str(here.home / "saes/two_1")
    two = uf.space("two", model=lambda ids: give(reading(ids)), tokenizer=tokenizer, sae=sae, layer=1)
    with pytest.raises(UserError, match=message):
        study_of([named(here, "one", 0), two], text_of(here), **LIKE)


def test_tokenizers_of_a_function(here: Place) -> None:
    """One of the tokenizers library does as well as one of transformers; one without offsets is one line."""
    fast = load_tokenizer(str(here.home / "model-two"))
    folders = set()
    for tokenizer in (fast, fast.backend_tokenizer):
        reading = Reading(here.home / "model-two", 1)
        two = uf.space("two", model=reading, tokenizer=tokenizer, sae=str(here.home / "saes/two_1"), layer=1)
        folders.add(study_of([named(here, "one", 0), two], text_of(here), **LIKE).brought[0].codes)
    assert len(folders) == 1

    class Slow:
        is_fast = False

    slow = uf.space("two", model=reading, tokenizer=Slow(), sae=str(here.home / "saes/two_1"), layer=1)
    with pytest.raises(
        UserError, match=r"space two: the tokenizer \(Slow\) gives no character offsets: use a fast one"
    ):
        study_of([named(here, "one", 0), slow], text_of(here), **LIKE)


def test_identity_stands_for_a_function(here: Place) -> None:
    tokenizer = load_tokenizer(str(here.home / "model-two"))
    reading = Reading(here.home / "model-two", 1)

    def study() -> Any:
        two = uf.space(
            "two", model=reading, tokenizer=tokenizer, sae=str(here.home / "saes/two_1"), layer=1, identity="mine 1"
        )
        return study_of([named(here, "one", 0), two], text_of(here), **LIKE)

    first = study()
    calls = reading.calls
    assert study().brought[0].codes == first.brought[0].codes
    assert reading.calls == calls


def test_a_named_model_with_an_object(here: Place, finished: Place) -> None:
    two = uf.space(
        "two", model=str(here.home / "model-two"), sae=Bare(here.home / "saes/two_1"), layer=1, dtype="float32"
    )
    run = uf.compare([named(here, "one", 0), two], text_of(here), **LIKE)
    same(pairs_of(run), pairs_of(uf.open(finished.run)))


def stored(place: Place, space: str) -> CodeStore:
    return CodeStore.open(place.cache / "codes" / Path(uf.open(place.run).info["spaces"][space]["codes"]).name)


def blocks_of(place: Place, store: CodeStore) -> Iterator[uf.Codes]:
    """The codes of the study's own space, as its owner would bring them: matrix, documents, ends, texts of tokens."""
    from scipy import sparse

    tokenizer = load_tokenizer(str(place.home / "model-two"))
    for shard in store.shards():
        matrix = sparse.csr_array((shard.value, shard.feature, shard.indptr), shape=(shard.rows, store.features))
        tokens = [tokenizer.decode([token]) for token in shard.places.token.tolist()]
        yield uf.Codes(matrix, shard.places.document, ends=shard.places.char_end, tokens=tokens)


def test_codes_saved_and_brought_back(here: Place, finished: Place) -> None:
    decoder = uf.load_sae(str(here.home / "saes/two_1")).W_dec
    folder = uf.save_codes(blocks_of(here, stored(here, "two@1")), here.work / "mine", decoder=decoder)
    run = uf.compare([named(here, "one", 0), uf.space("two", codes=folder, layer=1)], text_of(here), **LIKE)
    same(pairs_of(run), pairs_of(uf.open(finished.run)))
    assert run.info["spaces"]["two@1"]["sae"] == "saved with the codes"


def test_a_study_takes_codes_and_a_decoder(here: Place, finished: Place) -> None:
    uf.save_codes(blocks_of(here, stored(here, "two@1")), here.work / "mine")
    np.save(here.work / "rows.npy", uf.load_sae(str(here.home / "saes/two_1")).W_dec.detach().numpy())
    study = STUDY | {
        "text": text_of(here),
        "models": {"one": {"name": str(here.home / "model-one"), "dtype": "float32"}},
    }
    study["spaces"] = [
        {"model": "one", "layers": [0], "sae": str(here.home / "saes/one_0")},
        {"name": "two", "codes": "mine", "decoder": "rows.npy", "layer": 1},
    ]
    run = uf.run(study, out="runs/brought")
    same(pairs_of(run), pairs_of(uf.open(finished.run)))
    # An SAE's name does as well, and the run can be repeated from its folder, with the same bits.
    study["spaces"][1]["decoder"] = str(here.home / "saes/two_1")
    pd.testing.assert_frame_equal(uf.run(study, out="runs/sae").scores, run.scores)
    again = uf.run(run.folder / "study.yaml", out="runs/again")
    pd.testing.assert_frame_equal(again.pairs, run.pairs)


def test_only_ends_are_known(here: Place, finished: Place) -> None:
    """The texts of tokens are then read from the text."""
    blocks = (uf.Codes(b.matrix, b.documents, ends=b.ends) for b in blocks_of(here, stored(here, "two@1")))
    decoder = uf.load_sae(str(here.home / "saes/two_1")).W_dec
    two = uf.space("two", codes=uf.save_codes(blocks, here.work / "mine", decoder=decoder), layer=1)
    run = uf.compare([named(here, "one", 0), two], text_of(here), **LIKE)
    theirs = uf.open(finished.run)
    found, expected = pairs_of(run), pairs_of(theirs)
    assert found["correlation"].tolist() == expected["correlation"].tolist()
    words = [{token.strip() for token in tokens} for tokens in found["top_tokens_b"]]
    told = [{token.strip() for token in tokens} for tokens in expected["top_tokens_b"]]
    assert sum(a == b for a, b in zip(words, told, strict=True)) > 0.8 * len(words)


@pytest.fixture
def activations(here: Place) -> tuple[np.ndarray, pd.DataFrame]:
    """The activations that the study's space two@1 encodes, and their places."""
    from unifeat.models.activations import run_group
    from unifeat.models.language import load_language_model
    from unifeat.models.opening import opening_of
    from unifeat.text.corpus import Cut, build_corpus
    from unifeat.vocabulary.hook_points import HookPoint
    from unifeat.vocabulary.windowing import Windowing

    point = HookPoint(1)
    model = load_language_model(str(here.home / "model-two"), [point], dtype="float32", device="cpu")
    windowing = Windowing(32, opening_of(model.tokenizer, "auto"))
    corpus = build_corpus(
        text_of(here)["source"],
        documents=None,
        tokens=None,
        count_tokens=len,
        tokenizer_digest="",
        cut=Cut(GROUP, GROUP),
    )
    values, places = [], []
    for group in range(corpus.groups):
        x, at, _ = run_group(model, corpus.parts(group), [point], windowing).without_sinks(point)
        values.append(x.numpy())
        tokens = [model.tokenizer.decode([token]) for token in at.token.tolist()]
        places.append(pd.DataFrame({"document": at.document, "char_end": at.char_end, "token": tokens}))
    return np.concatenate(values), pd.concat(places, ignore_index=True)


@pytest.mark.parametrize("kind", ["npy", "safetensors", "pt", "folder"])
def test_activations_in_files(here: Place, finished: Place, activations: Any, kind: str) -> None:
    values, places = activations
    path = here.work / f"acts.{kind}"
    if kind == "npy":
        np.save(path, values)
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file({"acts": values}, path)
    elif kind == "pt":
        torch.save(torch.from_numpy(values), path)
    else:
        path.mkdir()
        np.save(path / "0.npy", values[:1000])
        np.save(path / "1.npy", values[1000:])
    places.to_parquet(here.work / "places.parquet")
    two = uf.space("two", activations=path, places="places.parquet", sae=str(here.home / "saes/two_1"), layer=1)
    run = uf.compare([named(here, "one", 0), two], text_of(here), **LIKE)
    same(pairs_of(run), pairs_of(uf.open(finished.run)))
    theirs = uf.open(finished.run).info["spaces"]["two@1"]["fvu"]
    assert run.info["spaces"]["two@1"]["fvu"] == pytest.approx(theirs, rel=0.2)  # (theirs is of a quarter of the text)


@pytest.mark.parametrize("form", ["numpy", "torch", "bfloat16 codes"])
def test_activations_in_blocks(here: Place, finished: Place, activations: Any, form: str) -> None:
    values, places = activations

    def blocks() -> Iterator[Any]:
        for start in range(0, len(values), 700):
            own = values[start : start + 700]
            yield (own if form == "numpy" else torch.from_numpy(own)), places.iloc[start : start + 700]

    sae: Any = Bare(here.home / "saes/two_1")
    if form == "bfloat16 codes":
        encode = sae.encode
        sae.encode = lambda x: encode(x).to_dense().to(torch.bfloat16)
    two = uf.space("two", activations=blocks(), sae=sae, layer=1)
    run = uf.compare([named(here, "one", 0), two], text_of(here), **LIKE)
    if form == "bfloat16 codes":
        r = run.space_pair("one@0", "two@1").query("kept")["correlation"]
        theirs = uf.open(finished.run).space_pair("one@0", "two@1").query("kept")["correlation"]
        assert abs(r.mean() - theirs.mean()) < 0.01
    else:
        same(pairs_of(run), pairs_of(uf.open(finished.run)))


class Wrong(Bare):
    """An SAE that decodes to the opposite: as far from the activations as one of another layer can be."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return -3 * self._sae.decode(codes)


def test_an_sae_that_does_not_fit_is_warned_about(here: Place, activations: Any, capsys: Any) -> None:
    two = uf.space("two", activations=[activations], sae=Wrong(here.home / "saes/two_1"), layer=1)
    run = uf.compare([named(here, "one", 0), two], text_of(here), **LIKE)
    assert run.info["spaces"]["two@1"]["fvu"] > 1
    assert "of the variance of these activations unexplained" in capsys.readouterr().err
    assert any("unexplained" in warning for warning in run.info["spaces"]["two@1"]["warnings"])


def sparse_codes(rng: np.random.Generator, rows: int = 4000, features: int = 80) -> Any:
    from scipy import sparse

    return sparse.random(
        rows, features, density=0.04, format="csr", rng=rng, data_rvs=lambda n: rng.exponential(size=n) + 0.1
    )


SMALL = {"matching": {"min_count": 5}, "inference": {"permutations": 20, "bootstraps": 10, "subsamples": 0}}


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_rows_are_rows(here: Place, kind: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    codes, rows = sparse_codes(rng), rng.normal(size=(80, 16)).astype(np.float32)
    order, documents = rng.permutation(80)[:50], np.repeat(np.arange(20), 200)
    a = uf.space(codes=uf.Codes(kind(codes.toarray()), documents), decoder=kind(rows))
    b = uf.space(codes=uf.Codes(codes[:, order], documents), decoder=rows[order])
    run = uf.compare([a, b], **SMALL)
    kept = run.space_pair("a@0", "b@0").query("kept")
    assert len(kept) == 50
    assert (order[kept["feature_b"]] == kept["feature_a"]).all()
    assert run.info["pairs"][0]["tokens_aligned"] == 4000
    assert all(token.strip().isdigit() for token in kept["top_tokens_a"].iloc[0]), "rows are called by their numbers"


def test_codes_without_tokens_take_those_of_the_other(here: Place) -> None:
    rng = np.random.default_rng(0)
    codes, rows = sparse_codes(rng, 400), rng.normal(size=(80, 16))
    tokens, documents = [f" w{n % 7}" for n in range(400)], np.repeat(np.arange(4), 100)
    a = uf.space(codes=uf.Codes(codes), decoder=rows)
    b = uf.space(codes=uf.Codes(codes, documents, tokens=tokens), decoder=rows)
    run = uf.compare([a, b], **SMALL)
    kept = run.space_pair("a@0", "b@0").query("kept")
    assert len(kept)
    assert {token for tokens in kept["top_tokens_a"] for token in tokens} <= set(tokens)


def test_two_sides_of_a_crosscoder(here: Place) -> None:
    """The same codes with two decoders, one turned and with noise in it."""
    rng = np.random.default_rng(0)
    codes = uf.Codes(sparse_codes(rng), np.repeat(np.arange(20), 200))
    rows = rng.normal(size=(80, 16))
    turned = rows @ np.linalg.qr(rng.normal(size=(16, 16)))[0] + 0.1 * rng.normal(size=(80, 16))
    decoder = np.stack([rows, turned])
    with pytest.raises(UserError, match=r"looks like a crosscoder's: make a space of each side, with decoder\[0\]"):
        uf.compare([uf.space(codes=codes, decoder=decoder), uf.space(codes=codes, decoder=turned)], **SMALL)
    left, right = (uf.space(name, codes=codes, decoder=decoder[i]) for i, name in enumerate(("left", "right")))
    run = uf.compare([left, right], **SMALL)
    kept = run.space_pair("left@0", "right@0").query("kept")
    assert (kept["feature_a"] == kept["feature_b"]).all()
    assert run.scores.query("metric == 'rsa'")["score"].item() > 0.9
    assert run.scores.query("metric == 'rsa'")["score"].item() < 1


def test_the_documents_can_be_a_list(here: Place) -> None:
    from tiny import sentences

    documents = sentences(40)
    run = uf.compare([named(here, "one", 0), named(here, "two", 1)], documents, **LIKE)
    assert run.info["text"]["documents"] == 40


def test_names_are_made_up_where_none_are_given(here: Place) -> None:
    rng = np.random.default_rng(0)
    codes = uf.Codes(sparse_codes(rng, 400), np.repeat(np.arange(4), 100))
    study = study_of([uf.space(codes=codes, decoder=np.eye(80)), uf.space(codes=codes, decoder=np.eye(80), layer=2)])
    assert study.space_names == ["a@0", "b@2"]
    assert repr(uf.space("x", codes=codes, layer=3)) == f"space(x@3: codes={codes!r})"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs a model and an sae, or codes, or activations"),
        ({"codes": "x", "activations": "y"}, "codes or activations, not both"),
        ({"activations": "y"}, "activations need an sae"),
        ({"codes": "x", "sae": "y"}, "leave out sae, or give it as decoder"),
        ({"model": len, "sae": "y"}, "a function as a model needs its tokenizer"),
        (
            {"codes": np.eye(3)},
            "codes: give uf.Codes(matrix, documents, …), or a folder that save_codes wrote, not ndarray",
        ),
        ({"model": "m", "sae": "y", "hok": "resid_pre"}, "no setting 'hok' (did you mean 'hook'?)"),
    ],
)
def test_a_space_of_nothing_or_too_much(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        uf.space(**given)


def test_mistakes_of_compare(here: Place) -> None:
    rng = np.random.default_rng(0)
    codes = uf.Codes(sparse_codes(rng, 400), np.repeat(np.arange(4), 100))
    a = uf.space(codes=codes, decoder=np.eye(80))
    longer = uf.space(codes=uf.Codes(sparse_codes(rng, 500)), decoder=np.eye(80))
    placed = uf.space(
        codes=uf.Codes(codes.matrix, codes.documents, ends=np.tile(np.arange(1, 101), 4)), decoder=np.eye(80)
    )
    for spaces, settings, message in (
        ([a], {}, "two spaces or more"),
        (a, {}, r"compare takes a list of spaces: uf.compare\(\[a, b\], text\)"),
        (None, {}, "compare takes a list of spaces"),
        ([a, a], {"text": 5}, "text: give a file, a dataset's name, or a list of documents, not int"),
        ([a, "b"], {}, "takes spaces from uf.space"),
        ([a, longer], {}, r"row i must be row i, and they have \[400, 500\] rows"),
        ([a, uf.space(codes=codes)], {}, "geometry compares decoder rows: give decoder"),
        ([a, uf.space(codes=codes, decoder=np.eye(70))], {}, r"decoder: shape \(70, 70\) for 80 features"),
        ([a, uf.space(codes=codes, decoder=np.ones((8, 80)))], {}, "turn it over"),
        ([a, uf.space(codes="nowhere")], {}, "codes nowhere: no such file"),
        ([placed, placed], {}, "needs a text"),
        ([a, a], {"transfer": {}}, "transfer runs the models, and the space a brings its codes without one"),
        ([a, a], {"matchin": {}}, "unknown key 'matchin'"),
        ([a, a], {"families": {}, "activations": {}}, "activations compares the models' own activations"),
    ):
        with pytest.raises(UserError, match=message):
            uf.compare(spaces, **settings)


def test_codes_of_another_text_are_noticed(here: Place) -> None:
    decoder = uf.load_sae(str(here.home / "saes/two_1")).W_dec
    folder = uf.save_codes(blocks_of(here, stored(here, "two@1")), here.work / "mine", decoder=decoder)
    other = [f"{number} {document}"[::-1] for number, document in enumerate(["quite another text " * 30] * 40)]
    with pytest.raises(UserError, match=r"of the tokens of codes .* are what the text has at their places"):
        uf.compare([named(here, "one", 0), uf.space("two", codes=folder)], other, **LIKE)


def test_damaged_codes_are_noticed(here: Place) -> None:
    decoder = uf.load_sae(str(here.home / "saes/two_1")).W_dec
    folder = uf.save_codes(blocks_of(here, stored(here, "two@1")), here.work / "mine", decoder=decoder)
    shard = SavedCodes.open(folder).store.shard_path(1)
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(UserError, match=r"are damaged .*: save them again"):
        uf.compare([named(here, "one", 0), uf.space("two", codes=folder)], text_of(here), **LIKE)


def test_a_study_as_a_dict(here: Place) -> None:
    with pytest.raises(UserError, match="unknown key 'spacs'"):
        uf.run({"spacs": []})
    with pytest.raises(UserError, match="give a file's path, a Study or a dict of its settings, not list"):
        uf.run([])  # type: ignore[arg-type]
    assert uf.Study.model_validate(STUDY).space_names == ["one@0", "one@2", "two@1"]


def test_a_plan_counts_what_is_brought(here: Place, activations: Any) -> None:
    from unifeat.pipeline.plan import plan_study

    values, places = activations
    np.save(here.work / "acts.npy", values)
    places.to_parquet(here.work / "places.parquet")
    codes = uf.Codes(sparse_codes(np.random.default_rng(0), 400), np.repeat(np.arange(4), 100))
    plan = plan_study(
        study_of(
            [
                named(here, "one", 0),
                uf.space("mine", codes=codes, decoder=np.eye(80)),
                uf.space(
                    "acts", activations=here.work / "acts.npy", places="places.parquet", sae=here.home / "saes/two_1"
                ),
            ],
            text_of(here),
            **LIKE,
        )
    )
    tokens = {model.name: model.tokens for model in plan.models}
    assert tokens["mine@0"] == 400
    assert tokens["acts@0"] == len(values)
    assert plan.cells == 3
    assert {model.name: model.model_bytes for model in plan.models}["mine@0"] == 0
