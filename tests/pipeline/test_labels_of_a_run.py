"""Labels from a study to its tables, the terminal, the report and Neuronpedia's layout."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import unifeat as uf
from homes import Place, write_study
from unifeat.codes.store import CodeStore
from unifeat.labels.automatic import MARK
from unifeat.labels.files import read_labels
from unifeat.report.html import render

FEATURES = 64
CHECK = Path(__file__).parents[2] / "scripts" / "check_neuronpedia.py"
HOSTILE = "<script>alert(1)</script> \u2028 tide"
SPACES: list[dict[str, Any]] = [
    {"model": "one", "layers": [0, 2], "sae": "saes/one_{layer}", "labels": "names-{layer}.csv"},
    {"model": "two", "layers": 1, "sae": "saes/two_{layer}"},
]


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    labels = {f: f"ships and tides {f}" for f in range(0, FEATURES, 2)} | {1: HOSTILE}
    table = pd.DataFrame({"feature": list(labels), "label": list(labels.values())})
    table.to_csv(place.home / "names-0.csv", index=False)
    table.head(3).to_csv(place.home / "names-2.csv", index=False)
    return place


def test_labels_reach_the_tables_the_terminal_and_the_report(here: Place, capsys: pytest.CaptureFixture[str]) -> None:
    run = uf.run(write_study(here.home, spaces=SPACES))
    table = run.labels
    assert table is not None
    assert (table["automatic"] == table["label"].str.startswith(MARK)).all()
    words = {(s, f): label for s, f, label in zip(table["space"], table["feature"], table["label"], strict=True)}
    assert words["one@0", 2] == "ships and tides 2"
    assert words["one@0", 1] == " ".join(HOSTILE.split())
    of_two = table[table["space"] == "two@1"]
    assert len(of_two)
    assert of_two["automatic"].all()
    for name, space in run.info["spaces"].items():
        own = table[table["space"] == name]
        assert space["labels"]["given"] == (~own["automatic"]).sum()
        assert space["labels"]["automatic"] == own["automatic"].sum()
        assert 0 <= space["labels"]["by_chance"] < 0.2
        assert len(own) <= FEATURES
    assert run.info["spaces"]["one@0"]["labels"]["source"].endswith("names-0.csv")
    assert run.info["spaces"]["two@1"]["labels"]["source"] == "automatic"

    pairs = run.pairs
    for side in "ab":
        keys = zip(pairs[f"space_{side}"], pairs[f"feature_{side}"], strict=True)
        assert pairs[f"label_{side}"].tolist() == [words.get(key, "") for key in keys]
    assert [*pairs.columns].index("label_a") == [*pairs.columns].index("top_tokens_b") + 1
    for facts in run.info["pairs"]:
        if facts["labels"] is not None:
            assert 0 <= facts["labels"]["mean"] <= 1
            assert facts["labels"]["automatic"]

    page = render(run)
    assert "<script>alert" not in page
    a, b = "one@0", "two@1"
    kept = run.space_pair(a, b).query("kept")
    shown = run.shown[(run.shown["space_a"] == a) & (run.shown["label_a"] != "")]
    given = [label for label in shown["label_a"] if label.startswith("ships")]
    assert given
    assert all(f'<p class="label"><bdi>{label}</bdi></p>' in page for label in given)

    capsys.readouterr()
    uf_show(run, a, b, search="SHIPS and")
    said = " ".join(capsys.readouterr().out.split())
    wanted = kept[kept["label_a"].str.contains("ships and")]
    assert 0 < len(wanted) < len(kept)
    assert f"of {len(wanted)} pairs with “SHIPS and”, with their top tokens, and labels below them" in said
    uf_show(run, a, b, search="no such word")
    assert "no pairs with “no such word”" in capsys.readouterr().out
    uf_show(run, a, b, labels={b: dict.fromkeys(range(FEATURES), "quite another name")})
    assert "quite another name" in " ".join(capsys.readouterr().out.split())

    again = uf.run(write_study(here.home, spaces=SPACES), out="again")
    pd.testing.assert_frame_equal(again.labels, table)  # type: ignore[arg-type]


def uf_show(run: uf.Run, *spaces: str, **options: Any) -> None:
    from unifeat.report.terminal import show

    show(run, *spaces, **options)


def test_off_means_none(here: Place) -> None:
    spaces = [own | {"labels": "off"} for own in SPACES]
    run = uf.run(write_study(here.home, spaces=spaces))
    assert run.labels is None
    assert "label_a" not in run.pairs
    assert {str(space["labels"]) for space in run.info["spaces"].values()} == {"None"}


def test_mistakes_are_told_before_anything_is_encoded(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.pipeline import run as pipeline

    monkeypatch.setattr(pipeline, "prepare_spaces", lambda *_, **__: pytest.fail("encoded"))
    (here.home / "names-2.csv").write_text("feature,name\n0,x\n")
    with pytest.raises(uf.UserError, match=r"names-2.csv needs the columns feature and label"):
        uf.run(write_study(here.home, spaces=SPACES))
    (here.home / "names-2.csv").unlink()
    with pytest.raises(uf.UserError, match=r"labels of one@2: .*names-2.csv does not exist"):
        uf.run(write_study(here.home, spaces=SPACES))


def test_labels_of_another_sae(here: Place) -> None:
    pd.DataFrame({"feature": [900], "label": ["x"]}).to_csv(here.home / "names-2.csv", index=False)
    with pytest.raises(uf.UserError, match=r"labels of one@2: .*no feature 900: the dictionary has features 0 to 63"):
        uf.run(write_study(here.home, spaces=SPACES))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("names.csv", r"--labels names.csv: give SPACE=PATH, such as one@0=labels.csv"),
        ("one@1=names.csv", r"has no space 'one@1'.*it has one@0, one@2, two@1"),
        ("one@0=nowhere.csv", r"--labels one@0: nowhere.csv does not exist"),
    ],
)
def test_wrong_labels_on_the_command_line(finished: Place, given: str, message: str) -> None:
    from unifeat.report.labels import labels_given

    with pytest.raises(uf.UserError, match=message):
        labels_given(uf.open(finished.run), [given])


def test_an_export_holds_what_the_run_and_the_codes_say(here: Place, tmp_path: Path) -> None:
    from unifeat.pipeline.export import export_neuronpedia

    run = uf.run(write_study(here.home, spaces=SPACES))
    folder = export_neuronpedia(run, "one@0", "two@1", tmp_path / "export")
    with pytest.raises(uf.UserError, match=r"export exists: name a new folder"):
        export_neuronpedia(run, "one@0", "two@1", folder)
    (exported,) = folder.glob("exports/*/0-tiny-one")
    (dashboard,) = folder.glob("saedashboard/*_0-tiny-one/batch-0.json")
    batch = json.loads(dashboard.read_text())
    assert (batch["layer"], batch["sae_set"]) == (0, "tiny-one")
    features = batch["features"]
    assert [feature["feature_index"] for feature in features] == [*range(FEATURES)]

    store = CodeStore.open(Path(run.info["spaces"]["one@0"]["codes"]))
    dense = np.concatenate([_dense(shard) for shard in store.shards()])
    candidates = run.space_pair("one@0", "two@1").dropna(subset=["correlation"])
    for feature in features:
        number, values = feature["feature_index"], dense[:, feature["feature_index"]]
        assert feature["frac_nonzero"] == pytest.approx((values != 0).mean())
        assert sum(feature["freq_hist_data_bar_heights"]) == (values != 0).sum()
        own = candidates[candidates["feature_a"] == number]
        assert feature["correlated_features_indices"] == own["feature_b"].tolist()
        assert feature["correlated_features_pearson"] == [round(r, 4) for r in own["correlation"]]
        strong = [one["values"][one["qualifying_token_index"]] for one in feature["activations"]]
        assert all(len(one["tokens"]) == len(one["values"]) <= 65 for one in feature["activations"])
        assert strong == sorted(strong, reverse=True)
        assert all(np.isclose(value, values, atol=1e-4).any() for value in strong)
        assert strong[:1] == pytest.approx([values.max()] if values.any() else [], abs=1e-4)
    lines = gzip.decompress((exported / "features" / "batch-0.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [str(f) for f in range(FEATURES)]
    # What is exported as explanations can be read as labels.
    table = run.labels
    assert table is not None
    own = table[table["space"] == "one@0"]
    assert read_labels(exported) == dict(zip(own["feature"], own["label"], strict=True))
    shared = json.loads((folder / "lists" / "shared.json").read_text())
    kept = candidates[candidates["kept"]].nlargest(500, "correlation")
    assert [int(f["index"]) for f in shared["features"][::2]] == kept["feature_a"].tolist()

    if CHECK.exists():
        count = sum(len(feature["activations"]) for feature in features)
        assert len(_check().lines(exported / "activations" / "batch-0.jsonl.gz")) == count


def test_an_export_names_no_path_and_its_own_authors(here: Place, tmp_path: Path) -> None:
    from unifeat.pipeline.export import export_neuronpedia

    secret = here.home / "secret"
    secret.mkdir()
    (here.home / "names-2.csv").rename(secret / "names-2.csv")
    named = [SPACES[0] | {"labels": str(secret / "names-2.csv"), "layers": [0]}, SPACES[1]]
    run = uf.run(write_study(here.home, spaces=named))
    given = ["one@0=gemma-3-270m"]
    folder = export_neuronpedia(run, "one@0", "two@1", tmp_path / "export", given)
    written = b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    )
    assert b"secret" not in written
    (exported,) = folder.glob("exports/gemma-3-270m/0-tiny-one")
    (other,) = folder.glob("exports/*/1-tiny-two")
    content = gzip.decompress((exported / "explanations" / "batch-0.jsonl.gz").read_bytes())
    authors = {True: set[str](), False: set[str]()}
    for line in map(json.loads, content.decode().splitlines()):
        assert line["modelId"] == "gemma-3-270m"
        authors[line["description"].startswith(MARK)].add(line["explanationModelName"])
    assert authors == {True: {"unifeat"}, False: {"names-2.csv"}}
    assert (exported / "release.jsonl").read_text() == (other / "release.jsonl").read_text(), "one release of one name"

    for wrong, message in {
        "gemma": r"--model-id gemma: give SPACE=ID, such as one@0=gemma-3-270m",
        "three@0=x": r"has no space 'three@0'",
        "one@0=Gemma 3": r"ids have small letters, digits, dots and dashes, such as gemma-3",
    }.items():
        with pytest.raises(uf.UserError, match=message):
            export_neuronpedia(run, "one@0", "two@1", tmp_path / "again", [wrong])
    assert not (tmp_path / "again").exists()


@pytest.mark.skipif(importlib.util.find_spec("sae_dashboard") is None, reason="SAEDashboard is not installed")
@pytest.mark.skipif(not CHECK.exists(), reason="the scripts are not part of this distribution")
def test_saedashboards_own_classes_take_an_export(
    here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unifeat.pipeline.export import export_neuronpedia

    folder = export_neuronpedia(uf.run(write_study(here.home, spaces=SPACES)), "one@0", "two@1", tmp_path / "export")
    found = importlib.util.find_spec("sae_dashboard")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parents[1]
    monkeypatch.setattr("sys.argv", ["check_neuronpedia", str(folder), "--package", str(package)])
    _check().main()
    assert capsys.readouterr().out.count(f"{FEATURES} features as SAEDashboard reads them") == 2


def _check() -> Any:
    """`scripts/check_neuronpedia.py`."""
    spec = importlib.util.spec_from_file_location("check_neuronpedia", CHECK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dense(shard: Any) -> np.ndarray:
    dense = np.zeros((shard.rows, FEATURES), np.float32)
    rows = np.repeat(np.arange(shard.rows), np.diff(shard.indptr))
    dense[rows, shard.feature] = shard.value
    return dense
