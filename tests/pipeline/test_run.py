"""A study carried out: what is in the run's folder, that it is right, and that nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import unifeat as uf
from homes import STUDY, Place, hashes, write_study
from stores import dense_rows
from unifeat.codes import encode
from unifeat.codes.align import align
from unifeat.codes.store import CodeStore
from unifeat.inference import SharedRows
from unifeat.matching.candidates import fitting_documents
from unifeat.study.read import load_study
from warm import Warm

PAIRS = (
    *("space_a", "layer_a", "feature_a", "space_b", "layer_b", "feature_b", "correlation", "correlation_heldout"),
    *("count_a", "count_b", "top_tokens_a", "top_tokens_b", "kept", "dropped_because"),
)
SCORES = (
    *("space_a", "layer_a", "space_b", "layer_b", "subspace", "metric", "settings", "n_pairs", "score"),
    *("null_mean", "null_sd", "corrected", "p", "q", "ci_low", "ci_high", "ci_sd"),
)
CHANGING = ("run.json", "report.html")  # hold times
TABLES = {"pairs.parquet", "scores.parquet", "labels.parquet", "examples.parquet", "shown.parquet"}
FILES = {"study.yaml", *CHANGING, *TABLES}


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """This process runs studies in the place, with its cache."""
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    return place


@pytest.fixture
def run(finished: Place) -> uf.Run:
    return uf.open(finished.run)


def stores(run: uf.Run, a: str, b: str) -> tuple[CodeStore, CodeStore]:
    return tuple(CodeStore.open(Path(run.info["spaces"][name]["codes"])) for name in (a, b))  # type: ignore[return-value]


def test_the_folder_and_its_columns(run: uf.Run) -> None:
    assert {path.name for path in run.folder.iterdir()} == FILES
    assert [name for name in run.pairs.columns if name in PAIRS] == [*PAIRS]
    assert [name for name in run.scores.columns if name in SCORES] == [*SCORES]
    assert set(zip(run.pairs["space_a"], run.pairs["space_b"], strict=True)) == {("one@0", "two@1"), ("one@2", "two@1")}
    assert len(run.scores) == 6
    assert (run.pairs["kept"] == (run.pairs["dropped_because"] == "")).all()
    assert run.pairs["kept"].any()
    assert not run.pairs.duplicated(["space_a", "feature_a", "space_b", "feature_b"]).any()
    assert all(len(tokens) <= 5 for tokens in run.pairs["top_tokens_a"])


def test_what_the_run_says_of_itself(run: uf.Run) -> None:
    info = run.info
    assert info["name"] == "tiny"
    assert info["seed"] == 3
    assert info["versions"]["torch"] == torch.__version__
    assert info["versions"]["unifeat"] == uf.__version__
    assert set(info["timings"]) == {
        "encode",
        "top tokens",
        "match",
        "near-copies",
        "subspaces",
        "score",
        "ceilings",
        "rematch",
        "labels",
        "report",
    }
    assert info["text"]["documents"] == 40
    assert set(info["spaces"]) == {"one@0", "one@2", "two@1"}
    for space in info["spaces"].values():
        assert space["tokens_read"] - sum(space["masked"].values()) == space["tokens_kept"]
        assert space["l0"] == pytest.approx(4, abs=0.1)
    for cell in info["pairs"]:
        table = run.space_pair(cell["space_a"], cell["space_b"])
        assert cell["candidates"] == len(table)
        assert cell["kept"] == table["kept"].sum()
        assert sum(cell["dropped"].values()) == len(table) - cell["kept"]
        assert cell["tokens_aligned"] == cell["tokens_fitted"] + cell["tokens_heldout"]
        for side in "ab":
            kept = info["spaces"][cell[f"space_{side}"]]["tokens_kept"]
            assert cell[f"share_{side}"] == pytest.approx(cell["tokens_aligned"] / kept)
            assert 0.5 < cell[f"share_{side}"] <= 1


@pytest.mark.parametrize("space_a", ["one@0", "one@2"])
def test_correlations_are_those_of_the_codes(run: uf.Run, space_a: str) -> None:
    """From the stores up, densely: the fitted half, the held-out half, and the counts."""
    a, b = stores(run, space_a, "two@1")
    codes = align(a, b)
    fit = fitting_documents(run.info["text"]["documents"], run.info["seed"])
    r, counts = [], []
    for half in (codes.only(fit), codes.only(~fit)):
        chunks = [[dense_rows(*side, 64).astype(np.float64) for side in chunk] for chunk in half.chunks()]
        both = [np.concatenate([chunk[side] for chunk in chunks]) for side in (0, 1)]
        with np.errstate(invalid="ignore", divide="ignore"):
            r.append(np.corrcoef(*both, rowvar=False)[:64, 64:])
        counts.append([(side != 0).sum(0) for side in both])
    table = run.space_pair(space_a, "two@1")
    f, g = table["feature_a"], table["feature_b"]
    np.testing.assert_allclose(table["correlation"], r[0][f, g], atol=1e-5)
    np.testing.assert_allclose(table["correlation_heldout"], r[1][f, g], atol=1e-5)
    np.testing.assert_array_equal(table["count_a"], counts[0][0][f])
    np.testing.assert_array_equal(table["count_b"], counts[0][1][g])


def test_scores_are_those_of_the_decoders(run: uf.Run, finished: Place) -> None:
    rows = {}
    for name in ("one_0", "one_2", "two_1"):
        decoder = uf.load_sae(finished.home / "saes" / name).W_dec.numpy()
        rows[name.replace("_", "@")] = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    for score in run.scores.itertuples():
        kept = run.space_pair(score.space_a, score.space_b).query("kept")
        assert score.n_pairs == len(kept)
        x, y = rows[score.space_a][kept["feature_a"]], rows[score.space_b][kept["feature_b"]]
        settings = json.loads(score.settings)
        shared = SharedRows(kept["feature_a"].to_numpy(), max(len(rows[score.space_a]), len(rows[score.space_b])))
        test = uf.permutation_test(score.metric, x, y, permutations=20, seed=3, rows=shared, **settings)
        assert score.score == pytest.approx(float(getattr(uf, score.metric)(x, y, **settings)), abs=1e-6)
        assert (score.p, score.null_mean) == pytest.approx((test.p, test.null_mean), abs=1e-6)
        assert score.p <= score.q <= 1


def test_examples_are_text_of_the_study(run: uf.Run, finished: Place) -> None:
    documents = [json.loads(line)["text"] for line in (finished.home / "text.jsonl").read_text().splitlines()]
    assert len(run.shown)
    assert len(run.examples)
    for row in run.examples.itertuples():
        assert row.before + row.token + row.after in documents[row.document]
    assert set(run.shown["chosen"]) <= {"strongest", "random", "disputed"}
    shown = {(r.space_a, r.feature_a) for r in run.shown.itertuples()}
    assert shown <= {(r.space, r.feature) for r in run.examples.itertuples()}


def test_again_nothing_is_computed_and_the_tables_are_the_same(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.codes import top_activations
    from unifeat.matching import candidates
    from unifeat.pipeline import loading, match, score

    write_text_again(here)
    uf.run(here.study)  # the copied text has another path
    before, cache = hashes(here.run, but=CHANGING), hashes(here.cache)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(loading, "load_language_model", never)
    monkeypatch.setattr(encode, "encode_group", never)
    monkeypatch.setattr(candidates, "correlate", never)
    monkeypatch.setattr(match, "bootstrap", never)
    monkeypatch.setattr(top_activations, "top_activations", never)
    monkeypatch.setattr(score, "permutation_test", never)
    monkeypatch.setattr(score, "subsample_interval", never)
    again = uf.run(here.study)
    assert again.folder == Path("runs/tiny")
    assert hashes(here.run, but=CHANGING) == before
    assert hashes(here.cache) == cache


def write_text_again(place: Place) -> None:
    """The same text as a new file: its codes are found by content."""
    path = place.home / "text.jsonl"
    path.write_bytes(path.read_bytes())


def test_codes_are_shared_with_another_study_over_the_same_text(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.pipeline import loading

    monkeypatch.setattr(loading, "load_language_model", lambda *_, **__: pytest.fail("encoded again"))
    write_text_again(here)
    write_study(here.home, "other.yaml", name="other", spaces=STUDY["spaces"][::-1], matching={"method": "one-to-one"})
    other = uf.run(here.home / "other.yaml")
    assert other.folder == Path("runs/other")
    assert set(other.pairs["space_a"]) == {"two@1"}
    assert set(other.pairs["space_b"]) == {"one@0", "one@2"}


def test_the_resolved_study_repeats_the_run(here: Place, run: uf.Run, tmp_path: Path) -> None:
    again = uf.run(run.folder / "study.yaml", tmp_path / "again")
    assert hashes(again.folder, but=CHANGING) == hashes(run.folder, but=CHANGING)
    assert load_study(again.folder / "study.yaml") == load_study(run.folder / "study.yaml")


def test_a_study_object(here: Place, run: uf.Run, tmp_path: Path) -> None:
    study = load_study(run.folder / "study.yaml")
    other = uf.run(study.model_copy(update={"seed": 9}), tmp_path / "nine")
    assert other.info["seed"] == 9
    assert load_study(tmp_path / "nine" / "study.yaml").seed == 9
    assert not other.pairs.equals(run.pairs)


def studied(place: Place, tmp_path: Path, **changes: Any) -> uf.Run:
    write_study(place.home, **changes)
    return uf.run(place.study, tmp_path / "run")


def test_no_measures(here: Place, tmp_path: Path) -> None:
    done = studied(here, tmp_path, geometry=[])
    assert len(done.scores) == 0
    assert [name for name in done.scores.columns if name in SCORES] == [*SCORES]
    assert done.pairs["kept"].any()
    assert done.report.is_file()


def test_no_pairs(here: Place, tmp_path: Path) -> None:
    """A result, not a mistake: the scores say that they are undefined, and the report is written."""
    done = studied(here, tmp_path, matching={"min_correlation": 1.0, "min_count": 0, "exclude_tokens": []})
    assert not done.pairs["kept"].any()
    assert set(done.pairs["dropped_because"]) == {"r at or below 1"}
    assert done.scores["score"].isna().all()
    assert all(any("undefined" in flag for flag in flags) for flags in done.scores["flags"])
    assert done.report.is_file()
    assert done.info["pairs"][0]["mean_correlation"] is None


def test_no_null(here: Place, tmp_path: Path, run: uf.Run) -> None:
    done = studied(here, tmp_path, inference={"permutations": 0})
    np.testing.assert_allclose(done.scores["score"], run.scores["score"], atol=1e-9)
    assert done.scores[["null_mean", "p", "q", "corrected"]].isna().all(axis=None)


def test_without_a_held_out_half(here: Place, tmp_path: Path, run: uf.Run) -> None:
    done = studied(here, tmp_path, matching=STUDY["matching"] | {"heldout": False})
    assert done.pairs["correlation_heldout"].isna().all()
    assert done.info["pairs"][0]["tokens_heldout"] == 0
    assert done.pairs["count_a"].max() > run.pairs["count_a"].max()
    assert done.report.is_file()


def test_only_what_is_to_be_compared(here: Place, tmp_path: Path) -> None:
    done = studied(here, tmp_path, compare=[["one", "one"]])
    assert set(zip(done.scores["space_a"], done.scores["space_b"], strict=True)) == {("one@0", "one@2")}
    (cell,) = done.info["pairs"]
    assert cell["share_a"] == cell["share_b"] == 1.0  # the same tokenizer, and no sinks


def test_opening_what_is_no_run(tmp_path: Path, finished: Place) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", finished.study):
        with pytest.raises(uf.UserError, match="no finished run") as caught:
            uf.open(folder)
        assert str(folder) in str(caught.value)


def test_a_run_in_python(run: uf.Run) -> None:
    assert isinstance(run.pairs, pd.DataFrame)
    assert "2 pairs of spaces" in repr(run)
    assert "<table" in run._repr_html_()
    with pytest.raises(uf.UserError, match="did you mean 'one@2'"):
        run.space_pair("one@22", "two@1")
    with pytest.raises(uf.UserError, match="did not compare two@1 with one@0"):
        run.space_pair("two@1", "one@0")


def test_every_public_name() -> None:
    for name in uf.__all__:
        assert getattr(uf, name) is not None
    assert set(uf.__all__) <= set(dir(uf))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        uf.nothing_like_it  # noqa: B018


@pytest.fixture
def failing_report(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    from unifeat.pipeline import run as carrying_out

    def set_error(error: BaseException) -> None:
        def write_report(_: object) -> None:
            raise error

        monkeypatch.setattr(carrying_out, "write_report", write_report)

    return set_error


def test_an_error_at_the_very_end_leaves_the_earlier_run(
    here: Place, failing_report: Callable[[BaseException], None], tmp_path: Path
) -> None:
    before = hashes(here.run)
    write_study(here.home, seed=11)
    full, bug = OSError(28, "No space left on device"), ZeroDivisionError()
    for error, raised in ((full, uf.UserError), (bug, ZeroDivisionError)):
        failing_report(error)
        for out in (None, tmp_path / "new"):
            with pytest.raises(raised):
                uf.run(here.study, out)
        assert hashes(here.run) == before
        assert {path.name for path in here.run.iterdir()} == FILES
        assert not (tmp_path / "new").exists()


def test_the_cache_can_be_deleted_between_runs(warm: Warm, place: Place) -> None:
    """Everything is made again, bit for bit."""
    import shutil

    before = hashes(place.cache / "codes")
    shutil.rmtree(place.cache)
    assert place.unifeat(warm, "run", place.study, "--quiet").code == 0
    assert hashes(place.cache / "codes") == before


def test_shared_features_are_shown_before_controls_are_encoded(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from unifeat.pipeline import encode, match, run

    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    models = {"redrawn": {"name": "model-one", "dtype": "float32", "randomise": 0}, **STUDY["models"]}
    spaces = [{"model": "redrawn", "layers": [0], "sae": "saes/one_{layer}"}, *STUDY["spaces"]]
    study = write_study(place.home, models=models, spaces=spaces)
    happened: list[str] = []
    encode_spaces, say_first = encode.encode_spaces, match._say_first

    def encoding(loader: object, key: str, corpus: object, stores: dict, *more: object, **settings: object) -> None:
        happened.append(min(stores).partition("@")[0])
        encode_spaces(loader, key, corpus, stores, *more, **settings)  # type: ignore[arg-type]

    def saying(cell: match.Cell, kept: object) -> None:
        happened.append(f"{cell.a.name} × {cell.b.name}")
        say_first(cell, kept)  # type: ignore[arg-type]

    monkeypatch.setattr(encode, "encode_spaces", encoding)
    monkeypatch.setattr(match, "_say_first", saying)
    assert run.run(study, tmp_path / "run", force=True).info["pairs"]
    assert happened in (["one", "two", "one@0 × two@1", "redrawn"], ["two", "one", "one@0 × two@1", "redrawn"])
