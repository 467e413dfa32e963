"""`check_sae`: each classic mistake is made, and caught with its cause named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitted import CONTEXT, activations, changed, fitted_sae
from tiny import sentences, tiny_sae, write_text
from unifeat.errors import UserError
from unifeat.models.activations import run_group
from unifeat.models.language import load_language_model
from unifeat.saes import load_sae
from unifeat.saes.checking.check import Checked, check_sae
from unifeat.text.corpus import Part, build_corpus
from unifeat.text.sources import SHIPPED_TEXT
from unifeat.text.windows import first_parts
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.windowing import Windowing

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model(model_folder: Callable[..., Path]) -> Path:
    return model_folder("llama", tokenizer="wordish", layers=4)


@pytest.fixture(scope="module")
def other_model(model_folder: Callable[..., Path]) -> Path:
    """Another model of the same width."""
    return model_folder("gpt2", tokenizer="bpe")


@pytest.fixture(scope="module")
def sae(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It reads layer 1 of windows that begin with BOS."""
    folder = tmp_path_factory.mktemp("saes") / "right"
    x = activations(model, HookPoint(1), bos=2)
    return fitted_sae(folder, x, k=4, d_sae=96, hook_name=HOOK, model_name=model.name, prepend_bos=True)


@pytest.fixture(scope="module")
def check(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checked]:
    text = str(write_text(tmp_path_factory.mktemp("text"), sentences(40, seed=3)))

    def run(sae: Path, model: Path = model, **settings: Any) -> Checked:
        return check_sae(str(sae), str(model), text=text, context=CONTEXT, dtype="float32", loss=False, **settings)

    return run


def causes(checked: Checked, level: str = "cause") -> str:
    return " ".join(finding.text for finding in checked.findings if finding.level == level)


