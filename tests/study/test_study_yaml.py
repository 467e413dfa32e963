"""The study: what is misspelt is said, what is relative is found, what is dumped repeats the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from unifeat.errors import UserError
from unifeat.study.read import dump_study, load_study, load_study_text
from unifeat.study.spec import Study
from unifeat.study.text import TextSpec

STUDY: dict[str, Any] = {
    "text": {"source": "some/dataset"},
    "models": {"a": {"name": "gpt2"}, "b": {"name": "org/model"}},
    "spaces": [
        {"model": "a", "layers": [1, 2], "sae": "release-a/layer_{layer}"},
        {"model": "b", "layers": 5, "sae": "release-b/five"},
    ],
}
TRAIN = {"text": {"source": "some/dataset"}}
MATRYOSHKA = {"text": {"source": "x"}, "architecture": "matryoshka", "features": 64}


def own_training(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The spaces, the first of them with training settings of their own."""
    return [STUDY["spaces"][0] | {"train": settings}, *STUDY["spaces"][1:]]


def write(folder: Path, data: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


def load(folder: Path, **changes: Any) -> Study:
    return load_study(write(folder, {k: v for k, v in (STUDY | changes).items() if v is not ...}))


def error_of(folder: Path, data: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_study(write(folder, data))
    message = str(caught.value)
    assert message.startswith(f"study {folder}/study.yaml")
    assert "\n" not in message
    return message


def test_defaults_and_short_forms(tmp_path: Path):
    study = load(tmp_path)
    assert study.spaces[1].layers == [5]
    assert study.spaces[0].hook == "resid_post"
    assert [metric.metric for metric in study.geometry] == ["svcca", "rsa", "cka"]
    assert study.matching.method == "mutual"
    assert study.text.context == 128
    assert (study.train, study.compare, study.seed) == (None, None, 0)


def test_geometry_has_a_short_and_a_long_form(tmp_path: Path):
    long = {"metric": "rsa", "settings": {"outer": "pearson"}}
    study = load(tmp_path, geometry=["cka", {"svcca": {"dims": 64}}, {"svcca": None}, {"metric": "rsa"}, long])
    assert [(m.metric, m.settings) for m in study.geometry] == [
        ("cka", {}),
        ("svcca", {"dims": 64}),
        ("svcca", {}),
        ("rsa", {}),
        ("rsa", {"outer": "pearson"}),
    ]


@pytest.mark.parametrize("changes", [{}, {"train": TRAIN, "seed": 7}, {"compare": [["a", "a"], ["a", "b"]]}])
def test_dumped_and_loaded_is_the_same(tmp_path: Path, changes: dict[str, Any]):
    text = {"source": "t.jsonl", "skip": 3, "tokens": 500, "elsewhere": {"source": "u.jsonl", "documents": 9}}
    models = {"a": {"name": "gpt2", "dtype": "bfloat16", "bos": True}, "b": {"name": "./m"}}
    study = load(tmp_path, text=text, models=models, **changes)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = load_study(write(elsewhere, dump_study(study)))
    assert again == study
    assert dump_study(again) == dump_study(study)
    assert "exclude_tokens" in dump_study(study), "every default is written out"


def test_a_group_of_spaces_overrides_what_train_says(tmp_path: Path):
    base = {"text": {"source": "x"}, "architecture": "jumprelu", "sparsity": 0.5, "features": 64, "k": 8, "seed": 3}
    study = load(tmp_path, train=base, spaces=own_training({"seed": 0, "features": 128}))
    assert study.train is not None
    own = study.train.overridden(study.spaces[0].train)
    assert (own.seed, own.features, own.k, own.sparsity) == (0, 128, 8, 0.5)
    assert study.train.overridden(study.spaces[1].train) == study.train
    # What was said of another architecture goes with it.
    topk = load(tmp_path, train=base, spaces=own_training({"architecture": "topk"}))
    assert topk.train is not None
    assert topk.train.overridden(topk.spaces[0].train).sparsity is None


def test_groups_and_single_spaces_that_are_compared(tmp_path: Path):
    spaces = [*STUDY["spaces"], {"model": "a", "layers": 2, "sae": "seed/{layer}", "name": "seed"}]
    names = ("a@1", "a@2", "b@5", "seed@2")

    def compared(study: Study) -> list[tuple[str, str]]:
        found = [(one, other) for i, one in enumerate(names) for other in names[i + 1 :] if study.compares(one, other)]
        assert found == [(one, other) for one, other in found if study.compares(other, one)]
        return found

    groups = [("a@1", "b@5"), ("a@2", "b@5")]
    across = [("a@1", "seed@2"), ("a@2", "seed@2")]
    assert compared(load(tmp_path, spaces=spaces)) == [
        ("a@1", "b@5"), ("a@1", "seed@2"), ("a@2", "b@5"), ("a@2", "seed@2"), ("b@5", "seed@2")
    ]  # fmt: skip
    assert compared(load(tmp_path, spaces=spaces, compare=[["a", "b"]])) == groups
    assert compared(load(tmp_path, spaces=spaces, compare=[["seed", "a"]])) == across
    assert compared(load(tmp_path, spaces=spaces, compare=[["seed@2", "a@2"]])) == across[1:]
    assert compared(load(tmp_path, spaces=spaces, compare=[["a", "b"], ["a@2", "seed"]])) == sorted(groups + across[1:])
    assert compared(load(tmp_path, spaces=spaces, compare=[["a", "a"]])) == [("a@1", "a@2")]


@pytest.mark.parametrize(
    ("written", "found"), [("off", None), (None, None), (False, None), (0.1, 0.1), (1, 1.0), (..., 0.05)]
)
def test_the_margin_of_equivalence(tmp_path: Path, written: Any, found: float | None):
    study = load(tmp_path, inference={} if written is ... else {"equivalence": written})
    assert study.inference.equivalence == found
    assert load_study(write(tmp_path, dump_study(study))) == study


def test_is_frozen(tmp_path: Path):
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path).seed = 3  # type: ignore[misc]


class TestPaths:
    """Relative paths are taken from the study's folder, wherever it is run."""

    @pytest.fixture
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        home = tmp_path / "home"
        (home / "data").mkdir(parents=True)
        (home / "data" / "text.txt").write_text("text")
        (home / "model").mkdir()
        (home / "saes").mkdir()
        for layer in (1, 2):
            (home / "saes" / f"layer{layer}").mkdir()
        monkeypatch.chdir(tmp_path)
        return home

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("data/text.txt", "{home}/data/text.txt"),
            ("./data/text.txt", "{home}/data/text.txt"),
            ("not-yet.jsonl", "{home}/not-yet.jsonl"),
            ("../up.txt", "{up}/up.txt"),
            ("data", "{home}/data"),
            ("data/*.txt", "{home}/data/*.txt"),
            ("data/*", "{home}/data/*"),
            ("/abs/text.txt", "/abs/text.txt"),
            ("org/dataset", "org/dataset"),
            ("wikitext", "wikitext"),
        ],
    )
    def test_of_text(self, home: Path, source: str, expected: str):
        expected = expected.format(home=home, up=home.parent)
        text = {"source": source, "elsewhere": {"source": source, "skip": 9}}
        study = load(home, text=text, train={"text": {"source": source}})
        assert study.text.source == expected
        assert study.text.elsewhere is not None
        assert (study.text.elsewhere.source, study.text.elsewhere.skip) == (expected, 9)
        assert study.train is not None
        assert study.train.text.source == expected

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("model", "{home}/model"),
            ("./model", "{home}/model"),
            ("./not-yet.gguf", "{home}/not-yet.gguf"),
            ("gpt2", "gpt2"),
            ("org/model", "org/model"),
            ("/abs/model", "/abs/model"),
        ],
    )
    def test_of_models(self, home: Path, name: str, expected: str):
        study = load(home, models={"a": {"name": name}, "b": {"name": "gpt2"}})
        assert study.models["a"].name == expected.format(home=home)

    @pytest.mark.parametrize(
        ("sae", "expected"),
        [
            ("./saes/layer{layer}", "{home}/saes/layer{{layer}}"),
            ("saes/layer{layer}", "{home}/saes/layer{{layer}}"),
            ("saes/{layer}", "{home}/saes/{{layer}}"),
            ("saes/layer1", "{home}/saes/layer1"),
            ("./new/{layer}", "{home}/new/{{layer}}"),
            ("../{layer}", "{up}/{{layer}}"),
            ("release/layer_{layer}/width_16k", "release/layer_{{layer}}/width_16k"),
            ("/abs/{layer}", "/abs/{{layer}}"),
        ],
    )
    def test_of_saes(self, home: Path, sae: str, expected: str):
        study = load(home, spaces=[{"model": "a", "layers": 1, "sae": sae}, STUDY["spaces"][1]])
        assert study.spaces[0].sae == expected.format(home=home, up=home.parent)

    def test_of_the_home_folder(self, home: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("HOME", "/somebody")
        study = load(home, models={"a": {"name": "~/model"}, "b": {"name": "gpt2"}}, text={"source": "~/t/*"})
        assert study.models["a"].name == "/somebody/model"
        assert study.text.source == "/somebody/t/*"


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("changes", "key", "nearest"),
        [
            ({"modles": {}}, "modles", "models"),
            ({"text": {"source": "x.txt", "contxt": 3}}, "text.contxt", "context"),
            ({"models": {"a": {"nmae": "gpt2"}, "b": {"name": "x"}}}, "models.a.nmae", "name"),
            ({"models": {"text": {"name": "x", "dytpe": "x"}, "b": {"name": "x"}}}, "models.text.dytpe", "dtype"),
            ({"spaces": [{"model": "a", "layer": 1, "sae": "x"}]}, "spaces.0.layer", "layers"),
            ({"matching": {"metod": "max"}}, "matching.metod", "method"),
            ({"inference": {"permutation": 3}}, "inference.permutation", "permutations"),
            ({"geometry": [{"metric": "cka", "setings": {}}]}, "geometry.0.setings", "settings"),
            ({"train": {"text": {"source": "x", "documnets": 3}}}, "train.text.documnets", "documents"),
            ({"text": {"source": "x", "elsewere": {"source": "y"}}}, "text.elsewere", "elsewhere"),
            ({"text": {"source": "x", "elsewhere": {"sorce": "y"}}}, "text.elsewhere.sorce", "source"),
            ({"train": {"text": {"source": "x"}, "feature": 3}}, "train.feature", "features"),
            (
                {"spaces": [{"model": "a", "layers": 1, "sae": "x", "train": {"sede": 1}}]},
                "spaces.0.train.sede",
                "seed",
            ),
        ],
    )
    def test_suggest_the_nearest(self, tmp_path: Path, changes: dict[str, Any], key: str, nearest: str):
        assert f"unknown key '{key}' (did you mean '{nearest}'?)" in error_of(tmp_path, STUDY | changes)

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"text": {"source": "x", "elsewhere": {"source": "y", "context": 64}}}, "text.elsewhere.context"),
            ({"train": {"text": {"source": "x", "elsewhere": {"source": "y"}}}}, "train.text.elsewhere"),
        ],
    )
    def test_the_other_text_is_the_study_s_and_is_read_as_it_is(self, tmp_path: Path, changes: dict, key: str):
        """It has documents of its own, but no window of its own."""
        assert f"unknown key '{key}'" in error_of(tmp_path, STUDY | changes)

    def test_like_nothing_suggest_nothing(self, tmp_path: Path):
        assert error_of(tmp_path, STUDY | {"qqqqq": 1}).endswith("unknown key 'qqqqq'")


