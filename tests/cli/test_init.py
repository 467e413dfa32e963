"""`unifeat init` writes a study that plan and run take; `unifeat doctor` looks at the machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psutil
import pytest
import yaml

import unifeat
from homes import Place
from unifeat.errors import UserError
from unifeat.pipeline.first_study import first_study
from unifeat.pipeline.plan import plan_study
from unifeat.saes import known_releases
from unifeat.saes.listing import hub_name, saes_of
from unifeat.study.read import load_study_text
from unifeat.threads import cores
from warm import Warm

_REFUSED = {"mntss-gemma-2-2b-2.5m-clt-as-per-layer", "temporal-sae-gemma-2-2b", "temporal-sae-llama-3.1-8b"}


def test_a_study_is_written_planned_and_run(warm: Warm, place: Place) -> None:
    home = place.home
    for name in ("one_0", "two_1"):  # (those of the study do not say where they read)
        config = json.loads((home / "saes" / name / "cfg.json").read_text())
        config["metadata"] = config.get("metadata", {}) | {"hook_name": f"blocks.{name[-1]}.hook_resid_post"}
        (home / "saes" / name / "cfg.json").write_text(json.dumps(config))
    saes = (f"{home}/model-one={home}/saes/one_0", f"{home}/model-two={home}/saes/two_1")
    done = place.unifeat(warm, "init", *saes, "--text", home / "text.jsonl", "--out", home / "mine.yaml")
    assert (done.code, done.err) == (0, ""), done.err
    text = (home / "mine.yaml").read_text()
    small = text.replace("permutations: 500", "permutations: 5").replace("rematches: 39", "rematches: 1")
    (home / "mine.yaml").write_text(
        small.replace("same_token: 39", "same_token: 1").replace("context: 128", "context: 32")
    )
    planned = place.unifeat(warm, "plan", home / "mine.yaml", "-q")
    assert planned.code == 0, planned.err
    ran = place.unifeat(warm, "run", home / "mine.yaml", "-q", "--out", place.work / "mine")
    assert ran.code == 0, ran.err
    assert unifeat.open(place.work / "mine").info["pairs"][0]["space_a"] == "model-one@0"
    again = place.unifeat(warm, "init", *saes, "--out", home / "mine.yaml")
    assert again.code == 2
    assert "exists: name another file" in again.err


@pytest.mark.parametrize("release", sorted(set(known_releases()) - _REFUSED))
def test_every_release_has_a_study(release: str) -> None:
    """Its model is a name on the hub, its layers are those of its SAEs, and every SAE that it names exists."""
    study = load_study_text(first_study([release]), Path())
    listed = {one.name: one for one in saes_of(release)}
    assert "/" in study.models[study.encoded[0].model].name
    layers = [layer for spaces in study.encoded for layer in spaces.layers]
    assert layers == sorted(set(layers))
    assert 1 <= len(layers) <= 3
    for spaces in study.encoded:
        for layer in spaces.layers:
            one = listed[spaces.sae_at(layer)]
            assert (one.layer, one.hook) == (layer, spaces.hook)


@pytest.mark.parametrize("release", sorted(_REFUSED))
def test_what_cannot_be_read_says_why(release: str) -> None:
    with pytest.raises(UserError, match=r"cross-layer transcoder|temporal SAE"):
        first_study([release])


def test_two_releases_one_model_and_layers_asked_for() -> None:
    study = load_study_text(
        first_study(["gpt2-small-res-jb", "gpt2-small-mlp-out-v5-32k"], layers=[3, 9], text="./mine.txt"), Path("/x")
    )
    assert study.text.source == "/x/mine.txt"
    assert list(study.models) == ["gpt2"]
    assert study.space_names == ["gpt2-1@3", "gpt2-1@9", "gpt2-2@3", "gpt2-2@9"]
    assert [spaces.hook for spaces in study.encoded] == ["resid_pre", "mlp_out"]
    assert study.compares("gpt2-1@3", "gpt2-2@9")


def test_another_model_than_the_registry_s() -> None:
    study = yaml.safe_load(first_study(["./my-gpt2=gpt2-small-res-jb/blocks.8.hook_resid_pre"]))
    assert study["models"] == {"my-gpt2": {"name": "./my-gpt2"}}
    assert study["spaces"][0]["layers"] == [8]


def test_one_space_is_not_a_study_yet(tmp_path: Path) -> None:
    """The file says what is lacking, plan refuses it as run does, and with a second space as told it compares two."""
    written = first_study(["gpt2-small-res-jb/blocks.8.hook_resid_pre"], text="./t.txt")
    assert "# There is only one space yet" in written
    one = load_study_text(written, tmp_path)
    for refuse in (plan_study, lambda study: unifeat.run(study, tmp_path / "run")):
        with pytest.raises(UserError, match="the study compares no two spaces: it has one space: add another"):
            refuse(one)
    more = written.replace("layers: [8]", "layers: [4, 8]").replace("blocks.8", "blocks.{layer}")
    layers = load_study_text(more, tmp_path)
    assert layers.compares("gpt2@4", "gpt2@8")
    data = yaml.safe_load(written)
    del data["compare"]
    data["spaces"].append(data["spaces"][0] | {"name": "other"})
    assert load_study_text(yaml.safe_dump(data), tmp_path).compares("gpt2@8", "other@8")
    assert "only one space" not in first_study(["gpt2-small-res-jb"])


@pytest.mark.parametrize(
    ("named", "settings", "message"),
    [
        ([], {}, "name at least one"),
        (["gpt2-small-res-jbb"], {}, "did you mean 'gpt2-small-res-jb'"),
        (["gpt2-small-res-jb"], {"layers": [12]}, "has no SAE of layer 12"),
        (["gpt2-small-res-jb/blocks.8.hook_resid_pre"], {"layers": [7]}, "is of layer 8"),
        (["gpt2-small-res-jb/blocks.99.hook_resid_pre"], {}, "has no SAE"),
        (["./nowhere"], {}, "nowhere"),
    ],
)
def test_mistakes(named: list[str], settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        first_study(named, **settings)


def test_names_of_models_are_names_on_the_hub() -> None:
    assert all("/" in hub_name(held.model) for held in known_releases().values())


def test_the_doctor(warm: Warm, place: Place) -> None:
    done = place.unifeat(warm, "doctor", "--json")
    assert done.code == 0, done.err
    found = {line["what"]: line for line in json.loads(done.out)}
    assert str(place.cache) in found["cache"]["found"]
    assert "GB" in found["memory"]["found"]
    assert int(found["cores"]["found"].split()[0]) == cores()
    free = float(re.search(r"([\d.]+) GB", found["memory"]["found"]).group(1))
    assert 0 < free <= psutil.virtual_memory().total / 1e9
    assert set(found) >= {"versions", "cores", "memory", "GPU", "Ray", "cache", "disk"}
    shown = place.unifeat(warm, "doctor")
    assert shown.code == 0
    assert f"unifeat {unifeat.__version__}, torch " in found["versions"]["found"]
    assert "versions" in shown.out
