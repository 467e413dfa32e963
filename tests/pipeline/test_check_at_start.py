"""The check at the start of a study: what it stops, what it lets pass, what it writes down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import unifeat as uf
from fitted import CONTEXT, activations, changed, fitted_sae
from homes import STUDY, Place, hashes, write_study
from tiny import sentences, tiny_sae, write_text
from unifeat.pipeline import check, loading
from unifeat.store import cache_root
from unifeat.vocabulary.hook_points import HookPoint
from warm import Warm

pytestmark = pytest.mark.slow

NAMES = {"hook_name": "blocks.1.hook_resid_post", "model_name": "tiny-llama"}


@pytest.fixture(scope="module")
def right(model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SAE that reads layer 1 of the second model."""
    x = activations(model_folder("llama", tokenizer="wordish"), HookPoint(1), bos=2)
    return fitted_sae(tmp_path_factory.mktemp("saes") / "right", x, k=4, d_sae=96, **NAMES)


@pytest.fixture
def study(model_folder: Callable[..., Path], right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a study of two spaces whose second one is to be changed."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "model-one").symlink_to(model_folder("gpt2", tokenizer="bpe"))
    (home / "model-two").symlink_to(model_folder("llama", tokenizer="wordish"))
    write_text(home, sentences(30))
    shutil.copytree(right, home / "saes" / "two")
    one = activations(model_folder("gpt2", tokenizer="bpe"), HookPoint(0))
    fitted_sae(home / "saes" / "one", one, k=4, steps=60)
    monkeypatch.chdir(tmp_path)

    def run(spec: dict[str, Any] | None = None, *, force: bool = False, **changes: Any) -> uf.Run:
        two = {"model": "two", "layers": 1, "sae": "saes/two"} | (spec or {})
        settings = {"spaces": [{"model": "one", "layers": 0, "sae": "saes/one"}, two], "geometry": ["cka"]} | changes
        return uf.run(write_study(home, **settings), force=force)

    run.home = home  # type: ignore[attr-defined]
    return run


def scaled(tensors: dict[str, torch.Tensor]) -> None:
    tensors["W_enc"] /= 30
    tensors["W_dec"] *= 30
    tensors["b_dec"] *= 30


def refused(study: Any, spec: dict[str, Any] | None = None, **changes: Any) -> str:
    with pytest.raises(uf.UserError) as caught:
        study(spec, **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("space two@")
    assert message.endswith("--force continues anyway")
    assert not list((cache_root() / "codes").glob("*/shard-*")), "nothing is encoded before all SAEs are checked"
    return message


def test_a_right_sae_passes(study: Any) -> None:
    run = study()
    assert [space["warnings"] for space in run.info["spaces"].values()] == [[], []]
    assert len(list((cache_root() / "checks").iterdir())) == 2


def test_a_missing_scale_stops_it(study: Any) -> None:
    changed(study.home / "saes/two", study.home / "saes/scaled", scaled)
    message = refused(study, {"sae": "saes/scaled"})
    assert "FVU is " in message
    assert "likely a scale on the activations is missing" in message


def test_a_transposed_decoder_stops_it(study: Any, model_folder: Callable[..., Path]) -> None:
    x = activations(model_folder("llama", tokenizer="wordish"), HookPoint(1), bos=2)
    square = fitted_sae(study.home / "saes/square", x, k=4, d_sae=32, **NAMES)
    changed(square, study.home / "saes/turned", lambda t: t.update(W_dec=t["W_dec"].T))
    study({"sae": "saes/square"})
    shutil.rmtree(cache_root() / "codes")
    assert "weights are read transposed" in refused(study, {"sae": "saes/turned"})


def test_another_model_of_the_same_width_stops_it(study: Any) -> None:
    models = {"one": STUDY["models"]["one"], "two": {"name": "model-one", "dtype": "float32"}}
    message = refused(study, models=models)
    assert "another model of the same width, and the SAE names 'tiny-llama'" in message


def test_an_l0_that_is_not_the_stated_one_stops_it(study: Any) -> None:
    card = study.home / "saes/two/training.json"
    card.write_text(json.dumps({"heldout": {"l0": 15.0, "fvu": 0.2}}))
    assert "L0 is 4.0, but training.json says 15" in refused(study)
    card.write_text(json.dumps({"heldout": {"l0": 11.0, "fvu": 0.2}}))
    study()  # the new card is looked at: what an SAE says is part of the key


@pytest.mark.parametrize("layer", [0, 2])
def test_a_neighbouring_layer_is_a_warning(study: Any, layer: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Its codes may even be wanted; the layer below the deepest is tried too."""
    from unifeat.progress import set_mode

    set_mode("log")
    run = study({"layers": layer})
    first, second = run.info["spaces"][f"two@{layer}"]["warnings"]
    assert first == f"the SAE says it reads blocks.1.hook_resid_post, but is given blocks.{layer}.hook_resid_post"
    assert "off by one" in second
    assert "with layer 1, resid_post" in second
    assert f"warning: space two@{layer}: {first}\n" in capsys.readouterr().err


def test_windows_without_their_bos_are_named(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an SAE that is stopped has its BOS tried, since that takes another pass of the model."""
    card = study.home / "saes/two/training.json"
    card.write_text(json.dumps({"heldout": {"l0": 15.0, "fvu": 0.2}}))
    models = STUDY["models"] | {"two": STUDY["models"]["two"] | {"bos": False}}
    assert "with windows that begin with BOS" in refused(study, models=models)


def test_force_goes_on_and_is_written_down(study: Any) -> None:
    changed(study.home / "saes/two", study.home / "saes/scaled", scaled)
    run = study({"sae": "saes/scaled"}, force=True)
    warnings = run.info["spaces"]["two@1"]["warnings"]
    assert warnings[0].startswith("FVU is ")
    assert warnings[1].startswith("a scale on the activations is missing")
    assert run.info["spaces"]["one@0"]["warnings"] == []


def test_controls_are_not_asked_to_fit(study: Any) -> None:
    models = STUDY["models"] | {"two": STUDY["models"]["two"] | {"randomise": 1}}
    changed(study.home / "saes/two", study.home / "saes/scaled", scaled)
    run = study({"sae": "saes/scaled"}, models=models)
    assert run.info["spaces"]["two@1"]["warnings"] == []
    assert len(list((cache_root() / "checks").iterdir())) == 1
    spec = {"sae": "saes/scaled", "random_directions": 3}
    assert study(spec).info["spaces"]["two@1"]["warnings"] == []


def test_is_made_once(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(study.home / "saes/two", study.home / "saes/scaled", scaled)
    first = refused(study, {"sae": "saes/scaled"})
    monkeypatch.setattr(loading, "load_language_model", lambda *_, **__: pytest.fail("loaded again"))
    assert refused(study, {"sae": "saes/scaled"}) == first


@pytest.mark.parametrize("spoil", ["damaged", "gone"])
def test_what_it_found_is_found_again(study: Any, spoil: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the codes there already, `run.json` would else say that there was nothing to warn of."""
    changed(study.home / "saes/two", study.home / "saes/scaled", scaled)
    first = study({"sae": "saes/scaled"}, force=True).info["spaces"]
    assert first["two@1"]["warnings"]
    before = hashes(cache_root() / "checks")
    for path in (cache_root() / "checks").iterdir():
        path.write_bytes(path.read_bytes()[:-20]) if spoil == "damaged" else path.unlink()
    capsys.readouterr()
    again = study({"sae": "saes/scaled"})  # (what was let pass once is not stopped at)
    assert {name: space["warnings"] for name, space in again.info["spaces"].items()} == {
        name: space["warnings"] for name, space in first.items()
    }
    assert hashes(cache_root() / "checks") == before


def test_a_text_of_few_tokens_judges_nothing(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "CHECK_TOKENS", 50)
    changed(study.home / "saes/two", study.home / "saes/scaled", scaled)
    assert study({"sae": "saes/scaled"}).info["spaces"]["two@1"]["warnings"] == []


def test_codes_are_the_same_bits_with_and_without_it(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that was checked is cut and used: a block too many would change nothing but time."""
    study()
    before = hashes(cache_root() / "codes")
    shutil.rmtree(cache_root() / "codes")
    study()  # checked already: the model is loaded afresh
    assert hashes(cache_root() / "codes") == before


def test_force_on_the_command_line(warm: Warm, place: Place) -> None:
    tiny_sae(place.home / "saes/bad", 32)
    spec = [STUDY["spaces"][0], {"model": "two", "layers": 1, "sae": "saes/bad"}]
    path = write_study(place.home, "bad.yaml", name="bad", spaces=spec)
    done = place.unifeat(warm, "run", path, "--quiet")
    assert done.code == 2
    assert done.err.startswith("unifeat: space two@1, SAE ")
    assert done.err.endswith("--force continues anyway\n")
    done = place.unifeat(warm, "run", path, "--quiet", "--force")
    assert (done.code, done.news) == (0, "")
    assert "warning: space two@1: FVU is" in done.err, "also when quiet"
    info = json.loads((place.work / "runs/bad/run.json").read_text())
    assert info["spaces"]["two@1"]["warnings"]


assert STUDY["text"]["context"] == CONTEXT  # SAEs are fitted to windows of the study's length
