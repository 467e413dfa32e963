"""What a study may say: the types it is written in, numbers within bounds, names that name what they should."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from unifeat.errors import UserError
from unifeat.study.read import dump_study, load_study, load_study_text
from unifeat.study.spec import Study

SPACES: list[dict[str, Any]] = [{"model": "a", "layers": 1, "sae": "x"}, {"model": "b", "layers": 1, "sae": "y"}]
FULL: dict[str, Any] = {
    "text": {"source": "some/dataset", "elsewhere": {"source": "other/dataset"}},
    "models": {"a": {"name": "gpt2"}, "b": {"name": "org/model"}},
    "spaces": SPACES,
    "subspaces": {},
    "train": {"text": {"source": "some/dataset"}},
}


def changed(place: str, value: Any) -> dict[str, Any]:
    """The study with one value at a place such as `spaces.0.layers`."""
    study = yaml.safe_load(yaml.safe_dump(FULL))
    *above, last = place.split(".")
    at: Any = study
    for part in above:
        at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
    at[last] = value
    return study


def refusal(place: str, value: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_study_text(yaml.safe_dump(changed(place, value)), Path("/tmp"))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 5000
    return message


def numbers(model: type[BaseModel], place: str = "") -> list[tuple[str, Any]]:
    """Every number of the study: its place and its field."""
    inside = {"text": "text", "models": "models.a", "spaces": "spaces.0", "geometry": None, "train": "train"}
    found: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        here = f"{place}.{name}" if place else name
        groups = [arg for arg in _arguments(field.annotation) if isinstance(arg, type) and issubclass(arg, BaseModel)]
        if groups and inside.get(name, here) is not None:
            below = here if place else str(inside.get(name, here))
            found += numbers(groups[0], below)
        elif {int, float} & set(_arguments(field.annotation)) and name not in ("layers", "levels", "max_memory"):
            found.append((here, field))
    return found


def _arguments(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(found for arg in inner for found in _arguments(arg))]


NUMBERS = numbers(Study)


def test_all_numbers_are_found() -> None:
    places = {place for place, _ in NUMBERS}
    assert {
        "seed",
        "text.context",
        "models.a.randomise",
        "spaces.0.train.lr",
        "train.text.skip",
        "text.elsewhere.skip",
    } <= places
    assert {"matching.top", "inference.level", "subspaces.window", "train.buffer"} <= places
    assert len(places) == len(NUMBERS) > 40


@pytest.mark.parametrize("place", [place for place, _ in NUMBERS])
@pytest.mark.parametrize("value", [True, "5", float("nan"), float("inf"), 10**30, -(10**30), [1], 10**400 // 3])
def test_no_number_is_anything_else(place: str, value: Any) -> None:
    """A float alone may be large."""
    message = refusal(place, -1e300 if isinstance(value, int) and value > 1 and _is_float(place) else value)
    assert place in message


def _is_float(place: str) -> bool:
    return float in _arguments(dict(NUMBERS)[place].annotation)


@pytest.mark.parametrize("place", [place for place, _ in NUMBERS if not _is_float(place)])
def test_no_count_has_a_point(place: str) -> None:
    assert "valid integer (write 4)" in refusal(place, 4.0)
    assert "valid integer (a whole number, without quotes or a point)" in refusal(place, 4.5)


@pytest.mark.parametrize(
    "place", [place for place, _ in NUMBERS if place.endswith(("seed", "randomise", "directions"))]
)
def test_seeds(place: str) -> None:
    assert "greater than or equal to 0" in refusal(place, -1)
    assert "less than or equal to 4294967295" in refusal(place, 2**32)
    load_study_text(yaml.safe_dump(changed(place, 2**32 - 1)), Path("/tmp"))


def test_the_largest_seed_is_one_to_all_that_draw() -> None:
    import numpy as np
    import pandas as pd
    import torch

    pd.DataFrame({"x": range(9)}).sample(3, random_state=2**32 - 1)
    np.random.default_rng([2**32 - 1, 3]).random()
    torch.Generator().manual_seed(2**32 - 1)
    with pytest.raises(ValueError, match="between 0 and 2"):
        pd.DataFrame({"x": range(9)}).sample(3, random_state=2**32)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("matching.top_tokens", 50, "less than or equal to 10"),
        ("subspaces.at_least", 6, "at_least = 6 cannot be reached with top_tokens = 5"),
        ("matching.heldout", "no", "valid boolean (write true or false)"),
        ("matching.heldout", 1, "valid boolean (write true or false)"),
        ("mask.sinks", "no", "valid boolean (write true or false)"),
        ("models.a.bos", "yes", "models.a.bos: give auto, true or false"),
        ("models.a.bos", 1, "models.a.bos: give auto, true or false"),
        ("models.a.revision", 1234567, "models.a.revision: Input should be a valid string (put it in quotes"),
        ("models.a.max_memory", {"gpu": 3}, "'gpu': give the numbers of CUDA devices, and cpu"),
        ("models.a.max_memory", {True: 3}, "True: give the numbers of CUDA devices, and cpu"),
        ("models.a.max_memory", {0: True}, "True is not an amount of memory"),
        ("models.a.max_memory", {0: 1, "0": 2}, "is given twice"),
        ("spaces.0.layers", True, "spaces.0.layers: give the number of a block, or a list of them"),
        ("spaces.0.layers", [True], "spaces.0.layers.0"),
        ("spaces.0.layers", ["1"], "spaces.0.layers.0"),
        ("spaces.0.layers", 1.0, "give the number of a block"),
        ("spaces.0.layers", "1:30", "give the number of a block"),
        ("spaces.0.layers", [1, 1], "two spaces are called a@1"),
        ("train.levels", ["8"], "train.levels.0"),
        ("train.levels", [True], "train.levels.0"),
        ("train.lr", 0, "greater than 0"),
        ("compare", [["a", 1]], "compare.0.1"),
        ("compare", [["a"]], "compare.0"),
        ("compare", ["ab"], "compare.0"),
        ("text.source", "", "text.source: String should have at least 1 character"),
        ("text.source", 5, "text.source"),
        ("spaces.0.name", "", "spaces.0.name"),
        ("spaces.0.name", "a\0b", "text cannot hold a NUL byte"),
        ("models.a.name", "x" * 5000, "at most 4000 characters"),
        ("preset", ["arxiv-2410.06981"], "preset"),
        ("geometry", ["cka", "cka"], "geometry: cka is given twice with the same settings: drop one"),
        (
            "geometry",
            [{"svcca": {"dims": 4}}, {"metric": "svcca", "settings": {"dims": 4}}],
            "svcca is given twice",
        ),
        ("subspaces.geometry", ["rsa", {"rsa": {}}], "subspaces.geometry: rsa is given twice"),
        ("geometry", [{"svcca": False}], "geometry.0.settings"),
        ("geometry", [{"svcca": []}], "geometry.0.settings"),
        ("geometry", [{"svcca": {"dims": 10**7}}], "dims: at most 1000000"),
        ("geometry", [{"mutual_knn": {"k": 10**30}}], "k: at most 1000000"),
        ("geometry", [{"heldout_cca": {"seed": 2**32}}], "seed: at most 4294967295"),
        ("geometry", [{"svcca": {"variance": float("nan")}}], "variance: give a finite number"),
        ("geometry", [{"svcca": {"variance": float("-inf")}}], "variance: give a finite number"),
        ("geometry", [{"svcca": {"dims": [1, 2]}}], "dims: give a number, text, true or false"),
        (
            "geometry",
            [{"rsa": {"given": ["embeddings"]}}],
            "given: 'embeddings' is not known; a study can take out token_embeddings",
        ),
        ("geometry", [{1: {"dims": 2}}], "geometry.0.metric"),
        ("name", "..", "name: '..' cannot be a folder's name"),
        ("name", ".", "name: '.' cannot be a folder's name"),
        ("name", ".....", "cannot be a folder's name"),
        ("name", "x" * 201, "name: String should have at most 200 characters"),
        ("name", "a/b", "name"),
        ("name", "a\n", "name"),
    ],
)
def test_wrong_values(place: str, value: Any, message: str) -> None:
    assert message in refusal(place, value)


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        ("matching.top", 16, 16),
        ("train.lr", 1, 1.0),
        ("spaces.0.layers", 3, [3]),
        ("spaces.0.layers", [1, 2], [1, 2]),
        ("models.a.bos", False, False),
        ("models.a.bos", "auto", "auto"),
        ("models.a.revision", "1234567", "1234567"),
        ("name", "..a", "..a"),
    ],
)
def test_right_values(place: str, value: Any, found: Any) -> None:
    at: Any = load_study_text(yaml.safe_dump(changed(place, value)), Path("/tmp"))
    for part in place.split("."):
        at = at[int(part)] if isinstance(at, list) else at[part] if isinstance(at, dict) else getattr(at, part)
    assert (at, type(at)) == (found, type(found))


def test_memory_is_the_same_after_json() -> None:
    data = changed("models.a", {"name": "x", "device": "map", "max_memory": {0: "20GiB", "cpu": 1000}})
    study = load_study_text(yaml.safe_dump(data), Path("/tmp"))
    assert study.models["a"].max_memory == {0: "20GiB", "cpu": 1000}
    assert load_study_text(dump_study(study), Path("/tmp")) == study


def test_a_study_made_in_python_is_as_strict() -> None:
    with pytest.raises(ValidationError, match="valid integer"):
        Study.model_validate(FULL | {"seed": True})
    study = Study.model_validate(FULL | {"compare": [("a", "b")]})
    assert study.compare == [("a", "b")]


class TestNamesOfSAEs:
    @pytest.mark.parametrize(
        "name",
        [
            *("x/{layer.real}", "x/{layer:>99999999999}", "x/{layer!r}", "x/{0}", "x/{}", "x/{layer", "x/layer}"),
            *("x/{{layer}}", "x/{Layer}", "x/{ layer }", "x/{layer}{", "x/{layer.__class__}"),
        ],
    )
    def test_only_a_bare_layer_in_braces(self, name: str) -> None:
        assert "only {layer} can be in braces" in refusal("spaces.0.sae", name)

    @pytest.mark.parametrize("name", ["./new/../x", "../a/../{layer}", "/abs/../x", "x/..", "~/../x", "./{layer}/.."])
    def test_no_way_back_up(self, name: str) -> None:
        assert ".. can only be at the beginning" in refusal("spaces.0.sae", name)

    def test_at_a_layer(self) -> None:
        for name, found in {
            "x/{layer}/y-{layer}": "x/12/y-12",
            "/x/{layer}": "/x/12",
            "release/one": "release/one",
            "../{layer}": "/12",
        }.items():
            study = load_study_text(yaml.safe_dump(changed("spaces.0.sae", name)), Path("/tmp"))
            assert study.spaces[0].sae_at(12) == found

    def test_braces_of_the_studys_own_folder_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "{odd}" / "saes").mkdir(parents=True)
        data = changed("spaces.0.sae", "./saes/{layer}")
        study = load_study_text(yaml.safe_dump(data), tmp_path / "{odd}")
        assert study.spaces[0].sae_at(3) == f"{tmp_path}/{{odd}}/saes/3"


@pytest.mark.parametrize(
    "place",
    [
        *("text.source", "text.elsewhere.source", "models.a.name", "spaces.0.sae", "subspaces.categories"),
        "train.text.source",
    ],
)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("./" + "x" * 300, "longer than a file name may be"),
        ("./" + "x/" * 2100, "at most 4000 characters"),
        ("x" * 300 + ".txt", "longer than a file name may be"),
        ("~nobody-here/x", "~nobody-here has no home directory"),
        ("./round/x", "its links form a loop"),
    ],
)
def test_names_that_cannot_be_paths(tmp_path: Path, place: str, value: str, message: str) -> None:
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(changed(place, value)))
    with pytest.raises(UserError, match=message) as caught:
        load_study(tmp_path / "study.yaml")
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_too_long_from_the_studys_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("y" * 200)
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(changed("text.source", "./" + "x/" * 1990)))
    with pytest.raises(UserError, match=r"text\.source .*: the name is longer than a file name may be"):
        load_study(folder / "study.yaml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 300, "study x.*…x*: the name is longer than a file name may be"),
        ("nul\0.yaml", "study 'nul␀.yaml': a path cannot hold a NUL byte"),
        ("\ud800.yaml", "a path cannot hold half a character"),
        ("~nobody-here/study.yaml", "~nobody-here has no home directory"),
        ("round.yaml", "round.yaml: its links form a loop"),
        ("file/study.yaml", "a file is where a folder should be"),
    ],
)
def test_studies_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("round.yaml").symlink_to("round.yaml")
    Path("file").touch()
    with pytest.raises(UserError, match=message) as caught:
        load_study(name)
    assert "\n" not in str(caught.value)


DOCS = Path(__file__).parents[2] / "docs" / "study.md"
ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        10**30,
        1.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "..",
        "~nobody-here/x",
        "a\0b",
        "\n",
        "{layer}",
    ),
    *("{", "[", "**", "a/**/b", "/", "~", "wordnet:\0", "x" * 5000, "\U0001f642" * 100),
    *([], [1], ["x"], [[]], {}, {"a": 1}, {1: 2}, {None: None}, [None], [{}], [{"a": {"b": 1}}], [["a", "b"], ["a"]]),
]


def test_the_documents_example_is_a_study() -> None:
    example = DOCS.read_text(encoding="utf-8").split("```yaml")[1].split("```")[0]
    assert load_study_text(example, DOCS.parent).matching.top == 4


def test_odd_values_anywhere_are_told_in_one_line() -> None:
    """Every place of the documents' example has a random one of them; what is taken repeats itself."""
    example = DOCS.read_text(encoding="utf-8").split("```yaml")[1].split("```")[0]
    data = yaml.safe_load(example)
    drawn = random.Random(0)
    told = []
    for place in places(data):
        for value in drawn.sample(ODD, 1):
            study = copy.deepcopy(data)
            at = study
            for part in place[:-1]:
                at = at[part]
            at[place[-1]] = value
            try:
                found = load_study_text(yaml.safe_dump(study), DOCS.parent)
                assert load_study_text(dump_study(found), Path("/")) == found
            except UserError as error:
                told.append(str(error))
    assert len(told) > 60
    assert not [message for message in told if "\n" in message]


def places(data: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*above, key)
        yield from places(value, (*above, key))


HEAVY = """
import sys
from unifeat.errors import UserError
from unifeat.study.read import load_study
try:
    load_study(sys.argv[1])
except UserError as error:
    print(error)
heavy = {"torch", "transformers", "sae_lens", "numpy", "pandas", "numba", "scipy", "plotly", "pyarrow", "datasets"}
print(sorted(heavy & set(sys.modules)))
"""


def test_a_mistyped_key_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("modles: {}\n")
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, str(tmp_path / "study.yaml")], capture_output=True, text=True, check=True
    )
    message, heavy = done.stdout.splitlines()
    assert message.endswith("unknown key 'modles' (did you mean 'models'?)")
    assert heavy == "[]"
