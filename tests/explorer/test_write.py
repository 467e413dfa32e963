"""The explorer's file: what it holds of a run, and what is said when something is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from explorer_data import data_of

from homes import shared_place
from unifeat.cli import app
from unifeat.errors import UserError
from unifeat.explorer.blob import FIXED_NONE, FIXED_SCALE
from unifeat.explorer.gather import gather
from unifeat.explorer.write import show_page, write_explorer
from unifeat.progress import collected
from unifeat.runs.folder import open_run
from unifeat.saes.weights import decoder_piece
from unifeat.store import cache_root
from unifeat.store.usage import contents
from worlds import CREATED, FEATURES, HOSTILE, WORDS, World, enrich, make_world

pytestmark = pytest.mark.usefixtures("quick_maps")


def test_every_feature_and_candidate_is_there(world: World):
    page = write_explorer(world.run)
    assert page == world.run.folder / "explorer.html"
    data, arrays = data_of(page, "features")
    assert [space["name"] for space in data["spaces"]] == ["a@0", "b@1"]
    assert data["categories"] == ["Places", "Days"], "without lists of random words"
    for number in range(2):
        codes = world.rows[number][2]
        assert arrays[f"{number}.count"].tolist() == (codes != 0).sum(axis=0).tolist()
        assert np.allclose(arrays[f"{number}.high"], codes.max(axis=0))
        assert len(arrays[f"{number}.decoder"]) == len(arrays[f"{number}.firing"]) == 2 * FEATURES
    pairs = world.run.pairs
    cell = data["cells"][0]
    assert arrays["cell0.a"].tolist() == pairs["feature_a"].tolist()
    assert arrays["cell0.b"].tolist() == pairs["feature_b"].tolist()
    assert np.abs(arrays["cell0.r"] / FIXED_SCALE - pairs["correlation"]).max() < 1e-4
    assert ((arrays["cell0.within"] == FIXED_NONE) == pairs["correlation_within_token"].isna()).all()
    assert [cell["reasons"][n] for n in arrays["cell0.reason"]] == pairs["dropped_because"].tolist()
    assert dict(zip(arrays["0.member"].tolist(), arrays["0.category"].tolist(), strict=True)) == {0: 0, 1: 1}


def test_contexts_are_of_the_feature_and_of_its_partner(world: World):
    """Read as the page reads them: every shaded stretch of text ends with the feature's own word."""
    page = write_explorer(world.run, contexts=3)
    arrays = data_of(page, "contexts")[1]
    shown = data_of(page, "features")[1]
    text = arrays["text"].tobytes().decode("utf-16-le")
    units = np.frombuffer(text.encode("utf-16-le"), "<u2")
    partner_of = world.run.pairs[world.run.pairs["kept"]].set_index("feature_a")["feature_b"]
    seen = {"own": 0, "partner": 0}
    for number, side in ((0, "a"), (1, "b")):
        ends = [np.cumsum(arrays[f"{n}.end"]) for n in range(2)]
        feature = np.repeat(np.arange(FEATURES), shown[f"{number}.contexts"])
        for who, of, prefix in (("own", number, f"{number}"), ("partner", 1 - number, f"cell0.{side}")):
            at = 0
            for n, (peak, back) in enumerate(zip(arrays[f"{number}.peak"], arrays[f"{number}.back"], strict=True)):
                anchor = np.searchsorted(ends[of], int(peak) - int(back), side="right")
                for token in arrays[f"{prefix}.token"][at : at + arrays[f"{prefix}.fires"][n]]:
                    end = ends[of][anchor + token]
                    word = world.word[number][feature[n]]
                    assert word is not None
                    before = units[:end].tobytes().decode("utf-16-le")
                    # (The first word of a window may be cut.)
                    assert before.endswith(word[-2:]), (who, word, before[-20:])
                    seen[who] += 1
                at += arrays[f"{prefix}.fires"][n]
            assert at == len(arrays[f"{prefix}.token"])
    assert seen["own"] > seen["partner"] > 50
    without = world.word[0].index(WORDS[-1])
    assert without not in partner_of.index, "its pair was dropped"


def test_no_text_of_the_run_is_in_the_page_itself(world: World):
    text = write_explorer(world.run).read_text(encoding="utf-8")
    for hostile in [*HOSTILE, "made up </script>"]:
        if len(hostile) > 4 and hostile not in ("&amp;", "{{js}}", "src=x"):
            assert hostile not in text
    assert text.count("<script") == 3 + text.count('"<script'), "its own three elements"
    assert f'<meta name="unifeat-run" content="{CREATED}">' in text


def test_the_other_order_exchanges_sides(world: World):
    page = write_explorer(world.run, ["b@1", "a@0"])
    assert page.name == "explorer-b@1-a@0.html"
    data, arrays = data_of(page, "features")
    assert (data["cells"][0]["a"], data["cells"][0]["b"]) == (0, 1)
    assert arrays["cell0.a"].tolist() == world.run.pairs["feature_b"].tolist()


def test_three_spaces(tmp_path):
    world = make_world(tmp_path / "three", spaces=("a@0", "b@1", "c/d@2"))
    page = write_explorer(world.run, ["a@0", "b@1", "c/d@2"])
    assert page.name == "explorer-a@0-b@1-c_d@2.html"
    data, _ = data_of(page, "features")
    assert [(cell["a"], cell["b"]) for cell in data["cells"]] == [(0, 1), (0, 2)]