class TestWrongValues:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"text": ...}, ["the key 'text' is missing"]),
            ({"text": {"source": "x", "context": 1}}, ["text.context", "greater than or equal to 2"]),
            ({"text": {"source": "x", "tokens": 0}}, ["text.tokens"]),
            ({"text": {"source": "x", "elsewhere": {}}}, ["the key 'text.elsewhere.source' is missing"]),
            ({"text": {"source": "x", "elsewhere": "y"}}, ["text.elsewhere"]),
            ({"models": {}}, ["models"]),
            ({"spaces": []}, ["spaces"]),
            ({"spaces": [{"model": "a", "layers": [], "sae": "x"}]}, ["spaces.0.layers"]),
            ({"spaces": [{"model": "a", "layers": "one", "sae": "x"}]}, ["spaces.0.layers"]),
            ({"spaces": [{"model": "a", "layers": 1, "sae": "x/{lyer}"}]}, ["spaces.0.sae", "only {layer}"]),
            ({"spaces": [{"model": "a", "layers": 1, "sae": "x/{}"}]}, ["only {layer}"]),
            ({"spaces": [{"model": "a", "layers": 1, "sae": "x/{layer"}]}, ["only {layer}"]),
            ({"spaces": [{"model": "a", "layers": 1, "sae": "x", "hook": "resid"}]}, ["spaces.0.hook", "resid_post"]),
            ({"matching": {"method": "mutal"}}, ["matching.method", "'mutual'"]),
            ({"matching": {"top": 0}}, ["matching.top"]),
            ({"name": "a/b"}, ["name"]),
            ({"train": {"text": {"source": "x"}, "k": 64, "features": 32}}, ["train", "k = 64 features"]),
            ({"train": {"text": {"source": "x"}, "architecture": "standard"}}, ["train.architecture", "'topk'"]),
            ({"train": {"text": {"source": "x"}, "batch": 64, "buffer": 32}}, ["train", "buffer = 32", "batch of 64"]),
            ({"train": {"text": {"source": "x"}, "levels": [8]}}, ["train", "levels are for architecture matryoshka"]),
            ({"train": MATRYOSHKA | {"levels": []}}, ["train", "levels []", "grow and stay below features = 64"]),
            ({"train": MATRYOSHKA | {"levels": [16, 8]}}, ["train", "levels [16, 8]", "below features = 64"]),
            ({"train": MATRYOSHKA | {"levels": [16, 64]}}, ["train", "levels [16, 64]"]),
            ({"train": MATRYOSHKA | {"levels": [0, 16]}}, ["train", "a width is at least 1"]),
            ({"train": {"text": {"source": "x"}, "sparsity": 2}}, ["train", "sparsity is for", "topk is set by k"]),
            ({"train": {"text": {"source": "x"}, "dead_after": 0}}, ["train.dead_after"]),
            ({"train": {"text": {"source": "x"}, "seed": -1}}, ["train.seed"]),
            (
                {"train": {"text": {"source": "x"}}, "spaces": own_training({"k": 64, "features": 32})},
                ["train of the spaces a", "k = 64 features cannot be active of 32"],
            ),
            ({"spaces": own_training({"seed": 1})}, ["the spaces a have a train section, but the study has none"]),
        ],
    )
    def test_name_the_place(self, tmp_path: Path, changes: dict[str, Any], words: list[str]):
        message = error_of(tmp_path, {k: v for k, v in (STUDY | changes).items() if v is not ...})
        for word in words:
            assert word in message

    def test_a_model_that_is_not_among_the_models(self, tmp_path: Path):
        spaces = [{"model": "gemm", "layers": 1, "sae": "x"}, *STUDY["spaces"]]
        message = error_of(tmp_path, STUDY | {"spaces": spaces, "models": STUDY["models"] | {"gemma": {"name": "g"}}})
        assert "spaces name the model 'gemm', which is not under models (did you mean 'gemma'?)" in message

    def test_spaces_that_are_compared_but_not_there(self, tmp_path: Path):
        spaces = [{"model": "a", "layers": 1, "sae": "x", "name": "early"}, STUDY["spaces"][1]]
        message = error_of(tmp_path, STUDY | {"spaces": spaces, "compare": [["eraly", "b"]]})
        assert "compare names 'eraly', but no spaces have that name (did you mean 'early'?)" in message

    @pytest.mark.parametrize(
        ("pair", "words"),
        [
            (["a@3", "b"], "compare names 'a@3', but no spaces have that name (did you mean 'a@"),
            (["a@2", "b@4"], "compare names 'b@4', but no spaces have that name (did you mean 'b@5'?)"),
            (["a@2", "a@2"], "compare names a@2 with itself: name another space, or a group of several"),
        ],
    )
    def test_single_spaces_that_cannot_be_compared(self, tmp_path: Path, pair: list[str], words: str):
        message = error_of(tmp_path, STUDY | {"compare": [pair]})
        assert words in message

    def test_a_name_of_a_group_and_of_a_space(self, tmp_path: Path):
        spaces = [*STUDY["spaces"], {"model": "b", "layers": 3, "sae": "x", "name": "a@1"}]
        message = error_of(tmp_path, STUDY | {"spaces": spaces, "compare": [["a@1", "b"]]})
        assert "compare names 'a@1', which is a group of spaces and a single space: give the group another" in message
        assert load(tmp_path, spaces=spaces).compares("a@1@3", "b@5")

    def test_two_spaces_of_one_name(self, tmp_path: Path):
        spaces = [*STUDY["spaces"], {"model": "a", "layers": 2, "sae": "other/{layer}"}]
        assert "two spaces are called a@2: give one group" in error_of(tmp_path, STUDY | {"spaces": spaces})
        spaces[-1]["name"] = "a-other"
        load(tmp_path, spaces=spaces)

    def test_one_group_alone(self, tmp_path: Path):
        alone = STUDY | {"spaces": STUDY["spaces"][:1]}
        assert "there is only one group of spaces" in error_of(tmp_path, alone)
        load_study(write(tmp_path, alone | {"compare": [["a", "a"]]}))

    def test_braces_that_reach_inside(self):
        with pytest.raises(ValueError, match=r"only {layer}"):
            Study.model_validate(STUDY | {"spaces": [{"model": "a", "layers": 1, "sae": "x/{layer.real.none}"}]})