class TestMistakes:
    def test_none(self, check: Callable[..., Checked], sae: Path):
        """Layer and hook point are those that the SAE names."""
        checked = check(sae)
        assert (checked.point, checked.bos) == (HookPoint(1), True)
        assert checked.quality.fvu < 0.3
        assert checked.findings == []
        assert checked.fits

    @pytest.mark.parametrize("layer", [0, 2])
    def test_a_neighbouring_layer(self, check: Callable[..., Checked], sae: Path, layer: int):
        checked = check(sae, layer=layer)
        warnings = causes(checked, "warning")
        assert f"says it reads {HOOK}, but is given blocks.{layer}." in warnings
        assert "off by one" in warnings
        assert "with layer 1, resid_post" in warnings

    def test_a_neighbouring_layer_of_an_sae_that_names_none(
        self, check: Callable[..., Checked], sae: Path, tmp_path: Path
    ):
        bare = tmp_path / "bare"
        changed(sae, bare, lambda _: None)
        config = json.loads((bare / "cfg.json").read_text())
        config["metadata"].pop("hook_name")
        (bare / "cfg.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="does not say which layer it reads: give --layer"):
            check(bare)
        assert check(bare, layer=1).findings == []
        (finding,) = check(bare, layer=2).findings
        assert "with layer 1, resid_post" in finding.text

    def test_the_point_that_it_names_is_tried_however_far_off(self, model_folder: Any, tmp_path: Path):
        model = model_folder("llama", tokenizer="wordish", layers=6)
        x = activations(model, HookPoint(1), bos=2)
        sae = fitted_sae(tmp_path / "far", x, k=4, d_sae=96, hook_name=HOOK, model_name=model.name, prepend_bos=True)
        text = str(write_text(tmp_path, sentences(40, seed=3)))
        found = check_sae(str(sae), str(model), 5, text, context=CONTEXT, dtype="float32", loss=False)
        tried = [other.what for other in found.others if other.kind == "hook"]
        assert tried[0] == "layer 1, resid_post"
        assert "with layer 1, resid_post" in causes(found) + causes(found, "warning")

    def test_another_hook_point(self, check: Callable[..., Checked], sae: Path):
        assert "with layer 1, resid_post" in causes(check(sae, hook="mlp_out"), "warning")

    @pytest.mark.parametrize("factor", [0.03, 0.2, 12.0])
    def test_a_missing_scale(self, check: Callable[..., Checked], sae: Path, tmp_path: Path, factor: float):
        """The SAE was trained on activations times `factor`, which its loader does not know."""

        def scaled(tensors: dict[str, torch.Tensor]) -> None:
            tensors["W_enc"] /= factor
            tensors["W_dec"] *= factor
            tensors["b_dec"] *= factor

        checked = check(changed(sae, tmp_path / "scaled", scaled))
        assert not factor > 1 or not checked.fits  # too small activations are reconstructed badly, not absurdly
        assert "a scale on the activations is missing" in causes(checked) + causes(checked, "warning")
        found = next(other for other in checked.others if other.kind == "scale")
        assert found.factor == pytest.approx(factor, rel=0.1)
        assert found.fvu == pytest.approx(check(sae).own.fvu, abs=0.01)

    def test_a_transposed_decoder(self, check: Callable[..., Checked], model: Path, tmp_path: Path):
        x = activations(model, HookPoint(1), bos=2)
        square = fitted_sae(tmp_path / "square", x, d_sae=32, k=4, hook_name=HOOK)
        assert check(square).findings == []
        for names in (("W_dec",), ("W_enc",), ("W_dec", "W_enc")):

            def transpose(tensors: dict[str, torch.Tensor], names: tuple[str, ...] = names) -> None:
                tensors.update({name: tensors[name].T for name in names})

            checked = check(changed(square, tmp_path / "-".join(names), transpose))
            # With both the other way round, encoder and decoder still belong together: bad, but no absurd FVU.
            assert checked.fits == (len(names) == 2)
            assert f"weights are read transposed: FVU {check(square).own.fvu:.3f} with {' and '.join(names)} tr" in (
                causes(checked, "warning" if checked.fits else "cause")
            )

    def test_a_decoder_whose_memory_is_the_transposed(self, check: Callable[..., Checked], sae: Path, tmp_path: Path):
        """A (d_in, d_sae) decoder that was given the shape (d_sae, d_in) without moving a number."""
        reshaped = changed(sae, tmp_path / "reshaped", lambda t: t.update(W_dec=t["W_dec"].T.reshape(t["W_dec"].shape)))
        checked = check(reshaped)
        assert not checked.fits
        assert "weights are read transposed" in causes(checked)
        assert "with W_dec transposed" in causes(checked)

    def test_a_transposed_decoder_of_another_shape_is_refused(
        self, check: Callable[..., Checked], sae: Path, tmp_path: Path
    ):
        with pytest.raises(UserError, match=r"turned cannot be read .*does cfg\.json fit it"):
            check(changed(sae, tmp_path / "turned", lambda t: t.update(W_dec=t["W_dec"].T)))

    def test_another_model_of_the_same_width(self, check: Callable[..., Checked], sae: Path, other_model: Path):
        checked = check(sae, other_model)
        assert not checked.fits
        assert "another model of the same width, and the SAE names 'tiny-llama'" in causes(checked)

    def test_another_model_of_the_same_kind(
        self, check: Callable[..., Checked], sae: Path, model_folder: Callable[..., Path]
    ):
        checked = check(sae, model_folder("llama", tokenizer="wordish", layers=4, seed=9))
        assert "most of the variance is left unexplained" in causes(checked, "warning")
        assert "another model of the same width" in causes(checked)

    def test_windows_that_begin_otherwise_than_in_training(self, check: Callable[..., Checked], sae: Path):
        checked = check(sae, bos=False)
        assert not checked.bos
        assert "BOS" in causes(checked, "warning")
        assert "with windows that begin with BOS" in causes(checked, "warning")

    def test_an_l0_three_times_what_is_stated(self, check: Callable[..., Checked], sae: Path, tmp_path: Path):
        for name, stated, fits in (
            ("same", 4.0, True),
            ("near", 11.0, True),
            ("far", 13.0, False),
            ("low", 1.2, False),
        ):
            folder = changed(sae, tmp_path / name, lambda _: None)
            (folder / "training.json").write_text(json.dumps({"heldout": {"l0": stated, "fvu": 0.25}}))
            checked = check(folder)
            assert checked.fits == fits
            assert (f"training.json says {stated:.4g}" in causes(checked, "fault")) != fits

    def test_less_variance_explained_than_is_stated(self, check: Callable[..., Checked], sae: Path, tmp_path: Path):
        folder = changed(sae, tmp_path / "boast", lambda _: None)
        (folder / "training.json").write_text(json.dumps({"heldout": {"l0": 4, "fvu": 0.01}}))
        checked = check(folder)
        assert checked.fits
        assert "training.json says 0.99" in causes(checked, "warning")


def test_is_what_the_sae_does_there(model_folder: Callable[..., Path], tmp_path: Path):
    model, documents = model_folder("gemma3", tokenizer="wordish"), sentences(5, seed=8)
    folder = tiny_sae(tmp_path / "sae", 32, seed=2)
    source = str(write_text(tmp_path, documents))
    checked = check_sae(str(folder), str(model), 1, source, hook="mlp_out", documents=4, context=16, dtype="float32")
    point = HookPoint(1, "mlp_out")
    parts = [Part(n, 0, text) for n, text in enumerate(documents[:4])]
    loaded = load_language_model(str(model), [point], dtype="float32")
    x, _, masked = run_group(loaded, parts, [point], Windowing(16, 2)).without_sinks(point)
    sae = load_sae(folder)
    a, b = x.double().numpy(), sae.decode(sae.encode(x)).double().numpy()
    assert checked.quality.tokens == len(x)
    assert checked.quality.fvu == pytest.approx(((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum(), rel=1e-6)
    assert checked.quality.l0 == pytest.approx(4, abs=0.1)
    assert checked.masked == masked
    norms = sae.W_dec.norm(dim=-1)
    assert checked.decoder_norms == pytest.approx((float(norms.min()), float(norms.median()), float(norms.max())))
    assert not checked.fits  # random weights: FVU is far above 1
    assert json.loads(json.dumps(checked.as_dict()))["fits"] is False
    assert checked.as_dict()["loss"]["tokens"] > 100


def test_the_opening_is_that_of_a_study(check: Callable[..., Checked], model: Path, sae: Path, tmp_path: Path):
    """With a chat template every window carries its tokens, and windows without it are tried too."""
    template = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|> {{ m.content }}{% endfor %}"
    folder = shutil.copytree(model, tmp_path / "chatty")
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    plain, chatty = check(sae, folder), check(sae, folder, chat="user")
    assert (plain.chat, chatty.chat, chatty.bos) == ("none", "user", True)
    assert chatty.masked.special > plain.masked.special + 100
    assert [other.what for other in chatty.others if other.kind == "bos"] == ["windows without the chat template"]
    assert [other.what for other in plain.others if other.kind == "bos"] == ["windows without BOS"]
    with pytest.raises(UserError, match=r"unknown chat 'usr' \(did you mean 'user'\?\)"):
        check(sae, folder, chat="usr")
    with pytest.raises(UserError, match="has no chat template"):
        check(sae, model, chat="user")


def test_the_format_and_the_revision_are_passed_on(check: Callable[..., Checked], model: Path, sae: Path):
    with pytest.raises(UserError, match=r"no SAE format 'saelen' \(did you mean 'saelens'"):
        check(sae, format="saelen")
    with pytest.raises(UserError, match="only hub models have revisions"):
        check(sae, revision="step3000")


def test_a_model_spread_by_accelerate(check: Callable[..., Checked], sae: Path):
    whole, spread = check(sae), check(sae, device="map")
    assert spread.quality.fvu == pytest.approx(whole.quality.fvu, rel=1e-6)


@pytest.mark.parametrize("architecture", ["mamba", "phi"])
def test_neighbours_that_an_architecture_lacks_are_not_tried(
    architecture: str, model_folder: Callable[..., Path], tmp_path: Path
):
    """Mamba has neither attention nor MLP; Phi's MLP has no norm of its own."""
    model, sae = model_folder(architecture, tokenizer="wordish"), tiny_sae(tmp_path / "sae", 32)
    kind = "resid_post" if architecture == "mamba" else "mlp_in"
    found = check_sae(str(sae), str(model), 1, tokens=500, hook=kind, dtype="float32", loss=architecture == "mamba")
    tried = [other.what for other in found.others if other.kind == "hook"]
    assert tried == [f"layer 0, {kind}", f"layer 2, {kind}"]


@pytest.mark.parametrize("hook", ["attn_z", "mlp_in"])
def test_a_hook_point_that_the_model_lacks(hook: str, model_folder: Callable[..., Path], tmp_path: Path):
    sae = tiny_sae(tmp_path / "sae", 32)
    with pytest.raises(UserError, match=f"so no {hook}: use resid_pre or resid_post"):
        check_sae(str(sae), str(model_folder("mamba")), 1, hook=hook, loss=False)


def test_text_by_default(model_folder: Callable[..., Path], tmp_path: Path):
    """Prose that ships with unifeat, no more of it than asked for."""
    assert len(SHIPPED_TEXT.read_text(encoding="ascii").split()) > 5000
    model = model_folder("gpt2", tokenizer="bpe")
    sae = str(tiny_sae(tmp_path / "sae", 32))
    checked = check_sae(sae, str(model), 0, tokens=500, context=50, dtype="float32", loss=False)
    assert checked.masked.read == 500
    assert checked.masked.first == 10


def test_first_parts(tmp_path: Path, model_folder: Callable[..., Path]):
    tokenizer = load_language_model(str(model_folder("gpt2", tokenizer="bpe")), [HookPoint(0)]).tokenizer
    documents = sentences(3)
    corpus = build_corpus(
        str(write_text(tmp_path, documents)), documents=None, tokens=None, count_tokens=len, tokenizer_digest=""
    )
    lengths = [len(tokenizer(text)["input_ids"]) for text in documents]
    assert [part.text for part in first_parts(corpus, tokenizer, 10_000)] == documents
    assert [part.text for part in first_parts(corpus, tokenizer, lengths[0])] == documents[:1]
    first, cut = first_parts(corpus, tokenizer, lengths[0] + 7)
    assert first.text == documents[0]
    assert documents[1].startswith(cut.text)
    assert len(tokenizer(cut.text)["input_ids"]) == 7


def test_wrong_input(model_folder: Callable[..., Path], tmp_path: Path):
    model, sae = str(model_folder("llama")), str(tiny_sae(tmp_path / "sae", 32))
    narrow = str(tiny_sae(tmp_path / "narrow", 16))
    text = str(write_text(tmp_path, sentences(2)))
    for arguments, message in (
        ((narrow, model, 1, text), "narrow takes vectors of width 16, but .*tiny-llama has width 32"),
        ((sae, model, 3, text), "tiny-llama has layers 0 to 2, not 3"),
        ((sae, model, None, text), "sae does not say which layer it reads: give --layer"),
        ((sae, "no-such-model", 1, text), "model 'no-such-model'"),
        ((str(tmp_path / "nowhere"), model, 1, text), "nowhere: no such folder"),
        ((sae, model, 1, "nowhere.txt"), r"nowhere\.txt: no such file"),
    ):
        with pytest.raises(UserError, match=message):
            check_sae(*arguments)
    with pytest.raises(UserError, match=r"unknown hook point 'mlp_uot' \(did you mean 'mlp_out'\?\)"):
        check_sae(sae, model, 1, text, hook="mlp_uot")
    head = load_sae(sae)
    head.cfg.metadata["hook_name"] = "blocks.1.attn.hook_q"
    head.save_model(tmp_path / "head")
    with pytest.raises(UserError, match=r"says it reads blocks\.1\.attn\.hook_q, which is none of resid_post"):
        check_sae(str(tmp_path / "head"), model, 1, text)