def test_what_other_steps_know(world: World):
    """Labels, effects and families, where the run has them."""
    enrich(world)
    data, arrays = data_of(write_explorer(open_run_again(world)), "features")
    assert data["labels"] == [{str(f): f"label {f}" for f in range(len(WORDS))}, {}]
    assert data["cells"][0]["effects"] == [
        {"pair": 2, "direct": 0.5, "added": None, "removed": 0.25, "promotes_a": ["up"], "suppresses_a": ["down"]}
        | {"promotes_b": ["<b>"], "suppresses_b": []}
    ]
    assert data["families"] == {"spaces": ["a@0", "b@1"], "facts": {"r_min": [0.5, 0.25]}, "labels": {}}
    members = zip(*(arrays[f"families.{name}"].tolist() for name in ("family", "space", "feature")), strict=True)
    assert sorted(members) == [(0, 0, 1), (0, 1, 3), (1, 0, 9)]


def open_run_again(world: World):
    return type(world.run)(world.run.folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a@0", "c@1"], "has no space 'c@1'"),
        (["a@0"], "name two or three different spaces, such as a@0 b@1, or none"),
        (["a@0", "a@0"], "name two or three different spaces"),
    ],
)
def test_wrong_spaces(world: World, names: list[str], message: str):
    with pytest.raises(UserError, match=message):
        write_explorer(world.run, names)


def test_spaces_that_were_not_compared(tmp_path):
    world = make_world(tmp_path / "three", spaces=("a@0", "b@1", "c@2"))
    with pytest.raises(UserError, match=r"did not compare b@1 with c@2"):
        write_explorer(world.run, ["b@1", "c@2"])


def test_a_pruned_cache(world: World):
    folder = world.stores[1].folder
    kept = folder.with_name("kept")
    folder.rename(kept)
    with pytest.raises(UserError, match=r"the codes of b@1 are not in the cache .* `unifeat run .*study.yaml`"):
        write_explorer(world.run)
    kept.rename(folder)
    shard = world.stores[0].shard_path(0)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"shard .* is damaged or missing"):
        write_explorer(world.run)
    shard.write_bytes(whole)
    shutil.rmtree(cache_root() / "text")
    with pytest.raises(UserError, match=r"the text of run .* is not in the cache"):
        write_explorer(world.run)


def test_a_moved_cache(world: World, tmp_path, monkeypatch):
    shutil.move(cache_root(), tmp_path / "elsewhere")
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "elsewhere"))
    assert write_explorer(world.run).is_file()


def test_without_decoder_rows(world: World):
    shutil.rmtree(decoder_piece("sae 0").path)
    with collected() as lines:
        data, arrays = data_of(write_explorer(world.run), "features")
    assert any("decoder rows of a@0 are not in the cache" in line for line in lines)
    assert [space["maps"] for space in data["spaces"]] == [["firing"], ["decoder", "firing"]]
    assert "0.decoder" not in arrays


def test_the_same_page_each_time(world: World):
    first = write_explorer(world.run).read_bytes()
    assert write_explorer(open_run_again(world)).read_bytes() == first


def test_the_cache_knows_what_uses_its_pieces(world: World):
    write_explorer(world.run)
    used = {entry.kind: entry.studies for entry in contents(cache_root())}
    for kind in ("feature-maps", "activity", "partner-activity", "codes", "text"):
        assert used[kind] == {"made up </script>"}, kind


def test_labels_on_the_command_line(world: World, capsys, tmp_path):
    enrich(world)
    (tmp_path / "names.csv").write_text("feature,label\n3,leaders\n", encoding="utf-8")
    command = ["explore", str(world.run.folder), "--no-open", "--labels", f"b@1={tmp_path / 'names.csv'}"]
    app(command, standalone_mode=False)
    data, _ = data_of(Path(capsys.readouterr().out.strip()), "features")
    assert data["labels"][0]["2"] == "label 2"
    assert data["labels"][1] == {"3": "leaders"}


def test_command(world: World, capsys):
    app(["explore", str(world.run.folder), "a@0", "b@1", "--contexts", "2", "--no-open", "-q"], standalone_mode=False)
    page = Path(capsys.readouterr().out.strip())
    assert page == world.run.folder / "explorer-a@0-b@1.html"
    assert data_of(page, "features")[1]["0.contexts"].max() == 2
    assert not show_page(page), "nobody sees the tests' browser"


def test_a_run_of_the_pipeline(tmp_path_factory, model_folder, tmp_path, monkeypatch):
    """Every column and fact is where the pipeline puts it; no model or SAE is read."""
    place = shared_place(tmp_path_factory, model_folder).copy(tmp_path / "place")
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    shutil.rmtree(place.home / "saes")
    monkeypatch.setattr("unifeat.saes.load.load_sae", lambda *args, **settings: pytest.fail("an SAE is read"))
    run = open_run(place.run)
    page = write_explorer(run)
    data, arrays = data_of(page, "features")
    pair = run.space_pair(*(space["name"] for space in data["spaces"]))
    assert (arrays["cell0.reason"] == 0).sum() == pair["kept"].sum() > 0
    assert arrays["0.count"].sum() > 0
    context = data_of(page, "contexts")[1]
    assert len(context["text"]) > 100


def test_gather_asks_for_nothing_twice(world: World, monkeypatch):
    first = gather(world.run, ["a@0", "b@1"])
    for name in ("unifeat.explorer.maps._umap", "unifeat.codes.activity.strongest"):
        monkeypatch.setattr(name, lambda *args: pytest.fail("it is made again"))
    assert gather(world.run, ["a@0", "b@1"]) == first