class TestWrongFiles:
    def test_missing(self, tmp_path: Path):
        for name in ("nowhere.yaml", "."):
            with pytest.raises(UserError, match=r"study .*: no such file"):
                load_study(tmp_path / name)

    @pytest.mark.parametrize("text", ["text: [1, 2\nmodels: 3\n", "a:\n\t- b\n", "a: 'open\n"])
    def test_not_yaml_names_the_line(self, tmp_path: Path, text: str):
        message = error_of(tmp_path, text)
        assert "not valid YAML (" in message
        assert ", line " in message

    @pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n", "3"])
    def test_yaml_of_something_else(self, tmp_path: Path, text: str):
        assert "expected keys such as text, models and spaces" in error_of(tmp_path, text)

    def test_not_utf8(self, tmp_path: Path):
        (tmp_path / "study.yaml").write_bytes("name: Straße".encode("latin-1"))
        with pytest.raises(UserError, match=r"study\.yaml is not UTF-8"):
            load_study(tmp_path / "study.yaml")

    def test_tags_that_would_run_code_are_refused(self, tmp_path: Path):
        sprung = tmp_path / "sprung"
        message = error_of(tmp_path, f"text: !!python/object/apply:os.mkdir ['{sprung}']")
        assert "not valid YAML" in message
        assert not sprung.exists()


