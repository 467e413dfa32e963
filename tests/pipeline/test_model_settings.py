"""Chat, device map and memory of a study's models: what a run records of them, and which codes they share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unifeat as uf
from homes import STUDY, hashes, make_home, write_study
from unifeat.codes.align import align
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.models.language import load_tokenizer
from unifeat.models.opening import opening_of
from unifeat.pipeline import encode, loading
from unifeat.store import cache_root

pytestmark = pytest.mark.slow

CHATML = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def home(tmp_path: Path, model_folder: Callable[..., Path]) -> Path:
    """The tiny study; its first model has a chat template, the second none."""
    study = make_home(tmp_path / "home", model_folder, documents=12)
    original = (study.parent / "model-one").resolve()
    (study.parent / "model-one").unlink()
    chat = study.parent / "model-one"
    chat.mkdir()
    for path in original.iterdir():
        (chat / path.name).symlink_to(path)
    (chat / "chat_template.jinja").write_text(CHATML)
    return study.parent


def study_with(home: Path, **settings: Any) -> Path:
    models = {"one": STUDY["models"]["one"] | settings, "two": STUDY["models"]["two"]}
    return write_study(home, models=models, text={"source": "text.jsonl", "context": 64}, geometry=["cka"])


def store(run: uf.Run, name: str) -> CodeStore:
    return CodeStore.open(Path(run.info["spaces"][name]["codes"]))


def test_chat_changes_codes_but_no_place(home: Path):
    plain = uf.run(study_with(home), home / "plain")
    chat = uf.run(study_with(home, chat="user"), home / "chat")
    facts = chat.info["models"]["one"]
    assert (facts["chat"], facts["bos"], facts["revision"]) == ("user", True, None)
    assert facts["opening"] == "<|endoftext|><|im_start|>user\n"
    assert chat.info["models"]["two"] == plain.info["models"]["two"]
    assert plain.info["models"]["one"] | {"chat": "user", "bos": True, "opening": facts["opening"]} == facts

    tokenizer = load_tokenizer(str(home / "model-one"))
    opening = opening_of(tokenizer, "auto", "user")
    before, after = store(plain, "one@2"), store(chat, "one@2")
    assert before.folder != after.folder
    assert after.settings["bos"] == list(opening or ())
    assert before.settings | {"bos": after.settings["bos"]} == after.settings
    assert store(plain, "two@1").folder == store(chat, "two@1").folder
    # Without an opening the first token of each window is masked; with one every token of the text is a row.
    masked = chat.info["spaces"]["one@2"]["masked"]
    assert masked["special"] == masked["first"] * (len(opening or ()) - 1)
    assert after.rows > before.rows
    assert align(before, after).n_rows == before.rows
    assert chat.pairs["count_a"].sum() != plain.pairs["count_a"].sum()


def test_a_run_repeats_from_its_own_study(home: Path):
    first = uf.run(study_with(home, chat="assistant", device="map", max_memory={"cpu": "1GiB"}), home / "first")
    again = uf.run(home / "first" / "study.yaml", home / "again")
    assert again.info["models"] == first.info["models"]
    np.testing.assert_array_equal(again.pairs["correlation"], first.pairs["correlation"])


def test_a_spread_model_shares_codes_with_the_plain_one(home: Path):
    plain = uf.run(study_with(home), home / "plain")
    spread = uf.run(study_with(home, device="map", max_memory={"cpu": 1}), home / "spread")
    assert store(spread, "one@2").folder == store(plain, "one@2").folder


def test_values_of_two_bytes_change_only_their_digits(home: Path):
    """A whole study: its codes take less, and r is what the rounded activations have."""
    plain = uf.run(study_with(home), home / "plain")
    spaces = [space | {"values": "float16"} for space in STUDY["spaces"]]
    text = {"source": "text.jsonl", "context": 64}
    study = write_study(home, "narrow.yaml", spaces=spaces, text=text, geometry=["cka"])
    narrow = uf.run(study, home / "narrow")
    for name in plain.info["spaces"]:
        one, other = store(plain, name).shard(0), store(narrow, name).shard(0)
        np.testing.assert_array_equal(other.value, one.value.astype(np.float16))
        np.testing.assert_array_equal(other.feature, one.feature)
    both = plain.pairs.merge(narrow.pairs, on=["space_a", "feature_a", "space_b", "feature_b"])
    assert len(both) > 0.95 * len(plain.pairs)
    np.testing.assert_allclose(both["correlation_x"], both["correlation_y"], atol=2e-3)
    assert not np.array_equal(both["correlation_x"], both["correlation_y"])


def test_saes_in_batches_give_the_same_codes(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where all of a model's SAEs do not fit beside it, the model runs once for each batch of them."""
    plain = uf.run(study_with(home), home / "plain")
    loaded = []
    load = loading.Loader._encoders

    def spy(self: Any, model: Any) -> Any:
        loaded.append([space.name for space in self.spaces])
        return load(self, model)

    monkeypatch.setattr(loading.Loader, "_encoders", spy)
    monkeypatch.setattr(encode, "_SHARE_OF_SAES", 1e-12)
    monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / "another"))
    batched = uf.run(study_with(home), home / "batched")
    assert ["one@0"] in loaded
    assert ["one@2"] in loaded
    for name in plain.info["spaces"]:
        assert hashes(store(batched, name).folder) == hashes(store(plain, name).folder)


def test_one_model_under_two_names_is_read_at_the_layers_of_each(home: Path):
    plain = uf.run(study_with(home), home / "plain")
    expected = {name: store(plain, name).identity for name in ("one@0", "one@2")}
    models = STUDY["models"] | {"again": STUDY["models"]["one"]}
    spaces = [space | {"layers": [layer]} for space in STUDY["spaces"][:1] for layer in (0, 2)]
    spaces[1] |= {"model": "again"}
    text = {"source": "text.jsonl", "context": 64}
    twice = write_study(home, "twice.yaml", models=models, spaces=spaces, text=text, geometry=["cka"])
    shutil.rmtree(cache_root() / "codes")
    both = uf.run(twice, home / "twice")
    assert store(both, "one@0").identity == expected["one@0"]
    assert store(both, "again@2").identity == expected["one@2"]


class TestWrongInput:
    def test_a_model_without_a_template_stops_the_run_before_it_begins(self, home: Path):
        (home / "model-one" / "chat_template.jinja").unlink()
        with pytest.raises(UserError, match="has no chat template: set chat to none"):
            uf.run(study_with(home, chat="user"), home / "run")
        assert not (home / "run").exists()

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"chat": "users"}, r"models\.one\.chat: Input should be"),
            ({"max_memory": {"cpu": "1GiB"}}, r"models\.one: max_memory is for device: map"),
            ({"revision": "step1"}, "only hub models have revisions"),
            ({"device": "mapp"}, "unknown device 'mapp'"),
        ],
    )
    def test_settings(self, home: Path, settings: dict[str, Any], says: str):
        with pytest.raises(UserError, match=says):
            uf.run(study_with(home, **settings), home / "run")
