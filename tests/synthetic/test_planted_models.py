"""Toy models with planted features are what they are said to be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unifeat as uf
from unifeat.errors import UserError
from unifeat.saes import load_sae
from unifeat.synthetic import PlantedModels, plant_models

SMALL: dict[str, Any] = {"concepts": 12, "words": 60, "d": 32, "documents": 30, "context": 24}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[bool, bool], PlantedModels]:
    folder = tmp_path_factory.mktemp("planted")
    kinds = [(firing, effect) for firing in (True, False) for effect in (True, False)]
    return {
        (firing, effect): plant_models(folder / f"{firing}-{effect}", same_firing=firing, same_effect=effect, **SMALL)
        for firing, effect in kinds
    }


class Loaded:
    """One of the models, as transformers loads it, on words."""

    def __init__(self, made: PlantedModels, name: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = made.study.parent / f"model-{name}"
        self.words = made.words
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.ids = torch.tensor(self.tokenizer.convert_tokens_to_ids(made.words))
        self.sae = load_sae(made.study.parent / f"sae-{name}")

    @torch.inference_mode()
    def run(self, texts: list[str]) -> tuple[Any, torch.Tensor]:
        """Outputs of the first block, (documents, positions, d) float64 array, and log-probabilities of the words."""
        ids = torch.tensor([self.tokenizer(text)["input_ids"] for text in texts])
        assert self.tokenizer.convert_ids_to_tokens(ids[0].tolist()) == texts[0].split()
        found = self.model(input_ids=ids, output_hidden_states=True)
        return found.hidden_states[1].double().numpy(), found.logits[..., self.ids].log_softmax(-1)


def texts(made: PlantedModels) -> list[str]:
    import json

    return [json.loads(line)["text"] for line in (made.study.parent / "text.jsonl").read_text().splitlines()]


def close(one: Any, other: Any, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=atol)


def test_the_twin_computes_the_same_turned(planted: dict[tuple[bool, bool], PlantedModels]) -> None:
    made = planted[True, True]
    a, b = Loaded(made, "a"), Loaded(made, "b")
    (x_a, log_a), (x_b, log_b) = (side.run(texts(made)) for side in (a, b))
    close(x_a @ made.rotation, x_b)
    close(log_a, log_b)
    close(made.rotation @ made.rotation.T, np.eye(32), 1e-9)
    assert not torch.equal(a.ids, b.ids)
    assert len(a.tokenizer) != len(b.tokenizer)
    assert not np.array_equal(made.pairs[:, 0], made.pairs[:, 1])


@pytest.mark.parametrize("kind", [(True, True), (True, False), (False, True), (False, False)])
def test_what_is_shared_is_what_was_asked_for(
    planted: dict[tuple[bool, bool], PlantedModels], kind: tuple[bool, bool]
) -> None:
    made = planted[kind]
    one, other = made.pairs.T
    assert np.array_equal(one, np.arange(12))
    assert sorted(other) == list(range(12))
    close(made.directions_a[one] @ made.rotation, made.directions_b[other], 1e-9)
    for shared, of_a, of_b in (
        (kind[0], made.carries_a, made.carries_b),
        (kind[1], made.effects_a, made.effects_b),
    ):
        r = np.corrcoef(of_a[one], of_b[other])[:12, 12:].diagonal()
        assert r.min() > 1 - 1e-9 if shared else abs(r.mean()) < 0.2
    activations = [Loaded(made, name).run(texts(made))[0] for name in "ab"]
    same = np.allclose(activations[0] @ made.rotation, activations[1], atol=1e-4)
    assert same == kind[0]


@pytest.mark.parametrize("kind", [(True, True), (False, False)])
@pytest.mark.parametrize("name", ["a", "b"])
def test_features_fire_where_their_concept_is_and_write_its_effect(
    planted: dict[tuple[bool, bool], PlantedModels], kind: tuple[bool, bool], name: str
) -> None:
    made = planted[kind]
    side = Loaded(made, name)
    directions, carries, effects = (getattr(made, f"{part}_{name}") for part in ("directions", "carries", "effects"))
    close(side.sae.W_dec.detach(), directions, 1e-6)
    close(side.sae.W_enc.detach().T, directions, 1e-6)
    head = side.model.lm_head.weight.detach()[side.ids]
    close(head.double().numpy() @ directions.T, effects.T, 1e-6)  # norm weights are 1: what is left is the unembedding
    assert torch.equal(side.model.model.norm.weight, torch.ones(32))
    written = texts(made)
    x = side.run(written)[0]
    codes = side.sae.encode(torch.from_numpy(x).float()).detach().numpy().reshape(-1, 12)
    place = {word: i for i, word in enumerate(made.words)}
    expected = carries.T[[place[word] for text in written for word in text.split()]]
    assert np.mean((codes > 0) == (expected > 0)) > 0.99
    fires = expected > 0
    assert np.corrcoef(codes[fires], expected[fires])[0, 1] > 0.9
    assert not carries[:, place["."]].any()


def test_the_text_is_what_b_writes(planted: dict[tuple[bool, bool], PlantedModels]) -> None:
    """Then its words are as surprising to B as B expects them to be; and to another model more."""
    made = planted[False, False]
    surprise = {}
    for name in "ab":
        side = Loaded(made, name)
        _, log_p = side.run(texts(made))
        place = {word: i for i, word in enumerate(made.words)}
        words = torch.tensor([[place[word] for word in text.split()] for text in texts(made)])
        nats = -log_p[:, :-1].gather(-1, words[:, 1:, None])[..., 0]
        entropy = -(log_p.exp() * log_p).sum(-1)[:, :-1]
        surprise[name] = float((nats - entropy).mean() / ((nats - entropy).std() / nats.numel() ** 0.5))
    assert abs(surprise["b"]) < 4
    assert surprise["a"] > 20


def test_the_same_settings_make_the_same_files(planted: dict[tuple[bool, bool], PlantedModels], tmp_path: Path) -> None:
    made = planted[True, False]
    state = torch.get_rng_state()
    again = plant_models(tmp_path / "again", **made.settings)
    assert torch.equal(torch.get_rng_state(), state)

    def hashes(study: Path) -> dict[str, str]:
        files = sorted(path for path in study.parent.rglob("*") if path.is_file())
        return {str(p.relative_to(study.parent)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert hashes(again.study) == hashes(made.study)
    assert len(hashes(made.study)) >= 10
    other = plant_models(tmp_path / "other", **made.settings | {"seed": 1})
    assert hashes(other.study).keys() == hashes(made.study).keys()
    assert not np.allclose(other.rotation, made.rotation)


def test_other_shapes(tmp_path: Path) -> None:
    made = plant_models(tmp_path / "odd", concepts=24, words=25, d=24, layers=3, layer=2, documents=3, context=8)
    x_a, x_b = (Loaded(made, name).run(texts(made))[0] for name in "ab")
    close(x_a @ made.rotation, x_b)
    assert uf.synthetic.plant_models is plant_models


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"concepts": 33}, "concepts=33 do not fit into d=32 dimensions"),
        ({"d": 30}, "d=30: give a multiple of 8"),
        ({"words": 12}, "words=12: give more than the 12 concepts, and 4000 at most"),
        ({"layer": 2}, "layer=2: there are 2 layers, counted from 0"),
        ({"documents": 1}, "documents=1: give a whole number, 2 or more"),
        ({"seed": -1}, "seed=-1: give a whole number"),
        ({"mixing": 2}, "mixing=2: give a number from 0 to 1"),
        ({"same_firing": "no"}, "same_firing='no': give True or False"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plant_models(tmp_path / "none", **SMALL | settings)
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is there already: name a new one"):
        plant_models(tmp_path, **SMALL)