def test_text_settings_stand_alone():
    assert TextSpec(source="x").documents is None


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("paper", "paper"),
        ("wordnet", "wordnet"),
        ("wordnet:dict", "wordnet:{folder}/dict"),
        ("wordnet:/usr/share/wordnet", "wordnet:/usr/share/wordnet"),
        ("lists.yaml", "{folder}/lists.yaml"),
        ("../lists.yaml", "{parent}/lists.yaml"),
        ("/lists.yaml", "/lists.yaml"),
    ],
)
def test_categories_are_found_from_the_studys_folder(tmp_path: Path, written: str, found: str) -> None:
    (tmp_path / "paper").mkdir()  # a folder of that name does not hide the paper's lists
    study = load(tmp_path, subspaces={"categories": written})
    assert study.subspaces is not None
    assert study.subspaces.categories == found.format(folder=tmp_path, parent=tmp_path.parent)
    again = load_study(write(tmp_path, dump_study(study)))
    assert again == study


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("text: {source: ./t.txt, tokens: 1e5}", r"text\.tokens: .*\(write 100_000\)"),
        (
            "spaces: [{model: m, layers: 1, sae: ./s, hook: blocks.15.hook_resid_post}]",
            r"\(write resid_post; the layer, 15, is",
        ),
        (
            "spaces: [{model: m, layers: 1, sae: ./l{layer}}]",
            r'line 3: .*put a name with \{layer\} in quotes there, "\./l\{layer\}"',
        ),
        ('spaces: [{model: m, layers: 1, sae: "./l{layer}", x: {y}}]', "unknown key 'spaces.0.x'"),
    ],
)
def test_what_is_meant_well_is_answered_with_the_right_form(tmp_path: Path, written: str, hint: str) -> None:
    least = {"text": "text: {source: ./t.txt}", "spaces": "spaces: [{model: m, layers: 1, sae: ./s}]"}
    lines = least | {written.partition(":")[0]: written}
    with pytest.raises(UserError, match=hint):
        load_study_text("\n".join([lines["text"], "models: {m: {name: ./m}}", lines["spaces"]]), tmp_path)
