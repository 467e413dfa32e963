"""Spaces of a study whose codes or activations are on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from unifeat.errors import UserError
from unifeat.study.brought import BroughtSpec
from unifeat.study.read import load_study_text
from unifeat.study.spec import SpacesSpec, Study

TEXT = {"text": {"source": "./t.txt"}}
MODEL = {"models": {"m": {"name": "./m"}}}
ENCODED = {"model": "m", "layers": [1], "sae": "./s"}


def load(folder: Path, *spaces: dict[str, Any], **more: Any) -> Study:
    return load_study_text(yaml.safe_dump(TEXT | MODEL | {"spaces": list(spaces)} | more), folder)


def test_both_kinds_stand_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "codes").mkdir()
    study = load(tmp_path, ENCODED, {"name": "mine", "codes": "codes", "layer": 3})
    assert [type(spaces) for spaces in study.spaces] == [SpacesSpec, BroughtSpec]
    assert study.space_names == ["m@1", "mine@3"]
    assert study.brought[0].codes == str(tmp_path / "codes"), "paths are relative to the study"
    assert study.compares("m@1", "mine@3")


def test_codes_may_also_say_which_codes_of_an_sae(tmp_path: Path) -> None:
    study = load(tmp_path, ENCODED | {"codes": "before_topk"}, ENCODED | {"name": "other"})
    assert not study.brought


def test_no_model_is_needed(tmp_path: Path) -> None:
    study = load(tmp_path, {"name": "a", "codes": "a"}, {"name": "b", "codes": "b"}, models={})
    assert not study.models


@pytest.mark.parametrize("labels", ["off", "'off'"])
def test_off_is_false_in_yaml(tmp_path: Path, labels: str) -> None:
    written = f"text: {{source: ./t.txt}}\nspaces: [{{name: a, codes: a, labels: {labels}}}, {{name: b, codes: b}}]"
    assert load_study_text(written, tmp_path).brought[0].labels == "off"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"codes": "a"}, "the key 'spaces.1.name' is missing"),
        ({"name": "x", "codes": "a", "activations": "b"}, "give codes, a folder written by save_codes, or activations"),
        ({"name": "x", "activations": "b"}, "activations need an sae"),
        ({"name": "x", "codes": "a", "sae": "b"}, "leave out sae and places"),
        ({"name": "x", "codes": "a", "layers": [1]}, "unknown key 'spaces.1.layers' .did you mean 'layer'"),
        ({"name": "x", "codes": "a", "decoderr": "b"}, "unknown key 'spaces.1.decoderr' .did you mean 'decoder'"),
        ({"name": "x", "codes": 3}, "spaces.1.codes: Input should be a valid string"),
        ({"name": "m", "codes": "a", "layer": 1}, "two spaces are called m@1"),
    ],
)
def test_mistakes(tmp_path: Path, space: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, ENCODED, space)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("transfer", {}),
        ("activations", {}),
        ("geometry", [{"rsa": {"given": ["token_embeddings"]}}]),
        ("text", {"source": "./t.txt", "elsewhere": {"source": "./u.txt"}}),
    ],
)
def test_what_needs_a_model(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(UserError, match="the space mine brings its codes without one: leave out"):
        load(tmp_path, ENCODED, {"name": "mine", "codes": "a"}, **{key: value})


def test_a_budget_of_tokens_needs_a_tokenizer(tmp_path: Path) -> None:
    spaces = {"name": "a", "codes": "a"}, {"name": "b", "codes": "b"}
    with pytest.raises(UserError, match=r"text\.tokens counts tokens of the first model"):
        load(tmp_path, *spaces, models={}, text={"source": "./t.txt", "tokens": 5})
